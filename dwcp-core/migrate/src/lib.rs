//! Live migration of QEMU's virtual machines over DWCP: disks by QEMU's mirror into the target's NBD server, then memory by
//! QEMU's own stream, in which pages that were sent before are differences. `docs/spec/migrate-1.md`.
//!
//! A failure leaves the source as it was: its guest runs, and nothing of ours is left in its QEMU ([`recover`]).
//!
//! Deliberately not here: flags, TLS, how QEMU is started.

mod converge;
mod disks;
mod error;
mod memory;
mod message;
mod qmp;
pub mod ram;
mod recover;
mod report;
mod sockets;
mod source;
mod target;

pub use error::MigrateError;
pub use qmp::Qmp;
pub use recover::{Sent, recover};
pub use report::Report;
pub use source::{SourceOptions, Stage, migrate};
pub use target::receive;
