//! The way to the API: HTTP/1.1, with TLS where its URL says so, a request a connection.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri, body::Incoming, client::conn::http1, header,
    http::uri::Scheme,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use super::ApiOptions;
use crate::exit::{Ended, Usage};

/// For a request, from connecting to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(40);
/// A stream of events that is silent for so long is begun anew: the API gives a sign of life each 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Between attempts to go on with a stream, unless the API says how long, and how many in a row may fail.
const RESUME_PAUSE: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const RESUMES_MAX: u32 = 30;
/// Largest answer that is read, and longest event.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const EVENT_BYTES_MAX: usize = 1 << 20;

const LAST_EVENT_ID: header::HeaderName = header::HeaderName::from_static("last-event-id");

pub(super) struct Client {
    base: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    authorization: Option<header::HeaderValue>,
}

/// One answer of a stream of events.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    name: String,
    data: String,
}

impl Client {
    pub(super) fn new(options: &ApiOptions) -> Result<Self> {
        let wrong = |why: &str| Usage(format!("--api {}: {why}", options.api));
        let base: Uri = options.api.parse().map_err(|_| wrong("expected a URL such as https://HOST:8080"))?;
        let host = base.host().ok_or_else(|| wrong("expected a host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        if base.path().len() > 1 || base.query().is_some() {
            return Err(wrong("expected no path: commands know theirs").into());
        }
        let tls = match base.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => None,
            Some(scheme) if *scheme == Scheme::HTTPS => Some(connector(options)?),
            _ => return Err(wrong("expected http:// or https://").into()),
        };
        let port = base.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let authorization = match token(options.token_file.as_deref())? {
            None => None,
            Some(_) if tls.is_none() && !is_loopback(&host) => {
                return Err(Ended::refused(format!(
                    "{}: a token is not sent without TLS to another machine; use https://",
                    options.api
                ))
                .into());
            }
            Some(token) => {
                let mut value = header::HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| Usage("the token has characters that no token has".to_owned()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { base, host, port, tls, authorization })
    }

    /// Asks; returns the answer's JSON, or null if it has none.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        // Whatever is there.
        let condition = (method == Method::DELETE).then_some((header::IF_MATCH, "*"));
        Ok(self.answer(method, path, body, condition).await?.0)
    }

    /// Changes a resource: what is there, and nothing that was written meanwhile.
    pub(super) async fn change(&self, path: &str, change: impl FnOnce(&mut Value)) -> Result<Value> {
        let (mut value, etag) = self.answer(Method::GET, path, None, None).await?;
        change(&mut value);
        let condition = Some((header::IF_MATCH, etag.as_str()));
        Ok(self.answer(Method::PUT, path, Some(&value), condition).await?.0)
    }

    /// The answer's JSON, and its ETag.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        condition: Option<(header::HeaderName, &str)>,
    ) -> Result<(Value, String)> {
        let asked = async {
            let response = self.send(method, path, body, condition).await?;
            let status = response.status();
            let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
            let etag = etag.unwrap_or_default().to_owned();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.failed(&error))?.to_bytes();
            if status.is_success() {
                return Ok((serde_json::from_slice(&body).unwrap_or_default(), etag));
            }
            Err(refused(status, &body))
        };
        timeout(TIMEOUT, asked).await.map_err(|_| self.failed(&format!("no answer within {TIMEOUT:?}")))?
    }

    /// Hands on the data of each event until the one of the end; goes on where a stream was lost.
    pub(super) async fn follow(&self, path: &str, mut each: impl FnMut(Value) -> Result<()>) -> Result<()> {
        let (mut last, mut failures) = (None::<String>, 0);
        loop {
            let condition = last.as_deref().map(|last| (LAST_EVENT_ID, last));
            let stream = timeout(TIMEOUT, self.send(Method::GET, path, None, condition)).await;
            let (why, pause) = match stream.map_err(|_| self.failed(&"no answer")).flatten() {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => return Ok(()),
                Ok(response) if response.status() == StatusCode::OK => {
                    if self.events(response.into_body(), &mut last, &mut failures, &mut each).await? {
                        return Ok(());
                    }
                    // As a replica that drains ends it at once.
                    (self.failed(&"streams of events end before anything is told"), RESUME_PAUSE)
                }
                Ok(response) => {
                    let (status, pause) = (response.status(), retry_after(response.headers()));
                    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
                    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    let why = refused(status, &body);
                    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        return Err(why);
                    }
                    (why, pause)
                }
                Err(error) => (error, RESUME_PAUSE),
            };
            failures += 1;
            if failures > RESUMES_MAX {
                return Err(why);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Hands on what one stream tells; whether that was all.
    async fn events(
        &self,
        mut body: Incoming,
        last: &mut Option<String>,
        failures: &mut u32,
        each: &mut impl FnMut(Value) -> Result<()>,
    ) -> Result<bool> {
        let mut read = Vec::new();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await {
            *failures = 0;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(event) = next_event(&mut read) {
                *last = event.id.or(last.take());
                let is_end = event.name == "end";
                if is_end || event.name == "progress" {
                    each(serde_json::from_str(&event.data).context("an event of the API")?)?;
                }
                if is_end {
                    return Ok(true);
                }
            }
            if read.len() > EVENT_BYTES_MAX {
                return Err(self.failed(&format!("an event of more than {EVENT_BYTES_MAX} bytes")));
            }
        }
        Ok(false)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        more: Option<(header::HeaderName, &str)>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, self.base.authority().map_or("", |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("novacron/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = more {
            request = request.header(name, value);
        }
        let body = Full::new(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default());
        let request = request.body(body).map_err(|_| Usage(format!("{path} is no path")))?;
        let tcp = TcpStream::connect((&*self.host, self.port)).await.map_err(|error| self.failed(&error))?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => self.exchange(tcp, request).await,
            Some(connector) => {
                let name = ServerName::try_from(self.host.clone()).context("the API's host")?;
                let tls = connector.connect(name, tcp).await.map_err(|error| self.failed(&error))?;
                self.exchange(tls, request).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        // It ends with the answer.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, why: &dyn std::fmt::Display) -> anyhow::Error {
        Ended::failed(format!("{}: {why} (--api or NOVACRON_API says where the API is)", self.base)).into()
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn token(file: Option<&Path>) -> Result<Option<String>> {
    let given = match file {
        Some(file) => Some(fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?),
        None => std::env::var("NOVACRON_API_TOKEN").ok(),
    };
    Ok(given.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
}

fn connector(options: &ApiOptions) -> Result<TlsConnector> {
    let Some(file) = &options.cacert else {
        return Err(Usage(
            "https:// takes --cacert, the authorities that may have signed the certificate".to_owned(),
        )
        .into());
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).with_context(|| format!("{}", file.display()))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots);
    let config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let read =
                PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
            config.with_client_auth_cert(certificates(cert)?, read).context("--cert and --key")?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let read = read.with_context(|| format!("reading {}", file.display()))?;
    if read.is_empty() {
        return Err(Usage(format!("{}: no certificate in it", file.display())).into());
    }
    Ok(read)
}

/// How long to wait before the next attempt.
fn retry_after(headers: &header::HeaderMap) -> Duration {
    let told = headers.get(header::RETRY_AFTER).and_then(|told| told.to_str().ok()?.parse().ok());
    told.map_or(RESUME_PAUSE, Duration::from_secs).clamp(RESUME_PAUSE, RETRY_AFTER_MAX)
}

/// What the API says of a refusal, and the exit code for it.
fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let title = problem["title"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    let detail = problem["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
    let words = format!("{title}{detail}");
    match status {
        StatusCode::UNAUTHORIZED => {
            Ended::refused(format!("{words} (--token-file, NOVACRON_API_TOKEN, or --cert and --key log in)"))
                .into()
        }
        StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
            Ended::refused(words).into()
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Usage(words).into(),
        _ => Ended::failed(words).into(),
    }
}

/// Takes the first whole event off what was read (WHATWG HTML, 9.2.6). Comments are events without a name.
fn next_event(read: &mut Vec<u8>) -> Option<Event> {
    let end = read.windows(2).position(|two| two == b"\n\n")?;
    let text = String::from_utf8_lossy(&read[..end]).into_owned();
    read.drain(..end + 2);
    let mut event = Event { id: None, name: String::new(), data: String::new() };
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut event.name),
            "data" => event.data += value,
            _ => {}
        }
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A client of an API that gives these answers, the last one again and again, and how many it has given.
    async fn client_of(answers: &'static [&'static str]) -> (Client, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let given = Arc::new(AtomicUsize::new(0));
        let api = format!("http://{}", listener.local_addr().unwrap());
        let count = given.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = Vec::new();
                while !read.ends_with(b"\r\n\r\n") {
                    read.push(stream.read_u8().await.unwrap());
                }
                let n = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                let head = String::from_utf8(read).unwrap().to_lowercase();
                let is_resumed = head.contains("last-event-id: 7");
                let answer = if is_resumed { "204 .\r\n\r\n" } else { answers[n] };
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            }
        });
        let base: Uri = api.parse().unwrap();
        let (host, port) = (base.host().unwrap().to_owned(), base.port_u16().unwrap());
        (Client { base, host, port, tls: None, authorization: None }, given)
    }

    #[tokio::test]
    async fn streams_that_end_at_once_are_not_asked_for_at_once() {
        let (client, given) = client_of(&["200 .\r\nContent-Length: 0\r\n\r\n"]).await;
        timeout(3 * RESUME_PAUSE, client.follow("/", |_| Ok(()))).await.unwrap_err();
        assert!((1..=4).contains(&given.load(Ordering::SeqCst)), "{given:?}");
    }

    #[tokio::test]
    async fn a_limit_is_waited_for_and_a_stream_goes_on() {
        const EVENT: &str = "200 .\r\nConnection: close\r\n\r\nid: 7\nevent: progress\ndata: 1\n\n";
        const LIMITED: &str = "429 .\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n";
        let (client, given) = client_of(&[LIMITED, EVENT]).await;
        let mut told = Vec::new();
        let followed = client.follow("/", |event| {
            told.push(event);
            Ok(())
        });
        followed.await.unwrap();
        assert_eq!((told, given.load(Ordering::SeqCst)), (vec![Value::from(1)], 3));
    }

    #[test]
    fn how_long_to_wait_has_bounds() {
        let after = |told: &'static str| {
            let told = header::HeaderValue::from_static(told);
            retry_after(&header::HeaderMap::from_iter([(header::RETRY_AFTER, told)]))
        };
        assert_eq!(after("5"), Duration::from_secs(5));
        assert_eq!((after("0"), after("x"), after("9999")), (RESUME_PAUSE, RESUME_PAUSE, RETRY_AFTER_MAX));
    }

    #[test]
    fn events_are_taken_one_by_one_when_they_are_whole() {
        let mut read = b": alive\n\nid: 7\nevent: progress\ndata: {\"a\":1}\n\nid: 8\neve".to_vec();
        assert_eq!(next_event(&mut read).unwrap().name, "");
        let event = Event { id: Some("7".into()), name: "progress".into(), data: "{\"a\":1}".into() };
        assert_eq!(next_event(&mut read), Some(event));
        assert_eq!(next_event(&mut read), None);
        read.extend_from_slice(b"nt: end\n\n");
        assert_eq!(next_event(&mut read).unwrap().name, "end");
        assert!(read.is_empty());
    }
}
