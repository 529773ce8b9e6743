//! The queue of jobs. It is in the store: every replica sees it, and it survives each of them.
//!
//! A job is three entries. `/novacron/jobs/ID` is its [record](record::Job). `/novacron/jobs-open/ID` is there until it has
//! ended, and says from when on it may run. `/novacron/jobs-leased/ID` is there while a replica has it, with a lease of
//! the store that ends when the replica is not heard of.
//!
//! What always holds:
//! - Everything that a job writes is written in a transaction that compares the revision at which its replica's leased
//!   entry was made, and that of the record. A replica that was taken for dead and is not writes nothing any more: no job
//!   runs twice at once, as far as the store can see.
//! - What a job does and how far it says it is change in one transaction.
//! - A job that has ended has no open entry; one that has not, has one.
//! - The record of a job that has ended is there until the database has it (`history`).

pub(crate) mod history;
mod migrate;
pub(crate) mod queue;
pub(crate) mod record;
mod work;
pub(crate) mod worker;
