//! RDMA: a byte stream over a reliable connected queue pair, on libibverbs that is opened at run time.
//!
//! Owns the binding (`abi`, `library`), the search for a port (`device`), registered memory (`memory`), the queue pair
//! (`queue_pair`) and the stream on it ([`RdmaStream`]), whose accounting of what the peer
//! says is free of any device ([`credit`], [`header`], [`inbox`]). It deliberately does not know how two ends learn of each other
//! (they exchange [`ConnectionData`] over something else), does not wait (there are descriptors to wait for), and does
//! not fall back: after an error the caller goes another way.
//!
//! **There is no encryption and no authentication on the wire.** Whoever can send packets into the network of the ports
//! can read and change what the stream carries.

mod abi;
mod completion;
mod connection_data;
pub mod credit;
mod device;
mod error;
pub mod header;
pub mod inbox;
mod library;
mod memory;
mod polling;
mod queue_pair;
mod raw_queue;
mod send_queue;
mod stream;
mod waiting;

pub use abi::Gid;
pub use connection_data::{CONNECTION_DATA_LEN, ConnectionData};
pub use device::{Mtu, Port};
pub use error::{CompletionStatus, RdmaError};
pub use polling::POLL_MAX;
pub use stream::{Counts, Prepared, RdmaStream};
