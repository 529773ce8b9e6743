//! Guards in XDP, one for each interface that the settings name: a thread attaches, reads counters into metrics, and
//! leaves the programs attached when the process ends, for the next one to take over.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use dwcp_ebpf::{Action, Config, Guard, Mode};
use metrics::{counter, gauge};

use crate::{
    schema::Guarded,
    settings::{Settings, Xdp},
};

/// How often counters are read.
const READ_INTERVAL: Duration = Duration::from_secs(1);

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
        ..Config::default()
    }
}

impl Guards {
    /// Attaches. An interface that cannot be guarded is told of, and left as it is.
    pub(crate) fn start(settings: &Settings) -> Self {
        let shared = Arc::new(Shared::default());
        let interfaces = settings.xdp.interfaces.clone();
        let config = config(&settings.xdp, settings.datagrams);
        let thread = (!interfaces.is_empty()).then(|| {
            let shared = shared.clone();
            std::thread::Builder::new().name("xdp".to_owned()).spawn(move || {
                let guards =
                    interfaces.into_iter().map(|interface| One::attach(interface, &config)).collect();
                shared.watch(guards);
            })
        });
        let thread = thread.and_then(|spawned| {
            spawned.inspect_err(|error| tracing::error!(%error, "no thread for guards in XDP")).ok()
        });
        Self { shared, thread }
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
    /// What the metrics were told already.
    published: BTreeMap<&'static str, u64>,
}

impl One {
    fn attach(interface: String, config: &Config) -> Self {
        let (guard, reason) = match Guard::attach(&interface, config) {
            Ok(guard) => {
                let refused = guard.native_refused().map(|error| format!("not native: {error}"));
                tracing::info!(interface, mode = %guard.mode(), refused, "datagrams are guarded in XDP");
                (Some(guard), refused)
            }
            Err(error) => {
                tracing::warn!(interface, %error, "datagrams are not guarded in XDP");
                (None, Some(error.to_string()))
            }
        };
        Self { interface, guard, reason, published: BTreeMap::new() }
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

impl Shared {
    fn watch(&self, mut guards: Vec<One>) {
        while !self.stop.load(Relaxed) {
            if self.detach.swap(false, Relaxed) {
                guards.iter_mut().for_each(One::detach);
            }
            let told = guards.iter_mut().map(One::read).collect();
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
            guards.iter().for_each(One::log_events);
            std::thread::sleep(READ_INTERVAL);
        }
    }
}
