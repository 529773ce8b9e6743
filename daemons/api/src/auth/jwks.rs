//! The keys that sign JSON web tokens: read from a file or fetched, kept, and looked for again when a token names one that
//! is not there.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::login::Effort;

/// Longest set of keys in bytes, and how many of its keys are taken.
const SET_BYTES_MAX: usize = 256 << 10;
const KEYS_MAX: usize = 64;
/// For one look, whatever it is at.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often is looked, at a file and at a URL.
const FILE_INTERVAL: Duration = Duration::from_secs(10);
const URL_INTERVAL: Duration = Duration::from_secs(300);
/// Between looks for keys that tokens name and that are not there: anybody can name keys.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(30);
/// Keys that could not be looked at again for so long are trusted no more: one of them may have been withdrawn.
const TRUSTED_MAX: Duration = Duration::from_secs(3600);

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwksSource {
    /// A file.
    File(PathBuf),
    /// A URL of https, or of http on loopback.
    Url(String),
}

/// No keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It cannot be read, or fetched.
    #[error("{place}: {reason}")]
    Unreachable {
        /// Path or URL.
        place: String,
        /// What went wrong.
        reason: String,
    },
    /// It is no set of keys.
    #[error("{place}: no JSON web key set: {source}")]
    Malformed {
        /// Path or URL.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It has no key for signatures of the algorithms that are known here.
    #[error("{place}: no key in it can be used")]
    NoKeys {
        /// Path or URL.
        place: String,
    },
}

/// One key.
#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    /// When they were looked at last.
    at: Option<Instant>,
}

/// What looking for a key comes to.
pub(crate) enum Found {
    Key(Box<DecodingKey>),
    /// There is no such key.
    Unknown,
    /// Nobody knows: the keys cannot be looked at.
    Unavailable,
}

/// The keys.
pub(crate) struct Jwks {
    source: JwksSource,
    tls: Option<Arc<ClientConfig>>,
    known: RwLock<Arc<Known>>,
    /// When an unknown key was looked for last. Held while it is.
    unknown_at: Mutex<Option<Instant>>,
}

impl Jwks {
    /// Nothing is read yet. `roots`: the authorities of a URL of https.
    pub(crate) fn new(source: JwksSource, roots: Option<RootCertStore>) -> Self {
        let tls = roots.map(|roots| {
            let provider = Arc::new(ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.expect("ring has TLS 1.3 and 1.2").with_root_certificates(roots);
            Arc::new(config.with_no_client_auth())
        });
        Self { source, tls, known: RwLock::default(), unknown_at: Mutex::default() }
    }

    /// The key that a token names, or the only one if it names none.
    pub(crate) async fn find(&self, id: Option<&str>, algorithm: Algorithm, effort: Effort) -> Found {
        let found = self.look_up(id, algorithm);
        if matches!(found, Found::Key(_)) || effort == Effort::Small {
            return found;
        }
        let mut unknown_at = self.unknown_at.lock().await;
        // Another one may have looked meanwhile.
        let found = self.look_up(id, algorithm);
        if matches!(found, Found::Key(_)) || unknown_at.is_some_and(|at| at.elapsed() < UNKNOWN_PAUSE) {
            return found;
        }
        *unknown_at = Some(Instant::now());
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "looking for an unknown key");
        }
        self.look_up(id, algorithm)
    }

    fn look_up(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let known = Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner));
        if known.at.is_none_or(|at| at.elapsed() > TRUSTED_MAX) {
            return Found::Unavailable;
        }
        let mut fitting = known.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        let key = match id {
            Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        key.map_or(Found::Unknown, |key| Found::Key(Box::new(key.key.clone())))
    }

    /// Looks at the keys.
    pub(crate) async fn refresh(&self) -> Result<(), JwksError> {
        let place = match &self.source {
            JwksSource::File(path) => path.display().to_string(),
            JwksSource::Url(url) => novacron_settings::without_password(url),
        };
        let unreachable = |reason| JwksError::Unreachable { place: place.clone(), reason };
        let bytes = match timeout(FETCH_TIMEOUT, self.bytes()).await {
            Ok(read) => read.map_err(|error| unreachable(error.to_string()))?,
            Err(_) => return Err(unreachable(format!("no answer within {FETCH_TIMEOUT:?}"))),
        };
        let keys = parsed(&bytes).map_err(|source| JwksError::Malformed { place: place.clone(), source })?;
        if keys.is_empty() {
            return Err(JwksError::NoKeys { place });
        }
        let known = Known { keys, at: Some(Instant::now()) };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    /// Reads the file, if it is one.
    pub(crate) fn check_file(&self) -> Result<(), JwksError> {
        let JwksSource::File(path) = &self.source else { return Ok(()) };
        let place = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|error| JwksError::Unreachable { place: place.clone(), reason: error.to_string() })?;
        match parsed(&bytes) {
            Ok(keys) if keys.is_empty() => Err(JwksError::NoKeys { place }),
            Ok(_) => Ok(()),
            Err(source) => Err(JwksError::Malformed { place, source }),
        }
    }

    async fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        match &self.source {
            JwksSource::File(path) => {
                let mut bytes = Vec::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
                anyhow::ensure!(bytes.len() <= SET_BYTES_MAX, "longer than {SET_BYTES_MAX} bytes");
                Ok(bytes)
            }
            JwksSource::Url(url) => self.fetch(&url.parse()?).await,
        }
    }

    async fn fetch(&self, url: &Uri) -> anyhow::Result<Vec<u8>> {
        let host = url.host().ok_or_else(|| anyhow::anyhow!("there is no host in it"))?;
        let address = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let socket = TcpStream::connect((address.as_str(), port)).await?;
        if !is_https {
            return get(socket, url).await;
        }
        let tls = self.tls.clone().ok_or_else(|| anyhow::anyhow!("no authority is known"))?;
        get(TlsConnector::from(tls).connect(ServerName::try_from(address)?, socket).await?, url).await
    }
}

async fn get<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    url: &Uri,
) -> anyhow::Result<Vec<u8>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let connection = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(response.status() == StatusCode::OK, "answered with {}", response.status());
    let body = Limited::new(response.into_body(), SET_BYTES_MAX).collect().await;
    connection.abort();
    Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes().to_vec())
}

/// Looks at the keys again and again.
pub(crate) async fn keep_fresh(keys: Arc<super::jwt::Jwt>) {
    let jwks = &keys.keys;
    let mut ticks = interval(match jwks.source {
        JwksSource::File(_) => FILE_INTERVAL,
        JwksSource::Url(_) => URL_INTERVAL,
    });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = jwks.refresh().await {
            tracing::warn!(%error, "keys of tokens; those that are known are trusted for {TRUSTED_MAX:?}");
        }
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// The keys of a set that can be used; what is not understood is left out, as RFC 7517 has it.
fn parsed(bytes: &[u8]) -> Result<Vec<Key>, serde_json::Error> {
    let set: Set = serde_json::from_slice(bytes)?;
    let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    Ok(jwks.filter_map(|jwk| usable(&jwk)).take(KEYS_MAX).collect())
}

fn usable(jwk: &Jwk) -> Option<Key> {
    use Algorithm::*;
    let is_for_signatures = match (&jwk.common.public_key_use, &jwk.common.key_operations) {
        (Some(purpose), _) => *purpose == PublicKeyUse::Signature,
        (None, Some(operations)) => operations.contains(&KeyOperations::Verify),
        (None, None) => true,
    };
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        // Secrets among them.
        _ => return None,
    };
    if let Some(only) = jwk.common.key_algorithm {
        algorithms.retain(|algorithm| only.to_string() == format!("{algorithm:?}"));
    }
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| is_for_signatures && !algorithms.is_empty())?;
    Some(Key { id: jwk.common.key_id.clone(), algorithms, key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let ec = |more: serde_json::Value| {
            let mut key = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y });
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        for (key, taken) in [
            (ec(json!({})), true),
            (ec(json!({ "use": "sig", "alg": "ES256" })), true),
            (ec(json!({ "use": "enc" })), false),
            (ec(json!({ "alg": "HS256" })), false),
            (ec(json!({ "alg": "ES384" })), false),
            (ec(json!({ "key_ops": ["verify"] })), true),
            (ec(json!({ "key_ops": ["sign"] })), false),
            (json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }), false),
            (json!({ "kty": "new", "x": 1 }), false),
            (json!({ "kty": "EC", "crv": "P-521", "x": X, "y": Y }), false),
            (json!(1), false),
        ] {
            let set = json!({ "keys": [key] }).to_string();
            assert_eq!(parsed(set.as_bytes()).unwrap().len(), usize::from(taken), "{set}");
        }
        assert!(parsed(b"{}").is_err());
    }

    #[tokio::test]
    async fn keys_are_looked_for_with_full_effort_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let key = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "k" });
        std::fs::write(&file, json!({ "keys": [key] }).to_string()).unwrap();
        let jwks = Jwks::new(JwksSource::File(file), None);
        let find = |effort| jwks.find(Some("k"), Algorithm::ES256, effort);
        assert!(matches!(find(Effort::Small).await, Found::Unavailable));
        assert!(matches!(find(Effort::Full).await, Found::Key(_)));
        assert!(matches!(find(Effort::Small).await, Found::Key(_)));
        assert!(matches!(jwks.find(Some("l"), Algorithm::ES256, Effort::Small).await, Found::Unknown));
    }

    #[tokio::test]
    async fn no_error_has_a_password() {
        for url in
            ["http://u:f00d@127.0.0.1:1/keys", "http://127.0.0.1:1/?password=f00d", "https://u:f00d@h:x/"]
        {
            let error = Jwks::new(JwksSource::Url(url.to_owned()), None).refresh().await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("f00d"), "{error}");
            assert!(error.to_string().starts_with("http") && error.to_string().contains("***"), "{error}");
        }
    }

    #[test]
    fn a_set_has_a_bound() {
        let key = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y });
        let set = json!({ "keys": vec![key; KEYS_MAX + 1] }).to_string();
        assert_eq!(parsed(set.as_bytes()).unwrap().len(), KEYS_MAX);
    }
}
