//! The parts of a cluster's spec.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Backup, Restore};

/// Where images come from. Each is `REGISTRY/COMPONENT:VERSION`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// Registry and folder, such as `registry.example/novacron`.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?$"))]
    pub registry: String,
    /// When nodes fetch them.
    pub pull_policy: PullPolicy,
    /// Names of Secrets that the registry is asked with.
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<String>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registry: "novacron".to_owned(),
            pull_policy: PullPolicy::IfNotPresent,
            pull_secrets: Vec::new(),
        }
    }
}

/// When nodes fetch images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// If they do not have them.
    #[default]
    IfNotPresent,
    /// At each start of a container.
    Always,
    /// They have them.
    Never,
}

impl PullPolicy {
    /// As Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

/// Replicas of the HTTP API, which scales by load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.min <= self.max", "message": "min is at most max" }
]))]
pub struct ApiReplicas {
    /// Fewest.
    #[schemars(range(min = 1, max = 100))]
    pub min: u16,
    /// Most.
    #[schemars(range(min = 1, max = 100))]
    pub max: u16,
    /// Between them by load. Otherwise there are `min`.
    pub autoscaling: bool,
    /// Also by requests, queue and connections of a replica, which needs their metrics in `custom.metrics.k8s.io`.
    pub custom_metrics: bool,
}

impl Default for ApiReplicas {
    fn default() -> Self {
        Self { min: 3, max: 100, autoscaling: true, custom_metrics: false }
    }
}

/// CPU and memory, as Kubernetes writes them: `500m`, `4Gi`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quantities {
    /// CPU.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "message": "a quantity above 0, such as 500m" }
    ]))]
    pub cpu: String,
    /// Memory.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "message": "a quantity above 0, such as 4Gi" }
    ]))]
    pub memory: String,
}

/// What a container asks for, and what it gets at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "!isQuantity(self.requests.cpu) || !isQuantity(self.limits.cpu) || \
     quantity(self.requests.cpu).compareTo(quantity(self.limits.cpu)) <= 0", "message": "requests.cpu is at most limits.cpu" },
    { "rule": "!isQuantity(self.requests.memory) || !isQuantity(self.limits.memory) || \
     quantity(self.requests.memory).compareTo(quantity(self.limits.memory)) <= 0", "message": "requests.memory is at most limits.memory" }
]))]
pub struct PartResources {
    /// What a node must have.
    pub requests: Quantities,
    /// What it gets at most.
    pub limits: Quantities,
}

impl PartResources {
    fn of(cpu: [&str; 2], memory: [&str; 2]) -> Self {
        let quantities = |n: usize| Quantities { cpu: cpu[n].to_owned(), memory: memory[n].to_owned() };
        Self { requests: quantities(0), limits: quantities(1) }
    }
}

/// Resources of each component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// A member of consensus.
    pub consensus: PartResources,
    /// A replica of the API.
    pub api: PartResources,
    /// A node's agent.
    pub dwcp: PartResources,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            consensus: PartResources::of(["2", "4"], ["4Gi", "8Gi"]),
            api: PartResources::of(["500m", "2"], ["1Gi", "4Gi"]),
            dwcp: PartResources::of(["1", "4"], ["2Gi", "8Gi"]),
        }
    }
}

/// The node agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Agent {
    /// One runs on every node of the region.
    pub enabled: bool,
    /// Sysctls and queueing of the node are set for long links.
    pub tune: bool,
    /// Raises the MTU to 9000 where all peers agree.
    pub set_mtu: bool,
    /// Interfaces of XDP; none: no XDP.
    #[schemars(length(max = 8), inner(length(min = 1, max = 15)))]
    pub xdp_interfaces: Vec<String>,
}

impl Default for Agent {
    fn default() -> Self {
        Self { enabled: true, tune: true, set_mtu: false, xdp_interfaces: Vec::new() }
    }
}

/// Prometheus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitoring {
    /// ServiceMonitors are made where the API server knows the kind.
    pub service_monitors: bool,
    /// Between two scrapes, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: u32,
    /// Labels by which a Prometheus finds its ServiceMonitors.
    #[schemars(extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self { service_monitors: true, interval_seconds: 30, labels: BTreeMap::new() }
    }
}

/// What becomes of volumes that nothing uses any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimPolicy {
    /// They stay.
    #[default]
    Keep,
    /// They go, with what is on them.
    Delete,
}

/// Volumes of consensus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.restore) == has(oldSelf.restore) && (!has(self.restore) || self.restore == oldSelf.restore)", "message": "restore cannot be changed: only a new cluster begins with a backup" }
]))]
pub struct Storage {
    /// The storage class; empty: the default one. It cannot be changed.
    #[schemars(length(max = 253))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "className cannot be changed" }
    ]))]
    pub class_name: String,
    /// Of each member's volume. It cannot be changed.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "message": "a quantity above 0, such as 100Gi" },
        { "rule": "self == oldSelf", "message": "size cannot be changed" }
    ]))]
    pub size: String,
    /// Claims of members that were removed, and of a region that is deleted.
    pub claims: ClaimPolicy,
    /// Backups on a schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// What the regions begin with. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            class_name: "fast-ssd".to_owned(),
            size: "100Gi".to_owned(),
            claims: ClaimPolicy::Keep,
            backup: None,
            restore: None,
        }
    }
}

/// How clients from outside reach the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// They do not.
    #[default]
    ClusterIP,
    /// By a port of each node.
    NodePort,
    /// By a load balancer.
    LoadBalancer,
}

impl ServiceKind {
    /// As Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Names and reachability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Networking {
    /// The domain of the Kubernetes cluster. Members are called by it, so it cannot be changed.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "clusterDomain cannot be changed" }
    ]))]
    pub cluster_domain: String,
    /// Nothing reaches a pod but what its ports are for.
    pub network_policies: bool,
    /// The API's Service.
    pub api_service: ServiceKind,
}

impl Default for Networking {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            network_policies: true,
            api_service: ServiceKind::ClusterIP,
        }
    }
}

/// Where certificates come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// The operator's own: an authority of the cluster, certificates of each component, new ones in time.
    #[default]
    Managed,
    /// A Secret with `tls.crt`, `tls.key` and `ca.crt`, by cert-manager or by hand. Daemons follow its changes.
    Secret,
    /// There are none: whoever reaches a port can read and write everything. For networks where nobody else is.
    Plaintext,
}

/// Certificates of all daemons.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.mode == oldSelf.mode", "message": "mode cannot be changed: members that do not trust each other cannot talk to each other" },
    { "rule": "!has(self.secretName) || self.mode == 'Secret'", "message": "secretName is for the mode Secret" }
]))]
pub struct Tls {
    /// Where they come from.
    pub mode: TlsMode,
    /// The Secret; without it, `REGION-tls`, REGION being the name of the NovaCronRegion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Of the operator's own.
    pub managed: ManagedTls,
}

/// How long the operator's certificates are good, and when there are new ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.renewBeforeHours < self.validityHours", "message": "renewBeforeHours is less than validityHours" },
    { "rule": "self.authorityValidityHours >= 3 * self.validityHours", "message": "an authority is good for three times as long as a certificate, or longer" }
]))]
pub struct ManagedTls {
    /// A certificate.
    #[schemars(range(min = 2, max = 87_600))]
    pub validity_hours: u32,
    /// So long before its end there is a new one.
    #[schemars(range(min = 1, max = 87_600))]
    pub renew_before_hours: u32,
    /// The authority. Another one takes its place two certificates' time before its end.
    #[schemars(range(min = 6, max = 876_000))]
    pub authority_validity_hours: u32,
    /// How long it takes until every daemon trusts a new authority, in seconds: the kubelet has to see the change of a Secret, and the
    /// daemon that of the file. Nothing is issued by a new authority, and no former one goes, before that.
    #[schemars(range(min = 60, max = 86_400))]
    pub settle_seconds: u32,
    /// A higher number than before has another authority made now.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self >= oldSelf", "message": "authority only gets higher" }
    ]))]
    pub authority: u32,
}

impl Default for ManagedTls {
    fn default() -> Self {
        Self {
            validity_hours: 2160,
            renew_before_hours: 720,
            authority_validity_hours: 87_600,
            settle_seconds: 600,
            authority: 1,
        }
    }
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    /// Certificates.
    pub tls: Tls,
}

/// How a new version is rolled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrades {
    /// How long a member of the new version has to do well before the next one gets it, in seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub bake_seconds: u32,
}

impl Default for Upgrades {
    fn default() -> Self {
        Self { bake_seconds: 30 }
    }
}

/// How members come and go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Membership {
    /// Allows steps after which the loss of one member ends the quorum, where there was one to spare before: from three
    /// members to one there is no other way.
    pub allow_no_spare: bool,
    /// Lets members share a node, with which all of them may be lost: where there are fewer nodes than members.
    pub share_nodes: bool,
}
