//! Who has changed what: a record of every change in a database.
//!
//! The record of a change of the store is an entry of the store, written in one transaction with the change (`outbox`), and taken
//! into the database soon after (`drain`). What changes something else is recorded in the database as begun before it is done, and
//! completed after.
//!
//! What always holds: a change that cannot be recorded is not made, and no record of a change that was made is lost. A record that
//! says `begun` is of something that was done, or was not: its replica, or the database, was lost in between.
//!
//! Deliberately not here: what jobs change later (their records are those of who made them), and reads.

mod database;
mod drain;
mod outbox;
mod record;
mod recording;
mod waiting;
mod writer;

pub use database::AuditError;
pub(crate) use database::{Audit, keep_small};
pub(crate) use drain::{Which, drain, keep_drained, remove_old};
pub(crate) use outbox::Outbox;
pub(crate) use record::{Before, Filter, ID_DIGITS, Outcome, Record, TIME_DIGITS};
pub(crate) use recording::Recording;
pub(crate) use waiting::Was;
