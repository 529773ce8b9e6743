//! Tunnels to other nodes: WireGuard between them, and VXLAN over that or over the network that is there. A thread keeps
//! both as peers' greetings say, changes this node's keys, and remembers peers that are away: what others send through a
//! tunnel does not end with the agent at one of its ends.

mod left;
mod neighbours;
mod plan;
mod underlay;
mod vxlan;
mod wireguard;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use dwcp_node::{state::Lock, wireguard::POLL_INTERVAL};
use metrics::gauge;
use novacron_control::schema::{self, RefusedPeer};
pub(crate) use plan::Neighbour;

use crate::{
    hub::Hub,
    mtu::Mtus,
    settings::{self, Settings},
};
use neighbours::{Made, Neighbours};
use plan::{Own, Plan, plan};
use underlay::Underlay;
use vxlan::Vxlan;
use wireguard::WireGuard;

/// How often peers' greetings are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the kernel is asked what it has of the tunnels, and what carries them.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// This node's ends, opened.
pub(crate) struct Tunnels {
    own: Own,
    underlay: Underlay,
    wireguard: Option<WireGuard>,
    vxlan: Option<Vxlan>,
    neighbours: Neighbours,
    plan: Plan,
    /// For as long as the interfaces and their file are this agent's.
    lock: Option<Lock>,
    /// They are another agent's: this one makes none.
    are_others: bool,
}

/// Tunnels that are kept; they are left as they are when this is dropped.
pub(crate) struct Kept {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// If there is no thread, which has it then.
    lock: Option<Lock>,
    state: PathBuf,
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
        let underlay = Underlay::new(wanted);
        let below = underlay.below();
        let wireguard = wanted.address.map(|address| WireGuard::new(wanted, address, below.wireguard));
        let vxlan = Vxlan::of(wanted, below);
        let (own, neighbours, plan) = (Own::new(settings), Neighbours::default(), Plan::default());
        let mut opened =
            Self { own, underlay, wireguard, vxlan, neighbours, plan, lock: None, are_others: false };
        match left::lock(wanted) {
            Ok(lock) => opened.begin(lock, wanted),
            Err(error) => opened.leave_to_others(&error.to_string()),
        }
        opened
    }

    fn begin(&mut self, lock: Option<Lock>, wanted: &settings::Tunnels) {
        if lock.is_some() || wanted.address.is_some() || wanted.vxlan.is_some() {
            self.neighbours = Neighbours::read(&wanted.state);
        }
        if lock.is_some() {
            left::take_away(&mut self.neighbours, left::wanted(wanted));
        }
        self.lock = lock;
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.read_keys(Instant::now());
            self.own.ends.wireguard = wireguard.end();
        }
        self.own.ends.vxlan = self.vxlan.as_ref().map(Vxlan::end);
        self.plan = plan(&self.own, &self.neighbours.list());
        self.apply();
    }

    /// Two that keep the same interfaces would take them from each other all the time.
    fn leave_to_others(&mut self, why: &str) {
        self.are_others = true;
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.withhold(why.to_owned());
        }
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.withhold(why.to_owned());
        }
    }

    /// What others are told of them.
    pub(crate) fn ends(&self) -> schema::TunnelEnds {
        self.own.ends.clone()
    }

    /// Keeps them, on a thread.
    pub(crate) fn keep(mut self, hub: Arc<Hub>, mtus: Arc<Mtus>, settings: &Settings) -> Kept {
        let shared = Arc::new(Shared::default());
        let state = settings.tunnels.state.clone();
        if self.are_others || (self.wireguard.is_none() && self.vxlan.is_none()) {
            self.count();
            shared.tell(self.view());
            return Kept { shared, thread: Mutex::default(), lock: self.lock, state };
        }
        let keeping = shared.clone();
        let spawned = std::thread::Builder::new()
            .name("tunnels".to_owned())
            .spawn(move || self.run(&hub, &mtus, &keeping));
        match spawned {
            Ok(thread) => Kept { shared, thread: Mutex::new(Some(thread)), lock: None, state },
            Err(error) => {
                tracing::error!(%error, "no thread for tunnels");
                Kept { shared, thread: Mutex::default(), lock: None, state }
            }
        }
    }

    fn run(mut self, hub: &Hub, mtus: &Mtus, shared: &Shared) {
        let mut look_at = Instant::now();
        let mut check_at = look_at + CHECK_INTERVAL;
        while !shared.stop.load(Relaxed) {
            if shared.remove.load(Relaxed) {
                self.remove(hub);
                shared.tell(self.view());
                return;
            }
            if let Some(wireguard) = &mut self.wireguard {
                wireguard.poll();
            }
            if Instant::now() >= check_at {
                check_at = Instant::now() + CHECK_INTERVAL;
                self.check(hub, mtus);
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_INTERVAL;
                self.look(hub);
                shared.tell(self.view());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        self.let_go(mtus);
    }

    /// Does not believe for ever that the kernel has what it was told, nor that paths carry what they did.
    fn check(&mut self, hub: &Hub, mtus: &Mtus) {
        // Paths through uplinks that may be raised are measured anew by who raises them.
        self.underlay.look(&self.plan.outside, &hub.reached().0, &mtus.held(), !mtus.is_on());
        self.follow_underlay();
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.check();
        }
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.doubt();
        }
    }

    fn follow_underlay(&mut self) {
        let below = self.underlay.below();
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.set_mtu(below.wireguard);
        }
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.set_below(below);
        }
    }

    /// Uplinks that were raised are put back when this has ended, and tunnels stay: they are to fit then, too.
    fn let_go(&mut self, mtus: &Mtus) {
        let former = mtus.former();
        if !former.is_empty() {
            self.underlay.let_go(&former, &self.plan.outside);
            self.follow_underlay();
            self.apply();
        }
    }

    /// Makes the tunnels those that greetings ask for, and tells of keys that have changed.
    fn look(&mut self, hub: &Hub) {
        if let Some(wireguard) = &mut self.wireguard
            && (wireguard.read_keys(Instant::now()) || wireguard.turn_keys(SystemTime::now()))
        {
            self.own.ends.wireguard = wireguard.end();
            self.greet(hub);
        }
        self.neighbours.seen(hub.neighbours(), Instant::now());
        self.plan = plan(&self.own, &self.neighbours.list());
        self.apply();
        self.count();
    }

    /// Makes them what is planned.
    fn apply(&mut self) {
        let now = Instant::now();
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.look(&self.plan.wireguard, now);
        }
        if let Some(vxlan) = &mut self.vxlan {
            let wireguard = self.wireguard.as_ref().and_then(WireGuard::interface_index);
            vxlan.look(&self.plan.vxlan, wireguard, now);
        }
    }

    fn greet(&self, hub: &Hub) {
        hub.greeting.send_modify(|greeting| greeting.tunnels = self.own.ends.clone());
    }

    /// What there is, not what there should be.
    fn count(&self) {
        if let Some(wireguard) = &self.wireguard {
            gauge!("dwcp_tunnels", "kind" => "wireguard").set(wireguard.count() as f64);
        }
        if let Some(vxlan) = &self.vxlan {
            gauge!("dwcp_tunnels", "kind" => "vxlan").set(vxlan.count() as f64);
        }
    }

    fn view(&mut self) -> schema::Tunnels {
        let refused = self
            .plan
            .refused
            .iter()
            .map(|(name, reason)| RefusedPeer { name: name.clone(), reason: reason.clone() });
        schema::Tunnels {
            wireguard: self.wireguard.as_mut().map(WireGuard::view),
            vxlan: self.vxlan.as_ref().map(|vxlan| vxlan.view(&self.plan.vxlan)),
            refused: refused.collect(),
        }
    }

    fn remove(&mut self, hub: &Hub) {
        // First: peers send nothing to what is not there.
        self.own.ends = schema::TunnelEnds::default();
        self.greet(hub);
        if let Some(vxlan) = &mut self.vxlan {
            vxlan.remove();
        }
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.remove();
        }
        self.neighbours.forget_all();
        self.neighbours.set_made(Made::default());
        self.plan = Plan::default();
        self.count();
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

    /// Takes the interfaces away, those that an earlier process has left too; whether there are any. It blocks.
    pub(crate) fn remove(&self) -> bool {
        if self.thread.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return left::take_away_all(self.lock.as_ref(), &self.state);
        }
        !self.shared.remove.swap(true, Relaxed)
    }

    /// Keeps them no more, and leaves them so that they fit when uplinks are put back; it blocks.
    pub(crate) fn end(&self) {
        self.shared.stop.store(true, Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.end();
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
