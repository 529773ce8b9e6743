//! Answers that replicas share, in Redis.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use novacron_store::StoreError;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, TlsCertificates,
    aio::MultiplexedConnection, cmd,
};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    Question, VALUE_BYTES_MAX,
    breaker::Breaker,
    seal::{HEAD_BYTES, KEY_BYTES, Key},
};
use crate::{
    app::now_ms,
    settings::CacheSettings,
    store::{Store, is_absent, put},
};

/// What keys in Redis begin with.
const PREFIX: &str = "novacron:";
/// What answers are sealed with: whoever may read it may write all that replicas believe.
const SEAL_KEY: &str = "/novacron/cache-key";

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The file that `cache.ca` names.
    #[error("cache.ca: reading {}: {source}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no URL of Redis, or the authorities are no good.
    #[error("cache.url: {0}")]
    Url(#[from] RedisError),
}

/// Redis.
pub(super) struct Shared {
    client: Client,
    timeout: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
    breaker: Breaker,
    key: OnceCell<Key>,
}

impl Shared {
    pub(super) fn open(settings: &CacheSettings) -> Result<Self, CacheError> {
        let url = settings.url.as_str();
        let client = if settings.ca.as_os_str().is_empty() {
            Client::open(url)?
        } else {
            let read = fs::read(&settings.ca);
            let authorities =
                read.map_err(|source| CacheError::File { path: settings.ca.clone(), source })?;
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
            Client::build_with_tls(url, certificates)?
        };
        Ok(Self {
            client,
            timeout: settings.timeout,
            connection: Mutex::default(),
            breaker: Breaker::default(),
            key: OnceCell::new(),
        })
    }

    /// An answer that is no older than the question allows, and its end.
    pub(super) async fn get(&self, store: &Store, question: &Question) -> Option<(Bytes, u64)> {
        let key = self.key(store).await?;
        let longest = VALUE_BYTES_MAX + HEAD_BYTES;
        let ask = cmd("GETRANGE").arg(name(question)).arg(0).arg(longest).to_owned();
        let sealed: Vec<u8> = self.ask(ask).await?;
        key.opened(&question.key, sealed, now_ms(), question.age_max.as_millis() as u64)
    }

    pub(super) async fn put(&self, store: &Store, question: &Question, answer: &[u8], ends_ms: u64) {
        let Some(key) = self.key(store).await else { return };
        let sealed = key.sealed(&question.key, ends_ms, answer);
        let lasts_ms = question.age_max.as_millis() as u64;
        let ask = cmd("SET").arg(name(question)).arg(sealed).arg("PX").arg(lasts_ms).to_owned();
        let _: Option<()> = self.ask(ask).await;
    }

    pub(super) async fn forget(&self, store: &Store, question: &Question) {
        if self.key(store).await.is_some() {
            let _: Option<()> = self.ask(cmd("UNLINK").arg(name(question)).to_owned()).await;
        }
    }

    /// Asks, if it is not known to be in vain. `None`: nothing came.
    async fn ask<T: FromRedisValue>(&self, ask: Cmd) -> Option<T> {
        if !self.breaker.lets(Instant::now()) {
            return None;
        }
        let asked = timeout(self.timeout, async {
            let mut connection = self.connection().await?;
            ask.query_async(&mut connection).await
        });
        let why = match asked.await {
            Ok(Ok(answer)) => {
                if self.breaker.good() {
                    tracing::info!("the cache answers again");
                }
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.breaker.failed(Instant::now()) {
            tracing::warn!(why, "the cache does not answer, and is left alone for a while");
        }
        None
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        if let Some(connection) = &*self.connection.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    /// What answers are sealed with: the first replica draws it.
    async fn key(&self, store: &Store) -> Option<Key> {
        let made = self.key.get_or_try_init(|| async {
            let drawn = drawn(store).await;
            let bytes = drawn.map_err(|error| tracing::debug!(%error, "the key of the cache"))?;
            let bytes: [u8; KEY_BYTES] =
                bytes[..].try_into().map_err(|_| tracing::warn!("{SEAL_KEY} has no key in it"))?;
            Ok::<_, ()>(Key(bytes))
        });
        made.await.ok().copied()
    }
}

/// The key's bytes, of whichever replica was the first.
async fn drawn(store: &Store) -> Result<Vec<u8>, StoreError> {
    if let Some(kv) = store.get(SEAL_KEY).await? {
        return Ok(kv.value.to_vec());
    }
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).expect("Linux has randomness");
    let then = vec![put(SEAL_KEY, bytes, 0)];
    store.txn("make cache key", vec![is_absent(SEAL_KEY)], then, Vec::new()).await?;
    Ok(store.get(SEAL_KEY).await?.map(|kv| kv.value.to_vec()).unwrap_or_default())
}

fn name(question: &Question) -> String {
    format!("{PREFIX}{}", question.key)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn no_error_has_a_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let refusal = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
                let _ = stream.write_all(refusal.as_bytes()).await;
                // The rest of what is asked is not read.
                let _ = stream.shutdown().await;
            }
        });
        for url in [
            "redis://:f00d@h:port",
            "redis://:f00d@",
            "redis://:f00d@h/f00d",
            "redis://:%fff00d@h",
            "rediss://:f00d@h/0#f00d",
            "redis://:f00d@127.0.0.1:1",
            &format!("redis://u:f00d@{address}"),
        ] {
            let settings = CacheSettings {
                url: url.to_owned(),
                timeout: Duration::from_secs(5),
                ..CacheSettings::default()
            };
            let said = match Shared::open(&settings) {
                Ok(shared) => {
                    shared.connection().await.map(drop).map_err(|error| format!("{error} {error:?}"))
                }
                Err(error) => Err(format!("{error} {error:?}")),
            };
            let said = said.unwrap_err();
            assert!(!said.contains("f00d"), "{url}: {said}");
        }
    }
}
