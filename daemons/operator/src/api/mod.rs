//! The custom resources, from whose types the schemas that the API server checks are derived.
//!
//! Owns: fields, defaults, bounds and rules, and conditions with their closed set of reasons. Deliberately not here: what becomes
//! of an object ([`plan`](crate::plan)), and anything that talks to a server.

#![allow(clippy::duplicated_attributes, reason = "columns of a table are of the same type")]

mod backup;
mod cluster;
mod condition;
mod dwcp;
mod federation;
mod parts;
mod region;
mod replication;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

pub use backup::{Backup, Bucket, Restore, RestoreStatus};
pub use cluster::{
    AuthorityStatus, ClusterSpec, ClusterStatus, NovaCronCluster, RegionSummary, RegionTemplate,
};
pub use condition::{Condition, ConditionType, Reason, Status, set_condition};
pub use dwcp::{Acp, Amst, Compression, Dwcp, Hde, Profile};
pub use federation::{
    ClusterTemplate, DWCPFederation, Dns, Expose, Failover, FederatedCluster, FederatedStatus,
    FederationSpec, FederationStatus, Route, RoutingStrategy, Topology,
};
pub use parts::{
    Agent, ApiReplicas, ClaimPolicy, Images, ManagedTls, Membership, Monitoring, Networking, PartResources,
    PullPolicy, Quantities, Resources, Security, ServiceKind, Storage, Tls, TlsMode, Upgrades,
};
pub use region::{ClusterRef, MemberStatus, NovaCronRegion, RegionSpec, RegionStatus};
pub use replication::{ReplicatedRegion, Replication};

/// The group of all kinds.
pub const GROUP: &str = "novacron.io";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// Annotation of an object that is left as it is, whatever its spec says: `"true"`.
pub const PAUSED: &str = "novacron.io/paused";
/// What is done before an object goes.
pub const FINALIZER: &str = "novacron.io/operator";

/// The definitions of all kinds.
pub fn crds() -> [CustomResourceDefinition; 3] {
    [NovaCronCluster::crd(), NovaCronRegion::crd(), DWCPFederation::crd()].map(without_foreign_formats)
}

/// Without the formats of numbers that OpenAPI does not have, about which the API server warns whoever applies them.
fn without_foreign_formats(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        strip(schema);
    }
    crd
}

fn strip(schema: &mut JSONSchemaProps) {
    schema.format.take_if(|format| format.starts_with("uint"));
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(strip);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => strip(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(strip),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(additional)) = &mut schema.additional_properties {
        strip(additional);
    }
}

/// All definitions as one stream of YAML documents, for `kubectl apply -f -`.
///
/// # Errors
/// What the writer of YAML says.
pub fn crds_yaml() -> Result<String, serde_saphyr::ser::Error> {
    crds().iter().map(|crd| Ok(format!("---\n{}", crate::yaml::text(crd)?))).collect()
}
