//! Resumable, verified transfers of files, trees, block devices and byte streams over DWCP.
//!
//! A [`Sender`] walks its sources and a [`Receiver`] writes below one folder; between them are one control
//! stream and a few data streams of a [`Transport`]. The protocol is `docs/spec/transfer-1.md`; clause numbers
//! in this crate (`T3.2`) refer to it.
//!
//! What holds at any moment, on either side, whatever is killed:
//! - a destination path shows either nothing, what was there before, or the complete verified content;
//! - nothing outside the receiver's folder is read, written or followed, and of a source nothing outside of what was named
//!   ([`Source::Beneath`]: outside its folder);
//! - what a later run offers as already received is read back from the disk and hashed first, so a damaged
//!   journal or partial file costs time, never correctness.
//!
//! This crate deliberately knows nothing of command lines, terminals, TLS or configuration files.

mod baselines;
mod beneath;
mod codec;
mod content;
mod control;
mod delta;
mod error;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod manifest;
mod path;
mod progress;
mod record;
mod recv;
mod send;
mod transport;

pub use baselines::{
    BaselineStore, Baselines, EvictReport, Kept, OpenBaseline, StoreConfig, StoreError, StoredVersion,
    VerifyReport,
};
pub use codec::DecodeError;
pub use content::ContentHash;
pub use delta::{BLOCK_BYTES, DeltaConfig};
pub use error::TransferError;
pub use failure::{Failure, FailureKind, FileFailure};
pub use path::{PathError, RelPath};
pub use progress::{Progress, ProgressSource, Summary, Unsent};
pub use recv::{CleanReport, Destination, Receiver, ReceiverConfig, clean_partials};
pub use send::{Sender, SenderConfig, Source, Stopper};
pub use transport::{ByteSink, ByteSource, Transport};
