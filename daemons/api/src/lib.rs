//! The HTTP API of NovaCron: the inventory of virtual machines, nodes, members of the store, and a durable queue of jobs.
//!
//! Owns the routes, their conventions (problem documents, ETags, pages, idempotency keys), and the queue. All state is in
//! the store, so that there can be any number of replicas. Deliberately not here: what the store does, and flags, signals and
//! exit codes, which are `main`'s.
//!
//! What always holds:
//! - A request is done in one transaction of the store, or not at all; where nobody knows which, the answer says so.
//! - No job runs twice at once, see `jobs`.
//! - A replica knows nothing that another could not know: each can answer each request.

mod agents;
mod app;
mod daemon;
mod http;
mod jobs;
mod routes;
mod settings;
mod sources;
mod store;
mod vm;

pub use agents::AgentsError;
pub use app::describe_metrics;
pub use daemon::{Replica, StartError, check};
pub use settings::{
    AgentSettings, AgentSocket, JobSettings, Limits, LogFormat, METRICS_PORT, PORT, Settings, StoreSettings,
};
pub use sources::{LoadError, Loaded, command, load};
pub use store::OpenError;
