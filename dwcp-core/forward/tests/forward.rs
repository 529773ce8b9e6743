//! Sockets at two nodes, and between them a proxy that cuts links: what one end does to its socket, the other end sees.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dwcp_core::{Connection, Endpoint, EndpointConfig};
use dwcp_forward::{Address, Allowed, Dial, Dialing, serve, take};
use proxy::{Cut, Proxy};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::oneshot,
    time::timeout,
};

#[allow(dead_code, reason = "made for the driver's tests")]
#[path = "../../tests/driver/proxy.rs"]
mod proxy;

/// Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn config(name: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.allow_plaintext = true;
    config
}

/// Dials through the proxy, and remembers the connection.
struct Through {
    client: Endpoint,
    proxy: SocketAddr,
    made: Arc<std::sync::Mutex<Vec<Connection>>>,
}

impl Dial for Through {
    async fn dial(&self) -> io::Result<Connection> {
        let connection = self.client.connect(self.proxy, "far").await.map_err(io::Error::other)?;
        self.made.lock().unwrap().push(connection.clone());
        Ok(connection)
    }
}

/// Two nodes.
struct Nodes {
    proxy: Proxy,
    dialing: Arc<Dialing<Through>>,
    made: Arc<std::sync::Mutex<Vec<Connection>>>,
}

impl Nodes {
    async fn new(allowed: &[&Address]) -> Self {
        let far = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config("far")).await.unwrap();
        let proxy = Proxy::start(far.local_addr().unwrap()).await;
        let allowed = Allowed::new(allowed.iter().map(|&address| address.clone()));
        tokio::spawn(async move {
            while let Some(connection) = far.accept().await {
                let allowed = allowed.clone();
                tokio::spawn(async move { serve(&connection, &allowed).await });
            }
        });
        let (made, client) = (Arc::default(), Endpoint::client(config("near")).unwrap());
        let through = Through { client, proxy: proxy.addr, made: Arc::clone(&made) };
        Self { proxy, dialing: Arc::new(Dialing::new(through)), made }
    }

    /// Where to connect to, to speak with a target.
    async fn listen(&self, target: &Address) -> SocketAddr {
        let (told, listening) = oneshot::channel();
        let (target, dialing) = (target.clone(), self.dialing.clone());
        tokio::spawn(async move {
            let mut told = Some(told);
            let listen = "tcp:127.0.0.1:0".parse().unwrap();
            take(&listen, target, dialing, |address| {
                let _ = told.take().unwrap().send(address.unwrap());
            })
            .await
        });
        listening.await.unwrap()
    }
}

async fn tcp_target() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, address)
}

async fn patiently<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it hangs")
}

/// Answers what came with as many other bytes, once the other half has ended.
async fn answer(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let mut asked = Vec::new();
    socket.read_to_end(&mut asked).await.unwrap();
    let hash = blake3::hash(&asked);
    socket.write_all(hash.as_bytes()).await.unwrap();
    socket.write_all(&noise(asked.len(), asked.len() as u64)).await.unwrap();
    socket.shutdown().await.unwrap();
}

async fn ask(mut socket: impl AsyncRead + AsyncWrite + Unpin, len: usize, seed: u64) {
    let asked = noise(len, seed);
    socket.write_all(&asked).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answered = Vec::new();
    socket.read_to_end(&mut answered).await.unwrap();
    assert_eq!(&answered[..32], blake3::hash(&asked).as_bytes());
    assert!(answered[32..] == noise(len, len as u64));
}

/// FORWARD-3.1
#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_ends_ends_there_and_the_other_goes_on() {
    let (listener, target) = tcp_target().await;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    let nodes = Nodes::new(&[&target]).await;
    let address = nodes.listen(&target).await;
    for len in [0, 1, 100_000, 5 * MIB] {
        patiently(ask(TcpStream::connect(address).await.unwrap(), len, 1)).await;
    }
    assert_eq!(nodes.made.lock().unwrap().len(), 1, "one connection carries all");
}

/// FORWARD-1.1
#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let far = UnixListener::bind(path("far.sock")).unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = far.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    let target = Address::Unix(path("far.sock"));
    let nodes = Nodes::new(&[&target]).await;
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(path("near.sock")).unwrap());
    let (told, listening) = oneshot::channel();
    let (near, dialing) = (Address::Unix(path("near.sock")), nodes.dialing.clone());
    tokio::spawn(async move {
        let mut told = Some(told);
        take(&near, target, dialing, |_| {
            let _ = told.take().unwrap().send(());
        })
        .await
        .unwrap();
    });
    listening.await.unwrap();
    patiently(ask(UnixStream::connect(path("near.sock")).await.unwrap(), 3 * MIB, 1)).await;
}

/// FORWARD-3.4
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let (listener, target) = tcp_target().await;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    let nodes = Nodes::new(&[&target]).await;
    let address = nodes.listen(&target).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..200 {
        asking.spawn(async move {
            ask(TcpStream::connect(address).await.unwrap(), 1 + number as usize * 731, number).await;
        });
    }
    patiently(asking.join_all()).await;
}

fn reset(socket: &TcpStream) {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// FORWARD-3.2
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_a_reset_there_whoever_does_it() {
    let (listener, target) = tcp_target().await;
    let nodes = Nodes::new(&[&target]).await;
    let address = nodes.listen(&target).await;
    for by_target in [true, false] {
        let mut near = TcpStream::connect(address).await.unwrap();
        near.write_all(b"hello").await.unwrap();
        let (mut far, _) = patiently(listener.accept()).await.unwrap();
        let mut hello = [0; 5];
        patiently(far.read_exact(&mut hello)).await.unwrap();
        let mut other = if by_target {
            reset(&far);
            drop(far);
            near
        } else {
            reset(&near);
            drop(near);
            far
        };
        let read = patiently(other.read(&mut hello)).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "by target: {by_target}");
    }
}

/// FORWARD-2.2
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_or_not_there_is_reset() {
    let (listener, target) = tcp_target().await;
    let (gone, nobody) = tcp_target().await;
    drop(gone);
    let nodes = Nodes::new(&[&nobody]).await;
    for refused in [&target, &nobody] {
        let address = nodes.listen(refused).await;
        // The reset may be there before the connection is looked at.
        let read = patiently(async { TcpStream::connect(address).await?.read(&mut [0]).await }).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{refused}");
    }
    let never = timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(never.is_err(), "what is not allowed is not connected to");
}

/// FORWARD-3.3: links are cut while bytes go both ways; neither end sees anything.
#[tokio::test(flavor = "multi_thread")]
async fn lost_links_are_survived() {
    let (listener, target) = tcp_target().await;
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = socket.into_split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let nodes = Nodes::new(&[&target]).await;
    let address = nodes.listen(&target).await;
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let sent = noise(64 * MIB, 1);
    let expected = blake3::hash(&sent);
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let read_bytes = Arc::new(AtomicU64::new(0));
    let counted = read_bytes.clone();
    let reading = tokio::spawn(async move {
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 64 << 10]);
        loop {
            let count = read.read(&mut buffer).await.unwrap();
            if count == 0 {
                return hasher.finalize();
            }
            hasher.update(&buffer[..count]);
            counted.fetch_add(count as u64, Relaxed);
        }
    });
    let mut cuts = 0;
    for part in 1..8 {
        while read_bytes.load(Relaxed) < part * 8 * MIB as u64 && !reading.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        nodes.proxy.cut_all(if part % 2 == 0 { Cut::Reset } else { Cut::Close });
        cuts += 1;
    }
    patiently(writing).await.unwrap();
    assert_eq!(patiently(reading).await.unwrap(), expected);
    assert_eq!((cuts, nodes.made.lock().unwrap().len()), (7, 1), "it is the same connection");
}

/// FORWARD-3.3: when the connection has ended, so have the sockets; and the next one gets a new connection.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_connection_is_no_end_of_the_data() {
    let (listener, target) = tcp_target().await;
    let nodes = Nodes::new(&[&target]).await;
    let address = nodes.listen(&target).await;
    let mut near = TcpStream::connect(address).await.unwrap();
    near.write_all(b"hello").await.unwrap();
    let (mut far, _) = patiently(listener.accept()).await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
    nodes.made.lock().unwrap()[0].close(0, "closed by a test");
    for socket in [&mut near, &mut far] {
        let read = patiently(socket.read(&mut [0])).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    tokio::spawn(async move { answer(listener.accept().await.unwrap().0).await });
    patiently(ask(TcpStream::connect(address).await.unwrap(), 1000, 1)).await;
    assert_eq!(nodes.made.lock().unwrap().len(), 2);
}

/// FORWARD-3.1: a reader that does not read makes the writer wait, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_makes_the_writer_wait() {
    let (listener, target) = tcp_target().await;
    let nodes = Nodes::new(&[&target]).await;
    let address = nodes.listen(&target).await;
    let near = TcpStream::connect(address).await.unwrap();
    let (far, _) = patiently(listener.accept()).await.unwrap();
    let (_read, mut write) = near.into_split();
    let written = Arc::new(AtomicU64::new(0));
    let (part, counted) = (noise(MIB, 1), written.clone());
    let writing = tokio::spawn(async move {
        for _ in 0..400 {
            write.write_all(&part).await.unwrap();
            counted.fetch_add(MIB as u64, Relaxed);
        }
        write.shutdown().await.unwrap();
    });
    let mut before = u64::MAX;
    while before != written.load(Relaxed) {
        before = written.load(Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(before < 300 * MIB as u64, "{before} bytes were taken for a reader that does not read");
    let mut far = far;
    let mut count = 0;
    let mut buffer = vec![0; MIB];
    loop {
        match patiently(far.read(&mut buffer)).await.unwrap() {
            0 => break,
            len => count += len,
        }
    }
    patiently(writing).await.unwrap();
    assert_eq!(count, 400 * MIB);
}
