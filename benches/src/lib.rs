//! What DWCP is held against: other transports, each set up as its users would set it up for speed; and how the
//! benches tell what they found ([`report`]).
//!
//! Every peer does the same three jobs between two processes (see [`workload`]), so that one runner can alternate
//! between them and one table can hold them. DWCP itself takes part through `novacron bench`, the command that its
//! users have; nothing here links `dwcp-core`.

pub mod byte_stream;
pub mod framed;
pub mod grpc;
pub mod quic;
pub mod report;
pub mod tar_copy;
pub mod tcp;
pub mod tls;
pub mod workload;
