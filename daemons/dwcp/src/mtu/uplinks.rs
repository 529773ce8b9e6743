//! Uplinks, and one look at all of them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use dwcp_core::Connection;
use dwcp_node::mtu::{self, Interface, MTU_MIN, MtuError, Pace, Peer, Plan, Reason, Underlay, Uplink};

use super::told::Told;
use crate::{hub::Reached, settings::Settings};

/// Uplinks that are looked after; more are left as they are.
const UPLINKS_MAX: usize = 16;
/// How often routes are looked at that may be new.
const ROUTES_INTERVAL: Duration = Duration::from_secs(5);

/// What this agent says to its peers, of the uplink that takes least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// What it may be raised to.
    pub(super) offered: Option<u32>,
    /// What it takes now.
    pub(super) taken: Option<u32>,
}

pub(crate) struct Uplinks {
    wanted: u32,
    /// If there are any: the only ones that are raised.
    only: Vec<String>,
    /// Those whose datagrams go to AF_XDP sockets.
    xdp: Vec<String>,
    state: PathBuf,
    began: Instant,
    known: BTreeMap<String, Known>,
    /// Up to which size a connection was told to look, by the number of the connection.
    asked: HashMap<u64, u32>,
    pub(super) told: Vec<Told>,
    has_ended: bool,
}

/// An interface through which peers are, or were, reached.
struct Known {
    /// While it is raised.
    raised: Option<Raised>,
    pace: Pace,
    /// Why it is not raised again, whatever peers say.
    obstacle: Option<String>,
}

#[derive(Clone, Copy)]
struct Raised {
    former: u32,
    device: u32,
    traffic: u32,
    routes_at: Instant,
}

/// An uplink at one look.
struct Look<'a> {
    interface: Interface,
    members: Vec<(&'a Reached, SocketAddr)>,
}

impl Uplinks {
    pub(super) fn new(settings: &Settings) -> Self {
        let has_sockets = settings.xdp.sockets && settings.datagrams().is_some();
        Self {
            wanted: settings.mtu,
            only: settings.mtu_interfaces.clone(),
            xdp: if has_sockets { settings.xdp.interfaces.clone() } else { Vec::new() },
            state: settings.mtu_state.clone(),
            began: Instant::now(),
            known: BTreeMap::new(),
            asked: HashMap::new(),
            told: Vec::new(),
            has_ended: false,
        }
    }

    /// Looks at all uplinks, and does what is due. Returns what peers should hear, if it is known.
    pub(super) fn round(&mut self, peers: &[Reached], missing: usize) -> Option<Said> {
        if self.has_ended {
            return None;
        }
        let looks = match self.look(peers) {
            Ok(looks) => looks,
            Err(error) => {
                tracing::warn!(%error, "the ways to peers are not known");
                return None;
            }
        };
        let connected: HashSet<u64> = peers.iter().map(|peer| peer.number).collect();
        self.asked.retain(|number, _| connected.contains(number));
        self.told.clear();
        let mut said: Option<Said> = None;
        for look in looks {
            let of_this = self.uplink(&look, missing);
            if !look.members.is_empty() {
                said = Some(said.map_or(of_this, |said| Said {
                    offered: said.offered.min(of_this.offered),
                    taken: said.taken.min(of_this.taken),
                }));
            }
        }
        Some(said.unwrap_or(Said { offered: None, taken: None }))
    }

    pub(super) fn held(&self) -> BTreeMap<String, u32> {
        let held = |(name, known): (&String, &Known)| Some((name.clone(), known.raised?.traffic));
        self.known.iter().filter_map(held).collect()
    }

    pub(super) fn former(&self) -> BTreeMap<String, u32> {
        let former = |(name, known): (&String, &Known)| Some((name.clone(), known.raised?.former));
        self.known.iter().filter_map(former).collect()
    }

    /// The uplinks, with who is reached through each; those that are raised and lead to nobody any more, too.
    fn look<'a>(&mut self, peers: &'a [Reached]) -> Result<Vec<Look<'a>>, MtuError> {
        let addresses: Vec<_> = peers.iter().map(|peer| address(&peer.connection)).collect();
        let (names, found) = mtu::interfaces_to(&addresses)?;
        let now = self.began.elapsed();
        self.known.retain(|name, known| {
            let is_remembered = known.raised.is_some() || known.obstacle.is_some() || known.pace.rests(now);
            is_remembered || found.contains_key(name)
        });
        let mut looks: BTreeMap<String, Look<'_>> = BTreeMap::new();
        for (name, interface) in found {
            if self.known.len() >= UPLINKS_MAX && !self.known.contains_key(&name) {
                continue;
            }
            let known = Known { raised: None, pace: Pace::default(), obstacle: None };
            self.known.entry(name.clone()).or_insert(known);
            looks.insert(name, Look { interface, members: Vec::new() });
        }
        for ((peer, address), name) in peers.iter().zip(addresses).zip(names) {
            if let Some(look) = name.and_then(|name| looks.get_mut(&name)) {
                look.members.push((peer, address));
            }
        }
        for (name, known) in &self.known {
            if let Some(raised) = known.raised.filter(|_| !looks.contains_key(name)) {
                let interface = Interface {
                    name: name.clone(),
                    mtu: raised.device,
                    mtu_max: raised.device,
                    obstacle: None,
                };
                looks.insert(name.clone(), Look { interface, members: Vec::new() });
            }
        }
        Ok(looks.into_values().collect())
    }

    fn uplink(&mut self, look: &Look<'_>, missing: usize) -> Said {
        let Interface { name, mtu, mtu_max, .. } = &look.interface;
        let obstacle = self.obstacle(&look.interface);
        let now = self.began.elapsed();
        let known = self.known.get_mut(name).expect("looked at");
        let uplink = match known.raised {
            Some(Raised { former, device, traffic, .. }) => {
                Uplink { former, device, traffic, limit: self.wanted.min(*mtu_max).max(device) }
            }
            None => {
                let limit = if obstacle.is_some() { *mtu } else { self.wanted.min(*mtu_max).max(*mtu) };
                Uplink { former: *mtu, device: *mtu, traffic: *mtu, limit }
            }
        };
        let peers = measured(&mut self.asked, uplink, look);
        let plan = mtu::plan(uplink, &peers, missing);
        let due = known.pace.follow(now, uplink, plan);
        let failed = known.act(name, uplink, &due, &self.state);
        let (former, device, traffic) = match known.raised {
            Some(raised) => (raised.former, raised.device, raised.traffic),
            None => (uplink.former, uplink.former, uplink.former),
        };
        let counts = !known.pace.is_leaving() && !known.pace.rests(now) && known.obstacle.is_none();
        let is_v6 = look.members.iter().any(|(_, address)| address.ip().to_canonical().is_ipv6());
        self.told.push(Told {
            interface: name.clone(),
            former,
            device,
            traffic,
            is_enough: due.reason == Reason::Already && obstacle.is_none(),
            reason: failed.or(obstacle).unwrap_or_else(|| due.reason.to_string()),
            underlay: if is_v6 { Underlay::V6 } else { Underlay::V4 },
        });
        Said {
            offered: Some(if counts { uplink.limit } else { former }),
            taken: Some(if counts { device } else { former }),
        }
    }

    /// Why an interface is not raised, whatever peers say.
    fn obstacle(&self, interface: &Interface) -> Option<String> {
        let name = &interface.name;
        if interface.mtu < MTU_MIN {
            return Some(format!("it has less than the {MTU_MIN} of every link"));
        }
        if !self.only.is_empty() && !self.only.contains(name) {
            return Some("it is not among node.mtu_interfaces".to_owned());
        }
        if self.xdp.contains(name) {
            return Some(
                "AF_XDP sockets hold no larger packets: set xdp.sockets to false for those".to_owned(),
            );
        }
        let known = self.known.get(name);
        if interface.obstacle.is_none()
            && known.is_none_or(|known| known.raised.is_none())
            && interface.mtu_max <= interface.mtu
            && interface.mtu < self.wanted
        {
            return Some(format!("the device takes {} at most", interface.mtu_max));
        }
        known.and_then(|known| known.obstacle.clone()).or_else(|| interface.obstacle.clone())
    }

    /// Holds what is sent to what it was; whether there is something to put back.
    pub(super) fn let_go(&mut self) -> bool {
        self.has_ended = true;
        let mut some = false;
        for (name, known) in &self.known {
            let Some(raised) = known.raised else { continue };
            some = true;
            if let Err(error) = mtu::allow(name, raised.former, &self.state) {
                tracing::warn!(interface = name, %error, "larger packets are sent to the end");
            }
        }
        some
    }

    /// Puts back everything.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
        put_back(None, &self.state);
        self.told.clear();
    }
}

impl Known {
    /// Makes an uplink what it is to be. Why it is not.
    fn act(&mut self, name: &str, uplink: Uplink, due: &Plan, state: &std::path::Path) -> Option<String> {
        let Some(raised) = &mut self.raised else {
            if due.device <= uplink.former {
                return None;
            }
            return match mtu::raise(name, due.device, state) {
                Ok(()) => {
                    tracing::info!(
                        interface = name,
                        from = uplink.former,
                        to = due.device,
                        "MTU raised, to be tried"
                    );
                    let (former, device) = (uplink.former, due.device);
                    self.raised = Some(Raised { former, device, traffic: former, routes_at: Instant::now() });
                    None
                }
                Err(error) => self.give_up(name, &error, state),
            };
        };
        if due.device == uplink.former {
            put_back(Some(name), state);
            tracing::info!(interface = name, reason = %due.reason, "MTU put back");
            self.raised = None;
            return None;
        }
        if due.traffic == raised.traffic && raised.routes_at.elapsed() < ROUTES_INTERVAL {
            return None;
        }
        match mtu::allow(name, due.traffic, state) {
            Ok(()) => {
                if due.traffic != raised.traffic {
                    tracing::info!(
                        interface = name,
                        from = raised.traffic,
                        to = due.traffic,
                        reason = %due.reason,
                        "packets are of another size"
                    );
                }
                (raised.traffic, raised.routes_at) = (due.traffic, Instant::now());
                None
            }
            Err(error) => self.give_up(name, &error, state),
        }
    }

    fn give_up(&mut self, name: &str, error: &MtuError, state: &std::path::Path) -> Option<String> {
        tracing::warn!(interface = name, %error, "MTU left as it was");
        put_back(Some(name), state);
        self.raised = None;
        self.obstacle = Some(error.to_string());
        self.obstacle.clone()
    }
}

fn put_back(interface: Option<&str>, state: &std::path::Path) {
    match mtu::restore(interface, state) {
        Ok(reports) => reports.iter().for_each(|report| tracing::info!("{report}")),
        Err(error) => tracing::error!(%error, "an MTU stays raised"),
    }
}

/// What peers say, and what their paths have proved, of sizes that both ends take now.
fn measured(asked: &mut HashMap<u64, u32>, uplink: Uplink, look: &Look<'_>) -> Vec<Peer> {
    let peer = |(reached, _): &(&Reached, SocketAddr)| {
        let greeting = &reached.greeting;
        let (offered, taken) = match greeting.draining {
            true => (None, None),
            false => (greeting.mtu_offered, greeting.mtu_taken),
        };
        let most = taken.unwrap_or(uplink.former).clamp(uplink.former, uplink.device);
        if asked.insert(reached.number, most) != Some(most) {
            reached.connection.search_path_mtu(most);
        }
        let path = reached.connection.path();
        Peer {
            name: greeting.node_id.clone(),
            offered,
            taken,
            carried: path.as_ref().map_or(0, |path| path.mtu),
            is_searching: path.is_some_and(|path| path.is_searching),
        }
    };
    look.members.iter().map(peer).collect()
}

/// Where a peer's datagrams go, or its links if there are none.
fn address(connection: &Connection) -> SocketAddr {
    connection.path().map_or(connection.peer().addr, |path| path.peer)
}
