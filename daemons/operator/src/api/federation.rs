//! `DWCPFederation`: regions in several Kubernetes clusters, one in each, that are one whole.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Agent, ApiReplicas, ClaimPolicy, Condition, Dwcp, Images, Membership, Monitoring, Networking, Resources,
    Security, ServiceKind, Storage, Upgrades,
};

/// Regions in several Kubernetes clusters, one in each, that are one whole.
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
    doc = "Regions in several Kubernetes clusters, one in each, that are one whole.",
    validation = Rule::new("size(self.metadata.name) <= 20").message("the name has at most 20 characters"),
    printcolumn(name = "Topology", type_ = "string", json_path = ".spec.topology"),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.clustersServing"),
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
    { "rule": "self.topology == 'mesh' || self.clusters.exists(c, c.name == self.hub)", "message": "hub-spoke and hierarchical need a hub, which is one of the clusters" },
    { "rule": "self.topology != 'hierarchical' || self.clusters.all(c, c.name == self.hub || self.clusters.exists(p, has(c.parent) && p.name == c.parent && p.name != c.name))", "message": "hierarchical: each cluster but the hub has another one as its parent" },
    { "rule": "self.clusters.all(c, self.clusters.exists_one(o, o.number == c.number))", "message": "no two clusters have the same number" }
]))]
pub struct FederationSpec {
    /// The clusters. One that is taken out of the list loses what the federation has put there.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub clusters: Vec<FederatedCluster>,
    /// What the NovaCronCluster in each of them is like.
    pub template: ClusterTemplate,
    /// Replicas of the API in all clusters; those that do not say how many they have share what is left, by weight. Without it, they
    /// have `template.api.min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1600))]
    pub replicas: Option<u16>,
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
    /// When a cluster gets no traffic any more, and when it does again.
    #[serde(default)]
    pub failover: Failover,
    /// Names under which the API of all clusters is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// What becomes of the NovaCronClusters when the federation, or a cluster of it, goes.
    #[serde(default)]
    pub on_delete: ClaimPolicy,
}

/// One of the clusters, and what is different there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCluster {
    /// What it is called here, which is its region's name.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// Its region's number, which no other one has or had. It cannot be changed.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "number cannot be changed" }
    ]))]
    pub number: u32,
    /// The Secret that has its kubeconfig under the key `kubeconfig`.
    #[schemars(length(min = 1, max = 253))]
    pub kubeconfig_secret: String,
    /// The namespace of that Secret here, and of the objects there. It cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "namespace cannot be changed" }
    ]))]
    pub namespace: String,
    /// Its share of traffic and of replicas, beside the others'.
    #[serde(default = "weight")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: u16,
    /// Replicas of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<u16>,
    /// Members of consensus that have a vote: an odd number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 11))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self % 2 == 1", "message": "an odd number: one more would not survive one more loss" }
    ]))]
    pub voters: Option<u16>,
    /// CPU and memory of each component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the region's nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// How the others reach it.
    #[serde(default)]
    pub expose: Expose,
    /// The cluster above it, where they are a tree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 20))]
    pub parent: String,
    /// What a way to it costs, for the strategy `cost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub cost: Option<u32>,
    /// Where it is, for the strategy `geo`: `LATITUDE:LONGITUDE`, in degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^-?[0-9]{1,2}(\.[0-9]+)?:-?[0-9]{1,3}(\.[0-9]+)?$"))]
    pub location: Option<String>,
    /// Its region is added to others that have begun (`novacron region add`).
    #[serde(default)]
    pub joins: bool,
}

fn weight() -> u16 {
    1
}

/// How others reach a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.kind != 'ClusterIP'", "message": "LoadBalancer or NodePort: others do not reach a ClusterIP" },
    { "rule": "self.kind != 'NodePort' || size(self.hosts) > 0", "message": "NodePort needs hosts: addresses of nodes, or of what is in front of them" }
]))]
pub struct Expose {
    /// By load balancers, or by ports of nodes.
    pub kind: ServiceKind,
    /// Addresses of nodes, or of what is in front of them; of load balancers, instead of their own.
    #[schemars(
        length(max = 4),
        inner(length(min = 1, max = 253), regex(pattern = r"^[0-9A-Za-z][0-9A-Za-z.:-]*$"))
    )]
    pub hosts: Vec<String>,
}

impl Default for Expose {
    fn default() -> Self {
        Self { kind: ServiceKind::LoadBalancer, hosts: Vec::new() }
    }
}

/// What the NovaCronCluster in each cluster is like: the fields of its spec, and of its one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterTemplate {
    /// The version that is to run, which is the tag of the images.
    #[schemars(length(min = 5, max = 64), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"))]
    pub version: String,
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
    /// Names and reachability; the API's Service is as `expose` says.
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

/// When a cluster gets no traffic any more, and when it does again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Failover {
    /// After it has not been well for so long, in seconds.
    #[schemars(range(min = 5, max = 3600))]
    pub after_seconds: u32,
    /// After it has been well again for so long, in seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub return_after_seconds: u32,
}

impl Default for Failover {
    fn default() -> Self {
        Self { after_seconds: 30, return_after_seconds: 60 }
    }
}

/// Names under which the API of all clusters is found: a `DNSEndpoint` of external-dns, where the federation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// The name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub name: String,
    /// The DNSEndpoint's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// How long resolvers keep a record, in seconds.
    #[serde(default = "ttl")]
    #[schemars(range(min = 1, max = 3600))]
    pub ttl_seconds: u32,
}

fn ttl() -> u32 {
    30
}

/// How a federation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Clusters that get traffic, of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters_serving: Option<String>,
    /// Each cluster, also one that was taken out of the spec until what it had is gone.
    #[serde(default)]
    pub clusters: Vec<FederatedStatus>,
    /// What is true of it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A cluster of a federation: what was last seen of it, by which it is known while it cannot be asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedStatus {
    /// Its name.
    pub name: String,
    /// The Secret with its kubeconfig.
    pub kubeconfig_secret: String,
    /// The namespace.
    pub namespace: String,
    /// Its API server answers.
    pub reachable: bool,
    /// When it last did, to a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// Replicas of the API that it is to have, with those that it has in another's place.
    #[serde(default)]
    pub replicas: u16,
    /// Replicas of the API that are ready.
    #[serde(default)]
    pub ready_replicas: u16,
    /// Where its members are for other regions: `HOST:PORT`.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Where its API is: `HOST:PORT`.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Its authorities' certificates, as PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trust: String,
    /// Digest of the others' authorities that its Secrets have.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub told: String,
    /// `Well`, and `Serving`: it gets traffic.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
