//! What the member tells over HTTP, beside its API.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use anyhow::Result;
use consensus_core::Role;
use consensus_etcd::Server;
use consensus_regions::Phase;
use novacron_admin::{AdminError, Listener, Metrics, Observed, Page};
use serde::Serialize;

use crate::plan::Plan;

/// Entries that are committed and not applied here; with more, a member is not ready: what is read from it is old.
const LAG_MAX: u64 = 1000;

/// The process, from before its data is opened.
#[derive(Clone)]
pub(crate) struct Process {
    began: Instant,
    name: String,
    server: Arc<OnceLock<Server>>,
}

/// What `/status` says. Fields are added, never given another meaning.
#[derive(Debug, Serialize)]
pub(crate) struct ProcessStatus {
    program: &'static str,
    version: &'static str,
    pid: u32,
    uptime_seconds: f64,
    name: String,
    ready: bool,
    /// Not there until the data is open.
    member: Option<MemberStatus>,
}

#[derive(Debug, Serialize)]
struct MemberStatus {
    /// In hexadecimal, as etcdctl shows ids.
    id: String,
    cluster: String,
    draining: bool,
    role: &'static str,
    leader: Option<String>,
    term: u64,
    last_index: u64,
    commit_index: u64,
    applied_index: u64,
    revision: i64,
    proposals_pending: usize,
    members: Vec<PeerStatus>,
    /// Not there in a store that is alone.
    region: Option<RegionStatus>,
}

#[derive(Debug, Serialize)]
struct RegionStatus {
    number: u32,
    prefix: String,
    /// It takes a snapshot of others, and neither writes nor merges yet.
    joining: bool,
    /// How many changes of each region are known here, by number.
    known: BTreeMap<u32, u64>,
}

#[derive(Debug, Serialize)]
struct PeerStatus {
    id: String,
    name: String,
    is_learner: bool,
    peer_urls: Vec<String>,
    client_urls: Vec<String>,
}

impl Process {
    pub(crate) fn new(name: &str) -> Self {
        Self { began: Instant::now(), name: name.to_owned(), server: Arc::default() }
    }

    /// Its data is open.
    pub(crate) fn started(&self, server: Server) {
        let _ = self.server.set(server);
    }

    /// Answers over HTTP as the settings say; `None`: nobody asked for it, and the port is taken.
    pub(crate) async fn serve(&self, plan: &Plan, metrics: Metrics) -> Result<Observing> {
        let Some(address) = plan.metrics.listen else { return Ok(Observing::Off { _metrics: metrics }) };
        match Listener::bind(address, plan.metrics.allow_plaintext).await {
            Ok(listener) => {
                let server = listener.serve(metrics, self.clone());
                tracing::info!(address = %server.address(), "serving metrics and health");
                Ok(Observing::On { _server: server })
            }
            Err(AdminError::Io { source, .. }) if plan.metrics_by_default => {
                tracing::warn!(%address, error = %source, "no metrics and health over HTTP: --metrics-listen chooses another address");
                Ok(Observing::Off { _metrics: metrics })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Ends with the value.
pub(crate) enum Observing {
    On {
        _server: novacron_admin::Server,
    },
    /// Metrics are recorded all the same, for the port of clients.
    Off {
        _metrics: Metrics,
    },
}

/// Tells the recorder what the metrics mean.
pub(crate) fn describe_metrics() {
    consensus_core::describe_metrics();
    consensus_etcd::describe_region_metrics();
    dwcp_core::describe_metrics();
    novacron_trace::describe_metrics();
}

impl Observed for Process {
    type Status = ProcessStatus;

    fn is_started(&self) -> bool {
        self.server.get().is_some_and(|server| {
            let node = server.node();
            node.membership().members.contains_key(&node.id())
        })
    }

    fn is_ready(&self) -> bool {
        self.server.get().is_some_and(|server| {
            let status = server.node().status();
            let lag = status.commit.saturating_sub(status.applied);
            status.leader.is_some() && lag <= LAG_MAX && !server.is_draining()
        })
    }

    fn status(&self) -> ProcessStatus {
        ProcessStatus {
            program: "novacron-consensus",
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            name: self.name.clone(),
            ready: self.is_ready(),
            member: self.server.get().map(MemberStatus::of),
        }
    }

    async fn page(&self, path: &str) -> Option<Page> {
        match (path, self.server.get()) {
            ("/health", Some(server)) => {
                let (ok, json) = server.health().await;
                Some(Page { ok, json })
            }
            ("/health", None) => {
                Some(Page { ok: false, json: r#"{"health":"false","reason":"starting"}"#.into() })
            }
            ("/version", _) => Some(Page { ok: true, json: consensus_etcd::version_json() }),
            _ => None,
        }
    }
}

impl MemberStatus {
    fn of(server: &Server) -> Self {
        let node = server.node();
        let status = node.status();
        let membership = node.membership();
        let hexadecimal = |id| format!("{id:x}");
        let peer = |(id, info): (&u64, &consensus_core::MemberInfo)| PeerStatus {
            id: hexadecimal(*id),
            name: info.name.clone(),
            is_learner: membership.is_learner(*id),
            peer_urls: info.peer_urls.clone(),
            client_urls: info.client_urls.clone(),
        };
        Self {
            id: hexadecimal(node.id()),
            cluster: hexadecimal(node.cluster()),
            draining: server.is_draining(),
            role: match status.role {
                Role::Leader => "leader",
                Role::Follower => "follower",
                _ => "candidate",
            },
            leader: status.leader.map(hexadecimal),
            term: status.term,
            last_index: status.last,
            commit_index: status.commit,
            applied_index: status.applied,
            revision: server.revision(),
            proposals_pending: node.proposals_pending(),
            members: membership.members.iter().map(peer).collect(),
            region: server.reader().with_region(|prefix, local| RegionStatus {
                number: local.replica.region().0,
                prefix: String::from_utf8_lossy(prefix).into_owned(),
                joining: local.replica.phase() == Phase::Joining,
                known: local.replica.version().iter().map(|(region, known)| (region.0, known)).collect(),
            }),
        }
    }
}
