//! What DWCP needs from Linux TCP and UDP sockets, of files, of the clock and of RDMA devices, and the standard library
//! does not offer.
//!
//! For TCP sockets, everything takes a borrowed descriptor of a socket (one function: of a file) that the
//! caller owns, and works on live connections. Linux only. This crate deliberately keeps no state of them, makes
//! none and decides nothing: which congestion control to use, or when, is the transport's business. What moves
//! datagrams (`datagram`) owns its sockets, since their buffers belong to them. RDMA (feature `rdma`) has no
//! descriptor that could be borrowed: `rdma` makes and owns its queue pairs.
//!
//! It is the one user-space crate that may contain `unsafe`; today all of it is in the private module
//! `sockopt`, in what `tcp_info` promises to it, in `clock` and `write_back`, in `datagram`'s `udp` and `xdp`, and in
//! `rdma`'s `library`, `device`, `memory` and `queue_pair`.
#![deny(unsafe_op_in_unsafe_fn)]

mod clock;
pub mod congestion;
pub mod datagram;
mod error;
pub mod options;
#[cfg(feature = "rdma")]
pub mod rdma;
mod sockopt;
pub mod tcp_info;
mod write_back;
pub mod zerocopy;

pub use clock::{Clock, clock};
pub use error::SocketError;
pub use write_back::write_back;

#[cfg(test)]
mod loopback;
