//! Who has changed what: a record of every change in a database, written before the change is made and completed after.
//!
//! What always holds: a change whose record cannot be written is not made. A record that says `begun` is of a change that
//! was made, or was not: its replica, or the database, was lost in between.
//!
//! Deliberately not here: what jobs change later (their records are those of who made them), and reads.

mod database;
mod record;
mod writer;

pub use database::AuditError;
pub(crate) use database::{Audit, keep_small};
pub(crate) use record::{Before, Filter, ID_DIGITS, Outcome, Record};
