//! What can be set: the table of keys and the defaults. Not here: what flags are called, and what settings mean together.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum;
use novacron_settings::{
    Key, set,
    value::{
        DURATION, SIZE, duration, items, parsed, print_duration, print_size, print_unless, printed, size,
        unless,
    },
};

/// Everything that can be set. Empty texts and lists mean "not set".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) wal_dir: PathBuf,
    pub(crate) listen_client_urls: Vec<String>,
    pub(crate) advertise_client_urls: Vec<String>,
    pub(crate) listen_peer_urls: Vec<String>,
    pub(crate) initial_advertise_peer_urls: Vec<String>,
    pub(crate) initial_cluster: Vec<String>,
    pub(crate) initial_cluster_token: String,
    pub(crate) initial_cluster_state: ClusterState,
    /// The headless service of a StatefulSet, whose pods are the first members.
    pub(crate) initial_cluster_from_headless: String,
    pub(crate) replicas: u16,
    pub(crate) client_tls: ClientTls,
    pub(crate) peer_tls: PeerTls,
    pub(crate) allow_plaintext: bool,
    /// The name of the region that the store is in.
    pub(crate) region: String,
    pub(crate) replication: Replication,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) metrics_allow_plaintext: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) election_timeout: Duration,
    /// Where this member is, and where the leader should be: the first zones first. Leadership that an operator moves to a less
    /// preferred one comes back after two election timeouts.
    pub(crate) zone: String,
    pub(crate) preferred_zones: Vec<String>,
    pub(crate) reads: Reads,
    pub(crate) snapshot_interval: Duration,
    pub(crate) snapshot_entries: u64,
    pub(crate) scrub_interval: Duration,
    pub(crate) entries_per_message_max: usize,
    pub(crate) sync_writes: bool,
    pub(crate) request_bytes_max: u64,
    pub(crate) txn_ops_max: usize,
    pub(crate) quota_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) compaction_mode: CompactionMode,
    /// As in etcd: a number is of hours or of revisions; 0: off.
    pub(crate) compaction_retention: String,
    pub(crate) auth_token: String,
    pub(crate) auth_token_ttl: Duration,
    pub(crate) bcrypt_cost: u32,
    pub(crate) force_new_cluster: bool,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: LogLevel,
}

/// Files for the port of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientTls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) client_cert_auth: bool,
    /// Makes a certificate if `cert` is not set.
    pub(crate) auto: bool,
}

/// Files for the connections between members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerTls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
    pub(crate) allow: Vec<String>,
}

/// Replication between regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replication {
    /// `NUMBER=NAME` of those that there were from the beginning, and perhaps of later ones; empty: there is none.
    pub(crate) regions: Vec<String>,
    /// `existing`: this one was added to others.
    pub(crate) initial_state: ClusterState,
    pub(crate) prefix: String,
    pub(crate) listen: SocketAddr,
    /// `NAME=URL`, each member's.
    pub(crate) peers: Vec<String>,
    pub(crate) tls: RegionTls,
    pub(crate) interval: Duration,
    pub(crate) anti_entropy_interval: Duration,
    pub(crate) fanout: usize,
    /// By how much clocks of regions may differ.
    pub(crate) skew_max: Duration,
    pub(crate) topology: TopologyKind,
    pub(crate) hub: String,
    /// `CHILD=PARENT`, names.
    pub(crate) parents: Vec<String>,
    pub(crate) prefer: RoutePreference,
    /// `NAME=COST`, in whatever unit.
    pub(crate) costs: Vec<String>,
    /// `NAME=LATITUDE:LONGITUDE`, in degrees.
    pub(crate) locations: Vec<String>,
}

/// Files for the connections between regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegionTls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopologyKind {
    Mesh,
    HubSpoke,
    Hierarchical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoutePreference {
    Latency,
    Cost,
    Geography,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            regions: Vec::new(),
            initial_state: ClusterState::New,
            prefix: "/global/".to_owned(),
            listen: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9091),
            peers: Vec::new(),
            tls: RegionTls::default(),
            interval: Duration::from_secs(5),
            anti_entropy_interval: Duration::from_secs(30),
            fanout: 3,
            skew_max: Duration::from_secs(5),
            topology: TopologyKind::Mesh,
            hub: String::new(),
            parents: Vec::new(),
            prefer: RoutePreference::Latency,
            costs: Vec::new(),
            locations: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClusterState {
    New,
    Existing,
}

/// What a member that compacts by itself keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompactionMode {
    Periodic,
    Revision,
}

/// How a leader answers linearizable reads: after a round to a quorum, or from a lease, which rests on clocks
/// (`consensus_core::Reads`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reads {
    Confirmed,
    Lease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Where metrics are served if nobody says otherwise.
pub(crate) const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: PathBuf::new(),
            wal_dir: PathBuf::new(),
            listen_client_urls: vec!["http://127.0.0.1:2379".to_owned()],
            advertise_client_urls: Vec::new(),
            listen_peer_urls: vec!["http://127.0.0.1:9090".to_owned()],
            initial_advertise_peer_urls: Vec::new(),
            initial_cluster: Vec::new(),
            initial_cluster_token: "etcd-cluster".to_owned(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_from_headless: String::new(),
            replicas: 3,
            client_tls: ClientTls::default(),
            peer_tls: PeerTls::default(),
            allow_plaintext: false,
            region: String::new(),
            replication: Replication::default(),
            metrics_listen: Some(METRICS),
            metrics_allow_plaintext: false,
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            zone: String::new(),
            preferred_zones: Vec::new(),
            reads: Reads::Confirmed,
            snapshot_interval: Duration::from_secs(3600),
            snapshot_entries: 10_000,
            scrub_interval: Duration::from_secs(24 * 3600),
            entries_per_message_max: 1000,
            sync_writes: true,
            request_bytes_max: 1536 << 10,
            txn_ops_max: 128,
            quota_bytes: QUOTA_BYTES,
            reserve_bytes: 128 << 20,
            compaction_mode: CompactionMode::Periodic,
            compaction_retention: "0".to_owned(),
            auth_token: "simple".to_owned(),
            auth_token_ttl: Duration::from_secs(300),
            bcrypt_cost: 10,
            force_new_cluster: false,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(30),
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
        }
    }
}

const PATH: &str = "a path, or empty";
const TEXT: &str = "a text that is not empty";
const URLS: &str = "SCHEME://HOST:PORT, any number";
const BOOL: &str = "true or false";

/// `one!(name, expected, place, read, print)` and its like for common kinds.
macro_rules! key {
    ($name:literal, $expected:expr, $($place:ident).+, $read:expr, $print:expr) => {
        Key::<Settings>::one($name, $expected, set!($($place).+, $read), |s| $print(&s.$($place).+))
    };
    (path $name:literal, $($place:ident).+) => {
        key!($name, PATH, $($place).+, |t| Some(PathBuf::from(t)), |p: &PathBuf| p.display().to_string())
    };
    (bool $name:literal, $($place:ident).+) => {
        key!($name, BOOL, $($place).+, parsed, |b: &bool| printed(b))
    };
    (time $name:literal, $expected:expr, $range:expr, $($place:ident).+) => {
        key!($name, $expected, $($place).+, |t| within(t, $range), |d: &Duration| print_duration(*d))
    };
    (list $name:literal, $expected:expr, $($place:ident).+) => {
        Key::<Settings>::list($name, $expected, set!($($place).+, list), |s| s.$($place).+.join(","))
    };
    (word $name:literal, $expected:expr, $($place:ident).+) => {
        key!($name, $expected, $($place).+, word, |value| as_word(value))
    };
}

/// Every setting, in the order in which they are printed.
pub(crate) static KEYS: &[Key<Settings>] = &[
    key!("name", TEXT, name, not_empty, |s: &String| s.clone()),
    key!(path "data_dir", data_dir),
    key!(path "wal_dir", wal_dir),
    key!(list "listen_client_urls", URLS, listen_client_urls),
    key!(list "advertise_client_urls", URLS, advertise_client_urls),
    key!(list "listen_peer_urls", URLS, listen_peer_urls),
    key!(list "initial_advertise_peer_urls", URLS, initial_advertise_peer_urls),
    key!(list "initial_cluster", "NAME=URL, any number", initial_cluster),
    key!("initial_cluster_token", TEXT, initial_cluster_token, not_empty, |s: &String| s.clone()),
    key!(word "initial_cluster_state", "new or existing", initial_cluster_state),
    key!(
        "initial_cluster_from_headless",
        "the name of a service, or empty",
        initial_cluster_from_headless,
        |t| Some(t.to_owned()),
        |s: &String| s.clone()
    ),
    key!("replicas", "1..=64", replicas, |t| number(t, 1, 64), |n: &u16| printed(n)),
    key!(path "client_tls.cert", client_tls.cert),
    key!(path "client_tls.key", client_tls.key),
    key!(path "client_tls.ca", client_tls.ca),
    key!(bool "client_tls.client_cert_auth", client_tls.client_cert_auth),
    key!(bool "client_tls.auto", client_tls.auto),
    key!(path "peer_tls.cert", peer_tls.cert),
    key!(path "peer_tls.key", peer_tls.key),
    key!(path "peer_tls.ca", peer_tls.ca),
    key!(list "peer_tls.allow", ALLOW, peer_tls.allow),
    key!(bool "allow_plaintext", allow_plaintext),
    key!("region", "a name, or empty", region, |t| Some(t.to_owned()), |s: &String| s.clone()),
    key!(list "replication.regions", "NUMBER=NAME, any number", replication.regions),
    key!(word "replication.initial_state", "new or existing", replication.initial_state),
    key!(
        "replication.prefix",
        "1..=256 bytes",
        replication.prefix,
        |t| (1..=PREFIX_BYTES_MAX).contains(&t.len()).then(|| t.to_owned()),
        |s: &String| s.clone()
    ),
    key!("replication.listen", "ADDRESS:PORT", replication.listen, parsed, |a: &SocketAddr| printed(a)),
    key!(list "replication.peers", "NAME=URL, any number", replication.peers),
    key!(path "replication.tls.cert", replication.tls.cert),
    key!(path "replication.tls.key", replication.tls.key),
    key!(path "replication.tls.ca", replication.tls.ca),
    key!(time "replication.interval", "10ms..=1h", (10, HOUR_MS), replication.interval),
    key!(
        time "replication.anti_entropy_interval", "10ms..=24h", (10, HOUR_MS * 24),
        replication.anti_entropy_interval
    ),
    key!("replication.fanout", "1..=256", replication.fanout, |t| number(t, 1, 256), |n: &usize| printed(n)),
    key!(time "replication.skew_max", "1ms..=1h", (1, HOUR_MS), replication.skew_max),
    key!(word "replication.topology", "mesh, hub-spoke or hierarchical", replication.topology),
    key!(
        "replication.hub",
        "the name of a region, or empty",
        replication.hub,
        |t| Some(t.to_owned()),
        |s: &String| s.clone()
    ),
    key!(list "replication.parents", "CHILD=PARENT, any number", replication.parents),
    key!(word "replication.prefer", "latency, cost or geography", replication.prefer),
    key!(list "replication.costs", "NAME=COST, any number", replication.costs),
    key!(list "replication.locations", "NAME=LATITUDE:LONGITUDE, any number", replication.locations),
    key!(
        "metrics.listen",
        "off, or ADDRESS:PORT",
        metrics_listen,
        |t| unless(t, "off", parsed),
        |a: &Option<SocketAddr>| print_unless(*a, "off", printed)
    ),
    key!(bool "metrics.allow_plaintext", metrics_allow_plaintext),
    key!(time "consensus.heartbeat", "10ms..=1m", (10, 60_000), heartbeat),
    key!(time "consensus.election_timeout", "50ms..=10m", (50, 600_000), election_timeout),
    key!("consensus.zone", "a text, or empty", zone, |t| Some(t.to_owned()), |s: &String| s.clone()),
    key!(list "consensus.preferred_zones", "zones, any number, the best first", preferred_zones),
    key!(word "consensus.reads", "confirmed or lease", reads),
    key!(time "consensus.snapshot_interval", "1s..=720h", (1000, HOUR_MS * 24 * 30), snapshot_interval),
    key!(
        "consensus.snapshot_entries",
        "10..=100000000",
        snapshot_entries,
        |t| number(t, 10, 100_000_000),
        |n: &u64| printed(n)
    ),
    key!(time "consensus.scrub_interval", "1s..=8760h", (1000, HOUR_MS * 24 * 365), scrub_interval),
    key!(
        "consensus.entries_per_message_max",
        "1..=100000",
        entries_per_message_max,
        |t| number(t, 1, 100_000),
        |n: &usize| printed(n)
    ),
    key!(bool "consensus.sync_writes", sync_writes),
    key!(
        "max_request_bytes",
        SIZE,
        request_bytes_max,
        |t| size(t).filter(|bytes| *bytes > 0 && *bytes <= REQUEST_BYTES_LIMIT),
        |b: &u64| print_size(*b)
    ),
    key!("max_txn_ops", "1..=100000", txn_ops_max, |t| number(t, 1, 100_000), |n: &usize| printed(n)),
    key!(
        "quota_backend_bytes",
        SIZE,
        quota_bytes,
        // As in etcd: 0 is what it is without this.
        |t| size(t).map(|bytes| if bytes == 0 { QUOTA_BYTES } else { bytes }),
        |b: &u64| print_size(*b)
    ),
    key!("disk_reserve_bytes", SIZE, reserve_bytes, size, |b: &u64| print_size(*b)),
    key!(word "auto_compaction.mode", "periodic or revision", compaction_mode),
    key!("auto_compaction.retention", RETENTION, compaction_retention, not_empty, |s: &String| s.clone()),
    key!("auth.token", "simple, or jwt with its options", auth_token, not_empty, |s: &String| s.clone()),
    key!(time "auth.token_ttl", "1s..=24h", (1000, HOUR_MS * 24), auth_token_ttl),
    key!("auth.bcrypt_cost", "4..=31", bcrypt_cost, |t| number(t, 4, 31), |n: &u32| printed(n)),
    key!(bool "force_new_cluster", force_new_cluster),
    key!(time "grpc_keepalive.interval", DURATION, (1, HOUR_MS * 24), keepalive_interval),
    key!(time "grpc_keepalive.timeout", DURATION, (1, HOUR_MS), keepalive_timeout),
    key!(time "drain_timeout", DURATION, (1, HOUR_MS), drain_timeout),
    key!(word "log.format", "text or json", log_format),
    key!(word "log.level", "trace, debug, info, warn or error", log_level),
];

const QUOTA_BYTES: u64 = 2 << 30;
/// As the store has it.
const PREFIX_BYTES_MAX: usize = 256;
const HOUR_MS: u64 = 3_600_000;
/// No request may be longer, whatever is set.
const REQUEST_BYTES_LIMIT: u64 = consensus_core::REQUEST_BYTES_MAX as u64;
pub(crate) const RETENTION: &str =
    "0, a time of 100ms..=8760h or a number of hours, or a number of revisions";
pub(crate) const ALLOW: &str = "DNS names, *.suffix, URIs, URIs ending in /*, or IP addresses";

fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn list(text: &str) -> Option<Vec<String>> {
    Some(items(text).map(str::to_owned).collect())
}

fn within(text: &str, (min, max): (u64, u64)) -> Option<Duration> {
    duration(text).filter(|time| (u128::from(min)..=u128::from(max)).contains(&time.as_millis()))
}

fn number<T: std::str::FromStr + PartialOrd>(text: &str, min: T, max: T) -> Option<T> {
    parsed(text).filter(|number| (min..=max).contains(number))
}

fn word<T: ValueEnum>(text: &str) -> Option<T> {
    T::from_str(text, false).ok()
}

pub(crate) fn as_word<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use novacron_settings::Sources;

    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        let mut sources = Sources::new(KEYS, Settings::default());
        for (key, value) in [
            ("name", "a # \"name\""),
            ("data_dir", "/a b"),
            ("listen_client_urls", "http://127.0.0.1:1,https://[::1]:2"),
            ("initial_cluster", "a=http://h:1,b=http://h:2"),
            ("initial_cluster_state", "existing"),
            ("client_tls.client_cert_auth", "true"),
            ("peer_tls.allow", "*.example,b"),
            ("metrics.listen", "off"),
            ("consensus.heartbeat", "1s"),
            ("consensus.reads", "lease"),
            ("consensus.sync_writes", "false"),
            ("consensus.zone", "b"),
            ("region", "eu"),
            ("replication.regions", "1=eu,2=us"),
            ("replication.listen", "127.0.0.1:1"),
            ("replication.topology", "hub-spoke"),
            ("replication.hub", "us"),
            ("replication.locations", "eu=50.1:8.7,us=38.9:-77.4"),
            ("consensus.preferred_zones", "a,b"),
            ("max_request_bytes", "2 MiB"),
            ("log.level", "debug"),
        ] {
            sources.flag("--x", key, value).unwrap();
        }
        let printed = sources.to_yaml_with_origins();
        let mut again = Sources::new(KEYS, Settings::default());
        again.file("printed", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(again.values, sources.values);
        let defaults = Sources::new(KEYS, Settings::default()).to_yaml_with_origins();
        let mut again = Sources::new(KEYS, Settings::default());
        again.file("defaults", &defaults).unwrap_or_else(|error| panic!("{error}\n{defaults}"));
        assert_eq!(again.values, Settings::default());
    }

    #[test]
    fn ranges_hold() {
        for (key, good, bad) in [
            ("replicas", "64", "0"),
            ("replicas", "1", "65"),
            ("consensus.heartbeat", "10ms", "9ms"),
            ("consensus.election_timeout", "10m", "11m"),
            ("consensus.reads", "lease", "stale"),
            ("max_request_bytes", "1 MiB", "1 GiB"),
            ("quota_backend_bytes", "0", "-1"),
            ("max_txn_ops", "1", "0"),
            ("name", "x", ""),
            ("replication.prefix", "/x", ""),
            ("replication.interval", "10ms", "9ms"),
            ("replication.fanout", "1", "0"),
            ("replication.topology", "mesh", "star"),
            ("log.format", "json", "JSON"),
            ("initial_cluster_state", "new", "old"),
            ("metrics.listen", "[::1]:1", "localhost"),
        ] {
            let mut sources = Sources::new(KEYS, Settings::default());
            sources.flag("--x", key, good).unwrap();
            assert!(sources.flag("--x", key, bad).is_err(), "{key}: {bad}");
        }
    }
}
