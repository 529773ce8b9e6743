//! Tunnels to other nodes: WireGuard between them, and VXLAN over that or over the network that is there. A thread keeps
//! both as peers' greetings say, changes this node's keys, and remembers peers that are away: what others send through a
//! tunnel does not end with the agent at one of its ends.

mod ends;
mod plan;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use dwcp_node::{state, wireguard::POLL_INTERVAL};
use metrics::gauge;
use novacron_control::schema::{self, RefusedPeer};
pub(crate) use plan::Neighbour;

use crate::{
    hub::Hub,
    mtu::Mtus,
    settings::{self, Settings},
};
use ends::{Vxlan, WireGuard};
use plan::{Own, Plan, plan};

/// How often peers' greetings are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that was not connected for so long has no tunnel any more.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Peers that are remembered.
const NEIGHBOURS_MAX: usize = 2048;

/// How often the MTU of what carries the tunnels is looked at.
const UNDERLAY_INTERVAL: Duration = Duration::from_secs(10);

/// This node's ends, opened.
pub(crate) struct Tunnels {
    own: Own,
    wanted: settings::Tunnels,
    underlay_mtu: u32,
    wireguard: Option<WireGuard>,
    vxlan: Option<Vxlan>,
    neighbours: Neighbours,
}

/// Tunnels that are kept; they are left as they are when this is dropped.
pub(crate) struct Kept {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    told: Mutex<schema::Tunnels>,
    stop: AtomicBool,
    remove: AtomicBool,
}

impl Tunnels {
    /// Opens this node's ends, with the tunnels that there were when an agent ran here at last. It blocks. What cannot be
    /// is told of, and done without.
    pub(crate) fn open(settings: &Settings) -> Self {
        let wanted = &settings.tunnels;
        let underlay_mtu = ends::underlay_mtu(wanted, &BTreeMap::new());
        let mut own = Own::new(settings);
        let neighbours = match wanted.address.is_some() || wanted.vxlan.is_some() {
            true => Neighbours::read(&wanted.state),
            false => Neighbours::default(),
        };
        let mut wireguard = match wanted.address {
            Some(address) => WireGuard::read(wanted, address, underlay_mtu),
            None => None,
        };
        own.ends.wireguard = wireguard.as_ref().map(WireGuard::end);
        let mut vxlan = Vxlan::of(wanted, underlay_mtu);
        own.ends.vxlan = vxlan.as_ref().map(Vxlan::end);
        let first = plan(&own, &neighbours.list());
        if let Some(wireguard) = &mut wireguard {
            wireguard.open(&first.wireguard);
        }
        if let Some(vxlan) = &mut vxlan {
            vxlan.set_peers(&first.vxlan);
        }
        Self { own, wanted: wanted.clone(), underlay_mtu, wireguard, vxlan, neighbours }
    }

    /// What others are told of them.
    pub(crate) fn ends(&self) -> schema::TunnelEnds {
        self.own.ends.clone()
    }

    /// Keeps them, on a thread.
    pub(crate) fn keep(self, hub: Arc<Hub>, mtus: Arc<Mtus>) -> Kept {
        let shared = Arc::new(Shared::default());
        if self.wireguard.is_none() && self.vxlan.is_none() {
            return Kept { shared, thread: None };
        }
        let keeping = shared.clone();
        let spawned = std::thread::Builder::new()
            .name("tunnels".to_owned())
            .spawn(move || self.run(&hub, &mtus, &keeping));
        match spawned {
            Ok(thread) => Kept { shared, thread: Some(thread) },
            Err(error) => {
                tracing::error!(%error, "no thread for tunnels");
                Kept { shared, thread: None }
            }
        }
    }

    fn run(mut self, hub: &Hub, mtus: &Mtus, shared: &Shared) {
        let mut look_at = Instant::now();
        let mut underlay_at = look_at + UNDERLAY_INTERVAL;
        let mut done = Plan::default();
        while !shared.stop.load(Relaxed) {
            if shared.remove.load(Relaxed) {
                self.remove();
                shared.tell(self.view(&done));
                return;
            }
            if let Some(wireguard) = &mut self.wireguard {
                wireguard.poll();
            }
            if Instant::now() >= underlay_at {
                underlay_at = Instant::now() + UNDERLAY_INTERVAL;
                self.follow_underlay(mtus);
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_INTERVAL;
                done = self.look(hub);
                shared.tell(self.view(&done));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// An uplink takes more now, or less.
    fn follow_underlay(&mut self, mtus: &Mtus) {
        let underlay_mtu = ends::underlay_mtu(&self.wanted, &mtus.held());
        if underlay_mtu == self.underlay_mtu {
            return;
        }
        self.underlay_mtu = underlay_mtu;
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.set_underlay_mtu(underlay_mtu);
        }
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.set_underlay_mtu(underlay_mtu);
        }
    }

    /// Makes the tunnels those that greetings ask for, and tells of keys that have changed.
    fn look(&mut self, hub: &Hub) -> Plan {
        if let Some(wireguard) = &mut self.wireguard
            && wireguard.turn_keys(SystemTime::now())
        {
            self.own.ends.wireguard = Some(wireguard.end());
            hub.greeting.send_modify(|greeting| greeting.tunnels = self.own.ends.clone());
        }
        self.neighbours.seen(hub.neighbours(), Instant::now());
        let plan = plan(&self.own, &self.neighbours.list());
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.set_peers(&plan.wireguard);
            gauge!("dwcp_tunnels", "kind" => "wireguard").set(plan.wireguard.len() as f64);
        }
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.set_peers(&plan.vxlan);
            gauge!("dwcp_tunnels", "kind" => "vxlan").set(plan.vxlan.len() as f64);
        }
        plan
    }

    fn view(&mut self, done: &Plan) -> schema::Tunnels {
        let refused = done
            .refused
            .iter()
            .map(|(name, reason)| RefusedPeer { name: name.clone(), reason: reason.clone() });
        schema::Tunnels {
            wireguard: self.wireguard.as_mut().map(WireGuard::view),
            vxlan: self.vxlan.as_ref().map(|vxlan| vxlan.view(&done.vxlan)),
            refused: refused.collect(),
        }
    }

    fn remove(&mut self) {
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.remove();
        }
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.remove();
        }
        self.neighbours.forget_all();
    }
}

impl Shared {
    fn tell(&self, tunnels: schema::Tunnels) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = tunnels;
    }
}

impl Kept {
    pub(crate) fn view(&self) -> schema::Tunnels {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the interfaces away.
    pub(crate) fn remove(&self) {
        self.shared.remove.store(true, Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Peers that may have tunnels, connected or not, in a file, too.
#[derive(Default)]
struct Neighbours {
    known: BTreeMap<String, (Neighbour, Instant)>,
    /// None: they are not kept.
    file: Option<std::path::PathBuf>,
}

impl Neighbours {
    /// Those of the file. Without them tunnels begin when peers are connected.
    fn read(file: &Path) -> Self {
        let content = state::read(file).map_err(|error| error.to_string());
        let listed = content.and_then(|content| match content {
            Some(content) => {
                serde_json::from_slice::<Vec<Neighbour>>(&content).map_err(|error| error.to_string())
            }
            None => Ok(Vec::new()),
        });
        let listed = listed.unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), error, "tunnels that there were are not known");
            Vec::new()
        });
        let now = Instant::now();
        let known = listed.into_iter().map(|neighbour| (neighbour.node_id.clone(), (neighbour, now)));
        Self { known: known.collect(), file: Some(file.to_owned()) }
    }

    fn list(&self) -> Vec<Neighbour> {
        self.known.values().map(|(neighbour, _)| neighbour.clone()).collect()
    }

    /// These are connected now.
    fn seen(&mut self, connected: Vec<Neighbour>, now: Instant) {
        let mut changed = false;
        for neighbour in connected {
            let is_new = !self.known.contains_key(&neighbour.node_id);
            if is_new && self.known.len() >= NEIGHBOURS_MAX {
                continue;
            }
            let name = neighbour.node_id.clone();
            let before = self.known.insert(name, (neighbour.clone(), now));
            changed |= before.is_none_or(|(before, _)| before != neighbour);
        }
        let count = self.known.len();
        self.known.retain(|_, (_, seen)| now.duration_since(*seen) < FORGET_AFTER);
        if changed || self.known.len() < count {
            self.write();
        }
    }

    fn forget_all(&mut self) {
        self.known.clear();
        self.write();
    }

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let list = serde_json::to_vec(&self.list()).unwrap_or_default();
        if let Err(error) = state::write(file, &list) {
            tracing::warn!(%error, "the next start will not know these tunnels");
        }
    }
}

impl Own {
    fn new(settings: &Settings) -> Self {
        let wanted = &settings.tunnels;
        Self {
            region: settings.transport.endpoint.region.clone(),
            within_region: wanted.within_region,
            ends: schema::TunnelEnds::default(),
            network: wanted.address.and_then(|(address, prefix): (IpAddr, u8)| {
                dwcp_node::wireguard::Network::new(address, prefix)
            }),
            over_wireguard: wanted.vxlan == Some(crate::settings::VxlanEnd::WireGuard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(name: &str) -> Neighbour {
        Neighbour {
            node_id: name.to_owned(),
            region: None,
            address: IpAddr::from([192, 0, 2, 1]),
            ends: schema::TunnelEnds::default(),
        }
    }

    #[test]
    fn who_is_away_is_remembered_for_a_while_and_over_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tunnels.json");
        let begin = Instant::now();
        let mut neighbours = Neighbours::read(&file);
        neighbours.seen(vec![neighbour("b"), neighbour("c")], begin);
        neighbours.seen(vec![neighbour("c")], begin + FORGET_AFTER / 2);
        assert_eq!(Neighbours::read(&file).list(), [neighbour("b"), neighbour("c")]);
        neighbours.seen(vec![], begin + FORGET_AFTER);
        assert_eq!(Neighbours::read(&file).list(), [neighbour("c")]);
        std::fs::write(&file, "nonsense").expect("written");
        assert_eq!(Neighbours::read(&file).list(), [], "it goes on without");
    }
}
