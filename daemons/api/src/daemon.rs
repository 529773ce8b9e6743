//! A replica from its start to its end.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use novacron_admin::Observed;
use novacron_store::StoreError;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use novacron_process::{CurrentTls, ServerTlsError, Watched};

use crate::{
    agents::{Agents, AgentsError},
    app::{App, Health, Process, probe},
    audit::{self, Audit, AuditError},
    auth::{
        jwks::{self, JwksError},
        login::Login,
        rules::Rules,
    },
    cache::{Cache, CacheError},
    changes::{self, Changes},
    database::{Database, DatabaseError},
    http::{idempotency::KeptAnswers, rate::Rates, server, streams::Streams, tls},
    jobs::{history, worker},
    routes::{self, vms},
    schedules,
    settings::Settings,
    store::{OpenError, Store, is_absent, put},
    store_certificates,
    vm::{DesiredState, Vm},
};

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It cannot ask the store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// It cannot ask agents.
    #[error(transparent)]
    Agents(#[from] AgentsError),
    /// Its certificates are no good.
    #[error("tls: {0}")]
    Tls(ServerTlsError),
    /// The authorities of the keys of tokens are no good.
    #[error("auth.jwt.ca: {0}")]
    KeysTls(ServerTlsError),
    /// The file with keys of tokens is no good.
    #[error("auth.jwt.jwks: {0}")]
    Keys(#[from] JwksError),
    /// There is no place for records.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Redis is not described as it should be.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// It cannot listen.
    #[error("listen: {call} {address}: {source}")]
    Io {
        /// Which call failed.
        call: &'static str,
        /// On which address.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

/// A replica that runs. Ends when it is dropped, without a drain.
pub struct Replica {
    app: Arc<App>,
    address: SocketAddr,
    serving: JoinSet<()>,
    working: JoinSet<()>,
    /// What goes on beside them, and needs no end.
    _beside: JoinSet<()>,
    stop_serving: watch::Sender<bool>,
    stop_working: watch::Sender<bool>,
}

/// Checks what [`Replica::start`] would only find out then.
///
/// # Errors
/// Certificates, addresses of the store, keys of tokens in a file.
pub fn check(settings: &Settings) -> Result<(), StartError> {
    Store::open(&settings.store)?;
    Agents::open(&settings.agents, &settings.replica)?;
    Cache::open(&settings.cache)?;
    if let Some(files) = tls::files(&settings.tls) {
        files.load().map_err(StartError::Tls)?;
    }
    let login = Login::new(&settings.auth).map_err(StartError::KeysTls)?;
    if let Some(jwt) = &login.jwt {
        jwt.keys.check_file()?;
    }
    Ok(())
}

impl Replica {
    /// Starts a replica. The store need not be there yet.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let store = Store::open(&settings.store)?;
        let agents = Arc::new(Agents::open(&settings.agents, &settings.replica)?);
        let database = Arc::new(Database::open(&settings.database)?);
        let audit = Audit::new(database.clone());
        let cache = Cache::open(&settings.cache)?;
        let login = Login::new(&settings.auth).map_err(StartError::KeysTls)?;
        let tls = tls::files(&settings.tls);
        let watched = tls.as_ref().map(|files| Watched::new(files.paths()));
        let current = tls.as_ref().map(|files| files.load()).transpose().map_err(StartError::Tls)?;
        let current = current.map(CurrentTls::new);
        let address = settings.listen;
        let io = |call| move |source| StartError::Io { call, address, source };
        let listener = TcpListener::bind(address).await.map_err(io("bind"))?;
        let address = listener.local_addr().map_err(io("getsockname"))?;
        let (router, document) = routes::routes();
        let app = Arc::new(App {
            store,
            agents,
            login,
            rules: Rules::new(&routes::ALIASES),
            rates: Rates::new(settings.limits.rate),
            database,
            audit,
            changes: Changes::default(),
            streams: Streams::new(settings.limits.streams_max),
            kept_answers: KeptAnswers::default(),
            cache,
            health: Health::default(),
            requests: Arc::new(Semaphore::new(settings.limits.requests_max)),
            jobs_wake: Notify::new(),
            openapi: serde_json::to_vec(&document).expect("a document is JSON").into(),
            began: Instant::now(),
            settings,
        });
        let (stop_serving, serving_stops) = watch::channel(false);
        let (stop_working, working_stops) = watch::channel(false);
        let (mut serving, mut working, mut beside) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        beside.spawn(probe(app.clone()));
        beside.spawn(app.agents.clone().keep_fresh());
        beside.spawn(store_certificates::keep_fresh(app.clone()));
        beside.spawn(changes::watch(app.clone()));
        beside.spawn(audit::keep_small(app.clone()));
        beside.spawn(audit::remove_old(app.clone()));
        beside.spawn(audit::keep_drained(app.clone()));
        beside.spawn(history::keep(app.clone()));
        if let Some(jwt) = app.login.jwt.clone() {
            beside.spawn(jwks::keep_fresh(jwt));
        }
        if let (Some(files), Some(watched), Some(current)) = (tls, watched, &current) {
            beside.spawn(tls::keep_fresh(files, watched, current.clone()));
        }
        if let Err(error) = app.audit.prepare().await {
            tracing::warn!(%error, "records of changes wait in the store until the database of the audit answers");
        }
        working.spawn(worker::work(app.clone(), working_stops.clone()));
        working.spawn(schedules::worker::work(app.clone(), working_stops));
        let router = routes::service(router, app.clone());
        serving.spawn(server::serve(listener, current, router, app.settings.limits.clone(), serving_stops));
        if app.login.is_open() {
            tracing::warn!("no login is set up: whoever reaches this machine's loopback may do everything");
        } else if !app.settings.listen.ip().is_loopback() && app.settings.tls.cert.as_os_str().is_empty() {
            tracing::warn!("plaintext: whoever is in between can read tokens");
        }
        tracing::info!(%address, replica = app.settings.replica, "serving");
        Ok(Self { app, address, serving, working, _beside: beside, stop_serving, stop_working })
    }

    /// Enters a VM into the inventory that stopped there with its data on this node, unless there is one of its name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn enter_vm(&self, name: &str, region: &str, node: &str) -> Result<(), StoreError> {
        let vm = Vm {
            name: name.to_owned(),
            cpus: 1,
            memory_bytes: 256 << 20,
            image: "disk.img".to_owned(),
            region: region.to_owned(),
            desired_state: DesiredState::Stopped,
            node: Some(node.to_owned()),
        };
        let key = vms::key(name);
        let then = vec![put(&key, vms::text(&vm), 0)];
        self.app.store.txn("enter a VM", vec![is_absent(&key)], then, Vec::new()).await.map(drop)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it tells over the port for metrics.
    pub fn observed(&self) -> impl Observed {
        Process(self.app.clone())
    }

    /// Is not ready any more, gives jobs back, goes on with requests until load balancers have seen it, and ends with those
    /// that have begun. Whether all came to its end in time.
    pub async fn drain(&mut self) -> bool {
        let settings = &self.app.settings;
        self.app.health.drain();
        self.stop_working.send_replace(true);
        sleep(settings.drain_delay).await;
        self.stop_serving.send_replace(true);
        let requests = settings.limits.requests_max as u32;
        let ended = async {
            while self.serving.join_next().await.is_some() {}
            // Those whose client has gone come to their end, too.
            let _ = self.app.requests.acquire_many(requests).await;
            while self.working.join_next().await.is_some() {}
            if let Err(error) = last_records(&self.app).await {
                tracing::warn!(%error, "records of the last changes wait in the store for another replica");
            }
        };
        let drained = timeout(settings.drain_timeout, ended).await.is_ok();
        tracing::info!(drained, "the replica ends");
        drained
    }
}

/// Has the database take what this replica has left in the store.
async fn last_records(app: &App) -> Result<(), AuditError> {
    app.audit.flush().await?;
    audit::drain(app, audit::Which::Own).await
}
