//! `NovaCronCluster`: one or more regions that belong together.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Agent, ApiReplicas, Condition, Dwcp, Images, Membership, Monitoring, Networking, Replication, Resources,
    Security, Storage, Upgrades,
};

/// A cluster of NovaCron: its version, its regions, and what they have in common.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "novacron.io",
    version = "v1alpha1",
    kind = "NovaCronCluster",
    plural = "novacronclusters",
    shortname = "ncc",
    category = "novacron",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A cluster of NovaCron: its version, its regions, and what they have in common.",
    validation = Rule::new("size(self.metadata.name) <= 20").message("the name has at most 20 characters"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Wanted", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Regions", type_ = "string", json_path = ".status.regionsReady"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.regions.all(r, size(r.name) <= 20)", "message": "the name of a region has at most 20 characters" }
]))]
pub struct ClusterSpec {
    /// The version that is to run, which is the tag of the images.
    #[schemars(length(min = 5, max = 64), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"))]
    pub version: String,
    /// The regions. One that is taken out of the list is deleted.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub regions: Vec<RegionTemplate>,
    /// Where images come from.
    #[serde(default)]
    pub images: Images,
    /// The transport, and times of consensus.
    #[serde(default)]
    pub dwcp: Dwcp,
    /// The agent of each node.
    #[serde(default)]
    pub agent: Agent,
    /// Prometheus.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Volumes of consensus.
    #[serde(default)]
    pub storage: Storage,
    /// Names and reachability.
    #[serde(default)]
    pub networking: Networking,
    /// Certificates.
    #[serde(default)]
    pub security: Security,
    /// How a new version is rolled out.
    #[serde(default)]
    pub upgrades: Upgrades,
    /// How members of consensus come and go.
    #[serde(default)]
    pub membership: Membership,
    /// Regions, here and elsewhere, that have keys in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
}

/// One region of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionTemplate {
    /// Its name, which it keeps.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// Members of consensus that have a vote: an odd number.
    #[serde(default = "voters")]
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
    /// Regions of a lower number get a new version earlier.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: u16,
    /// Labels of the region's nodes.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: BTreeMap<String, String>,
}

/// Members of consensus, where nobody says how many.
pub(super) fn voters() -> u16 {
    5
}

/// How a cluster is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version that all regions run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Regions that are ready, of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions_ready: Option<String>,
    /// Each region.
    #[serde(default)]
    pub regions: Vec<RegionSummary>,
    /// Who issues certificates, where the operator does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityStatus>,
    /// What is true of it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The operator's authorities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Issues.
    pub issuing: String,
    /// Until when it is good.
    pub not_after: Time,
    /// Is trusted, and is to issue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Is trusted, and issues no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// The certificates of all that are trusted, as PEM: what others have to know to trust this cluster.
    #[serde(default)]
    pub bundle: String,
    /// Digest of the other clusters' authorities that every Secret here has, once it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<String>,
}

/// A region in the status of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionSummary {
    /// Its name.
    pub name: String,
    /// The version that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Everything of it runs.
    pub ready: bool,
    /// Why it is ready, or not.
    pub reason: String,
}
