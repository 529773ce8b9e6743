//! `DWCPFederation`: clusters that know each other.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// Clusters of several Kubernetes clusters that know each other.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "novacron.io",
    version = "v1alpha1",
    kind = "DWCPFederation",
    plural = "dwcpfederations",
    shortname = "dwcpfed",
    category = "novacron",
    status = "FederationStatus",
    derive = "PartialEq",
    doc = "Clusters of several Kubernetes clusters that know each other.",
    printcolumn(name = "Topology", type_ = "string", json_path = ".spec.topology"),
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.routing.strategy"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.topology == 'mesh' || self.clusters.exists(c, c.name == self.hub)", "message": "hub-spoke and hierarchical need a hub, which is one of the clusters" }
]))]
pub struct FederationSpec {
    /// The clusters.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub clusters: Vec<FederatedCluster>,
    /// Who talks to whom.
    #[serde(default)]
    pub topology: Topology,
    /// The cluster in the middle, or at the root.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub hub: String,
    /// How traffic finds its way.
    #[serde(default)]
    pub routing: Route,
}

/// One of the clusters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCluster {
    /// What it is called here.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// The Secret with its kubeconfig.
    #[schemars(length(min = 1, max = 253))]
    pub kubeconfig_secret: String,
    /// The namespace of that Secret, and of the cluster's objects.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its share of traffic, beside the others'.
    #[serde(default = "weight")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: u16,
}

fn weight() -> u16 {
    1
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Everybody to everybody.
    #[default]
    Mesh,
    /// Everybody to the hub.
    HubSpoke,
    /// Everybody to its parent.
    Hierarchical,
}

/// What makes a way good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoutingStrategy {
    /// It is short in time.
    #[default]
    Latency,
    /// It is cheap.
    Cost,
    /// It is short on the map.
    Geo,
}

/// How traffic finds its way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// What makes a way good.
    pub strategy: RoutingStrategy,
}

/// How a federation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true of it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
