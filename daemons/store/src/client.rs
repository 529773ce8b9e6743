//! Several members, one of which answers.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tonic::{Response, Status, transport::ClientTlsConfig};

use crate::{Effect, Endpoint, EndpointError, Link, Options, StoreError};

/// Members of one store.
pub const ENDPOINTS_MAX: usize = 64;
/// Between rounds over the members while they have no leader.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// The members of one store, for many requests at a time.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<Endpoint>,
    /// The one that answered last.
    current: AtomicUsize,
    options: RwLock<Arc<Options>>,
}

impl Client {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// There are no members, too many, or some that cannot be meant.
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        options: Options,
    ) -> Result<Self, EndpointError> {
        let options = Arc::new(options);
        let endpoints = names.into_iter().map(|name| Endpoint::new(name, &options));
        let endpoints: Vec<_> = endpoints.collect::<Result<_, _>>()?;
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            return Err(EndpointError::Count { count: endpoints.len() });
        }
        Ok(Self { endpoints, current: AtomicUsize::new(0), options: RwLock::new(options) })
    }

    /// The members that were named.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// A member at one of the URLs that it tells others.
    ///
    /// # Errors
    /// As of [`Endpoint::new`].
    pub fn at(&self, url: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::new(url, &self.options())
    }

    fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests that begin from now on are on connections with these certificates; what has begun ends on those that there are.
    ///
    /// # Errors
    /// They are not what they should be; what was before stays in force where it was not replaced yet.
    pub fn replace_tls(&self, tls: &ClientTlsConfig) -> Result<(), EndpointError> {
        for endpoint in &self.endpoints {
            endpoint.replace_tls(tls)?;
        }
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        *options = Arc::new(Options { tls: Some(tls.clone()), ..(**options).clone() });
        Ok(())
    }

    /// As of its [`Options`].
    pub fn timeout(&self) -> Duration {
        self.options().timeout
    }

    /// The member that answered last.
    pub fn current(&self) -> &Endpoint {
        &self.endpoints[self.current.load(Relaxed)]
    }

    /// Begins with the next member from now on.
    pub fn skip_current(&self) {
        self.skip(self.current.load(Relaxed));
    }

    /// Others may have gone on from it meanwhile.
    fn skip(&self, failed: usize) {
        let next = (failed + 1) % self.endpoints.len();
        let _ = self.current.compare_exchange(failed, next, Relaxed, Relaxed);
    }

    /// Asks for something that is safe to repeat.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn read<Q, A, F>(
        &self,
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
    ///
    /// # Errors
    /// See [`StoreError`]: also that nobody knows what became of it.
    pub async fn write<Q, A, F>(
        &self,
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
        &self,
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
                let current = self.current.load(Relaxed);
                match self.endpoints[current].ask(request.clone(), &method).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) if failure.effect == Effect::Refused => {
                        return Err(StoreError::Refused { what, failure });
                    }
                    Err(failure) if failure.effect == Effect::Unknown && !repeatable => {
                        return Err(StoreError::Unknown { what, failure });
                    }
                    Err(failure) => failures.push(failure),
                }
                self.skip(current);
            }
            let may_pass = failures.iter().any(|failure| failure.may_pass);
            if !may_pass || Instant::now() + ROUND_PAUSE > deadline {
                return Err(StoreError::NoMember { what, failures });
            }
            sleep(ROUND_PAUSE).await;
        }
    }
}
