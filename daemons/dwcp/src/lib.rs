//! The node agent: a DWCP endpoint with one connection to each peer, transfers from and to this node, measurements of
//! paths, guards in XDP, and a control API on a Unix socket, and over DWCP for those who are named.
//!
//! Owns which peers there are and what is said between agents ([`novacron_control::schema`]), and the wiring of what the transport, its
//! transfers and the guards do. How those work is theirs; flags, signals and exit codes are `main`'s, so that other
//! programs can run an agent, too.
//!
//! What always holds:
//! - Two agents keep one connection, however many times they find each other.
//! - What this machine cannot do is told with a reason, and never ends the agent.
//! - The end of an agent, a crash too, leaves guards in XDP attached and other traffic alone.

mod again;
mod agent;
mod control;
mod dial;
mod discovery;
pub mod doctor;
mod guard;
mod hub;
mod identity;
mod incoming;
mod mtu;
mod observe;
mod peers;
mod remote;
mod settings;
mod sources;
mod standing;
mod store;
mod transfers;
mod tuning;
mod tunnels;

pub use agent::{Agent, AgentError};
pub use control::SocketError;
pub use observe::describe_metrics;
pub use settings::{Discovery, SOCKET, Settings, Tunnels, VxlanEnd, Xdp};
pub use sources::{command, load};
pub use store::RegisterError;
