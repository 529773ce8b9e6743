//! Messages to and from other regions, over DWCP. Not here: what they say, and who leads.
//!
//! As members do, each region's leader connects to that of each other region and sends on that connection; what comes back comes on
//! the other's. A member that does not lead ends connections at once, so whoever dials tries the next address. Nothing is waited for:
//! what does not go out is lost, and sent again by whoever sent it.
//!
//! Who a region is, its certificate says: one of its DNS names begins with the label `region-NUMBER`. Without TLS its word counts.

mod line;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use dwcp_core::{Connection, Endpoint, EndpointConfig, PeerInfo, StreamsConfig};
use tokio::sync::{Semaphore, mpsc, watch};

use self::line::Line;
use crate::StartError;

/// Largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Messages of all regions that wait to be looked at; then nobody is read from.
const INCOMING: usize = 16;
/// Connections of other regions at a time.
const CALLERS_MAX: usize = 512;
/// Links of a connection at most: one is enough for most paths, and long ones with loss need more.
const LINKS_MAX: u16 = 4;
/// Streams of a connection. One is used.
const STREAMS_MAX: u32 = 4;
/// Bytes of a region that are received and not read.
const WINDOW_BYTES: u64 = 16 << 20;
/// A connection without any link for this long is given up: what was in it is sent again by another.
const RESUME_TIMEOUT: Duration = Duration::from_secs(5);

/// What a region's end of the network is told.
#[derive(Clone, Debug)]
pub struct RegionNetworkConfig {
    /// The region's number.
    pub region: u32,
    /// Its name, for metrics of connections; empty: none.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// TLS to other regions, or `None`: plaintext.
    pub tls: Option<Arc<dwcp_core::TlsConfig>>,
    /// Allows plaintext on other addresses than loopback.
    pub allow_plaintext: bool,
}

/// The way to and from other regions. Cheap to clone; ends with [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct RegionNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    has_tls: bool,
    lines: Mutex<HashMap<u32, Line>>,
    /// Regions to which there is a connection.
    connected: Mutex<BTreeSet<u32>>,
    /// Whether this member speaks for its region.
    speaks: watch::Sender<bool>,
    incoming: mpsc::Sender<(u32, Bytes)>,
    callers: Arc<Semaphore>,
}

impl RegionNetwork {
    /// Listens, and ends every connection until this member [speaks](Self::set_speaking). Messages come to the second value, each
    /// with the number of the region that has sent it.
    pub async fn listen(
        config: RegionNetworkConfig,
    ) -> Result<(Self, mpsc::Receiver<(u32, Bytes)>), StartError> {
        let mut endpoint = EndpointConfig::new(format!("region/{}", config.region));
        endpoint.region = Some(config.name).filter(|name| !name.is_empty());
        endpoint.transport.streams = StreamsConfig { min: 1, max: LINKS_MAX, initial: 1 };
        endpoint.transport.streams_open_max = STREAMS_MAX;
        endpoint.transport.connection_window_bytes = WINDOW_BYTES;
        endpoint.transport.resume_timeout = RESUME_TIMEOUT;
        let has_tls = config.tls.is_some();
        endpoint.tls = config.tls;
        endpoint.allow_plaintext = config.allow_plaintext;
        let (incoming, messages) = mpsc::channel(INCOMING);
        let shared = Arc::new(Shared {
            endpoint: Endpoint::listen(config.listen, endpoint).await?,
            has_tls,
            lines: Mutex::default(),
            connected: Mutex::default(),
            speaks: watch::Sender::new(false),
            incoming,
            callers: Arc::new(Semaphore::new(CALLERS_MAX)),
        });
        tokio::spawn(Arc::clone(&shared).accept());
        Ok((Self { shared }, messages))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Whether this member leads its region. If not, others' connections are ended, and there are none to others.
    pub fn set_speaking(&self, speaks: bool) {
        if !speaks {
            self.set_peers(&BTreeMap::new());
        }
        self.shared.speaks.send_replace(speaks);
    }

    /// The other regions, each with the URLs of its members.
    pub fn set_peers(&self, peers: &BTreeMap<u32, Vec<String>>) {
        let mut lines = self.shared.lines();
        lines.retain(|region, line| peers.get(region).is_some_and(|urls| *urls == line.urls));
        for (region, urls) in peers {
            lines.entry(*region).or_insert_with(|| Line::start(&self.shared, *region, urls.clone()));
        }
    }

    /// Sends a message, or loses it.
    pub fn send(&self, to: u32, message: Bytes) {
        if let Some(line) = self.shared.lines().get(&to) {
            line.send(message);
        }
    }

    /// Whether there is a connection to a region.
    pub fn is_connected(&self, region: u32) -> bool {
        self.shared.connected().contains(&region)
    }

    /// New connections use these certificates from now on.
    pub fn reload_tls(&self, tls: Arc<dwcp_core::TlsConfig>) {
        self.shared.endpoint.reload_tls(tls);
    }

    /// Ends all connections.
    pub async fn shutdown(&self, timeout: Duration) {
        self.set_speaking(false);
        self.shared.endpoint.shutdown(timeout).await;
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, HashMap<u32, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>) {
        while let Some(connection) = self.endpoint.accept().await {
            let peer = connection.peer();
            let Some(region) = region_of(peer, self.has_tls) else {
                tracing::warn!(peer = peer.node_id, names = ?peer.names, addr = %peer.addr, "no region: refused");
                connection.close(1, "a certificate of a region is needed: region-NUMBER");
                continue;
            };
            let Ok(place) = Arc::clone(&self.callers).try_acquire_owned() else {
                connection.close(1, "too many connections");
                continue;
            };
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                let mut speaks = shared.speaks.subscribe();
                tokio::select! {
                    // The sender is in here: it cannot be gone.
                    _ = speaks.wait_for(|speaks| !speaks) => {
                        connection.close(2, "this member does not lead its region");
                    }
                    () = shared.receive(&connection, region) => {}
                }
            });
        }
    }

    async fn receive(&self, connection: &Connection, region: u32) {
        while let Ok((_, mut stream)) = connection.accept_stream().await {
            let mut buffer = BytesMut::new();
            while let Ok(Some(chunk)) = stream.read_chunk().await {
                buffer.extend_from_slice(&chunk);
                while let Some(len) = buffer.first_chunk::<4>() {
                    let len = u32::from_le_bytes(*len) as usize;
                    if len > MESSAGE_BYTES_MAX {
                        tracing::warn!(
                            region,
                            len,
                            max = MESSAGE_BYTES_MAX,
                            "a message of a region is too long"
                        );
                        connection.close(1, "a message is too long");
                        return;
                    }
                    if buffer.len() < 4 + len {
                        break;
                    }
                    buffer.advance(4);
                    let message = buffer.split_to(len).freeze();
                    if self.incoming.send((region, message)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Who a peer is; `None`: it does not say, or its certificate says otherwise.
fn region_of(peer: &PeerInfo, has_tls: bool) -> Option<u32> {
    let region: u32 = peer.node_id.strip_prefix("region/")?.parse().ok().filter(|region| *region > 0)?;
    let label = format!("region-{region}");
    let names_it = |name: &String| name.split('.').next().is_some_and(|first| first == label);
    (!has_tls || peer.names.iter().any(names_it)).then_some(region)
}
