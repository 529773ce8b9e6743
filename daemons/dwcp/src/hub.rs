//! What the tasks of an agent share: its connections, where peers should be, and what others have measured.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dwcp_core::{Connection, Endpoint};
use metrics::{Gauge, gauge};
use novacron_control::{
    Target,
    schema::{Greeting, PATHS_MAX, Path, Peer, Row},
};
use tokio::{
    sync::{Notify, futures::Notified, watch},
    time::Instant,
};

use crate::{
    identity::Identities,
    peers::{Admission, Dialer, Kept, Peers},
    tunnels::Neighbour,
};

/// Nodes whose measurements are kept; those of more are ignored.
const ROWS_MAX: usize = 4096;
/// A path that was not told of again for so long is none any more.
const PATH_KEPT: Duration = Duration::from_secs(20);
/// The code with which a connection is closed that another has taken the place of.
const DUPLICATE: u32 = 1;

pub(crate) struct Hub {
    pub(crate) endpoint: Endpoint,
    pub(crate) identities: Identities,
    /// What this agent says of itself.
    pub(crate) greeting: watch::Sender<Greeting>,
    state: Mutex<State>,
    /// A connection has ended or begun, or a peer said something new of itself.
    changed: Notify,
}

struct State {
    peers: Peers<Standing>,
    wanted: BTreeMap<Target, Wanted>,
    rows: BTreeMap<String, Told>,
}

/// A connection that is kept.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) connection: Connection,
    since: Instant,
}

/// A connected peer.
pub(crate) struct Reached {
    pub(crate) connection: Connection,
    pub(crate) greeting: Greeting,
    /// Tells the connection from others to the same peer.
    pub(crate) number: u64,
}

/// An address at which a peer should be.
#[derive(Default)]
struct Wanted {
    /// Who was there at last.
    node_id: Option<String>,
    error: Option<String>,
    missing: Option<Missing>,
}

/// What a node told of its paths, in pieces that may be lost.
struct Told {
    region: Option<String>,
    paths: BTreeMap<String, (Path, Instant)>,
    at: Instant,
}

/// Counts as a connection that should be there, until it is dropped.
struct Missing(Gauge);

impl Missing {
    fn new() -> Self {
        let gauge = gauge!("dwcp_expected_connections");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Hub {
    pub(crate) fn new(endpoint: Endpoint, greeting: Greeting, identities: Identities) -> Self {
        let state = State {
            peers: Peers::new(&greeting.node_id, greeting.instance),
            wanted: BTreeMap::new(),
            rows: BTreeMap::new(),
        };
        Self {
            endpoint,
            identities,
            greeting: watch::Sender::new(greeting),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admit(
        &self,
        connection: &Connection,
        dialer: Dialer,
        greeting: &Greeting,
    ) -> Admission<()> {
        let standing = Standing { connection: connection.clone(), since: Instant::now() };
        let mut state = self.lock();
        let admission = match state.peers.admit(standing, dialer, greeting.clone(), &connection.peer().names)
        {
            Admission::Kept { number, replaced } => {
                if let Some(replaced) = replaced {
                    replaced.connection.close(DUPLICATE, "another connection has taken its place");
                }
                Admission::Kept { number, replaced: None }
            }
            Admission::Duplicate => Admission::Duplicate,
            Admission::Ourselves => Admission::Ourselves,
            Admission::Namesake => Admission::Namesake,
            Admission::Impostor => Admission::Impostor,
            Admission::Full => Admission::Full,
        };
        if matches!(admission, Admission::Kept { .. }) {
            for wanted in state.wanted.values_mut() {
                wanted.found(&greeting.node_id);
            }
        }
        drop(state);
        self.changed.notify_waiters();
        admission
    }

    pub(crate) fn ended(&self, node_id: &str, number: u64) {
        let mut state = self.lock();
        let State { peers, wanted, rows } = &mut *state;
        if peers.ended(node_id, number).is_some() {
            rows.remove(node_id);
            for wanted in wanted.values_mut().filter(|wanted| wanted.node_id.as_deref() == Some(node_id)) {
                wanted.missing.get_or_insert_with(Missing::new);
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn greeted(&self, number: u64, greeting: Greeting) {
        self.lock().peers.greeted(number, greeting);
        self.changed.notify_waiters();
    }

    /// Waits until a connection begins or ends, or a peer says something new of itself, from this call on.
    pub(crate) fn until_changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Peers that are connected, and how many are not that should be.
    pub(crate) fn reached(&self) -> (Vec<Reached>, usize) {
        let state = self.lock();
        let reached = |kept: &Kept<Standing>| Reached {
            connection: kept.connection.connection.clone(),
            greeting: kept.greeting.clone(),
            number: kept.number,
        };
        let missing = state.wanted.values().filter(|wanted| wanted.missing.is_some()).count();
        (state.peers.iter().map(reached).collect(), missing)
    }

    /// A peer told how it reaches others.
    pub(crate) fn told(&self, greeting: &Greeting, paths: Vec<Path>) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.rows.len() >= ROWS_MAX && !state.rows.contains_key(&greeting.node_id) {
            return;
        }
        let new = || Told { region: None, paths: BTreeMap::new(), at: now };
        let told = state.rows.entry(greeting.node_id.clone()).or_insert_with(new);
        told.region.clone_from(&greeting.region);
        told.at = now;
        told.paths.retain(|_, (_, at)| now.duration_since(*at) < PATH_KEPT);
        for path in paths {
            if told.paths.len() < PATHS_MAX || told.paths.contains_key(&path.to) {
                told.paths.insert(path.to.clone(), (path, now));
            }
        }
    }

    /// Waits until there is no connection to this peer.
    pub(crate) async fn until_disconnected(&self, node_id: &str) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().peers.get(node_id).is_none() {
                return;
            }
            changed.await;
        }
    }

    /// A connected peer: its connection, and what it says of itself.
    pub(crate) fn peer(&self, node_id: &str) -> Option<(Connection, Greeting)> {
        let state = self.lock();
        let kept = state.peers.get(node_id)?;
        Some((kept.connection.connection.clone(), kept.greeting.clone()))
    }

    /// What tunnels have to know of the peers that are connected.
    pub(crate) fn neighbours(&self) -> Vec<Neighbour> {
        let state = self.lock();
        let neighbour = |kept: &Kept<Standing>| Neighbour {
            node_id: kept.greeting.node_id.clone(),
            region: kept.greeting.region.clone(),
            address: kept.connection.connection.peer().addr.ip().to_canonical(),
            ends: kept.greeting.tunnels.clone(),
        };
        state.peers.iter().map(neighbour).collect()
    }

    /// Where a peer was found when this agent looked for it.
    pub(crate) fn target_of(&self, node_id: &str) -> Option<Target> {
        self.lock().target_of(node_id).cloned()
    }

    pub(crate) fn connected(&self) -> usize {
        self.lock().peers.len()
    }

    pub(crate) fn missing(&self) -> usize {
        self.lock().wanted.values().filter(|wanted| wanted.missing.is_some()).count()
    }

    /// A peer is looked for there from now on.
    pub(crate) fn want(&self, target: &Target) {
        let wanted = Wanted { missing: Some(Missing::new()), ..Wanted::default() };
        self.lock().wanted.insert(target.clone(), wanted);
    }

    /// And from now on not any more. If a peer was found there and nowhere else, its connection ends.
    pub(crate) fn unwant(&self, target: &Target) {
        let mut state = self.lock();
        let State { peers, wanted, .. } = &mut *state;
        let Some(Wanted { node_id: Some(node_id), .. }) = wanted.remove(target) else { return };
        if wanted.values().any(|other| other.node_id.as_deref() == Some(&node_id)) {
            return;
        }
        if let Some(kept) = peers.get(&node_id).filter(|kept| kept.dialer == Dialer::Us) {
            kept.connection.connection.close(0, "no longer among the peers");
        }
    }

    /// Who was found there.
    pub(crate) fn found(&self, target: &Target, greeting: &Greeting, is_us: bool) {
        let mut state = self.lock();
        let State { peers, wanted, .. } = &mut *state;
        let Some(wanted) = wanted.get_mut(target) else { return };
        wanted.node_id = Some(greeting.node_id.clone());
        if is_us || peers.get(&greeting.node_id).is_some() {
            wanted.found(&greeting.node_id);
        }
    }

    pub(crate) fn not_found(&self, target: &Target, why: String) {
        if let Some(wanted) = self.lock().wanted.get_mut(target) {
            wanted.error = Some(why);
            wanted.missing.get_or_insert_with(Missing::new);
        }
    }

    /// Ends all connections that are kept.
    pub(crate) fn close_all(&self) {
        let standing: Vec<_> =
            self.lock().peers.iter().map(|kept| kept.connection.connection.clone()).collect();
        standing.iter().for_each(|connection| connection.close(0, "the agent ends"));
    }

    /// How this node reaches its peers.
    pub(crate) fn paths(&self) -> Vec<Path> {
        let standing: Vec<_> = {
            let state = self.lock();
            state.peers.iter().take(PATHS_MAX).map(|kept| kept.connection.connection.clone()).collect()
        };
        standing.iter().filter_map(path).collect()
    }

    /// All measurements that are known, this node's first.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let own = self.greeting.borrow().clone();
        let mut rows =
            vec![Row { from: own.node_id, region: own.region, age_seconds: 0.0, paths: self.paths() }];
        let state = self.lock();
        rows.extend(state.rows.iter().map(|(from, told)| Row {
            from: from.clone(),
            region: told.region.clone(),
            age_seconds: told.at.elapsed().as_secs_f64(),
            paths: told.paths.values().map(|(path, _)| path.clone()).collect(),
        }));
        rows
    }

    /// Peers that are connected, and addresses at which nobody is.
    pub(crate) fn view(&self) -> Vec<Peer> {
        let (kept, missing) = {
            let state = self.lock();
            let target = |node_id: &str| state.target_of(node_id).map(Target::to_string);
            let kept: Vec<_> = state
                .peers
                .iter()
                .map(|Kept { connection, dialer, greeting, .. }| {
                    (connection.clone(), *dialer, greeting.clone(), target(&greeting.node_id))
                })
                .collect();
            let missing: Vec<_> = state
                .wanted
                .iter()
                .filter(|(_, wanted)| wanted.missing.is_some())
                .map(|(target, wanted)| (target.to_string(), wanted.error.clone()))
                .collect();
            (kept, missing)
        };
        let connected = kept.into_iter().map(|(standing, dialer, greeting, target)| {
            let peer = standing.connection.peer();
            Peer {
                greeting: Some(greeting),
                target,
                address: Some(peer.addr.to_string()),
                names: peer.names.clone(),
                dialed_by_us: dialer == Dialer::Us,
                connected_seconds: Some(standing.since.elapsed().as_secs_f64()),
                path: path(&standing.connection),
                links: standing.connection.stats().links.iter().map(|l| l.transport.to_owned()).collect(),
                error: None,
            }
        });
        let missing = missing.into_iter().map(|(target, error)| Peer {
            greeting: None,
            target: Some(target),
            address: None,
            names: Vec::new(),
            dialed_by_us: true,
            connected_seconds: None,
            path: None,
            links: Vec::new(),
            error: Some(error.unwrap_or_else(|| "not connected yet".to_owned())),
        });
        connected.chain(missing).collect()
    }
}

impl State {
    fn target_of(&self, node_id: &str) -> Option<&Target> {
        let found = |wanted: &Wanted| wanted.node_id.as_deref() == Some(node_id);
        self.wanted.iter().find_map(|(target, wanted)| found(wanted).then_some(target))
    }
}

impl Wanted {
    fn found(&mut self, node_id: &str) {
        if self.node_id.as_deref() == Some(node_id) {
            self.error = None;
            self.missing = None;
        }
    }
}

/// How a connection reaches its peer; nothing while it has no link.
fn path(connection: &Connection) -> Option<Path> {
    let stats = connection.stats();
    let best = stats.links.iter().min_by_key(|link| link.rtt)?;
    let probed = connection.path();
    if let Some((path, rtt)) = probed.as_ref().and_then(|path| Some((path, path.rtt.as_ref()?))) {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        return Some(Path {
            to: connection.peer().node_id.clone(),
            rtt_ms: ms(rtt.smoothed),
            rtt_min_ms: ms(rtt.min),
            jitter_ms: Some(ms(rtt.jitter)),
            loss_ratio: path.loss_ratio,
            mtu_bytes: Some(path.mtu),
        });
    }
    Some(Path {
        to: connection.peer().node_id.clone(),
        rtt_ms: best.rtt.as_secs_f64() * 1e3,
        rtt_min_ms: best.rtt_min.as_secs_f64() * 1e3,
        jitter_ms: None,
        loss_ratio: stats.links.iter().map(|link| link.loss_ratio).fold(0.0, f64::max),
        mtu_bytes: stats.links.iter().filter_map(|link| link.path_mtu).min(),
    })
}
