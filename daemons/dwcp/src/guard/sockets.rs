//! AF_XDP sockets of one interface, among the sockets of the endpoint for as long as the interface has its guard.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use dwcp_core::{
    Endpoint,
    datagram_socket::{DatagramSocket, XdpCounters, XdpDatagrams},
};
use dwcp_ebpf::{Guard, QUEUES_MAX};
use metrics::counter;

use crate::again::Again;

/// Queues of an interface that have a socket. Each takes 12 MB of memory that is not swapped, and about 0.2 s to be made, for
/// which the agent's start waits.
const SOCKETS_MAX: u32 = 8;
const _: () = assert!(SOCKETS_MAX <= QUEUES_MAX);

/// The sockets. Where there is none, datagrams go by the kernel's UDP.
pub(super) struct Sockets {
    endpoint: Endpoint,
    /// Where datagrams arrive; `None`: no sockets are wanted.
    local: Option<SocketAddr>,
    open: Vec<Open>,
    /// Attempts to open those that are missing.
    again: Again,
    /// Why not each queue has one.
    missing: Option<String>,
}

struct Open {
    queue: u32,
    socket: Arc<XdpDatagrams>,
    /// What the metric was told already.
    told: XdpCounters,
}

impl Sockets {
    /// None yet.
    pub(super) fn new(endpoint: &Endpoint, local: Option<SocketAddr>) -> Self {
        Self { endpoint: endpoint.clone(), local, open: Vec::new(), again: Again::default(), missing: None }
    }

    /// Opens those that are missing, if that is due: one for each receive queue, as far as there can be. What is in the way,
    /// if something is. In a tokio runtime.
    pub(super) fn open(&mut self, interface: &str, guard: &Guard, now: Instant) -> Option<String> {
        let local = self.local?;
        if !self.again.is_due(now) {
            return self.missing.clone();
        }
        let (queues, beyond) = with_sockets(receive_queues(interface));
        let mut failed = None;
        for queue in 0..queues {
            if self.open.iter().any(|open| open.queue == queue) {
                continue;
            }
            match self.open_at(interface, queue, local, guard) {
                Ok(socket) => self.open.push(Open { queue, socket, told: XdpCounters::default() }),
                Err(error) => {
                    failed.get_or_insert(format!("no AF_XDP socket at queue {queue}: {error}"));
                }
            }
        }
        match failed {
            Some(_) => self.again.failed(now),
            None => self.again.reset(),
        }
        let missing = failed.or(beyond);
        if missing != self.missing {
            match &missing {
                Some(missing) => tracing::warn!(interface, missing, "not each queue has an AF_XDP socket"),
                None => tracing::info!(interface, "each queue has an AF_XDP socket"),
            }
        }
        self.missing = missing;
        self.missing.clone()
    }

    fn open_at(
        &self,
        interface: &str,
        queue: u32,
        local: SocketAddr,
        guard: &Guard,
    ) -> Result<Arc<XdpDatagrams>, String> {
        let socket = XdpDatagrams::open(interface, queue, local).map_err(|error| error.to_string())?;
        guard.set_socket(queue, socket.readiness()).map_err(|error| error.to_string())?;
        let socket = Arc::new(socket);
        self.endpoint.add_datagram_socket(socket.clone()).map_err(|error| error.to_string())?;
        Ok(socket)
    }

    /// Datagrams that they have sent.
    pub(super) fn sent(&self) -> u64 {
        self.open.iter().map(|open| open.socket.sent()).sum()
    }

    /// Tells the metric what they have lost.
    pub(super) fn count(&mut self, interface: &str) {
        for Open { queue, socket, told } in &mut self.open {
            match socket.counters() {
                Ok(now) => {
                    for (reason, new) in new_of(*told, now) {
                        counter!("dwcp_xdp_socket_dropped_total", "reason" => reason).increment(new);
                    }
                    *told = now;
                }
                Err(error) => tracing::debug!(interface, queue, %error, "counters of an AF_XDP socket"),
            }
        }
    }

    /// Closes them: their interface or their guard is no more.
    pub(super) fn close(&mut self) {
        self.again.reset();
        self.missing = None;
        for Open { socket, .. } in self.open.drain(..) {
            let socket: Arc<dyn DatagramSocket> = socket;
            self.endpoint.remove_datagram_socket(&socket);
        }
    }
}

/// What is new, by the label of why it was dropped.
fn new_of(told: XdpCounters, now: XdpCounters) -> [(&'static str, u64); 3] {
    [
        ("receive", now.receive_dropped.saturating_sub(told.receive_dropped)),
        ("foreign", now.foreign.saturating_sub(told.foreign)),
        ("send", now.send_dropped.saturating_sub(told.send_dropped)),
    ]
}

/// How many of so many queues have a socket, and what is told of the others.
fn with_sockets(queues: u32) -> (u32, Option<String>) {
    let beyond = (queues > SOCKETS_MAX).then(|| {
        format!(
            "queues {SOCKETS_MAX} to {} have no AF_XDP socket: their datagrams go by the kernel's UDP, as there are \
             {SOCKETS_MAX} sockets at most",
            queues - 1
        )
    });
    (queues.min(SOCKETS_MAX), beyond)
}

/// How many there are.
fn receive_queues(interface: &str) -> u32 {
    let queues = std::fs::read_dir(format!("/sys/class/net/{interface}/queues")).map(|entries| {
        entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rx-")).count()
    });
    u32::try_from(queues.unwrap_or(1)).map_or(u32::MAX, |queues| queues.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_queues_do_not_take_all_memory() {
        assert_eq!(with_sockets(1), (1, None));
        assert_eq!(with_sockets(SOCKETS_MAX), (SOCKETS_MAX, None));
        let (queues, beyond) = with_sockets(32);
        assert_eq!(queues, SOCKETS_MAX);
        assert!(beyond.is_some_and(|beyond| beyond.contains("queues 8 to 31")));
    }

    #[test]
    fn what_was_lost_is_told_once() {
        let lost =
            |receive_dropped, foreign, send_dropped| XdpCounters { receive_dropped, foreign, send_dropped };
        let new = new_of(lost(1, 2, 3), lost(11, 22, 33));
        assert_eq!(new, [("receive", 10), ("foreign", 20), ("send", 30)]);
        assert_eq!(new_of(lost(1, 2, 3), lost(1, 2, 3)).map(|(_, new)| new), [0; 3]);
    }
}
