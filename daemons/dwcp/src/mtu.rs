//! The MTU of the interfaces that lead to peers: raised where all of them agree and all paths carry it, and put back.
//!
//! Owns: whose word counts, and when it is asked for. What follows from it is decided, recorded and done by
//! [`dwcp_node::mtu`]; paths are measured by the datagrams of connections. All that blocks is off the runtime.

mod told;
mod uplinks;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dwcp_node::{mtu, state::Lock};
use novacron_control::schema::{Capability, Tuned};

use crate::{hub::Hub, settings::Settings, tuning};
use uplinks::Uplinks;

/// Between looks at peers and their paths, if nothing happens before, and at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// At the end: for peers to send nothing larger any more, before the interface takes no more.
const LET_GO_TIME: Duration = Duration::from_secs(1);

/// The uplinks of one agent.
#[derive(Default)]
pub(crate) enum Mtus {
    /// `node.set_mtu` is off.
    #[default]
    Off,
    /// They are left as they are, and what was done to them earlier, too, for this reason.
    Failed(String),
    /// They may be raised.
    On {
        uplinks: Mutex<Uplinks>,
        /// For as long as what was set is this agent's.
        _lock: Lock,
    },
}

impl Mtus {
    /// Puts back what an earlier process has left, unless it runs still; it blocks.
    pub(crate) fn begin(settings: &Settings) -> Self {
        Self::try_begin(settings).unwrap_or_else(|error| {
            tracing::error!(error, "no MTU is raised, and none is put back");
            Self::Failed(error)
        })
    }

    fn try_begin(settings: &Settings) -> Result<Self, String> {
        let lock = Lock::take_if(settings.set_mtu, &settings.mtu_state).map_err(|error| error.to_string())?;
        let Some(lock) = lock else { return Ok(Self::Off) };
        let reports = mtu::restore(None, &settings.mtu_state).map_err(|error| error.to_string())?;
        reports.iter().for_each(|report| tracing::info!("{report}"));
        Ok(match settings.set_mtu {
            true => Self::On { uplinks: Mutex::new(Uplinks::new(settings)), _lock: lock },
            false => Self::Off,
        })
    }

    /// Looks and acts until it is aborted.
    pub(crate) async fn run(self: Arc<Self>, hub: Arc<Hub>) {
        while self.is_on() {
            let changed = hub.until_changed();
            let (mtus, looked) = (self.clone(), hub.clone());
            let round = tokio::task::spawn_blocking(move || mtus.round(&looked));
            if let Err(error) = round.await {
                return tracing::error!(%error, "MTUs stay as they are");
            }
            let _ = tokio::time::timeout(LOOK_INTERVAL, changed).await;
            tokio::time::sleep(LOOK_INTERVAL_MIN).await;
        }
    }

    /// Whether uplinks may be raised.
    pub(crate) fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    fn round(&self, hub: &Hub) {
        let (peers, missing) = hub.reached();
        let Some(said) = self.with(|uplinks| uplinks.round(&peers, missing)).flatten() else { return };
        hub.greeting.send_if_modified(|greeting| {
            let now = (said.offered, said.taken);
            let changed = (greeting.mtu_offered, greeting.mtu_taken) != now && !greeting.draining;
            if changed {
                (greeting.mtu_offered, greeting.mtu_taken) = now;
            }
            changed
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Uplinks) -> T) -> Option<T> {
        let Self::On { uplinks, .. } = self else { return None };
        Some(work(&mut uplinks.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Sends nothing larger any more, and takes it for a little longer; the greeting has said so.
    pub(crate) async fn let_go(self: &Arc<Self>) {
        let mtus = self.clone();
        let held = tokio::task::spawn_blocking(move || mtus.with(Uplinks::let_go));
        if held.await.ok().flatten() == Some(true) {
            tokio::time::sleep(LET_GO_TIME).await;
        }
    }

    /// Puts back.
    pub(crate) async fn end(self: &Arc<Self>) {
        let mtus = self.clone();
        let _ = tokio::task::spawn_blocking(move || mtus.with(Uplinks::end)).await;
    }

    /// What is sent through the uplinks that are raised, in bytes, by their names.
    pub(crate) fn held(&self) -> BTreeMap<String, u32> {
        self.with(|uplinks| uplinks.held()).unwrap_or_default()
    }

    /// What the uplinks that are raised are put back to, in bytes, by their names.
    pub(crate) fn former(&self) -> BTreeMap<String, u32> {
        self.with(|uplinks| uplinks.former()).unwrap_or_default()
    }

    /// Of each uplink, what it is and why.
    pub(crate) fn view(&self) -> Vec<Tuned> {
        match self {
            Self::Failed(error) => vec![tuning::failed("MTU of uplinks", error)],
            _ => self.with(|uplinks| uplinks.told.iter().map(told::tuned).collect()).unwrap_or_default(),
        }
    }

    /// The same, as what the node can do.
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        match self {
            Self::Failed(error) => vec![told::failed(error)],
            _ => self
                .with(|uplinks| uplinks.told.iter().map(told::capability).collect())
                .unwrap_or_else(|| vec![told::off()]),
        }
    }
}
