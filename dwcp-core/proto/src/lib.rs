//! DWCP's wire format and connection state machine, as values.
//!
//! Everything here is single-threaded and deterministic: bytes and times come in through `handle_*`, bytes and
//! events go out through `poll_*`. There is no I/O, no clock, no randomness of the operating system and no
//! `async`; the driver in `dwcp-core` brings those. Compression is outside as well: frames carry the codec of
//! their payload, and the driver encodes and decodes it.
//!
//! The specification is `docs/spec/dwcp-1.md`; clause numbers in this crate refer to it.

mod close;
pub mod conn;
pub mod datagram;
mod error;
pub mod frame;
pub mod hello;
pub mod limits;
mod parse;

pub use close::CloseCode;
pub use error::ProtocolError;
pub use parse::{Located, Parsed, Rest, parse};
