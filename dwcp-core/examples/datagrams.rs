//! Datagrams a second on one core, sent and received, over loopback: through a connection (encrypted, checked for replay,
//! queued) and over bare sockets, in turns. Prints the median of the rounds of each.
//!
//!     taskset -c 0 cargo run --release -p dwcp-core --example datagrams

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use dwcp_core::{
    Connection, DatagramKind, Endpoint, EndpointConfig,
    datagram_socket::{DatagramSocket as _, Outgoing, UdpDatagrams},
};
use tokio::time::timeout;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(500);
const BATCH: usize = 64;
/// One that is not there by then is lost.
const WAIT: Duration = Duration::from_millis(100);

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let loopback: SocketAddr = "127.0.0.1:0".parse()?;
    let mut config = EndpointConfig::new("server");
    config.datagrams.listen = Some(loopback);
    let server = Endpoint::listen(loopback, config).await?;
    let client = Endpoint::client(EndpointConfig::new("client"))?;
    client.add_datagram_socket(Arc::new(UdpDatagrams::bind(loopback)?))?;
    let addr = server.local_addr().ok_or("it listens")?;
    let (sender, receiver) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    let (sender, receiver) = (sender?, receiver.ok_or("a connection")?);
    let sockets = [UdpDatagrams::bind(loopback)?, UdpDatagrams::bind(loopback)?];
    for len in [64, 1160] {
        let mut bare = Vec::new();
        let mut service = Vec::new();
        for _ in 0..ROUNDS {
            // As long on the wire, where header and tag add 40 bytes: 1200 is what every path carries.
            bare.push(over_sockets(&sockets, len + 40)?);
            service.push(over_connection(&sender, &receiver, len).await?);
        }
        let (bare, service) = (median(bare), median(service));
        println!(
            "{len:4} bytes: bare UDP {:.2} M/s, connection {:.2} M/s ({:.0} %)",
            bare / 1e6,
            service / 1e6,
            100.0 * service / bare
        );
    }
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Datagrams received a second.
fn over_sockets([from, to]: &[UdpDatagrams; 2], len: usize) -> Outcome<f64> {
    let content = vec![7; len];
    let batch = [Outgoing { to: to.local_addr(), bytes: &content }; BATCH];
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        let mut sent = 0;
        while sent < BATCH {
            sent += from.send(&batch[sent..])?;
        }
        let mut arrived = 0;
        while arrived < BATCH {
            match to.recv(&mut |_, bytes| assert_eq!(bytes.len(), len)) {
                Ok(count) => arrived += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break, // lost
                Err(error) => return Err(error.into()),
            }
        }
        received += arrived;
    }
    Ok(received as f64 / start.elapsed().as_secs_f64())
}

/// Datagrams received a second.
async fn over_connection(from: &Connection, to: &Connection, len: usize) -> Outcome<f64> {
    let (from, to) =
        (from.datagrams().ok_or("datagrams are agreed")?, to.datagrams().ok_or("datagrams are agreed")?);
    let content = vec![7; len];
    let batch = [&content[..]; BATCH];
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        let mut sent = 0;
        while sent < BATCH {
            sent += from.send_all(DatagramKind::Message, &batch[sent..])?;
        }
        for _ in 0..BATCH {
            match timeout(WAIT, to.recv(DatagramKind::Message)).await {
                Ok(datagram) => assert_eq!(datagram?.len(), len),
                Err(_) => break, // lost
            }
            received += 1;
        }
    }
    Ok(f64::from(received) / start.elapsed().as_secs_f64())
}
