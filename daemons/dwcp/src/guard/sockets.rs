//! AF_XDP sockets of one interface, among the sockets of the endpoint for as long as the interface has its guard.

use std::{net::SocketAddr, sync::Arc};

use dwcp_core::{
    Endpoint,
    datagram_socket::{DatagramSocket, XdpDatagrams},
};
use dwcp_ebpf::{Guard, QUEUES_MAX};

/// The sockets. Where there is none, datagrams go by the kernel's UDP.
pub(super) struct Sockets {
    endpoint: Endpoint,
    /// Where datagrams arrive; `None`: no sockets are wanted.
    local: Option<SocketAddr>,
    open: Vec<Arc<dyn DatagramSocket>>,
}

impl Sockets {
    /// None yet.
    pub(super) fn new(endpoint: &Endpoint, local: Option<SocketAddr>) -> Self {
        Self { endpoint: endpoint.clone(), local, open: Vec::new() }
    }

    /// One for each receive queue, as far as there can be; what is in the way, if something is. In a tokio runtime.
    pub(super) fn open(&mut self, interface: &str, guard: &Guard) -> Option<String> {
        let local = self.local?;
        let mut reason = None;
        for queue in 0..receive_queues(interface) {
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
    ) -> Result<Arc<dyn DatagramSocket>, String> {
        let socket = XdpDatagrams::open(interface, queue, local).map_err(|error| error.to_string())?;
        guard.set_socket(queue, socket.readiness()).map_err(|error| error.to_string())?;
        let socket: Arc<dyn DatagramSocket> = Arc::new(socket);
        self.endpoint.add_datagram_socket(Arc::clone(&socket)).map_err(|error| error.to_string())?;
        Ok(socket)
    }

    /// Closes them: their interface or their guard is no more.
    pub(super) fn close(&mut self) {
        for socket in self.open.drain(..) {
            self.endpoint.remove_datagram_socket(&socket);
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
