//! Clients that ask over HTTP/1.1, each on a connection of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

/// Machines in the inventory.
pub(crate) const VMS: usize = 1000;
/// Before what counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    Read,
    Write,
}

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read of a VM",
            Self::Write => "change of a VM",
        }
    }
}

pub(crate) struct Outcome {
    pub(crate) latency: Histogram<u64>,
    pub(crate) failed: u64,
    seconds: f64,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.seconds
    }
}

/// The path and what is put there.
pub(crate) fn vm(n: usize) -> (String, Bytes) {
    let name = format!("bench-{n}");
    let vm = json!({
        "name": name, "cpus": 2, "memory_bytes": 2_147_483_648_u64, "image": "images/debian-13.img",
        "region": "eu-1", "desired_state": "running",
    });
    (format!("/api/v1/vms/{name}"), vm.to_string().into())
}

pub(crate) async fn connect(port: u16) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Asks, and waits for all of the answer.
pub(crate) async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    headers: &[(header::HeaderName, &str)],
    body: Bytes,
) -> Result<(StatusCode, Bytes)> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    sender.ready().await?;
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// Has so many connections ask for so many seconds.
pub(crate) async fn run(load: Load, port: u16, connections: usize, seconds: f64) -> Result<Outcome> {
    let clients = try_join_all((0..connections).map(|_| connect(port))).await?;
    let began = Instant::now() + WARM_UP;
    let until = began + Duration::from_secs_f64(seconds);
    let work = clients.into_iter().enumerate().map(|(n, mut sender)| {
        tokio::spawn(async move {
            let (mut latency, mut failed) = (Histogram::<u64>::new(3)?, 0);
            let mut next = n;
            while Instant::now() < until {
                let (path, body) = vm(next % VMS);
                // Another one each time, and no two clients at the same.
                next += connections;
                let asked = Instant::now();
                let (status, _) = match load {
                    Load::Read => ask(&mut sender, Method::GET, &path, &[], Bytes::new()).await?,
                    Load::Write => {
                        ask(&mut sender, Method::PUT, &path, &[(header::IF_MATCH, "*")], body).await?
                    }
                };
                match status {
                    StatusCode::OK if asked >= began => latency.record(asked.elapsed().as_micros() as u64)?,
                    StatusCode::OK => {}
                    _ => failed += 1,
                }
            }
            anyhow::Ok((latency, failed))
        })
    });
    let mut outcome = Outcome { latency: Histogram::new(3)?, failed: 0, seconds };
    for task in work.collect::<Vec<_>>() {
        let (latency, failed) = task.await??;
        outcome.latency.add(latency)?;
        outcome.failed += failed;
    }
    Ok(outcome)
}
