//! HTTP: connections, what every request goes through, problem documents, and the conventions of resources.

pub(crate) mod condition;
pub(crate) mod extract;
pub(crate) mod idempotency;
pub(crate) mod layer;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod rate;
pub(crate) mod server;
pub(crate) mod streams;
pub(crate) mod tls;
