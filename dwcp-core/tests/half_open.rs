//! Ten thousand peers that begin a handshake and never go on. A file of its own, because it looks at the memory and
//! needs most descriptors of the whole process: both ends of each socket are in it.

use std::time::Duration;

use dwcp_core::{CompressionConfig, Endpoint, EndpointConfig};
use dwcp_proto::frame::{FrameHeader, FrameType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const HALF_OPEN: u64 = 10_000;
/// The endpoint's own bound (`accept.rs`).
const HANDSHAKES_MAX: u64 = 1024;
/// Descriptors for everything else.
const DESCRIPTORS_BESIDE: u64 = 256;
/// Less than a kilobyte for each of our sockets, and some for each handshake.
const GROWTH_MAX: u64 = HALF_OPEN * 1024 + HANDSHAKES_MAX * (16 << 10);
/// Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

fn config(name: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.transport.streams.initial = 1;
    // The bound is what ends them here, not the time.
    config.transport.handshake_timeout = PATIENCE;
    config
}

/// Raises the limit of open files as far as permitted; how many half-open peers fit, up to all.
fn room() -> u64 {
    let wanted = HALF_OPEN + 2 * HANDSHAKES_MAX + DESCRIPTORS_BESIDE;
    let has = || getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let hard = getrlimit(Resource::Nofile).maximum;
    // Beyond the hard limit only with privileges; up to it always.
    for maximum in [Some(wanted.max(hard.unwrap_or(u64::MAX))), hard] {
        let current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if has() < wanted {
            let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
        }
    }
    has().saturating_sub(2 * HANDSHAKES_MAX + DESCRIPTORS_BESIDE).min(HALF_OPEN)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Whether the endpoint still keeps its end of the socket.
fn is_open(socket: &TcpStream) -> bool {
    matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn honest_client_gets_in(server: &Endpoint) {
    let client = Endpoint::client(config("honest")).unwrap();
    let (a, b) = tokio::join!(client.connect(server.local_addr().unwrap(), "localhost"), server.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    let (mut send, _recv) = a.open_stream().await.unwrap();
    send.write_all(b"in").await.unwrap();
    let (_send, mut recv) = b.accept_stream().await.unwrap();
    assert_eq!(recv.read_chunk().await.unwrap().unwrap(), "in");
}

// DWCP-4.1: the number of handshakes that are under way is bounded.
#[tokio::test]
async fn ten_thousand_half_open_handshakes_keep_nobody_out() {
    let half_open = room();
    if half_open < 2 * HANDSHAKES_MAX {
        println!("SKIP: the limit of open files leaves room for {half_open} sockets only");
        return;
    }
    println!("{half_open} of {HALF_OPEN} half-open handshakes: what the limit of open files allows");
    let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config("server")).await.unwrap();
    honest_client_gets_in(&server).await;
    let before = resident();
    let begin = &FrameHeader::new(FrameType::Hello).encode()[..20];
    let mut sockets = Vec::new();
    for _ in 0..half_open {
        let mut socket = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
        let _ = socket.write_all(begin).await; // given up already, perhaps
        sockets.push(socket);
    }
    honest_client_gets_in(&server).await;
    let grown = resident().saturating_sub(before);
    println!("the process grew by {grown} bytes");
    assert!(grown <= GROWTH_MAX, "{grown} bytes, bound {GROWTH_MAX}");
    // The oldest gave way, and nothing else ended any.
    let given_up = async {
        for socket in &sockets[..(half_open - HANDSHAKES_MAX) as usize] {
            while is_open(socket) {
                socket.readable().await.unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, given_up).await.expect("more handshakes are kept than the bound says");
    let kept = sockets.iter().filter(|socket| is_open(socket)).count() as u64;
    // The honest clients took a place as well.
    assert!((HANDSHAKES_MAX - 2..=HANDSHAKES_MAX).contains(&kept), "{kept} handshakes are kept");
}
