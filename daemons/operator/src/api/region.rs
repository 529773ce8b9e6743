//! `NovaCronRegion`: one region, with everything that runs in it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApiReplicas, Condition, Resources, RestoreStatus};

/// One region of a cluster, with everything that runs in it. Made by its NovaCronCluster, or by hand beside one.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "novacron.io",
    version = "v1alpha1",
    kind = "NovaCronRegion",
    plural = "novacronregions",
    shortname = "ncr",
    category = "novacron",
    namespaced,
    status = "RegionStatus",
    derive = "PartialEq",
    doc = "One region of a cluster, with everything that runs in it.",
    validation = Rule::new("size(self.metadata.name) <= 41").message("the name has at most 41 characters"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Voters", type_ = "integer", json_path = ".status.voters"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.voters"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionSpec {
    /// The cluster that says everything else. It cannot be changed.
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "clusterRef cannot be changed" }
    ]))]
    pub cluster_ref: ClusterRef,
    /// The region's name. It cannot be changed.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "region cannot be changed" }
    ]))]
    pub region: String,
    /// The version that is to run here; without it, the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 64), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"))]
    pub version: Option<String>,
    /// Members of consensus that have a vote: an odd number.
    #[serde(default = "super::cluster::voters")]
    #[schemars(range(min = 1, max = 11))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self % 2 == 1", "message": "an odd number: one more would not survive one more loss" }
    ]))]
    pub voters: u16,
    /// Replicas of the HTTP API.
    #[serde(default)]
    pub api: ApiReplicas,
    /// CPU and memory of each component.
    #[serde(default)]
    pub resources: Resources,
    /// Labels of the region's nodes.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
}

/// A NovaCronCluster in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How a region is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version that everything here runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How many members the store began with; there is none before all of them have started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrapped: Option<u16>,
    /// Members that have a vote.
    #[serde(default)]
    pub voters: u16,
    /// The pod of the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Members of consensus.
    #[serde(default)]
    pub members: Vec<MemberStatus>,
    /// What it was restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreStatus>,
    /// Until when all of its certificates are good, where the operator makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_not_after: Option<Time>,
    /// What is true of it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A member of consensus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its pod.
    pub pod: String,
    /// It has no vote yet.
    pub learner: bool,
    /// It answers, and has what the others have.
    pub healthy: bool,
    /// The volume that has its data, by which is seen that it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
}
