//! Guards in XDP, one for each interface that the settings name: a thread attaches, reads counters into metrics, and
//! leaves the programs attached when the process ends, for the next one to take over.

mod addresses;
mod counts;
mod left;
pub(crate) mod mode;
mod one;
mod sockets;

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use addresses::Addresses;
use dwcp_core::Endpoint;
use dwcp_ebpf::Config;
use novacron_control::schema::Guarded;
use one::One;
use sockets::Sockets;
use tokio::sync::watch;

use crate::settings::{Settings, Xdp};

/// How often counters are read.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a new flow is steered; until then it goes by the kernel's UDP.
const STEER_INTERVAL: Duration = Duration::from_millis(100);

/// Peers whose counts are metrics: as many as the kernel counts.
const PEERS_COUNTED_MAX: usize = 4096;

/// The guards of one agent.
pub(crate) struct Guards {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    pins: PathBuf,
}

#[derive(Default)]
struct Shared {
    told: Mutex<Vec<Guarded>>,
    stop: AtomicBool,
    detach: AtomicBool,
}

/// What a guard is told.
pub(crate) fn config(xdp: &Xdp, datagrams: Option<SocketAddr>) -> Config {
    Config {
        ports: vec![datagrams.map_or(8889, |address| address.port())],
        mode: xdp.mode,
        deny: xdp.deny.clone(),
        allow: xdp.allow.clone(),
        limit: xdp.limit,
        failure: xdp.failure,
        root: xdp.pins.clone(),
        ..Config::default()
    }
}

impl Guards {
    /// Attaches, and adds AF_XDP sockets to the endpoint. An interface that cannot be guarded is told of, and left as it is.
    pub(crate) async fn start(settings: &Settings, endpoint: &Endpoint) -> Self {
        let shared = Arc::new(Shared::default());
        let interfaces = settings.xdp.interfaces.clone();
        let pins = settings.xdp.pins.clone();
        let (unwanted, wanted) = (pins.clone(), interfaces.clone());
        let left = tokio::task::spawn_blocking(move || left::take_away(&unwanted, &wanted)).await;
        let left = left.unwrap_or_default();
        shared.tell(left.clone());
        if interfaces.is_empty() {
            return Self { shared, thread: None, pins };
        }
        // Without datagrams the settings are refused.
        let Some(listen) = endpoint.datagram_addr() else { return Self { shared, thread: None, pins } };
        let mut config = config(&settings.xdp, Some(listen));
        let steered = Some(listen).filter(|_| settings.xdp.sockets);
        let flows = endpoint.watch_datagram_flows();
        // The kernel's answers may take a while; and the thread that attaches keeps the guards.
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (watching, endpoint) = (shared.clone(), endpoint.clone());
        let runtime = tokio::runtime::Handle::current();
        let spawned = std::thread::Builder::new().name("xdp".to_owned()).spawn(move || {
            let _inside = runtime.enter();
            let mut addresses = Addresses::new(listen);
            addresses.look();
            config.addresses = addresses.now().to_vec();
            let sockets = || Sockets::new(&endpoint, steered);
            let attach = |interface| One::attach(interface, &config, sockets());
            let guards: Vec<_> = interfaces.into_iter().map(attach).collect();
            let _ = begun.send(());
            watching.watch(guards, &left, addresses, flows, &endpoint);
        });
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                tracing::error!(%error, "no thread for guards in XDP");
                return Self { shared, thread: None, pins };
            }
        };
        let _ = has_begun.await;
        Self { shared, thread: Some(thread), pins }
    }

    pub(crate) fn view(&self) -> Vec<Guarded> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the programs off their interfaces, those that an earlier process has left too; whether there is one. It blocks.
    pub(crate) fn detach(&self) -> bool {
        if self.thread.is_none() {
            let before = dwcp_ebpf::pinned(&self.pins).len();
            self.shared.tell(left::take_away(&self.pins, &[]));
            return dwcp_ebpf::pinned(&self.pins).len() < before;
        }
        let told = self.view();
        self.shared.detach.store(true, Relaxed);
        // It is told of a moment after the start.
        told.is_empty() || told.iter().any(|guarded| guarded.mode.is_some())
    }
}

impl Drop for Guards {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn tell(&self, guarded: Vec<Guarded>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = guarded;
    }

    fn watch(
        &self,
        mut guards: Vec<One>,
        left: &[Guarded],
        mut addresses: Addresses,
        mut flows: watch::Receiver<HashSet<u64>>,
        endpoint: &Endpoint,
    ) {
        let mut read_at = Instant::now();
        while !self.stop.load(Relaxed) {
            if self.detach.swap(false, Relaxed) {
                guards.iter_mut().for_each(One::detach);
            }
            guards.iter_mut().for_each(One::check);
            let now = flows.borrow_and_update().clone();
            guards.iter_mut().for_each(|guard| guard.steer(&now));
            if Instant::now() >= read_at {
                read_at += READ_INTERVAL;
                if addresses.look() {
                    guards.iter_mut().for_each(|guard| guard.set_addresses(addresses.now()));
                }
                let known = counts::known(endpoint.datagram_peers(PEERS_COUNTED_MAX));
                let told = guards.iter_mut().map(|guard| guard.read(&known));
                self.tell(told.chain(left.iter().cloned()).collect());
                guards.iter().for_each(One::log_events);
            }
            std::thread::sleep(STEER_INTERVAL);
        }
        // The next process has other flows, and these have no socket any more.
        guards.iter_mut().for_each(|guard| guard.steer(&HashSet::new()));
    }
}
