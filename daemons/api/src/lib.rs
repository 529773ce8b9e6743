//! The HTTP API of NovaCron: the inventory of virtual machines, nodes, members of the store, and a durable queue of jobs.
//!
//! Owns the routes, their conventions (problem documents, ETags, pages, idempotency keys), who may do what, the records of
//! changes, and the queue. All state is in the store, so that there can be any number of replicas; records are in a database. Deliberately not here: what the store does, and flags, signals and
//! exit codes, which are `main`'s.
//!
//! What always holds:
//! - A request is done in one transaction of the store, or not at all; where nobody knows which, the answer says so.
//! - What no line of the table of rules allows is done for nobody, and what cannot be recorded is not done.
//! - No job runs twice at once, see `jobs`.
//! - A replica knows nothing that another could not know: each can answer each request.

mod agents;
mod app;
mod audit;
mod auth;
mod bootstrap;
mod cache;
mod changes;
mod daemon;
mod database;
mod http;
mod jobs;
mod routes;
mod schedules;
mod settings;
mod sources;
mod store;
mod store_certificates;
mod vm;

pub use agents::AgentsError;
pub use app::describe_metrics;
pub use audit::AuditError;
pub use auth::{
    jwks::JwksError,
    role::{Grant, NoGrant, Role},
};
pub use bootstrap::{CreateError, create_token};
pub use cache::CacheError;
pub use daemon::{Replica, StartError, check};
pub use database::DatabaseError;
pub use http::rate::Rate;
pub use settings::{
    AgentSettings, AgentSocket, AuthSettings, CacheSettings, DatabaseSettings, JobSettings, JwtSettings,
    Limits, METRICS_PORT, NamedGrant, PORT, Settings, StoreSettings, TlsSettings,
};
pub use sources::{CREATE_TOKEN, command, load};
pub use store::OpenError;
