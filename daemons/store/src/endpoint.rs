//! One member: the connection to it, TLS, login.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use consensus_proto::{
    etcdserverpb::{
        AuthenticateRequest, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
    },
    regions::regions_client::RegionsClient,
};
use novacron_trace::{TRACEPARENT, traceparent};
use tokio::{sync::Mutex, time::timeout};
use tonic::{
    Code, Request, Response, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig},
};

use crate::{Effect, Failure, root_cause};

/// How long one member may take to accept a connection; no longer than [`Options::timeout`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that is silent for so long is asked whether it is there. etcd does not like to be asked more often than
/// each 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And is lost if it does not answer in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: the range of one request, or the events of one revision.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What all members have in common.
#[derive(Debug, Clone)]
pub struct Options {
    /// For members with `https`, and those without a scheme.
    pub tls: Option<ClientTlsConfig>,
    /// Who logs in.
    pub user: Option<User>,
    /// How long a member may take to answer, and how long an election is waited for.
    pub timeout: Duration,
}

/// Who logs in.
#[derive(Clone)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The user's password.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A member that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// It is no place.
    #[error("{name:?}: expected HOST:PORT, http://HOST:PORT or https://HOST:PORT")]
    Place {
        /// As it was named.
        name: String,
    },
    /// Nobody could check its certificate.
    #[error("{name:?}: https needs the authority of its certificate")]
    NoAuthority {
        /// As it was named.
        name: String,
    },
    /// The certificates are not what they should be.
    #[error("{name:?}: {reason}")]
    Tls {
        /// As it was named.
        name: String,
        /// Why.
        reason: String,
    },
    /// There are none, or too many.
    #[error("expected 1 to {} members, not {count}", crate::ENDPOINTS_MAX)]
    Count {
        /// How many there are.
        count: usize,
    },
}

/// Puts the login's token onto requests, what is to be known of the leader, and which trace they belong to.
#[derive(Clone, Debug)]
pub struct Token {
    token: Option<AsciiMetadataValue>,
    /// A member that knows no leader is to refuse the request.
    needs_leader: bool,
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        if self.needs_leader {
            request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        }
        if let Some(traceparent) = traceparent().and_then(|text| text.parse().ok()) {
            request.metadata_mut().insert(TRACEPARENT, traceparent);
        }
        Ok(request)
    }
}

/// Requests that carry the login's token.
pub type Authorized = InterceptedService<Channel, Token>;

/// A connection to one member, logged in.
#[derive(Clone, Debug)]
pub struct Link {
    channel: Channel,
    token: Token,
}

impl Link {
    pub(crate) fn with_leader(mut self) -> Self {
        self.token.needs_leader = true;
        self
    }

    /// Keys and values.
    pub fn kv(&self) -> KvClient<Authorized> {
        KvClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Changes.
    pub fn watch(&self) -> WatchClient<Authorized> {
        WatchClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Leases.
    pub fn lease(&self) -> LeaseClient<Authorized> {
        LeaseClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Members.
    pub fn cluster(&self) -> ClusterClient<Authorized> {
        ClusterClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    /// Regions, of which etcd has none.
    pub fn regions(&self) -> RegionsClient<Authorized> {
        RegionsClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    /// Maintenance.
    pub fn maintenance(&self) -> MaintenanceClient<Authorized> {
        MaintenanceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }
}

/// One member, as it was named. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    /// What the next connection is made with.
    transport: RwLock<tonic::transport::Endpoint>,
    /// Requests that begin from now on are to have a new one.
    is_replaced: AtomicBool,
    options: Arc<Options>,
    link: Mutex<Kept>,
}

/// The connection that requests share, and which of its kind it is.
#[derive(Debug, Default)]
struct Kept {
    link: Option<Link>,
    number: u64,
}

impl Endpoint {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// It is not `HOST:PORT` or a URL of http or https, or TLS is not set for it.
    pub fn new(name: &str, options: &Arc<Options>) -> Result<Self, EndpointError> {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let url = if name.contains("://") { name.to_owned() } else { format!("{scheme}://{name}") };
        let place = || EndpointError::Place { name: name.to_owned() };
        let mut transport = Channel::from_shared(url)
            .map_err(|_| place())?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        match (transport.uri().scheme_str(), &options.tls) {
            (Some("http"), _) => {}
            (Some("https"), Some(tls)) => {
                let failed = |error| EndpointError::Tls { name: name.to_owned(), reason: root_cause(&error) };
                transport = transport.tls_config(tls.clone()).map_err(failed)?;
            }
            (Some("https"), None) => return Err(EndpointError::NoAuthority { name: name.to_owned() }),
            _ => return Err(place()),
        }
        let (options, transport) = (Arc::clone(options), RwLock::new(transport));
        let (name, is_replaced, link) = (name.to_owned(), AtomicBool::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { name, transport, is_replaced, options, link })))
    }

    /// Requests that begin from now on are on a connection with these certificates; what has begun ends on the one that there is.
    pub(crate) fn replace_tls(&self, tls: &ClientTlsConfig) -> Result<(), EndpointError> {
        let mut transport = self.0.transport.write().unwrap_or_else(PoisonError::into_inner);
        if transport.uri().scheme_str() == Some("https") {
            let name = self.name().to_owned();
            let failed = |error| EndpointError::Tls { name, reason: root_cause(&error) };
            *transport = transport.clone().tls_config(tls.clone()).map_err(failed)?;
            self.0.is_replaced.store(true, Relaxed);
        }
        Ok(())
    }

    /// As it was named.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Connects, and logs in.
    async fn connect(&self) -> Result<Link, Failure> {
        let (inner, options) = (&self.0, &self.0.options);
        let limit = CONNECT_TIMEOUT.min(options.timeout);
        let transport = inner.transport.read().unwrap_or_else(PoisonError::into_inner).clone();
        let channel = match timeout(limit, transport.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Failure::unreachable(&inner.name, root_cause(&error))),
            Err(_) => {
                return Err(Failure::unreachable(&inner.name, format!("no connection within {limit:?}")));
            }
        };
        let mut token = None;
        if let Some(User { name, password }) = options.user.clone() {
            let mut auth = AuthClient::new(channel.clone());
            let login = auth.authenticate(AuthenticateRequest { name, password });
            token = match timeout(options.timeout, login).await {
                Ok(Ok(answer)) => Some(self.token(&answer.into_inner().token)?),
                // As etcdctl has it: where nobody has to log in, whoever does so is welcome.
                Ok(Err(status)) if status.message().ends_with("authentication is not enabled") => None,
                // A login changes nothing: whatever went wrong, the request itself was not sent.
                Ok(Err(status)) => {
                    let failure = Failure::of_status(&inner.name, &status);
                    let refused = failure.effect == Effect::Refused;
                    let effect = if refused { Effect::Refused } else { Effect::Nothing };
                    return Err(Failure { effect, ..failure });
                }
                Err(_) => {
                    let message = format!("no answer to the login within {:?}", options.timeout);
                    return Err(Failure::unreachable(&inner.name, message));
                }
            };
        }
        Ok(Link { channel, token: Token { token, needs_leader: false } })
    }

    fn token(&self, token: &str) -> Result<AsciiMetadataValue, Failure> {
        token.parse().map_err(|_| {
            Failure::unreachable(self.name(), "the token that it gave cannot be a header's value".to_owned())
        })
    }

    /// Asks this member.
    ///
    /// # Errors
    /// How it failed to answer.
    pub async fn ask<Q, A, F>(&self, request: Q, method: impl Fn(Link, Q) -> F) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let (link, number, was_kept) = self.link().await?;
        let failure = match self.once(&link, request.clone(), &method).await {
            Err(failure) => failure,
            answer => return answer,
        };
        let is_unauthenticated = failure.code == Code::Unauthenticated && was_kept;
        if failure.is_of_connection() || is_unauthenticated {
            let mut kept = self.0.link.lock().await;
            // Another request may have a new one already.
            if kept.number == number {
                kept.link = None;
            }
        }
        if !is_unauthenticated {
            return Err(failure);
        }
        // Tokens end; the request was not looked at.
        let (link, ..) = self.link().await?;
        self.once(&link, request, &method).await
    }

    /// The connection, its number, and whether it was there before. Who comes while one is made waits for that.
    async fn link(&self) -> Result<(Link, u64, bool), Failure> {
        let mut kept = self.0.link.lock().await;
        if self.0.is_replaced.swap(false, Relaxed) {
            kept.link = None;
        }
        if let Some(link) = &kept.link {
            return Ok((link.clone(), kept.number, true));
        }
        let link = self.connect().await?;
        kept.link = Some(link.clone());
        kept.number += 1;
        Ok((link, kept.number, false))
    }

    async fn once<Q, A, F>(
        &self,
        link: &Link,
        request: Q,
        method: impl Fn(Link, Q) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let limit = self.0.options.timeout;
        match timeout(limit, method(link.clone(), request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Failure::of_status(self.name(), &status)),
            Err(_) => Err(Failure::silent(self.name(), format!("no answer within {limit:?}"))),
        }
    }
}
