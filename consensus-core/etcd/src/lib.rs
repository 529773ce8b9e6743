//! The etcd v3 API: gRPC services over a replicated store.
//!
//! [`Server`] owns a [`Node`](consensus_core::Node) whose state machine is a [`Store`](consensus_store::Store), and answers
//! etcd's clients. Errors carry etcd's codes and texts, because clients decide by them whether to try again.
//!
//! Deliberately not here: configuration files, signals, exit codes.

mod auth;
mod bootstrap;
mod cluster;
mod compactor;
mod connection;
mod drain;
mod election;
mod folder;
mod http;
mod identity;
mod jwt;
mod kv;
mod lease;
mod lock;
mod machine;
mod maintenance;
mod queue;
mod reads;
mod regions;
pub mod rejoin;
mod remover;
mod restore;
mod room;
mod server;
mod snapshot;
mod status;
mod token;
mod turns;
mod watch;

pub use bootstrap::{Identity, IdentityError, InitialCluster, InitialClusterError, authority};
pub use compactor::AutoCompaction;
pub use folder::{FolderError, MemberFolder, Owner};
pub use http::{MetricsText, version_json};
pub use jwt::{Jwt, TokenOptionError};
pub use maintenance::API_VERSION;
pub use regions::{RegionsConfig, describe_region_metrics};
pub use restore::{Restore, RestoreError, Restored};
pub use server::{AuthConfig, RequestSpan, Server, ServerConfig, ServerError, TokenKind};
