//! Compression of frame payloads: the codecs, a probe that says what a payload looks like, a controller that
//! chooses a codec and level for each frame, the dictionaries of both sides, and the worker pool that runs them.
//!
//! A sender asks [`Probe::of`] for each frame, [`CompressionController::choose`] with the answer, and unless that is
//! [`Encoding::Identity`] gives the payload to [`CompressPool::submit`]. What came out goes back to
//! [`CompressionController::on_frame_compressed`]; a timer calls [`CompressionController::on_tick`].
//! This module deliberately knows nothing of sockets and streams.

mod codec;
mod common;
mod controller;
mod pool;
mod probe;

pub use codec::{DecodeError, Encoding, decode, encode};
pub use common::{Common, DICTIONARY_RAW_MAX};
pub use controller::{CompressionController, Feedback, Wire};
pub use pool::{CompressPool, Encoded, PoolClosed};
pub use probe::{Content, Probe};
