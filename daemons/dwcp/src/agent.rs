//! An agent from its start to its end: what is opened in which order, and how it drains.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use dwcp_core::{BindError, Endpoint};
use dwcp_transfer::TransferError;
use novacron_control::{
    Target,
    schema::{Greeting, Node},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    control::{Socket, SocketError},
    discovery,
    guard::Guards,
    hub::Hub,
    identity::Identities,
    incoming,
    mtu::Mtus,
    observe::Process,
    settings::Settings,
    store::{Register, RegisterError},
    transfers::Transfers,
    tuning::Tuning,
    tunnels::{self, Tunnels},
};

/// For taking the own entry out of the store.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// For whoever asks again and again how a transfer goes to hear of its end, before nobody answers any more.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// For putting back what was set on the node, if nobody waits for a drain.
const PUT_BACK_MAX: Duration = Duration::from_secs(2);

/// A node agent that runs. Ends when it is dropped, without a drain; guards in XDP stay attached.
pub struct Agent {
    inner: Arc<Inner>,
    tasks: JoinSet<()>,
    discovering: JoinSet<()>,
    /// Ends discovery.
    stop: watch::Sender<bool>,
}

/// What the parts of an agent share.
pub(crate) struct Inner {
    pub(crate) hub: Arc<Hub>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) guards: Guards,
    pub(crate) tunnels: tunnels::Kept,
    pub(crate) settings: Settings,
    pub(crate) tuning: Tuning,
    pub(crate) mtus: Arc<Mtus>,
    pub(crate) began: Instant,
    /// Somebody asked over the control API.
    pub(crate) drain_asked: Notify,
    listen: SocketAddr,
    datagrams: Option<SocketAddr>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// It cannot listen for DWCP.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It cannot listen for control.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// It cannot receive transfers.
    #[error("transfers.into: {0}")]
    Transfers(TransferError),
    /// It cannot use the store.
    #[error("discovery.store: {0}")]
    Register(#[from] RegisterError),
}

impl Agent {
    /// Starts an agent. What the kernel or the hardware cannot do is logged, told by `GET /v1/capabilities`, and done
    /// without.
    ///
    /// # Errors
    /// [`AgentError`]: nothing was left behind then.
    pub async fn start(settings: Settings) -> Result<Self, AgentError> {
        let transfers = Transfers::new(&settings.transfers_into, settings.transfers_overwrite);
        let transfers = Arc::new(transfers.map_err(AgentError::Transfers)?);
        // First: whoever finds another agent there must not disturb it.
        let socket = Socket::bind(&settings.control_socket).await?;
        let endpoint =
            Endpoint::listen(settings.transport.listen, settings.transport.endpoint.clone()).await?;
        let listen = endpoint.local_addr().expect("it listens");
        let region = settings.transport.endpoint.region.clone();
        let advertised = settings.discovery.advertise.clone().unwrap_or_else(|| Target::from(listen));
        let register = Register::new(&settings.discovery, settings.node_id(), region.clone(), &advertised)?;
        // What an earlier process did to MTUs is undone: guards, their sockets and tunnels go by them.
        let mtus = Arc::new(blocking(&settings, Mtus::begin).await);
        // Before there are connections: only those that are made afterwards use AF_XDP.
        let guards = Guards::start(&settings, &endpoint).await;
        let tuning = blocking(&settings, Tuning::begin).await;
        let tunnels = {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || Tunnels::open(&settings)).await.expect("it does not panic")
        };
        let greeting = Greeting {
            node_id: settings.node_id().to_owned(),
            region,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: instance(),
            port: listen.port(),
            draining: false,
            takes_transfers: transfers.are_taken(),
            tunnels: tunnels.ends(),
            mtu_offered: None,
            mtu_taken: None,
        };
        let hub = Arc::new(Hub::new(endpoint, greeting, Identities::new(&settings)));
        let (fixed, found) = (settings.peers.clone(), settings.discovery.clone());
        tracing::info!(node = settings.node_id(), %listen, "agent started");
        let inner = Arc::new(Inner {
            hub: hub.clone(),
            transfers: transfers.clone(),
            guards,
            tunnels: tunnels.keep(hub.clone(), mtus.clone(), &settings),
            tuning,
            mtus: mtus.clone(),
            settings,
            began: Instant::now(),
            drain_asked: Notify::new(),
            listen,
            datagrams: hub.endpoint.datagram_addr(),
        });
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(incoming::accept(inner.clone()));
        tasks.spawn(socket.serve(inner.clone()));
        tasks.spawn(mtus.run(hub.clone()));
        let mut discovering = JoinSet::new();
        discovering.spawn(discovery::run(hub, fixed, found, register, stopping));
        Ok(Self { inner, tasks, discovering, stop })
    }

    /// Where it listens for DWCP.
    pub fn listen(&self) -> SocketAddr {
        self.inner.listen
    }

    /// Its endpoint, for whoever keeps certificates fresh.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.hub.endpoint
    }

    /// Where its control API is.
    pub fn socket(&self) -> &PathBuf {
        &self.inner.settings.control_socket
    }

    /// What it tells over HTTP.
    pub fn observed(&self) -> impl novacron_admin::Observed {
        Process(self.inner.clone())
    }

    /// Waits until somebody asks for a drain over the control API.
    pub fn drain_asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let inner = self.inner.clone();
        async move { inner.drain_asked.notified().await }
    }

    /// Takes on nothing new, tells peers, and waits for transfers, at most as long as the settings say. Whether everything
    /// came to its end.
    pub async fn drain(&mut self) -> bool {
        let deadline = Instant::now() + self.inner.settings.transport.drain_timeout;
        self.inner.hub.greeting.send_modify(|greeting| {
            greeting.draining = true;
            (greeting.mtu_offered, greeting.mtu_taken) = (None, None);
        });
        self.stop.send_replace(true);
        self.inner.mtus.let_go().await;
        let left = async { while self.discovering.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(deadline.min(Instant::now() + LEAVE_TIMEOUT), left).await;
        let transfers = &self.inner.transfers;
        let some_ran = transfers.running() > 0;
        let drained = tokio::time::timeout_at(deadline, transfers.drain()).await.is_ok();
        transfers.abort();
        tracing::info!(drained, "the agent ends");
        if some_ran {
            tokio::time::sleep(LAST_ANSWERS).await;
        }
        self.inner.hub.close_all();
        self.inner.hub.endpoint.shutdown(deadline.saturating_duration_since(Instant::now())).await;
        self.tasks.shutdown().await;
        self.inner.put_back().await;
        drained
    }

    /// Puts back what was set on the node, as a drain does at its end: for whoever does not wait for that. It takes
    /// Two seconds at most; whether everything was done.
    pub async fn stop(&self) -> bool {
        let done = tokio::time::timeout(PUT_BACK_MAX, self.inner.put_back()).await.is_ok();
        if !done {
            tracing::warn!("what was set on this node is put back by the next start");
        }
        done
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.inner.transfers.abort();
    }
}

impl Inner {
    /// The node becomes what it was; tunnels stay, of a size that it takes then.
    async fn put_back(self: &Arc<Self>) {
        let inner = self.clone();
        let _ = tokio::task::spawn_blocking(move || inner.tunnels.end()).await;
        self.mtus.end().await;
        let inner = self.clone();
        let _ = tokio::task::spawn_blocking(move || inner.tuning.end(&inner.settings)).await;
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.hub.greeting.borrow().draining
    }

    pub(crate) fn view(&self) -> Node {
        Node {
            greeting: self.hub.greeting.borrow().clone(),
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            listen: self.listen.to_string(),
            datagrams: self.datagrams.map(|address| address.to_string()),
            peers_connected: self.hub.connected(),
            peers_missing: self.hub.missing(),
            transfers_running: self.transfers.running(),
        }
    }
}

/// Does what asks the kernel, away from threads that others need.
async fn blocking<T: Default + Send + 'static>(settings: &Settings, work: fn(&Settings) -> T) -> T {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || work(&settings)).await.unwrap_or_default()
}

/// A number for this process.
fn instance() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // Not as good: two that begin within a microsecond are taken for one.
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64),
    }
}
