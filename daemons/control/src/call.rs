//! Requests and answers over DWCP.
//!
//! Whoever wants to control an agent connects to it and sends a [`Control`] as the first request. If it is answered, and not
//! with a [`Refusal`](crate::schema::Refusal), each request is a stream: a [`Call`] one way and an [`Answer`] the other.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest call in bytes: a path, and the largest body that the control API takes.
pub const CALL_BYTES_MAX: usize = 128 << 10;
/// Calls of one connection that an agent answers at a time; more wait.
pub const STREAMS_MAX: usize = 16;

/// Asks whether the agent lets itself be controlled by this certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Which way of asking follows: 1.
    pub control: u32,
}

/// A request of the control API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `GET`, `POST` or `DELETE`.
    pub method: String,
    /// What follows the host in a URL.
    pub path: String,
    /// In JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The header of that name: which trace it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// In JSON; a [`Refusal`](crate::schema::Refusal) if the status is not of success.
    #[serde(default)]
    pub body: Value,
}
