//! What the stores of several regions have in common, and how they find and trust each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RoutingStrategy, Topology};

/// Regions that replicate what they have under `/global/`. A DWCPFederation writes it; by hand it can be written as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.topology == 'mesh' || self.regions.exists(r, r.name == self.hub)", "message": "hub-spoke and hierarchical need a hub, which is one of the regions" }
]))]
pub struct Replication {
    /// All of them, this cluster's own too.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub regions: Vec<ReplicatedRegion>,
    /// Who talks to whom.
    #[serde(default)]
    pub topology: Topology,
    /// The region in the middle, or at the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 20))]
    pub hub: String,
    /// What makes a way good.
    #[serde(default)]
    pub strategy: RoutingStrategy,
    /// Certificates of authorities that the other regions' certificates are issued by, as PEM. Regions that replicate are let in by
    /// them, and nobody else.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 262_144))]
    pub trust: String,
    /// Digest of this cluster's own authorities that the other regions trust: another authority does not issue before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub acknowledged: String,
}

/// One of the regions that replicate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplicatedRegion {
    /// Its name, which is that of a region of its cluster.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// Its number, which no other region has or had.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub number: u32,
    /// Where its members are: `HOST:PORT`.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 3, max = 261)))]
    pub addresses: Vec<String>,
    /// The region above it, where they are a tree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 20))]
    pub parent: String,
    /// What a way to it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub cost: Option<u32>,
    /// Where it is: `LATITUDE:LONGITUDE`, in degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^-?[0-9]{1,2}(\.[0-9]+)?:-?[0-9]{1,3}(\.[0-9]+)?$"))]
    pub location: Option<String>,
    /// It was added to others that had begun (`novacron region add`).
    #[serde(default)]
    pub joins: bool,
}
