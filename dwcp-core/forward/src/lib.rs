//! Carries any byte stream through DWCP: whoever connects to a socket of one node speaks with a socket that the other node
//! connects to. One stream of a connection for each; `docs/spec/forward-1.md`.
//!
//! A half that ends is ended at the other side (`shutdown`), one that is reset is reset there, and a reader that does not read
//! makes the writer wait. Lost links are the connection's own affair: nobody notices while it is resumed. When it ends, all
//! sockets are reset, so that no end mistakes it for the end of the data.
//!
//! Deliberately not here: flags, who may connect to a node (TLS), and how long a connection outlives its links.

mod address;
mod opening;
mod pump;
mod serve;
mod socket;
mod take;

pub use address::{Address, AddressError};
pub use opening::Refusal;
pub use pump::{Broken, carry_unix};
pub use serve::{Allowed, serve};
pub use take::{Dial, Dialing, take};

/// Sockets that one node forwards at once; further ones wait to be taken, and are refused by the node that connects.
pub const FORWARDED_MAX: usize = 1024;
