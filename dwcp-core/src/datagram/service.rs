//! An endpoint's sockets for datagrams, who reads them, and which flow is whose.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use dwcp_proto::datagram::{DatagramHeader, HEADER_LEN};
use dwcp_sys::datagram::DatagramSocket;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::AbortHandle,
};

use super::{
    Channel, ConnectionKeys,
    channel::{Answer, len_max},
    probing,
    stats::{DropReason, Drops},
};
use crate::{shared::Shared, task};

/// Batches that are read before other tasks get their turn.
const BATCHES_MAX: usize = 4;
/// Rest after a socket has failed.
const RECEIVE_RETRY: Duration = Duration::from_millis(100);
/// What is taken to fit through a first hop that does not say.
const MTU_UNKNOWN: u32 = 1500;

/// The datagrams of an endpoint.
pub(crate) struct Service {
    /// A channel knows its socket by the place here: one that is removed leaves an empty place for another.
    sockets: RwLock<Vec<Option<Reading>>>,
    flows: RwLock<HashMap<u64, Arc<Channel>>>,
    /// For whoever steers known flows.
    known: watch::Sender<HashSet<u64>>,
    probe_interval: Duration,
}

/// A socket that is read. Reading ends when this is dropped.
struct Reading {
    socket: Arc<dyn DatagramSocket>,
    receiver: AbortHandle,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.local_addr();
        f.debug_struct("Service").field("local", &local).finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new(probe_interval: Duration) -> Arc<Self> {
        Arc::new(Self {
            sockets: RwLock::default(),
            flows: RwLock::default(),
            known: watch::Sender::default(),
            probe_interval,
        })
    }

    /// Reads this socket from now on, and sends over it to whose datagrams come over it; the first one is where all begin.
    pub(crate) fn add(self: &Arc<Self>, socket: Arc<dyn DatagramSocket>) -> io::Result<()> {
        let descriptor = socket.readiness().try_clone_to_owned()?;
        // The deprecation is about descriptors that may be closed meanwhile; an owned one is not.
        #[allow(deprecated)]
        let readiness = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        let mut sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner);
        let via = sockets.iter().position(Option::is_none).unwrap_or(sockets.len());
        if via == sockets.len() {
            sockets.push(None);
        }
        let receiver = tokio::spawn(receive(Arc::downgrade(self), Arc::clone(&socket), via, readiness));
        sockets[via] = Some(Reading { socket, receiver: receiver.abort_handle() });
        Ok(())
    }

    /// Reads this socket no more, and sends over the first to whom it was the way. Whether it was one, and not the first.
    pub(crate) fn remove(&self, socket: &Arc<dyn DatagramSocket>) -> bool {
        let is_it = |reading: &Reading| std::ptr::addr_eq(Arc::as_ptr(&reading.socket), Arc::as_ptr(socket));
        let mut sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner);
        let place = sockets.iter_mut().skip(1).find(|place| place.as_ref().is_some_and(is_it));
        place.is_some_and(|place| place.take().is_some())
    }

    /// Where datagrams arrive, if there is a socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        sockets.first().and_then(Option::as_ref).map(|reading| reading.socket.local_addr())
    }

    /// As a HELLO says it; 0: nowhere.
    pub(crate) fn port(&self) -> u16 {
        self.local_addr().map_or(0, |addr| addr.port())
    }

    pub(crate) fn watch_flows(&self) -> watch::Receiver<HashSet<u64>> {
        self.known.subscribe()
    }

    /// A connection's datagrams begin. `path_mtu`: what the kernel says of its first link.
    pub(crate) fn begin(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        keys: ConnectionKeys,
        peer: SocketAddr,
        path_mtu: Option<u32>,
    ) {
        let packet_max = path_mtu.filter(|&mtu| mtu > 0).unwrap_or(MTU_UNKNOWN);
        let limit = len_max(peer, packet_max);
        let flow = keys.recv_flow;
        let channel = Arc::new(Channel::new(Arc::clone(self), keys, peer, self.probe_interval, limit));
        {
            let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
            if flows.contains_key(&flow) {
                // Once in 2^62 connections, or a peer that tries to take another's place.
                tracing::warn!(parent: &shared.span, flow, "flow in use: no datagrams for this connection");
                return;
            }
            flows.insert(flow, Arc::clone(&channel));
        }
        self.known.send_modify(|known| {
            known.insert(flow);
        });
        assert!(shared.datagrams.set(Arc::clone(&channel)).is_ok(), "datagrams begin once");
        let end = End { service: Arc::clone(self), channel: Arc::clone(&channel) };
        task::spawn(shared, "prober", shared.span.clone(), probing::run(channel, Arc::clone(shared), end));
    }

    /// The socket of this index, or the first.
    pub(super) fn socket(&self, via: usize) -> (Arc<dyn DatagramSocket>, usize) {
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        let at = |via: usize| Some((Arc::clone(&sockets.get(via)?.as_ref()?.socket), via));
        at(via).or_else(|| at(0)).expect("the first socket stays")
    }

    /// Stops reading.
    pub(crate) fn stop(&self) {
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().flatten().for_each(|reading| reading.receiver.abort());
    }

    /// Takes what has arrived at a socket.
    fn take_batch(&self, socket: &dyn DatagramSocket, via: usize, batch: &mut Batch) -> io::Result<usize> {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        socket.recv(&mut |from, datagram| {
            let Ok((header, _)) = DatagramHeader::decode(datagram) else {
                return batch.drops.add(DropReason::Malformed, 1);
            };
            let Some(channel) = flows.get(&header.flow) else {
                return batch.drops.add(DropReason::UnknownFlow, 1);
            };
            let payload = &mut datagram[HEADER_LEN..];
            channel.take((from, via), &header, payload, &mut batch.answers, &mut batch.drops);
        })
    }
}

/// Ends a connection's datagrams when it is dropped.
pub(super) struct End {
    service: Arc<Service>,
    channel: Arc<Channel>,
}

impl Drop for End {
    fn drop(&mut self) {
        let flow = self.channel.recv_flow;
        self.service.flows.write().unwrap_or_else(PoisonError::into_inner).remove(&flow);
        self.service.known.send_modify(|known| {
            known.remove(&flow);
        });
        self.channel.end();
    }
}

/// What a batch leaves to do when the socket is not being read any more.
#[derive(Default)]
struct Batch {
    answers: Vec<Answer>,
    drops: Drops,
}

async fn receive(
    service: Weak<Service>,
    socket: Arc<dyn DatagramSocket>,
    via: usize,
    readiness: AsyncFd<OwnedFd>,
) {
    let mut batch = Batch::default();
    loop {
        let mut ready = match readiness.readable().await {
            Ok(ready) => ready,
            Err(error) => return tracing::warn!(%error, "datagrams are not read any more"),
        };
        let Some(service) = service.upgrade() else { return };
        let mut failed = None;
        for _ in 0..BATCHES_MAX {
            let result = service.take_batch(&*socket, via, &mut batch);
            batch.answers.drain(..).for_each(Answer::send);
            batch.drops.publish();
            match result {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        drop(service);
        match failed {
            Some(error) => {
                tracing::warn!(%error, "receive datagrams");
                tokio::time::sleep(RECEIVE_RETRY).await;
            }
            None => tokio::task::yield_now().await,
        }
    }
}
