//! Members of a store over gRPC: where they are, TLS, login, and the next member where one does not answer.
//!
//! A request goes to the next member if the one before did nothing. If that is not known, only a request that is safe to
//! repeat does. Deliberately not here: what requests mean, and how answers are shown.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use consensus_proto::etcdserverpb::{
    AuthenticateRequest, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Code, Request, Response, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use super::error::{Effect, Failure, StoreError, root_cause};
use crate::exit::Usage;

/// Endpoints of one command.
const ENDPOINTS_MAX: usize = 64;
/// How long one member may take to accept a connection; no longer than `--timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between rounds over the members while they have no leader.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// A connection that is silent for so long is asked whether it is there. etcd does not like to be asked more often than
/// each 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And is lost if it does not answer in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: the range of one request, or the events of one revision.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Where the store is, and how to talk to it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    /// Members, any of which may answer: HOST:PORT or a URL, several with commas [env: NOVACRON_ENDPOINTS, else
    /// ETCDCTL_ENDPOINTS] [default: 127.0.0.1:2379]
    #[arg(long, global = true, value_name = "LIST")]
    endpoints: Option<String>,
    /// The authority that signs the members' certificates (PEM); endpoints without a scheme are https then.
    #[arg(long, global = true, value_name = "FILE", env = "ETCDCTL_CACERT")]
    cacert: Option<PathBuf>,
    /// This client's certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "ETCDCTL_CERT")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(id = "private_key", long = "key", global = true, value_name = "FILE", env = "ETCDCTL_KEY")]
    key: Option<PathBuf>,
    /// Logs in. Others on this machine can read a command line: the variable is the better place.
    #[arg(long, global = true, value_name = "NAME:PASSWORD", env = "ETCDCTL_USER", hide_env_values = true,
        value_parser = User::parse)]
    user: Option<User>,
    /// How long a member may take to answer, and how long an election is waited for.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// Prints JSON; docs/store-commands.md has its fields.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Who logs in.
#[derive(Clone)]
struct User {
    name: String,
    password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl User {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, password) = text.split_once(':').ok_or("expected NAME:PASSWORD")?;
        Ok(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    novacron_settings::duration(text).ok_or_else(|| format!("expected {}", novacron_settings::DURATION))
}

/// What all endpoints have in common.
struct Options {
    tls: Option<ClientTlsConfig>,
    user: Option<User>,
    timeout: Duration,
}

/// Puts the login's token onto requests, and what is to be known of the leader.
#[derive(Clone)]
pub(crate) struct Token {
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
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Token>;

/// A connection to one member, logged in.
#[derive(Clone)]
pub(crate) struct Link {
    channel: Channel,
    token: Token,
}

impl Link {
    fn with_leader(mut self) -> Self {
        self.token.needs_leader = true;
        self
    }

    pub(crate) fn kv(&self) -> KvClient<Authorized> {
        KvClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn watch(&self) -> WatchClient<Authorized> {
        WatchClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Authorized> {
        LeaseClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Authorized> {
        ClusterClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Authorized> {
        MaintenanceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }
}

/// One member, as it was named. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Endpoint(Arc<Inner>);

struct Inner {
    name: String,
    transport: tonic::transport::Endpoint,
    options: Arc<Options>,
    link: Mutex<Option<Link>>,
}

impl Endpoint {
    fn new(name: &str, options: &Arc<Options>) -> Result<Self> {
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let url = if name.contains("://") { name.to_owned() } else { format!("{scheme}://{name}") };
        let wrong = |why: &str| Usage(format!("--endpoints: {name:?}: {why}"));
        let mut transport = Channel::from_shared(url)
            .map_err(|_| wrong("expected HOST:PORT, http://HOST:PORT or https://HOST:PORT"))?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        match (transport.uri().scheme_str(), &options.tls) {
            (Some("http"), _) => {}
            (Some("https"), Some(tls)) => transport = transport.tls_config(tls.clone())?,
            (Some("https"), None) => bail!(wrong("https needs --cacert, the authority of its certificate")),
            _ => bail!(wrong("the scheme is neither http nor https")),
        }
        let options = Arc::clone(options);
        Ok(Self(Arc::new(Inner { name: name.to_owned(), transport, options, link: Mutex::new(None) })))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Connects, and logs in.
    async fn connect(&self) -> Result<Link, Failure> {
        let (inner, options) = (&self.0, &self.0.options);
        let limit = CONNECT_TIMEOUT.min(options.timeout);
        let channel = match timeout(limit, inner.transport.connect()).await {
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
    pub(crate) async fn ask<Q, A, F>(&self, request: Q, method: impl Fn(Link, Q) -> F) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut kept = self.0.link.lock().await;
        let was_kept = kept.is_some();
        let link = match kept.clone() {
            Some(link) => link,
            None => kept.insert(self.connect().await?).clone(),
        };
        let failure = match self.once(&link, request.clone(), &method).await {
            Err(failure) => failure,
            answer => return answer,
        };
        if failure.code == Code::Unauthenticated && was_kept {
            // Tokens end; the request was not looked at.
            let link = kept.insert(self.connect().await?).clone();
            return self.once(&link, request, &method).await;
        }
        if failure.is_of_connection() {
            *kept = None;
        }
        Err(failure)
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

/// The members that a command was told of.
pub(crate) struct Client {
    endpoints: Vec<Endpoint>,
    /// The one that answered last.
    current: usize,
    options: Arc<Options>,
}

impl Client {
    /// Nothing is connected yet.
    pub(crate) fn new(args: &StoreArgs) -> Result<Self> {
        let options = Arc::new(Options { tls: tls(args)?, user: args.user.clone(), timeout: args.timeout });
        let set = |name: &&str| std::env::var(name).ok().filter(|list| !list.is_empty());
        let from_environment = ["NOVACRON_ENDPOINTS", "ETCDCTL_ENDPOINTS"].iter().find_map(set);
        let list = args.endpoints.clone().or(from_environment).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let endpoints: Vec<_> = names.map(|name| Endpoint::new(name, &options)).collect::<Result<_>>()?;
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            let count = endpoints.len();
            bail!(Usage(format!("--endpoints: expected 1 to {ENDPOINTS_MAX} members, not {count}")));
        }
        Ok(Self { endpoints, current: 0, options })
    }

    /// The members that were named.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// A member at one of the URLs that it tells others.
    pub(crate) fn at(&self, url: &str) -> Result<Endpoint> {
        Endpoint::new(url, &self.options)
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// The member that answered last.
    pub(crate) fn current(&self) -> &Endpoint {
        &self.endpoints[self.current]
    }

    /// Begins with the next member from now on.
    pub(crate) fn skip_current(&mut self) {
        self.current = (self.current + 1) % self.endpoints.len();
    }

    /// Asks for something that is safe to repeat.
    pub(crate) async fn read<Q, A, F>(
        &mut self,
        what: &'static str,
        request: Q,
        method: impl Fn(Link, Q) -> F,
    ) -> Result<A, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.call(what, true, request, method).await
    }

    /// Asks for something that must not be done twice.
    pub(crate) async fn write<Q, A, F>(
        &mut self,
        what: &'static str,
        request: Q,
        method: impl Fn(Link, Q) -> F,
    ) -> Result<A, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        // Without a leader, it is refused at once instead of waiting where nobody knows what becomes of it.
        self.call(what, false, request, |link, request| method(link.with_leader(), request)).await
    }

    async fn call<Q, A, F>(
        &mut self,
        what: &'static str,
        repeatable: bool,
        request: Q,
        method: impl Fn(Link, Q) -> F,
    ) -> Result<A, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.timeout();
        loop {
            let mut failures = Vec::new();
            for _ in 0..self.endpoints.len() {
                match self.current().ask(request.clone(), &method).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) if failure.effect == Effect::Refused => {
                        return Err(StoreError::Refused { what, failure });
                    }
                    Err(failure) if failure.effect == Effect::Unknown && !repeatable => {
                        return Err(StoreError::Unknown { what, failure });
                    }
                    Err(failure) => failures.push(failure),
                }
                self.skip_current();
            }
            let may_pass = failures.iter().any(|failure| failure.may_pass);
            if !may_pass || Instant::now() + ROUND_PAUSE > deadline {
                return Err(StoreError::NoMember { what, failures });
            }
            sleep(ROUND_PAUSE).await;
        }
    }
}

fn tls(args: &StoreArgs) -> Result<Option<ClientTlsConfig>> {
    let read = |flag: &str, path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
    };
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(Identity::from_pem(read("--cert", cert)?, read("--key", key)?)),
        (None, None) => None,
        _ => bail!(Usage("--cert and --key belong together".to_owned())),
    };
    let Some(cacert) = &args.cacert else {
        if identity.is_some() {
            bail!(Usage("--cert needs --cacert, the authority of the members' certificates".to_owned()));
        }
        return Ok(None);
    };
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--cacert", cacert)?));
    Ok(Some(match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    }))
}

/// Asks all of these members at once; the answers are in their order.
pub(crate) async fn each<A: Send + 'static, F>(
    endpoints: &[Endpoint],
    ask: impl Fn(Endpoint) -> F,
) -> Result<Vec<A>>
where
    F: Future<Output = A> + Send + 'static,
{
    let asking: Vec<_> = endpoints.iter().map(|endpoint| tokio::spawn(ask(endpoint.clone()))).collect();
    let mut answers = Vec::with_capacity(asking.len());
    for asked in asking {
        answers.push(asked.await.context("a question ended abnormally")?);
    }
    Ok(answers)
}
