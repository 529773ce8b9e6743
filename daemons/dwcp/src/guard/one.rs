//! The guard of one interface: attached, asked for what it counts, and attached anew when the interface has come back.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use dwcp_core::datagram_socket::{DatagramSocket, XdpDatagrams};
use dwcp_ebpf::{Action, Config, Guard, Mode, QUEUES_MAX};
use metrics::{counter, gauge};
use novacron_control::schema::Guarded;

use crate::again::Again;

/// How often the kernel is asked whether an interface has its program still.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
const SOCKETS_GONE: &str = "attached anew; datagrams go by the kernel's UDP until the agent starts again, since its AF_XDP \
                            sockets were those of what was there before";

/// One interface.
pub(super) struct One {
    interface: String,
    config: Config,
    guard: Option<Guard>,
    reason: Option<String>,
    /// Flows that go to AF_XDP sockets.
    steered: HashSet<u64>,
    has_sockets: bool,
    /// The sockets are those of an interface that is no more.
    sockets_are_gone: bool,
    /// Somebody has asked for it.
    is_detached: bool,
    check_at: Instant,
    /// Attempts to attach.
    again: Again,
    /// What the metrics were told already.
    published: BTreeMap<&'static str, u64>,
}

impl One {
    pub(super) fn attach(interface: String, config: &Config) -> Self {
        let mut one = Self {
            interface,
            config: config.clone(),
            guard: None,
            reason: None,
            steered: HashSet::new(),
            has_sockets: false,
            sockets_are_gone: false,
            is_detached: false,
            check_at: Instant::now() + CHECK_INTERVAL,
            again: Again::default(),
            published: BTreeMap::new(),
        };
        one.try_attach();
        one
    }

    fn try_attach(&mut self) {
        let interface = &self.interface;
        match Guard::attach(interface, &self.config) {
            Ok(guard) => {
                let mode = guard.mode();
                tracing::info!(interface, %mode, "datagrams are guarded in XDP");
                self.reason = guard.native_refused().map(ToString::to_string);
                if let Err(error) = guard.clear_flows() {
                    tracing::warn!(interface, %error, "flows of an earlier process are still steered");
                }
                self.guard = Some(guard);
                self.again.reset();
            }
            Err(error) => {
                let error = error.to_string();
                if self.reason.as_ref() != Some(&error) {
                    tracing::warn!(interface, error, "datagrams are not guarded in XDP");
                }
                self.reason = Some(error);
                self.again.failed(Instant::now());
            }
        }
    }

    /// Attaches anew, if the interface has gone and come back, or somebody else has detached the program.
    pub(super) fn check(&mut self) {
        let now = Instant::now();
        if self.is_detached || now < self.check_at {
            return;
        }
        self.check_at = now + CHECK_INTERVAL;
        if let Some(guard) = &self.guard {
            match guard.is_attached() {
                Ok(true) => return,
                Ok(false) => tracing::warn!(interface = self.interface, "the program in XDP is gone"),
                Err(error) => {
                    return tracing::warn!(interface = self.interface, %error, "asking for XDP");
                }
            }
            self.is_up(false);
            self.guard = None;
            self.steered.clear();
            self.sockets_are_gone = self.has_sockets;
        }
        if self.again.is_due(now) {
            self.try_attach();
            if self.guard.is_some() && self.sockets_are_gone {
                self.reason.get_or_insert(SOCKETS_GONE.to_owned());
            }
        }
    }

    /// A socket for each receive queue. Where there is none, datagrams go to the kernel's UDP.
    pub(super) fn open_sockets(&mut self, local: SocketAddr) -> Vec<Arc<dyn DatagramSocket>> {
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
        self.has_sockets = !sockets.is_empty();
        sockets
    }

    /// Makes the flows that are steered those of now. What the kernel refuses goes to its UDP, which is slower, and is tried
    /// again the next time.
    pub(super) fn steer(&mut self, now: &HashSet<u64>) {
        let Some(guard) = self.guard.as_ref().filter(|_| !self.sockets_are_gone) else { return };
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

    pub(super) fn read(&mut self) -> Guarded {
        self.is_up(true);
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
        }
        Guarded {
            interface: self.interface.clone(),
            mode: self.guard.as_ref().map(|guard| guard.mode().to_string()),
            reason: self.reason.clone(),
            packets,
        }
    }

    /// Tells the metric of whether there is a guard.
    fn is_up(&self, is_up: bool) {
        let Some(guard) = &self.guard else { return };
        let mode = match guard.mode() {
            Mode::Native => "native",
            Mode::Generic => "generic",
        };
        gauge!("dwcp_transport_info", "kind" => "xdp", "mode" => mode).set(f64::from(u8::from(is_up)));
    }

    /// Waits for drops that were sampled, and logs them.
    pub(super) fn log_events(&self) {
        let Some(guard) = &self.guard else { return };
        let polled = guard.poll_events(Duration::ZERO, |event| {
            let (source, action) = (event.source, event.action.as_str());
            tracing::debug!(interface = self.interface, %source, action, bytes = event.bytes, "dropped");
        });
        if let Err(error) = polled {
            tracing::debug!(interface = self.interface, %error, "reading events of XDP");
        }
    }

    pub(super) fn detach(&mut self) {
        self.is_up(false);
        self.is_detached = true;
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
