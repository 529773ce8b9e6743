//! Guards in XDP, one for each interface that the settings name: a thread attaches, reads counters into metrics, and
//! leaves the programs attached when the process ends, for the next one to take over.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dwcp_core::{
    Endpoint,
    datagram_socket::{DatagramSocket, XdpDatagrams},
};
use dwcp_ebpf::{Action, Config, Guard, Mode, QUEUES_MAX};
use metrics::{counter, gauge};
use novacron_control::schema::Guarded;
use tokio::sync::watch;

use crate::settings::{Settings, Xdp};

/// How often counters are read.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a new flow is steered; until then it goes by the kernel's UDP.
const STEER_INTERVAL: Duration = Duration::from_millis(100);

/// The guards of one agent.
pub(crate) struct Guards {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
        if interfaces.is_empty() {
            return Self { shared, thread: None };
        }
        let config = config(&settings.xdp, settings.datagrams());
        let steered = endpoint.datagram_addr().filter(|_| settings.xdp.sockets);
        let flows = endpoint.watch_datagram_flows();
        // The kernel's answers may take a while; and the thread that attaches keeps the guards.
        let (opened, sockets) = tokio::sync::oneshot::channel();
        let watching = shared.clone();
        let spawned = std::thread::Builder::new().name("xdp".to_owned()).spawn(move || {
            let mut guards: Vec<_> =
                interfaces.into_iter().map(|interface| One::attach(interface, &config)).collect();
            let sockets = match steered {
                Some(local) => guards.iter_mut().flat_map(|guard| guard.open_sockets(local)).collect(),
                None => Vec::new(),
            };
            let _ = opened.send(sockets);
            watching.watch(guards, flows);
        });
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                tracing::error!(%error, "no thread for guards in XDP");
                return Self { shared, thread: None };
            }
        };
        for socket in sockets.await.unwrap_or_default() {
            if let Err(error) = endpoint.add_datagram_socket(socket) {
                tracing::warn!(%error, "an AF_XDP socket is not used");
            }
        }
        Self { shared, thread: Some(thread) }
    }

    pub(crate) fn view(&self) -> Vec<Guarded> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the programs off their interfaces.
    pub(crate) fn detach(&self) {
        self.shared.detach.store(true, Relaxed);
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

/// One interface.
struct One {
    interface: String,
    guard: Option<Guard>,
    reason: Option<String>,
    /// Flows that go to AF_XDP sockets.
    steered: HashSet<u64>,
    /// What the metrics were told already.
    published: BTreeMap<&'static str, u64>,
}

impl One {
    fn attach(interface: String, config: &Config) -> Self {
        let (guard, reason) = match Guard::attach(&interface, config) {
            Ok(guard) => {
                let refused = guard.native_refused().map(|error| format!("not native: {error}"));
                tracing::info!(interface, mode = %guard.mode(), refused, "datagrams are guarded in XDP");
                if let Err(error) = guard.clear_flows() {
                    tracing::warn!(interface, %error, "flows of an earlier process are still steered");
                }
                (Some(guard), refused)
            }
            Err(error) => {
                tracing::warn!(interface, %error, "datagrams are not guarded in XDP");
                (None, Some(error.to_string()))
            }
        };
        Self { interface, guard, reason, steered: HashSet::new(), published: BTreeMap::new() }
    }

    /// A socket for each receive queue. Where there is none, datagrams go to the kernel's UDP.
    fn open_sockets(&mut self, local: SocketAddr) -> Vec<Arc<dyn DatagramSocket>> {
        let Some(guard) = &self.guard else { return Vec::new() };
        let queues = receive_queues(&self.interface);
        let mut sockets: Vec<Arc<dyn DatagramSocket>> = Vec::new();
        for queue in 0..queues {
            let opened = XdpDatagrams::open(&self.interface, queue, local)
                .map_err(|error| error.to_string())
                .and_then(|socket| {
                    guard.set_socket(queue, socket.readiness()).map_err(|error| error.to_string())?;
                    Ok(socket)
                });
            match opened {
                Ok(socket) => sockets.push(Arc::new(socket)),
                Err(error) => {
                    tracing::warn!(interface = self.interface, queue, error, "no AF_XDP socket");
                    self.reason.get_or_insert(format!("no AF_XDP socket at queue {queue}: {error}"));
                }
            }
        }
        sockets
    }

    /// Makes the flows that are steered those of now. What the kernel refuses goes to its UDP, which is slower, and is tried
    /// again the next time.
    fn steer(&mut self, now: &HashSet<u64>) {
        let Some(guard) = &self.guard else { return };
        let (interface, steered) = (&self.interface, &mut self.steered);
        let done = |result: Result<(), dwcp_ebpf::Error>| match result {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(interface, %error, "a flow is not steered as it should be");
                false
            }
        };
        steered.retain(|flow| now.contains(flow) || !done(guard.remove_flow(*flow)));
        let missing: Vec<_> = now.difference(steered).copied().collect();
        steered.extend(missing.into_iter().filter(|flow| done(guard.add_flow(*flow))));
    }

    fn read(&mut self) -> Guarded {
        let mut packets = BTreeMap::new();
        if let Some(guard) = &self.guard {
            match guard.totals() {
                Ok(totals) => {
                    for action in Action::ALL {
                        let (label, count) = (action.as_str(), totals.of(action).packets);
                        let published = self.published.insert(label, count).unwrap_or(0);
                        counter!("dwcp_xdp_packets_total", "action" => label)
                            .increment(count.saturating_sub(published));
                        packets.insert(label.to_owned(), count);
                    }
                }
                Err(error) => tracing::warn!(interface = self.interface, %error, "reading counters of XDP"),
            }
            let mode = match guard.mode() {
                Mode::Native => "native",
                Mode::Generic => "generic",
            };
            gauge!("dwcp_transport_info", "kind" => "xdp", "mode" => mode).set(1.0);
        }
        Guarded {
            interface: self.interface.clone(),
            mode: self.guard.as_ref().map(|guard| guard.mode().to_string()),
            reason: self.reason.clone(),
            packets,
        }
    }

    /// Waits for drops that were sampled, and logs them.
    fn log_events(&self) {
        let Some(guard) = &self.guard else { return };
        let polled = guard.poll_events(Duration::ZERO, |event| {
            let (source, action) = (event.source, event.action.as_str());
            tracing::debug!(interface = self.interface, %source, action, bytes = event.bytes, "dropped");
        });
        if let Err(error) = polled {
            tracing::debug!(interface = self.interface, %error, "reading events of XDP");
        }
    }

    fn detach(&mut self) {
        if let Some(guard) = self.guard.take() {
            self.reason = Some("detached on request".to_owned());
            match guard.detach() {
                Ok(()) => tracing::info!(interface = self.interface, "datagrams are not guarded any more"),
                Err(error) => tracing::error!(interface = self.interface, %error, "detaching from XDP"),
            }
        }
    }
}

/// How many there are, as far as a guard can have sockets.
fn receive_queues(interface: &str) -> u32 {
    let queues = std::fs::read_dir(format!("/sys/class/net/{interface}/queues")).map(|entries| {
        entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rx-")).count()
    });
    u32::try_from(queues.unwrap_or(1)).map_or(QUEUES_MAX, |queues| queues.clamp(1, QUEUES_MAX))
}

impl Shared {
    fn watch(&self, mut guards: Vec<One>, mut flows: watch::Receiver<HashSet<u64>>) {
        let mut read_at = Instant::now();
        while !self.stop.load(Relaxed) {
            if self.detach.swap(false, Relaxed) {
                guards.iter_mut().for_each(One::detach);
            }
            let now = flows.borrow_and_update().clone();
            guards.iter_mut().for_each(|guard| guard.steer(&now));
            if Instant::now() >= read_at {
                read_at += READ_INTERVAL;
                let told = guards.iter_mut().map(One::read).collect();
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
                guards.iter().for_each(One::log_events);
            }
            std::thread::sleep(STEER_INTERVAL);
        }
        // The next process has other flows, and these have no socket any more.
        guards.iter_mut().for_each(|guard| guard.steer(&HashSet::new()));
    }
}
