//! Replication between regions: state that converges, whoever can talk to whom.
//!
//! A region is one Raft group, and one replica of the items under a prefix. Items are delta-state CRDTs (Almeida, Shoker, Baquero
//! 2018): an [`Item`] is a map of cells that merge by themselves. [`Replica`] is what a region knows beside its items: every
//! client's change and every merge is an entry of the region's log, and applying it gives the same bytes on all members.
//! [`Replicator`] is what the region's leader does: it says what to send to other regions and what to propose.
//!
//! # What the host does
//!
//! 1. It applies [`Command`]s in the order of the log with [`Replica::apply`] (or the functions behind it, for clients' requests of
//!    other kinds), and writes the items that have changed and [`Replica::to_record`] in one batch with the applied index. It tells
//!    the [`Tree`] of each [`Changed`].
//! 2. It makes a [`Replicator`] when it leads and has applied all that was committed before, gives it messages of other regions, time,
//!    and word of what was applied, and does what [`Replicator::poll_output`] says. It drops it when it leads no more.
//! 3. It proposes what it is told to, once. A proposal may be lost; one that is applied after the leader that made it has gone does
//!    no harm.
//! 4. Messages may be lost, doubled, delayed and reordered. Whoever sends one has to be who [`Message::from`] says: that is for the
//!    transport to make sure.
//! 5. A region whose data is lost, or of a backup, comes back without items, under a new number: [`Replica::joining`].
//!
//! Deliberately not here: Raft, disks, sockets, clocks. `docs/spec/regions-1.md` has the messages and the rules.

mod cell;
mod clock;
mod codec;
mod command;
mod delta;
mod error;
mod item;
mod items;
pub mod limits;
mod membership;
mod message;
mod record;
mod replica;
mod replicator;
pub mod sabotage;
mod tally;
pub mod topology;
mod tree;
mod vector;

pub use cell::{Cell, Dots, Entry, Register};
pub use clock::{Clock, Stamp, TooFarAhead, check_skew};
pub use codec::DecodeError;
pub use command::Command;
pub use delta::{Chunk, Delta, Position, Range};
pub use error::Refused;
pub use item::{CellId, Change, Item, Kind, View};
pub use items::{Changed, Items, MemoryItems, place};
pub use membership::{MEMBERS_KEY, Member, Membership};
pub use message::{Ack, Body, Hashes, Leaves, Message, SnapshotRequest, Status, VERSION, Want};
pub use replica::{CatchUp, Outcome, Phase, Replica};
pub use replicator::{Alarm, Config, Local, Output, Replicator};
pub use tree::{FANOUT, LEAVES, Node, Tree, leaf_of};
pub use vector::{Dot, RegionId, VersionVector};
