//! A store that is one of several regions: what its leader does for the others.
//!
//! Who leads and has applied everything makes a [`Replicator`](consensus_regions::Replicator), and drops it with its term:
//! `leader` runs it, `alarm` counts what it finds, `service` answers clients, `clock` is the time that goes with changes. That the store is a region at all is an entry of
//! its log, which the first leader whose settings say so proposes (`begin`).
//!
//! Deliberately not here: how messages travel (`consensus-core`), what they do (`consensus-regions`), how it lies on the disk
//! (`consensus-store`).

mod alarm;
mod begin;
mod clock;
mod leader;
mod metrics;
mod service;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use consensus_core::{RegionNetwork, RegionNetworkConfig, Role};
use consensus_regions::{Config, Membership, RegionId};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

pub(crate) use self::clock::{MemberClock, answer as clock_answer, compare as compare_clocks};
use self::leader::Leader;
pub use self::metrics::describe as describe_region_metrics;
use crate::server::Server;

/// Requests for the status that wait.
const QUESTIONS: usize = 16;

/// Settings of a store that is one of several regions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegionsConfig {
    /// Its own number, and where and how others reach it.
    pub network: RegionNetworkConfig,
    /// What regions have in common: keys that begin with this.
    pub prefix: Bytes,
    /// The regions that there were from the beginning, by number, each with its name. The same in all of them.
    pub founders: BTreeMap<u32, String>,
    /// It was added to others that were there before.
    pub joins: bool,
    /// URLs of other regions' members, beside what these tell of themselves.
    pub peers: BTreeMap<u32, Vec<String>>,
    /// What its leader goes by.
    pub replicator: Config,
}

impl RegionsConfig {
    /// One of these regions, with the usual prefix and intervals.
    pub fn new(network: RegionNetworkConfig, founders: BTreeMap<u32, String>) -> Self {
        Self {
            network,
            prefix: Bytes::from_static(b"/global/"),
            founders,
            joins: false,
            peers: BTreeMap::new(),
            replicator: Config::default(),
        }
    }

    /// Its own number.
    pub fn region(&self) -> RegionId {
        RegionId(self.network.region)
    }

    /// Where each other member is found, as far as anybody has said.
    fn urls(&self, membership: &Membership) -> BTreeMap<u32, Vec<String>> {
        let mut all = self.peers.clone();
        for region in membership.regions() {
            let told = membership.get(region).map(|member| Told::read(&member.info)).unwrap_or_default();
            let urls = all.entry(region.0).or_default();
            told.urls.into_iter().for_each(|url| {
                if !urls.contains(&url) {
                    urls.push(url);
                }
            });
        }
        // A region that joins knows no members yet.
        let is_member = |region: u32| membership.is_empty() || membership.contains(RegionId(region));
        all.retain(|region, urls| *region != self.network.region && !urls.is_empty() && is_member(*region));
        all
    }
}

/// What a region tells of itself to the others: its name, then its URLs, between spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) urls: Vec<String>,
}

impl Told {
    pub(crate) fn read(info: &[u8]) -> Self {
        let text = String::from_utf8_lossy(info);
        let mut words = text.split(' ').map(str::to_owned);
        let name = words.next().unwrap_or_default();
        Self { name, urls: words.filter(|word| !word.is_empty()).collect() }
    }

    pub(crate) fn write(&self) -> String {
        std::iter::once(&self.name).chain(&self.urls).map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// What is asked of the leader.
pub(crate) enum Question {
    Status(oneshot::Sender<consensus_proto::regions::StatusResponse>),
}

/// What a server keeps for its region.
#[derive(Debug)]
pub(crate) struct Regions {
    pub(crate) config: Arc<RegionsConfig>,
    pub(crate) network: RegionNetwork,
    questions: mpsc::Sender<Question>,
    /// Taken by the task that answers.
    inputs: Mutex<Option<Inputs>>,
}

#[derive(Debug)]
struct Inputs {
    messages: mpsc::Receiver<(u32, Bytes)>,
    questions: mpsc::Receiver<Question>,
}

/// What the apply thread tells the leader: that there are changes, and whether they are not to wait. Told again before somebody
/// looked, it is the same.
#[derive(Debug, Default)]
pub(crate) struct ChangeNews {
    urgent: std::sync::atomic::AtomicBool,
    told: Notify,
}

impl ChangeNews {
    pub(crate) fn tell(&self, urgent: bool) {
        self.urgent.fetch_or(urgent, std::sync::atomic::Ordering::AcqRel);
        self.told.notify_one();
    }

    /// Waits for changes; whether they are urgent.
    async fn changed(&self) -> bool {
        self.told.notified().await;
        self.urgent.swap(false, std::sync::atomic::Ordering::AcqRel)
    }
}

impl Regions {
    /// Listens for other regions.
    pub(crate) async fn listen(config: RegionsConfig) -> Result<Self, consensus_core::StartError> {
        let (network, messages) = RegionNetwork::listen(config.network.clone()).await?;
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let inputs = Mutex::new(Some(Inputs { messages, questions }));
        Ok(Self { config: Arc::new(config), network, questions: sender, inputs })
    }
}

/// Speaks for the region whenever this member leads it, until the server stops.
pub(crate) async fn run(server: Server) {
    let Some(regions) = &server.shared.regions else { return };
    let Some(mut inputs) = regions.inputs.lock().await.take() else { return };
    let speaking = async {
        let mut status = server.shared.node.watch_status();
        loop {
            if status.wait_for(|status| status.role == Role::Leader).await.is_err() {
                return;
            }
            // Who only believes to lead must not say what others know better.
            let Some(term) = server.lead().await else {
                tokio::time::sleep(begin::RETRY).await;
                continue;
            };
            if begin::begin(&server, regions).await {
                let mut leader = Leader::new(&server, regions);
                regions.network.set_speaking(true);
                let leads =
                    |status: &consensus_core::Status| status.role == Role::Leader && status.term == term;
                let failed = async {
                    leader.run(&mut inputs).await;
                    // It has said why; the next attempt says it again.
                    regions.network.set_speaking(false);
                    tokio::time::sleep(begin::COMPLAIN).await;
                };
                let over = status.wait_for(|status| !leads(status));
                tokio::select! {
                    _ = over => {}
                    () = failed => {}
                }
                regions.network.set_speaking(false);
            }
        }
    };
    tokio::select! {
        () = speaking => {}
        () = server.closing() => {}
    }
}
