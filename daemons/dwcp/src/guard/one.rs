//! The guard of one interface: attached, asked for what it counts, and attached anew when the interface has come back.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use dwcp_ebpf::{Action, Config, Guard, Mode};
use metrics::{counter, gauge};
use novacron_control::schema::Guarded;

use super::{
    counts::{Labels, Told},
    mode,
    sockets::Sockets,
};
use crate::again::Again;

/// How often the kernel is asked whether an interface has its program still.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// One interface.
pub(super) struct One {
    interface: String,
    config: Config,
    guard: Option<Guard>,
    reason: Option<String>,
    /// Flows that the guard knows: they go to AF_XDP sockets where there are some.
    steered: HashSet<u64>,
    sockets: Sockets,
    /// Somebody has asked for it.
    is_detached: bool,
    check_at: Instant,
    /// Attempts to attach.
    again: Again,
    /// What the metrics were told already.
    published: BTreeMap<&'static str, u64>,
    /// And of known peers.
    told: Told,
}

impl One {
    /// In a tokio runtime, as [`check`](Self::check): sockets are opened, too.
    pub(super) fn attach(interface: String, config: &Config, sockets: Sockets) -> Self {
        let mut one = Self {
            interface,
            config: config.clone(),
            guard: None,
            reason: None,
            steered: HashSet::new(),
            sockets,
            is_detached: false,
            check_at: Instant::now() + CHECK_INTERVAL,
            again: Again::default(),
            published: BTreeMap::new(),
            told: Told::default(),
        };
        one.try_attach();
        one
    }

    fn try_attach(&mut self) {
        let interface = &self.interface;
        let mode = self.config.mode.or_else(|| mode::preferred(interface));
        match Guard::attach(interface, &Config { mode, ..self.config.clone() }) {
            Ok(guard) => {
                let mode = guard.mode();
                tracing::info!(interface, %mode, "datagrams are guarded in XDP");
                if let Err(error) = guard.clear_flows() {
                    tracing::warn!(interface, %error, "flows of an earlier process are still steered");
                }
                self.guard = Some(guard);
                self.again.reset();
                self.open_sockets(Instant::now());
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

    /// Opens the AF_XDP sockets that are missing, and says what is not as it could be.
    fn open_sockets(&mut self, now: Instant) {
        let Some(guard) = &self.guard else { return };
        let missing = self.sockets.open(&self.interface, guard, now);
        self.reason = guard.native_refused().map(ToString::to_string).or(missing);
    }

    /// Attaches anew, if the interface has gone and come back, or somebody else has detached the program. Sockets that could
    /// not be opened are tried again.
    pub(super) fn check(&mut self) {
        let now = Instant::now();
        if self.is_detached || now < self.check_at {
            return;
        }
        self.check_at = now + CHECK_INTERVAL;
        if let Some(guard) = &self.guard {
            match guard.is_attached() {
                Ok(true) => return self.open_sockets(now),
                Ok(false) => tracing::warn!(interface = self.interface, "the program in XDP is gone"),
                Err(error) => {
                    return tracing::warn!(interface = self.interface, %error, "asking for XDP");
                }
            }
            self.is_up(false);
            self.guard = None;
            self.steered.clear();
            // They are those of what was there before, and the guard that comes gets new ones.
            self.sockets.close();
        }
        if self.again.is_due(now) {
            self.try_attach();
        }
    }

    /// These addresses of the node are guarded from now on.
    pub(super) fn set_addresses(&mut self, addresses: &[IpAddr]) {
        self.config.addresses = addresses.to_vec();
        let Some(guard) = &self.guard else { return };
        match guard.set_addresses(addresses) {
            Ok(()) => tracing::info!(interface = self.interface, ?addresses, "these addresses are guarded"),
            Err(error) => tracing::warn!(interface = self.interface, %error, "other addresses are guarded"),
        }
    }

    /// Makes the flows that are steered those of now. What the kernel refuses goes to its UDP, which is slower, and is tried
    /// again the next time.
    pub(super) fn steer(&mut self, now: &HashSet<u64>) {
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

    /// Reads counters into metrics. `known`: peers, and where their datagrams come from.
    pub(super) fn read(&mut self, known: &BTreeMap<IpAddr, Labels>) -> Guarded {
        self.is_up(true);
        self.count_peers(known);
        self.sockets.count(&self.interface);
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
            sent: self.sockets.sent(),
        }
    }

    fn count_peers(&mut self, known: &BTreeMap<IpAddr, Labels>) {
        let Some(guard) = &self.guard else { return };
        for (source, labels) in known {
            let counts = match guard.peer(*source) {
                Ok(Some(peer)) => self.told.new_of(*source, peer.by_action()),
                Ok(None) => continue,
                Err(error) => {
                    return tracing::warn!(interface = self.interface, %error, "reading counters of XDP");
                }
            };
            for (action, new) in Action::ALL.into_iter().zip(counts).filter(|(_, new)| *new > 0) {
                let [peer, region] = labels.clone();
                let labels = [peer, region, ("action", action.as_str().to_owned())];
                counter!("dwcp_xdp_peer_packets_total", &labels).increment(new);
            }
        }
        self.told.forget_unless(|source| known.contains_key(source));
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
        self.sockets.close();
        if let Some(guard) = self.guard.take() {
            self.reason = Some("detached on request".to_owned());
            match guard.detach() {
                Ok(()) => tracing::info!(interface = self.interface, "datagrams are not guarded any more"),
                Err(error) => tracing::error!(interface = self.interface, %error, "detaching from XDP"),
            }
        }
    }
}
