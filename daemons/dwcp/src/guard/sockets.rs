//! AF_XDP sockets of one interface, among the sockets of the endpoint for as long as the interface has its guard.

use std::{net::SocketAddr, sync::Arc};

use dwcp_core::{
    Endpoint,
    datagram_socket::{DatagramSocket, XdpDatagrams},
};
use dwcp_ebpf::{Guard, QUEUES_MAX};

/// Queues of an interface that have a socket. Each takes 12 MB of memory that is not swapped, and about 0.2 s to be made, for
/// which the agent's start waits.
const SOCKETS_MAX: u32 = 8;
const _: () = assert!(SOCKETS_MAX <= QUEUES_MAX);

/// The sockets. Where there is none, datagrams go by the kernel's UDP.
pub(super) struct Sockets {
    endpoint: Endpoint,
    /// Where datagrams arrive; `None`: no sockets are wanted.
    local: Option<SocketAddr>,
    open: Vec<Arc<XdpDatagrams>>,
}

impl Sockets {
    /// None yet.
    pub(super) fn new(endpoint: &Endpoint, local: Option<SocketAddr>) -> Self {
        Self { endpoint: endpoint.clone(), local, open: Vec::new() }
    }

    /// One for each receive queue, as far as there can be; what is in the way, if something is. In a tokio runtime.
    pub(super) fn open(&mut self, interface: &str, guard: &Guard) -> Option<String> {
        let local = self.local?;
        let (queues, mut reason) = with_sockets(receive_queues(interface));
        if let Some(beyond) = &reason {
            tracing::info!(interface, beyond, "not each queue has an AF_XDP socket");
        }
        for queue in 0..queues {
            match self.open_at(interface, queue, local, guard) {
                Ok(socket) => self.open.push(socket),
                Err(error) => {
                    tracing::warn!(interface, queue, error, "no AF_XDP socket");
                    reason.get_or_insert(format!("no AF_XDP socket at queue {queue}: {error}"));
                }
            }
        }
        reason
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
        self.open.iter().map(|socket| socket.sent()).sum()
    }

    /// Closes them: their interface or their guard is no more.
    pub(super) fn close(&mut self) {
        for socket in self.open.drain(..) {
            let socket: Arc<dyn DatagramSocket> = socket;
            self.endpoint.remove_datagram_socket(&socket);
        }
    }
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
}
