//! The operator: custom resources in, what runs on Kubernetes out.
//!
//! | module | owns |
//! |---|---|
//! | [`api`] | the custom resources and their schemas |
//! | [`plan`] | from a spec to the objects that are to be there; pure |
//! | [`certificates`] | who issues certificates, who is trusted, and when there are new ones; pure |
//! | [`federation`] | what is in each of several clusters, and which ones get traffic; pure but for the clients |
//! | [`membership`] | from who the members are to the next step; pure |
//! | [`apply`] | objects to the API server, by server-side apply; what goes |
//! | [`store`] | asking a region's store, and changing its members |
//! | [`lease`] | who of several operators works |
//! | [`reconcile`] | all of it together, for each object that changes |
//!
//! Deliberately not here: signals and exit codes (`main.rs`).

pub mod api;
pub mod apply;
pub mod certificates;
pub mod federation;
pub mod lease;
pub mod membership;
mod operator;
pub mod plan;
pub mod reconcile;
mod settings;
mod sources;
pub mod store;
pub mod yaml;

pub use operator::{Operator, StartError, describe_metrics};
pub use settings::{LeaseSettings, Settings};
pub use sources::{CRD, FEDERATED_ROLE, ROLE, command, load};
