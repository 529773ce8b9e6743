//! Compares one TLS link of ours with raw `tokio-rustls` on loopback: the same certificates, cipher
//! suite and 256 KiB writes, alternating in one run. Prints the median of each and their ratio.
//!
//! `cargo run --release -p dwcp-core --example tls_link [ROUNDS [SECONDS [LINKS]]]`

use std::{
    io::{self, IoSlice, IoSliceMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dwcp_core::security::{LinkSocket, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const WRITE_BYTES: usize = 256 << 10;
const NAME: &str = "node.example";

fn config() -> TlsConfig {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let pem = [cert.pem(), key.serialize_pem(), ca.pem()];
    TlsConfig::from_pem(pem[0].as_bytes(), pem[1].as_bytes(), pem[2].as_bytes(), None).unwrap()
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

type Link = (JoinHandle<()>, JoinHandle<()>);

async fn raw(config: &TlsConfig, received: Arc<AtomicU64>) -> Link {
    let (client, server) = tcp_pair().await;
    let name = ServerName::try_from(NAME).unwrap();
    let connector = TlsConnector::from(config.client_config());
    let acceptor = TlsAcceptor::from(config.server_config());
    let (client, server) = tokio::join!(connector.connect(name, client), acceptor.accept(server));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let writer = tokio::spawn(async move {
        let data = vec![7; WRITE_BYTES];
        while client.write_all(&data).await.is_ok() {}
    });
    let reader = tokio::spawn(async move {
        let mut data = vec![0; WRITE_BYTES];
        while let Ok(got @ 1..) = server.read(&mut data).await {
            received.fetch_add(got as u64, Ordering::Relaxed);
        }
    });
    (writer, reader)
}

async fn ours(config: &TlsConfig, received: Arc<AtomicU64>) -> Link {
    let (client, server) = tcp_pair().await;
    let (client, server) =
        tokio::join!(LinkSocket::connect_tls(client, NAME, config), LinkSocket::accept_tls(server, config));
    let (client, server) = (client.unwrap().0, server.unwrap().0);
    let writer = tokio::spawn(async move {
        let data = vec![7; WRITE_BYTES];
        let mut start = 0;
        loop {
            match client.try_write(&[IoSlice::new(&data[start..])]) {
                Ok(taken) => start = (start + taken) % WRITE_BYTES,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.writable().await.unwrap(),
                Err(_) => return,
            }
            tokio::task::coop::consume_budget().await;
        }
    });
    let reader = tokio::spawn(async move {
        let mut data = vec![0; WRITE_BYTES];
        loop {
            match server.try_read(&mut [IoSliceMut::new(&mut data)]) {
                Ok(got @ 1..) => _ = received.fetch_add(got as u64, Ordering::Relaxed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => server.readable().await.unwrap(),
                _ => return,
            }
            tokio::task::coop::consume_budget().await;
        }
    });
    (writer, reader)
}

/// CPU time of this process in seconds, both sides of all links together.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // proc_pid_stat(5): utime and stime are fields 14 and 15; the name before may hold spaces.
    let fields = stat.rsplit(')').next().unwrap().split_ascii_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SECOND
}

/// Gigabits of payload per second, and CPU seconds per gigabyte.
async fn measure(config: &TlsConfig, links: usize, time: Duration, is_ours: bool) -> [f64; 2] {
    let received = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..links {
        tasks.push(match is_ours {
            true => ours(config, received.clone()).await,
            false => raw(config, received.clone()).await,
        });
    }
    tokio::time::sleep(time / 5).await;
    let (start, cpu, before) = (Instant::now(), cpu_seconds(), received.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let bytes = received.load(Ordering::Relaxed) - before;
    let rate = bytes as f64 * 8e-9 / start.elapsed().as_secs_f64();
    let cost = (cpu_seconds() - cpu) / (bytes as f64 * 1e-9);
    for (writer, reader) in tasks {
        writer.abort();
        reader.abort();
    }
    [rate, cost]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<f64>().expect("a number"));
    let rounds = arguments.next().map_or(7, |rounds| rounds as usize);
    let time = Duration::from_secs_f64(arguments.next().unwrap_or(2.0));
    let links = arguments.next().map_or(1, |links| links as usize);
    let config = config();
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for is_ours in [round % 2 == 1, round % 2 == 0] {
            rates[usize::from(is_ours)].push(measure(&config, links, time, is_ours).await);
        }
    }
    println!("{links} link(s), {rounds} rounds of {time:?} each, medians:");
    let unzip = |samples: &Vec<[f64; 2]>| {
        [median(samples.iter().map(|s| s[0]).collect()), median(samples.iter().map(|s| s[1]).collect())]
    };
    let [raw, ours] = [unzip(&rates[0]), unzip(&rates[1])];
    println!("tokio-rustls {:6.2} Gbit/s of payload, {:.2} CPU seconds per GB", raw[0], raw[1]);
    println!("LinkSocket   {:6.2} Gbit/s of payload, {:.2} CPU seconds per GB", ours[0], ours[1]);
    println!("ratio {:.2} in rate, {:.2} in cost", ours[0] / raw[0], ours[1] / raw[1]);
}
