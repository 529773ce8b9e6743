//! From settings to what is started: addresses, first members, TLS. Everything that is wrong with the settings together is
//! found here, before anything is opened.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use consensus_core::{NodeConfig, Timing};
use consensus_etcd::{InitialCluster, ServerConfig, TokenKind, authority};
use dwcp_core::security::{AllowRule, TlsFiles};
use novacron_process::ServerFiles;
use novacron_settings::{MetricsSettings, Sources};

use crate::{
    certificates::Certificates,
    compaction, headless, regions,
    settings::{ClusterState, METRICS, RETENTION, Reads, Settings},
    tls,
};

/// The election timeout has to be so many heartbeats at least.
const HEARTBEATS_MIN: u32 = 5;

/// What is started.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its node does not know yet who it is.
    pub(crate) server: ServerConfig,
    /// The first members, or, of a member that joins, those that it asks.
    pub(crate) cluster: InitialCluster,
    /// It joins a cluster that has added it, if it has no log.
    pub(crate) joins: bool,
    pub(crate) data_dir: PathBuf,
    pub(crate) clients: Vec<ClientListen>,
    /// What clients' connections begin with.
    pub(crate) client_tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    pub(crate) certificates: Certificates,
    pub(crate) metrics: MetricsSettings,
    /// Nobody asked for this address: without it there are no metrics, and no harm.
    pub(crate) metrics_by_default: bool,
    pub(crate) drain_timeout: Duration,
}

/// One address for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientListen {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
}

/// Checks all settings together.
pub(crate) fn plan(sources: &Sources<Settings>) -> Result<Plan> {
    let mut settings = sources.values.clone();
    if settings.election_timeout < HEARTBEATS_MIN * settings.heartbeat {
        let value = novacron_settings::value::print_duration(settings.election_timeout);
        let expected = "at least five times consensus.heartbeat";
        return Err(sources.invalid("consensus.election_timeout", value, expected).into());
    }
    let peer_tls = peer_tls(&settings).with_context(|| sources.origin("peer_tls.cert").to_string())?;
    let client_tls = client_tls(&settings).with_context(|| sources.origin("client_tls.cert").to_string())?;
    let mut joins = settings.initial_cluster_state == ClusterState::Existing;
    if !settings.initial_cluster_from_headless.is_empty() {
        joins |= fill_in_headless(&mut settings, sources)?;
    }
    let makes_certificate = settings.client_tls.auto && client_tls.is_none();
    let clients = client_listens(&settings, client_tls.is_some() || makes_certificate)
        .with_context(|| format!("{}: listen_client_urls", sources.origin("listen_client_urls")))?;
    let listen_peers = peer_listen(&settings)
        .with_context(|| format!("{}: listen_peer_urls", sources.origin("listen_peer_urls")))?;
    let metrics = MetricsSettings {
        listen: settings.metrics_listen,
        allow_plaintext: settings.metrics_allow_plaintext,
    };
    if let Some(address) = metrics.listen.filter(|address| !address.ip().is_loopback()) {
        ensure!(
            metrics.allow_plaintext,
            "{}: metrics.listen: whoever reaches {address} can read: --metrics-allow-plaintext allows it",
            sources.origin("metrics.listen")
        );
    }
    let region = regions::regions(sources)?;
    let region_tls = if region.is_some() { regions::tls(&settings.replication)? } else { None };
    let token = TokenKind::parse(&settings.auth_token, |path| std::fs::read(path))
        .with_context(|| format!("{}: auth.token", sources.origin("auth.token")))?;
    let data_dir = or(&settings.data_dir, || format!("{}.consensus", settings.name).into());
    let mut plan = Plan {
        server: server(&settings, &data_dir, listen_peers),
        cluster: cluster(&settings)
            .with_context(|| format!("{}: initial_cluster", sources.origin("initial_cluster")))?,
        joins,
        data_dir,
        clients,
        client_tls: None,
        certificates: Certificates::new(client_tls, peer_tls, region_tls),
        metrics_by_default: sources.is_default("metrics.listen") && metrics.listen == Some(METRICS),
        metrics,
        drain_timeout: settings.drain_timeout,
    };
    plan.server.auth.token = token;
    plan.server.regions = region;
    plan.server.auto_compaction = compaction::keeps(settings.compaction_mode, &settings.compaction_retention)
        .ok_or_else(|| {
            let value = settings.compaction_retention.clone();
            sources.invalid("auto_compaction.retention", value, RETENTION)
        })?;
    plan.load_certificates()?;
    if makes_certificate {
        plan.client_tls = Some(tls::self_signed(client_hosts(&settings)).context("client_tls.auto")?);
    }
    Ok(plan)
}

impl Plan {
    /// Reads what the settings name, so that a mistake shows before anything is opened.
    fn load_certificates(&mut self) -> Result<()> {
        if let Some(files) = &self.certificates.client {
            self.client_tls = Some(files.load().context("TLS for clients")?);
        }
        if let Some(files) = &self.certificates.peer {
            self.server.node.tls = Some(files.load().context("TLS between members")?.into());
        }
        if let (Some(files), Some(region)) = (&self.certificates.region, &mut self.server.regions) {
            regions::load_tls(region, files)?;
        }
        Ok(())
    }
}

fn or(path: &Path, otherwise: impl FnOnce() -> PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { otherwise() } else { path.to_owned() }
}

fn cluster(settings: &Settings) -> Result<InitialCluster> {
    let own = match &settings.initial_advertise_peer_urls[..] {
        [] => &settings.listen_peer_urls,
        given => given,
    };
    let list = match &settings.initial_cluster[..] {
        [] => own.iter().map(|url| format!("{}={url}", settings.name)).collect(),
        given => given.to_vec(),
    };
    let cluster = InitialCluster::parse(&list.join(","), &settings.initial_cluster_token)?;
    cluster.member_id(&settings.name)?;
    let scheme = peer_scheme(settings);
    for member in &list {
        let url = member.split_once('=').map_or(member.as_str(), |(_, url)| url);
        ensure!(
            url.split_once("://").is_some_and(|(found, _)| found == scheme),
            "{member}: members talk {scheme} here, and all the same: TLS between them is set by the peer_tls settings"
        );
    }
    Ok(cluster)
}

/// A member of the first zone of the list has the highest, one of a zone that is not in it has 0.
fn priority(settings: &Settings) -> u32 {
    let zones = &settings.preferred_zones;
    let place = zones.iter().position(|zone| *zone == settings.zone);
    place.map_or(0, |place| (zones.len() - place) as u32)
}

fn server(settings: &Settings, data_dir: &Path, listen_peers: SocketAddr) -> ServerConfig {
    let log_dir = or(&settings.wal_dir, || data_dir.join("log"));
    let mut node = NodeConfig::new(0, 0, log_dir, listen_peers);
    // Beside the data, which shares files with copies of it, wherever the log is.
    node.snapshot_dir = data_dir.join("snapshots");
    node.snapshots.entries = settings.snapshot_entries;
    node.snapshots.interval = settings.snapshot_interval;
    node.scrub.interval = settings.scrub_interval;
    node.timing = Timing { heartbeat: settings.heartbeat, election_timeout: settings.election_timeout };
    node.priority = priority(settings);
    node.reads = match settings.reads {
        Reads::Confirmed => consensus_core::Reads::Confirmed,
        Reads::Lease => consensus_core::Reads::Lease,
    };
    node.allow_plaintext = settings.allow_plaintext;
    node.entries_per_message_max = settings.entries_per_message_max;
    node.sync_writes = settings.sync_writes;
    node.force_new_cluster = settings.force_new_cluster;
    let mut server = ServerConfig::new(node, data_dir.join("data"), &settings.name);
    server.client_urls = match &settings.advertise_client_urls[..] {
        [] => settings.listen_client_urls.clone(),
        given => given.to_vec(),
    };
    server.request_bytes_max = settings.request_bytes_max as usize;
    server.txn_ops_max = settings.txn_ops_max;
    server.quota_bytes = settings.quota_bytes;
    server.reserve_bytes = settings.reserve_bytes;
    server.auth.token_ttl = settings.auth_token_ttl;
    server.auth.bcrypt_cost = settings.bcrypt_cost;
    server.auth.client_cert_auth = settings.client_tls.client_cert_auth;
    server.keepalive_interval = settings.keepalive_interval;
    server.keepalive_timeout = settings.keepalive_timeout;
    server
}

fn peer_scheme(settings: &Settings) -> &'static str {
    if settings.peer_tls.cert.as_os_str().is_empty() { "http" } else { "https" }
}

/// What a pod of a StatefulSet knows of its cluster, for the settings that nobody made; and whether it can only join.
fn fill_in_headless(settings: &mut Settings, sources: &Sources<Settings>) -> Result<bool> {
    ensure!(
        settings.initial_cluster.is_empty(),
        "initial_cluster_from_headless and initial_cluster exclude each other"
    );
    if sources.is_default("name") {
        // The pod's name.
        settings.name = host_name();
    }
    let scheme = peer_scheme(settings);
    if sources.is_default("listen_peer_urls") {
        settings.listen_peer_urls = vec![format!("{scheme}://0.0.0.0:9090")];
    }
    let [listen] = &settings.listen_peer_urls[..] else {
        bail!("listen_peer_urls: one URL is needed");
    };
    let port = port(authority(listen).context("listen_peer_urls")?)?;
    let service = &settings.initial_cluster_from_headless;
    let pods = headless::pods(&settings.name, service, settings.replicas, scheme, port)
        .context("initial_cluster_from_headless")?;
    settings.initial_cluster = pods.members.iter().map(|(name, url)| format!("{name}={url}")).collect();
    Ok(pods.joins)
}

fn host_name() -> String {
    // What the kubelet sets is the pod's name, which the kernel's may be a shortened form of.
    let variable = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    variable.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn port(authority: &str) -> Result<u16> {
    let (_, port) = authority.rsplit_once(':').context("no port")?;
    port.parse().with_context(|| format!("{port}: not a port"))
}

/// The address of a URL to listen on.
fn address(url: &str) -> Result<SocketAddr> {
    let authority = authority(url)?;
    let mut addresses = authority.to_socket_addrs().with_context(|| url.to_owned())?;
    addresses.next().with_context(|| format!("{url}: no address"))
}

fn is_allowed(settings: &Settings, url: &str, address: SocketAddr, flags: &str) -> Result<()> {
    ensure!(
        address.ip().is_loopback() || settings.allow_plaintext,
        "{url}: without TLS, whoever reaches this can read and write everything: {flags} set TLS, --allow-plaintext \
         allows it"
    );
    Ok(())
}

fn client_listens(settings: &Settings, has_certificate: bool) -> Result<Vec<ClientListen>> {
    let mut listens = Vec::new();
    for url in &settings.listen_client_urls {
        authority(url)?;
        let tls = match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("{url}: only http and https are served"),
        };
        let address = address(url)?;
        if tls {
            ensure!(has_certificate, "{url}: https needs a certificate: --cert-file and --key-file name it");
        } else {
            is_allowed(settings, url, address, "an https URL, --cert-file and --key-file")?;
        }
        listens.push(ClientListen { address, tls });
    }
    ensure!(!listens.is_empty(), "at least one URL is needed");
    Ok(listens)
}

/// What clients may call this member.
fn client_hosts(settings: &Settings) -> Vec<String> {
    let urls = settings.listen_client_urls.iter().chain(&settings.advertise_client_urls);
    let authorities = urls.filter_map(|url| authority(url).ok());
    let hosts = authorities.filter_map(|authority| Some(authority.rsplit_once(':')?.0));
    let hosts: BTreeSet<_> = hosts.map(|host| host.trim_matches(['[', ']']).to_owned()).collect();
    hosts.into_iter().collect()
}

fn peer_listen(settings: &Settings) -> Result<SocketAddr> {
    let [url] = &settings.listen_peer_urls[..] else {
        bail!("one URL is needed, and enough");
    };
    let address = address(url)?;
    let scheme = peer_scheme(settings);
    ensure!(
        url.split_once("://").is_some_and(|(found, _)| found == scheme),
        "{url}: {scheme} is what members talk here: https needs --peer-cert-file, --peer-key-file and \
         --peer-trusted-ca-file, and these need https"
    );
    if scheme == "http" {
        let flags = "an https URL, --peer-cert-file, --peer-key-file and --peer-trusted-ca-file";
        is_allowed(settings, url, address, flags)?;
    }
    Ok(address)
}

fn client_tls(settings: &Settings) -> Result<Option<ServerFiles>> {
    let named = &settings.client_tls;
    let [cert, key, ca] = [&named.cert, &named.key, &named.ca].map(|path| !path.as_os_str().is_empty());
    ensure!(cert == key, "client_tls: cert and key come together");
    ensure!(ca || !named.client_cert_auth, "client_tls: client_cert_auth needs ca, against which it checks");
    ensure!(cert || !ca, "client_tls: ca without cert and key: without TLS no client shows a certificate");
    Ok(cert.then(|| ServerFiles {
        cert: named.cert.clone(),
        key: named.key.clone(),
        // As in etcd: who names an authority wants clients to be checked.
        client_ca: ca.then(|| named.ca.clone()),
        client_cert_required: true,
        alpn: tls::ALPN,
    }))
}

fn peer_tls(settings: &Settings) -> Result<Option<TlsFiles>> {
    let tls = &settings.peer_tls;
    let given = [&tls.cert, &tls.key, &tls.ca].map(|path| !path.as_os_str().is_empty());
    ensure!(
        given == [true; 3] || given == [false; 3],
        "peer_tls: cert, key and ca come together: members check each other"
    );
    let allow = match &tls.allow[..] {
        [] => None,
        names => Some(AllowRule::new(names).context("peer_tls.allow")?),
    };
    ensure!(given[0] || allow.is_none(), "peer_tls: allow without cert, key and ca");
    let files = TlsFiles { cert: tls.cert.clone(), key: tls.key.clone(), ca: tls.ca.clone(), allow };
    Ok(given[0].then_some(files))
}

#[cfg(test)]
mod tests {
    use consensus_etcd::AutoCompaction;

    use super::*;
    use crate::settings::KEYS;

    fn planned(settings: &[(&str, &str)]) -> Result<Plan> {
        let mut sources = Sources::new(KEYS, Settings::default());
        for (key, value) in settings {
            sources.flag("--x", key, value)?;
        }
        plan(&sources)
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (settings, words) in [
            (&[("consensus.election_timeout", "400ms")][..], "five times"),
            (&[("listen_client_urls", "https://127.0.0.1:1")], "--cert-file"),
            (&[("listen_client_urls", "http://0.0.0.0:1")], "--allow-plaintext"),
            (&[("listen_client_urls", "unix://x:1")], "only http and https"),
            (&[("listen_client_urls", "")], "at least one"),
            (&[("listen_peer_urls", "http://0.0.0.0:1")], "--allow-plaintext"),
            (&[("listen_peer_urls", "https://127.0.0.1:1")], "--peer-cert-file"),
            (&[("listen_peer_urls", "http://127.0.0.1:1,http://127.0.0.1:2")], "one URL"),
            (&[("metrics.listen", "0.0.0.0:1")], "--metrics-allow-plaintext"),
            (&[("initial_cluster", "a=http://127.0.0.1:1")], "no member \"default\""),
            (&[("initial_cluster", "default=https://127.0.0.1:1")], "peer_tls"),
            (&[("auto_compaction.retention", "soon")], "auto_compaction.retention"),
            (&[("client_tls.cert", "c")], "come together"),
            (&[("client_tls.client_cert_auth", "true")], "needs ca"),
            (&[("client_tls.ca", "c")], "without cert"),
            (&[("peer_tls.cert", "c"), ("peer_tls.key", "k")], "come together"),
            (&[("peer_tls.allow", "a")], "without cert"),
            (&[("name", "x"), ("initial_cluster_from_headless", "s")], "StatefulSet"),
            (
                &[
                    ("name", "x-0"),
                    ("initial_cluster_from_headless", "s"),
                    ("initial_cluster", "x-0=http://127.0.0.1:1"),
                ],
                "exclude each other",
            ),
            (&[("client_tls.cert", "/nowhere"), ("client_tls.key", "/nowhere")], "/nowhere"),
        ] {
            let error = planned(settings).expect_err(words);
            assert!(format!("{error:#}").contains(words), "{settings:?}: {error:#}");
        }
    }

    #[test]
    fn pods_are_planned_from_their_names() {
        let pod = |name| {
            let settings =
                [("name", name), ("initial_cluster_from_headless", "peers"), ("allow_plaintext", "true")];
            planned(&settings).unwrap()
        };
        let (first, last) = (pod("c-0"), pod("c-2"));
        assert_eq!(first.cluster, last.cluster);
        assert!(!first.joins && !last.joins && pod("c-3").joins);
        assert_eq!(first.server.node.listen, SocketAddr::from(([0, 0, 0, 0], 9090)));
        let members = first.cluster.membership().members;
        let urls: Vec<_> = members.into_values().flat_map(|member| member.peer_urls).collect();
        assert_eq!(urls.len(), 3);
        assert!(urls.contains(&"http://c-1.peers:9090".to_owned()), "{urls:?}");
    }

    #[test]
    fn the_first_zones_come_first() {
        for (zone, preferred, priority) in
            [("a", "a,b", 2), ("b", "a,b", 1), ("c", "a,b", 0), ("", "a,b", 0), ("", "", 0), ("a", "", 0)]
        {
            let plan = planned(&[("consensus.zone", zone), ("consensus.preferred_zones", preferred)]);
            assert_eq!(plan.unwrap().server.node.priority, priority, "{zone} of {preferred}");
        }
    }

    #[test]
    fn settings_arrive_where_they_belong() {
        let plan = planned(&[
            ("data_dir", "/d"),
            ("wal_dir", "/w"),
            ("max_txn_ops", "7"),
            ("quota_backend_bytes", "3 MiB"),
            ("disk_reserve_bytes", "5 MiB"),
            ("auto_compaction.retention", "2"),
            ("max_request_bytes", "1 MiB"),
            ("grpc_keepalive.interval", "3s"),
            ("consensus.heartbeat", "20ms"),
            ("consensus.sync_writes", "false"),
            ("initial_cluster_state", "existing"),
            ("consensus.snapshot_entries", "77"),
            ("consensus.entries_per_message_max", "5"),
            ("consensus.zone", "b"),
            ("consensus.preferred_zones", "a,b,c"),
            ("advertise_client_urls", "http://h:1,http://h:2"),
            ("listen_client_urls", "http://127.0.0.1:1,http://[::1]:2"),
        ])
        .unwrap();
        assert_eq!(plan.server.data_dir, Path::new("/d/data"));
        assert_eq!(plan.server.node.log_dir, Path::new("/w"));
        assert_eq!(plan.server.txn_ops_max, 7);
        assert_eq!(plan.server.quota_bytes, 3 << 20);
        assert_eq!(plan.server.reserve_bytes, 5 << 20);
        let two_hours = AutoCompaction::Periodic(Duration::from_secs(7200));
        assert_eq!(plan.server.auto_compaction, Some(two_hours));
        assert_eq!(plan.server.request_bytes_max, 1 << 20);
        assert_eq!(plan.server.keepalive_interval.as_secs(), 3);
        assert_eq!(plan.server.node.timing.heartbeat.as_millis(), 20);
        assert_eq!(plan.server.node.priority, 2);
        assert!(!plan.server.node.sync_writes);
        assert_eq!(plan.server.node.snapshots.entries, 77);
        assert_eq!(plan.server.node.entries_per_message_max, 5);
        assert_eq!(plan.server.node.snapshot_dir, Path::new("/d/snapshots"));
        assert!(plan.joins);
        assert_eq!(plan.server.client_urls, ["http://h:1", "http://h:2"]);
        assert_eq!(plan.clients.len(), 2);
    }
}
