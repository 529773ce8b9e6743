//! A Raft member without I/O, on raft-rs.
//!
//! [`Member`] takes ticks, messages and requests, and says what to write, to send and to apply. It reads its log from a
//! [`Disk`](consensus_disk::Disk), and does nothing else with the outside world: the production host and the
//! simulator drive the same code.
//!
//! # Host contract
//!
//! 1. A group begins on a disk with [`bootstrap`], written synced, the same on all of its first members. A member that
//!    joins later begins with [`join`], and gets a snapshot.
//! 2. Call [`Member::tick`] at even intervals, [`Member::step`] with each message of a peer, and [`Member::propose`],
//!    [`Member::read_index`] for clients; then ask for [`Member::work`] until there is none. Before each
//!    time, have those who wait for it told what is committed, with [`Member::tell_commit`], and all others before long. The
//!    time that goes with them is of one clock, which goes on whatever happens to the process, and is looked at after what it goes
//!    with has come.
//! 3. Send [`Work::messages`] at any time.
//! 4. Write [`Work::batch`] as [`Work::durability`] says. If that fails, stop the member: it may have promised what was
//!    lost. Never try again, because after a failed sync nobody knows what is on the disk (fsyncgate, 2018).
//! 5. Only then send [`Work::messages_after`], hand [`Work::committed`] to the state machine, and call
//!    [`Member::written`], whose messages may be sent at once.
//! 6. Apply committed entries in order, each once: the state machine stores the index with its data, atomically, and says it
//!    at the next start as [`Config::applied`]. Report progress with [`Member::applied`].
//! 7. Answer a read when the state machine has applied its [`Read::index`]. A read that is not answered within some
//!    heartbeats is asked for again.
//! 8. While [`Member::snapshot_wanted`] names an index, fetch a snapshot of at least that index from any member, whose host
//!    asks its own with [`Member::describe`] what it is of. Once it is on the disk for good, offer it to
//!    [`Member::restore`], again and again until it is taken or not wanted any more. When a step says
//!    [`Work::restored`], replace the state machine by it; if the process ends before that is done, do it at the next start,
//!    before [`Member::open`]: the state machine must not be behind the beginning of the log.
//! 9. Shorten the log with [`Member::compact`], up to what the state machine has even after a crash.
//! 10. Messages may be lost and reordered; say so of those that surely were lost, with [`Member::unreachable`]. All but
//!     requests on their way to the leader ([`Message::is_proposal`]) may come twice: a request that does is done twice.
//!
//! 11. A leader whose clock has not reached [`Member::lease_end`] may answer a read at its commit index. A host that has this
//!     done by others than itself tells them of end and index after each of its calls, before it sends or applies anything.
//!
//! Deliberately not here: the network, the state machine, threads, and time.

mod check;
pub mod codec;
mod conf_change;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
mod log;
mod logger;
mod member;
mod membership;
mod message;
pub mod proposal;
mod snapshot;

pub use check::LogCheck;
pub use log::{LOG, LogError, STATE, bootstrap, force_new_group, join};
pub use member::{
    Committed, Config, Member, MembershipApplied, OpenError, ProposeError, Read, Role, Status, StepError,
    Work,
};
pub use membership::{BOOTSTRAP_INDEX, MemberChange, MemberInfo, Membership};
pub use message::{Class, MESSAGE_BYTES_MAX, Message};
pub use snapshot::SnapshotMetadata;
