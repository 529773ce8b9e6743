//! How node agents are asked and told: what is said ([`schema`]), to an agent on this machine over its Unix socket
//! ([`ask`]), and to one elsewhere over DWCP ([`Remote`]).
//!
//! Both carry the same requests, of a method, a path and a body in JSON, and the same answers, of a status and a body.

mod call;
mod error;
mod remote;
pub mod schema;
mod socket;
mod target;

pub use call::{Answer, CALL_BYTES_MAX, Call, Control, STREAMS_MAX};
pub use error::ControlError;
pub use hyper::{Method, StatusCode};
pub use remote::{Remote, connect, read_to_end};
pub use socket::ask;
pub use target::{Target, TargetError};
