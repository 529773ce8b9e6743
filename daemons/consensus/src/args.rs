//! Flags, named as etcd's where etcd has one for the same.

use std::{net::SocketAddr, net::ToSocketAddrs as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use consensus_core::{NodeConfig, Timing};
use consensus_etcd::{InitialCluster, ServerConfig, TokenKind, authority};

use crate::LogFormat;

/// One member of a replicated store that etcd's clients can use.
///
/// All members of a new cluster are started with the same --initial-cluster; each keeps its data in its own --data-dir.
#[derive(Parser, Debug)]
#[command(name = "novacron-consensus", version)]
pub(crate) struct Args {
    /// Name of this member in --initial-cluster.
    #[arg(long, default_value = "default")]
    name: String,
    /// Folder for its data; NAME.consensus if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where it listens for clients.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2379")]
    listen_client_urls: String,
    /// Where clients find it; --listen-client-urls if not given.
    #[arg(long, value_name = "URLS")]
    advertise_client_urls: Option<String>,
    /// Where it listens for the other members.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    listen_peer_urls: String,
    /// Where the other members find it, if --initial-cluster is not given; --listen-peer-urls if not given.
    #[arg(long, value_name = "URL")]
    initial_advertise_peer_urls: Option<String>,
    /// All first members as NAME=URL,NAME=URL; this one alone if not given.
    #[arg(long, value_name = "LIST")]
    initial_cluster: Option<String>,
    /// Whether the members begin a new cluster, or this one joins a cluster that has added it.
    #[arg(long, value_enum, default_value_t = ClusterState::New)]
    initial_cluster_state: ClusterState,
    /// Tells clusters apart that are made of the same members.
    #[arg(long, value_name = "TEXT", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Milliseconds between heartbeats of the leader.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    heartbeat_interval: u64,
    /// Milliseconds without a heartbeat after which a member campaigns; at least five heartbeats.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=600_000))]
    election_timeout: u64,
    /// Entries after which the state is saved, and the log gets shorter.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..))]
    snapshot_count: u64,
    /// What clients get for a right password: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=NAME,ttl=DURATION.
    #[arg(long, value_name = "KIND", default_value = "simple")]
    auth_token: String,
    /// Seconds that a simple token lives after its last use.
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    auth_token_ttl: u64,
    /// bcrypt's cost of new passwords: one more takes twice as long.
    #[arg(long, value_name = "COST", default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=31))]
    bcrypt_cost: u32,
    /// Allows plaintext on addresses other than loopback: whoever reaches one can read and write everything.
    #[arg(long)]
    allow_plaintext: bool,
    /// Format of log lines, which go to standard error; RUST_LOG chooses which.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClusterState {
    New,
    Existing,
}

/// What a member is started with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Its node does not know yet who it is.
    pub(crate) server: ServerConfig,
    pub(crate) listen_clients: SocketAddr,
    pub(crate) cluster: InitialCluster,
    /// It joins a cluster that has added it, if it has no log.
    pub(crate) joins: bool,
}

impl std::fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The address of a URL to listen on.
fn address(flag: &str, url: &str) -> Result<SocketAddr> {
    ensure!(!url.contains(','), "{flag}: {url}: one URL is enough here");
    let authority = authority(url).with_context(|| flag.to_owned())?;
    let mut addresses = authority.to_socket_addrs().with_context(|| format!("{flag}: {url}"))?;
    addresses.next().with_context(|| format!("{flag}: {url}: no address"))
}

impl Args {
    pub(crate) fn settings(self) -> Result<Settings> {
        if self.election_timeout < 5 * self.heartbeat_interval {
            bail!(
                "--election-timeout {} must be at least five times --heartbeat-interval {}",
                self.election_timeout,
                self.heartbeat_interval
            );
        }
        let listen_clients = address("--listen-client-urls", &self.listen_client_urls)?;
        let listen_peers = address("--listen-peer-urls", &self.listen_peer_urls)?;
        for (flag, listen) in [("--listen-client-urls", listen_clients), ("--listen-peer-urls", listen_peers)]
        {
            ensure!(
                listen.ip().is_loopback() || self.allow_plaintext,
                "{flag}: {listen} can be reached by others, and there is no encryption yet: --allow-plaintext allows it"
            );
        }
        let own = self.initial_advertise_peer_urls.as_ref().unwrap_or(&self.listen_peer_urls);
        let list = self.initial_cluster.clone().unwrap_or_else(|| format!("{}={own}", self.name));
        let cluster =
            InitialCluster::parse(&list, &self.initial_cluster_token).context("--initial-cluster")?;
        cluster.member_id(&self.name).context("--name")?;
        let data_dir = self.data_dir.clone().unwrap_or_else(|| format!("{}.consensus", self.name).into());
        let mut node = NodeConfig::new(0, 0, data_dir.join("log"), listen_peers);
        node.snapshots.entries = self.snapshot_count;
        node.timing = Timing {
            heartbeat: Duration::from_millis(self.heartbeat_interval),
            election_timeout: Duration::from_millis(self.election_timeout),
        };
        node.allow_plaintext = self.allow_plaintext;
        let mut server = ServerConfig::new(node, data_dir.join("data"), self.name);
        server.auth.token =
            TokenKind::parse(&self.auth_token, |path| std::fs::read(path)).context("--auth-token")?;
        server.auth.token_ttl = Duration::from_secs(self.auth_token_ttl);
        server.auth.bcrypt_cost = self.bcrypt_cost;
        let advertised = self.advertise_client_urls.unwrap_or(self.listen_client_urls);
        server.client_urls = advertised.split(',').map(str::to_owned).collect();
        std::fs::create_dir_all(&data_dir).with_context(|| format!("--data-dir {}", data_dir.display()))?;
        let joins = self.initial_cluster_state == ClusterState::Existing;
        Ok(Settings { server, listen_clients, cluster, joins })
    }
}
