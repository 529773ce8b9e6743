//! What a connection between two processes carries, over TCP or RDMA: bulk, acknowledged by the reader, and round trips
//! of 64-byte requests. Plaintext. `scripts/test-rdma.sh --compare` runs it beside the verbs tools.
//!
//!     link_bench listen 10.9.0.2:7000 [ZONE]
//!     link_bench connect 10.9.0.2:7000 [ZONE]
//!
//! With a trust zone, such as 10.9.0.0/24, over RDMA or not at all.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use dwcp_core::{CompressionConfig, Connection, Endpoint, EndpointConfig, Priority};

const BULK: usize = 24 << 20;
const BLOCK: usize = 1 << 20;
const ROUND_TRIPS: usize = 400;
/// A round trip, or becoming a link over RDMA, takes no longer.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["listen", addr, ref zone @ ..] => listen(addr.parse()?, zone).await,
        ["connect", addr, ref zone @ ..] => connect(addr.parse()?, zone).await,
        _ => anyhow::bail!("usage: link_bench listen|connect ADDR [ZONE]"),
    }
}

fn config(name: &str, zones: &[&str]) -> Result<EndpointConfig> {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.allow_plaintext = true;
    config.transport.streams.initial = 1;
    config.transport.streams.max = 1;
    for zone in zones {
        config.transport.rdma_zones.push(zone.parse()?);
    }
    Ok(config)
}

async fn listen(addr: SocketAddr, zones: &[&str]) -> Result<()> {
    let server = Endpoint::listen(addr, config("server", zones)?).await?;
    let connection = server.accept().await.context("a connection")?;
    let messages = connection.messages();
    tokio::spawn(async move {
        while let Ok(message) = messages.recv().await {
            if let Some(responder) = message.responder {
                let _ = responder.respond(message.payload); // the client may be gone
            }
        }
    });
    let (mut answer, mut incoming) = connection.accept_stream().await?;
    while incoming.read_chunk().await?.is_some() {}
    answer.finish()?;
    connection.closed().await;
    Ok(())
}

async fn connect(addr: SocketAddr, zones: &[&str]) -> Result<()> {
    let client = Endpoint::client(config("client", zones)?)?;
    let until = Instant::now() + DEADLINE;
    let connection = loop {
        match client.connect(addr, "localhost").await {
            Ok(connection) => break connection,
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let wanted = if zones.is_empty() { "tcp" } else { "rdma" };
    let is_wanted = || connection.stats().links.iter().any(|link| link.transport == wanted);
    while !is_wanted() {
        ensure!(Instant::now() < until, "the connection is not over {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("round_trip_us {:.1}", round_trip(&connection).await?.as_secs_f64() * 1e6);
    println!("bulk_mib_s {:.1}", bulk(&connection).await?);
    ensure!(is_wanted(), "the link over {wanted} was lost");
    connection.close(0, "done");
    client.shutdown(DEADLINE).await;
    Ok(())
}

/// The median.
async fn round_trip(connection: &Connection) -> Result<Duration> {
    let messages = connection.messages();
    let question = Bytes::from_static(&[7; 64]);
    let mut times = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        let answer = messages.request(Priority::Control, question.clone(), DEADLINE).await?;
        times.push(started.elapsed());
        ensure!(answer == question, "a wrong answer");
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// In MiB a second.
async fn bulk(connection: &Connection) -> Result<f64> {
    let block = Bytes::from(vec![7; BLOCK]);
    let (mut send, mut recv) = connection.open_stream().await?;
    let started = Instant::now();
    for _ in 0..BULK / BLOCK {
        send.write_bytes(block.clone()).await?;
    }
    send.finish()?;
    ensure!(recv.read_chunk().await?.is_none(), "an answer without bytes");
    Ok(BULK as f64 / started.elapsed().as_secs_f64() / (1 << 20) as f64)
}
