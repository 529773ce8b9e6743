//! What DWCP needs from Linux TCP sockets, and of files, and the standard library does not offer.
//!
//! Everything takes a borrowed descriptor of a socket (one function: of a file) that the caller owns,
//! and works on live connections. Linux only. This crate deliberately keeps no state, makes no sockets
//! and decides nothing: which congestion control to use, or when, is the transport's business.
//!
//! It is the one user-space crate that may contain `unsafe`; today all of it is in the private module
//! `sockopt`, in what `tcp_info` promises to it, and in `write_back`.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod congestion;
mod error;
pub mod options;
mod sockopt;
pub mod tcp_info;
mod write_back;
pub mod zerocopy;

pub use error::SocketError;
pub use write_back::write_back;

#[cfg(test)]
mod loopback;
