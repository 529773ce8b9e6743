//! Settings files of the daemons.
//!
//! Keys are those of the daemons' own tables; a test feeds files of random specs to the code that the daemons read them with.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{Component, PlanError, Region, Seen, ports, ports::Port, regions};
use crate::yaml;

/// Where certificates are mounted.
pub(super) const TLS_DIR: &str = "/etc/novacron/tls";
/// Where the certificate is mounted that is shown to other regions.
pub(super) const REGIONS_TLS_DIR: &str = "/etc/novacron/regions-tls";
/// Where settings are mounted.
pub(super) const CONFIG_DIR: &str = "/etc/novacron/config";
/// The settings file in that folder, and its key in the ConfigMap.
pub(super) const CONFIG_FILE: &str = "config.yaml";
/// Where data is.
pub(super) const DATA_DIR: &str = "/var/lib/novacron";
/// The agent's data on its node.
pub(super) const AGENT_DATA_DIR: &str = "/var/lib/dwcp";
/// What the agent has to tell others on its node.
pub(super) const AGENT_RUN_DIR: &str = "/run/dwcp";
/// How long a daemon may take to end what it has begun: half of what the kubelet waits.
const DRAIN_TIMEOUT: &str = "30s";
/// Readiness ends by the endpoint's removal before the signal comes, so the API need not wait itself.
const DRAIN_DELAY: &str = "1s";
/// How long members keep what was changed and removed, which lists are read past: as `novacron up` has it.
const COMPACTION_RETENTION: &str = "5m";

/// A settings file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config(Map<String, Value>);

impl Config {
    /// Sets a key, whose sections are separated by dots.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let mut sections = key.split('.').collect::<Vec<_>>();
        let last = sections.pop().unwrap_or(key);
        let mut place = &mut self.0;
        for section in sections {
            let below = place.entry(section).or_insert_with(|| json!({}));
            let Value::Object(below) = below else { panic!("{key}: {section} is a value and a section") };
            place = below;
        }
        place.insert(last.to_owned(), value.into());
    }

    /// The file.
    ///
    /// # Errors
    /// What the writer of YAML says.
    pub fn text(&self) -> Result<String, PlanError> {
        yaml::text(&self.0).map_err(|source| PlanError::NoYaml { source })
    }
}

pub(super) fn config(region: &Region<'_>, component: Component, seen: &Seen) -> Config {
    match component {
        Component::Consensus => {
            let mut config = consensus(region);
            membership(&mut config, region, seen);
            config
        }
        Component::Api => api(region),
        Component::Dwcp => dwcp(region),
        Component::Operator | Component::Backup => Config::default(),
    }
}

/// Of all settings whose change needs another pod. Who the first members were is read once, by pods that are new.
///
/// # Errors
/// What the writer of YAML says.
pub fn restart_digest(region: &Region<'_>, component: Component) -> Result<String, PlanError> {
    let config = match component {
        Component::Consensus => consensus(region),
        other => config(region, other, &Seen::default()),
    };
    Ok(digest(&config.text()?))
}

/// FNV-1a: it has to be the same in each version of the operator, and need not resist anybody.
pub fn digest(text: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

pub(super) fn listen(port: Port) -> String {
    format!("0.0.0.0:{}", port.number)
}

fn tls_file(name: &str) -> String {
    format!("{TLS_DIR}/{name}")
}

/// Sets `SECTION.cert` and its like.
fn set_tls(config: &mut Config, names: [&str; 3]) {
    set_tls_in(config, TLS_DIR, names);
}

pub(super) fn set_tls_in(config: &mut Config, dir: &str, names: [&str; 3]) {
    for (name, file) in names.into_iter().zip(["tls.crt", "tls.key", "ca.crt"]) {
        config.set(name, format!("{dir}/{file}"));
    }
}

fn set_metrics(config: &mut Config, port: Port) {
    config.set("metrics.listen", listen(port));
    config.set("metrics.allow_plaintext", true);
}

fn consensus(region: &Region<'_>) -> Config {
    let acp = &region.cluster.dwcp.acp;
    let (heartbeat_ms, election_timeout_ms) = acp.profile.times_ms();
    let scheme = region.scheme();
    let mut config = Config::default();
    config.set("data_dir", format!("{DATA_DIR}/consensus"));
    config.set("listen_client_urls", json!([format!("{scheme}://{}", listen(ports::CLIENT))]));
    config.set("initial_cluster_token", format!("{}/{}", region.namespace, region.name));
    config.set("initial_cluster_from_headless", region.headless_host());
    if region.has_tls() {
        set_tls(&mut config, ["client_tls.cert", "client_tls.key", "client_tls.ca"]);
        set_tls(&mut config, ["peer_tls.cert", "peer_tls.key", "peer_tls.ca"]);
        if region.has_own_authority() {
            // The authority's other certificates are no members'.
            config.set("peer_tls.allow", json!([region.headless_host()]));
        }
    } else {
        config.set("allow_plaintext", true);
    }
    regions::set(&mut config, region);
    set_metrics(&mut config, ports::CONSENSUS_METRICS);
    config.set("consensus.heartbeat", format!("{heartbeat_ms}ms"));
    config.set("consensus.election_timeout", format!("{election_timeout_ms}ms"));
    config.set("consensus.snapshot_interval", format!("{}s", acp.snapshot_interval_seconds));
    config.set("consensus.snapshot_entries", acp.snapshot_entries);
    config.set("auto_compaction.retention", COMPACTION_RETENTION);
    config.set("drain_timeout", DRAIN_TIMEOUT);
    config.set("log.format", "json");
    config
}

/// A pod with an empty volume begins a store before there is one, and joins it afterwards.
fn membership(config: &mut Config, region: &Region<'_>, seen: &Seen) {
    let voters = region.object.spec.voters;
    let first = seen.bootstrapped.map_or(seen.pods.unwrap_or(voters), |first| first.max(voters));
    config.set("replicas", first);
    let state = if seen.bootstrapped.is_some() { "existing" } else { "new" };
    config.set("initial_cluster_state", state);
}

/// By the members that have a vote, and by all of them: without the operator no pod would become one of the former.
fn store_urls(region: &Region<'_>) -> Value {
    let client = region.service_host(&format!("{}-client", region.name_of(Component::Consensus)));
    let url = |host: &str| format!("{}://{host}:{}", region.scheme(), ports::CLIENT.number);
    json!([url(&client), url(&region.headless_host())])
}

fn api(region: &Region<'_>) -> Config {
    let mut config = Config::default();
    config.set("listen", listen(ports::API));
    if region.has_tls() {
        set_tls(&mut config, ["store.cert", "store.key", "store.ca"]);
        set_tls(&mut config, ["agents.cert", "agents.key", "agents.ca"]);
        config.set("tls.cert", tls_file("tls.crt"));
        config.set("tls.key", tls_file("tls.key"));
    } else {
        config.set("allow_plaintext", true);
    }
    config.set("auth.tokens", true);
    config.set("store.endpoints", store_urls(region));
    config.set("data_dir", format!("{DATA_DIR}/api"));
    set_metrics(&mut config, ports::API_METRICS);
    config.set("drain_delay", DRAIN_DELAY);
    config.set("drain_timeout", DRAIN_TIMEOUT);
    config.set("log.format", "json");
    config
}

fn dwcp(region: &Region<'_>) -> Config {
    let (dwcp, agent) = (&region.cluster.dwcp, &region.cluster.agent);
    let mut config = Config::default();
    config.set("region", region.object.spec.region.clone());
    config.set("listen", listen(ports::DWCP));
    config.set("datagrams.listen", listen(ports::DATAGRAMS));
    if region.has_tls() {
        set_tls(&mut config, ["tls.cert", "tls.key", "tls.ca"]);
        set_tls(&mut config, ["discovery.store_cert", "discovery.store_key", "discovery.store_ca"]);
    } else {
        config.set("allow_plaintext", true);
    }
    set_metrics(&mut config, ports::DWCP_METRICS);
    config.set("discovery.store", store_urls(region));
    config.set("control.socket", format!("{AGENT_RUN_DIR}/agent.sock"));
    config.set("transport.streams.min", dwcp.amst.min_streams);
    config.set("transport.streams.max", dwcp.amst.max_streams);
    config.set("transport.streams.initial", dwcp.amst.initial_streams);
    config.set("transport.congestion_control", dwcp.amst.congestion_control.clone());
    if let Some(rate) = dwcp.amst.pacing_bytes_per_second {
        config.set("transport.pacing_bytes_per_second", rate.to_string());
    }
    config.set("compression.algorithm", dwcp.hde.algorithm.as_str());
    config.set(
        "compression.level",
        dwcp.hde.level.map_or_else(|| "auto".to_owned(), |level| level.to_string()),
    );
    config.set("node.tune", agent.tune);
    config.set("node.set_mtu", agent.set_mtu);
    if !agent.xdp_interfaces.is_empty() {
        config.set("xdp.interfaces", json!(agent.xdp_interfaces));
    }
    config.set("drain_timeout", DRAIN_TIMEOUT);
    config.set("log.format", "json");
    config
}

/// How long the kubelet waits for a pod to end: the drain, twice.
pub(super) const GRACE: SignedDuration = SignedDuration::from_secs(60);
