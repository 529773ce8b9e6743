//! etcd's data model on ordered keys.
//!
//! A [`Store`] takes committed requests in the order of the log and says what became of each; the same requests give the same
//! store on every member. [`Reader`]s read beside it at any revision that is not compacted. [`Hub`] knows who watches what,
//! [`Lessor`] when leases end, [`Policy`] who may do what, [`check`] what a request must satisfy before it is proposed,
//! [`Removal`] what a compaction has put out of reach.
//!
//! How it lies on the disk: each version of each key under (key, revision), newest first, so that a key's state at a revision
//! is one seek, and a range one scan; beside it the order of changes under (revision, number), which is what a watch from
//! the past reads. Nothing is kept in memory but leases, watchers, users and roles, and some megabytes of what changed lately.
//!
//! Deliberately not here: Raft, gRPC, threads, time.

mod alarm;
mod auth;
pub mod check;
mod error;
pub mod export;
mod gaps;
mod glance;
mod hash;
mod keys;
mod lessor;
mod range;
mod reader;
mod recent;
mod region;
mod removal;
mod store;
mod txn;
mod version;
mod view;
mod watch;

pub use alarm::needs_room;
pub use auth::{Access, AuthEpoch, AuthError, Caller, Policy, PolicyRecords, ROOT, TokenChange};
pub use error::StoreError;
pub use hash::KeysHash;
pub use keys::SPACES;
pub use lessor::Lessor;
pub use reader::Reader;
pub use region::{BEGIN_KEYS_MAX, PREFIX_BYTES_MAX, StoredItems};
pub use removal::Removal;
pub use store::{Applied, Changes, LeaseChange, Response, Store};
pub use watch::{Hub, WatchRange, WatcherId};
