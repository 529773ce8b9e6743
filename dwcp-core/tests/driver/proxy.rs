//! A TCP proxy whose connections can be cut, closed, starved and counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use socket2::SockFilter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
};

/// Bytes taken from a socket at once.
const CHUNK_LEN: usize = 16 << 10;
/// What the client's kernel can hand to a proxy that does not read; Linux doubles it.
pub(crate) const RECEIVE_BUFFER: u32 = 64 << 10;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// RST to both sides.
    Reset,
    /// FIN to both sides, in the middle of a frame or not.
    Close,
    /// Nothing moves any more and nobody is told.
    Blackhole,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    links: Mutex<Vec<watch::Sender<Option<Cut>>>>,
    refusing: AtomicBool,
    /// Connections that will be taken and never answered.
    to_swallow: AtomicU64,
    /// A bit of the next large chunk towards the server will be flipped.
    altering: AtomicBool,
    /// Sockets of clients are made to lose one segment in 16.
    lossy: AtomicBool,
    accepted: AtomicU64,
    /// Bytes handed on to the server.
    forwarded: AtomicU64,
    /// Bytes towards the server need permits; `None`: as many as come.
    gate: Option<Semaphore>,
}

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        Self::run(upstream, None).await
    }

    /// Towards the server only as many bytes pass as [`release`](Self::release) allows.
    pub(crate) async fn gated(upstream: SocketAddr) -> Self {
        Self::run(upstream, Some(Semaphore::new(0))).await
    }

    async fn run(upstream: SocketAddr, gate: Option<Semaphore>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if gate.is_some() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        }
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            links: Mutex::default(),
            refusing: AtomicBool::new(false),
            to_swallow: AtomicU64::new(0),
            altering: AtomicBool::new(false),
            lossy: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            gate,
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared }
    }

    /// Of new connections, one in 16 of the segments that clients send is lost before TCP sees it.
    pub(crate) fn lossy(&self) {
        self.shared.lossy.store(true, Ordering::SeqCst);
    }

    /// New connections are reset, or not.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// The next connections, so many, are taken, and nothing is read from or written to them.
    pub(crate) fn swallow(&self, connections: u64) {
        self.shared.to_swallow.store(connections, Ordering::SeqCst);
    }

    /// Flips one bit in the middle of the next chunk of at least half of the largest size.
    pub(crate) fn alter_one(&self) {
        self.shared.altering.store(true, Ordering::SeqCst);
    }

    /// Connections that came so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::SeqCst)
    }

    /// Lets this many more bytes pass to the server.
    pub(crate) fn release(&self, bytes: usize) {
        self.shared.gate.as_ref().unwrap().add_permits(bytes);
    }

    /// Ends one live connection, picked by `choice`. `false`: there is none.
    pub(crate) fn cut_one(&self, choice: u64, cut: Cut) -> bool {
        let mut links = self.shared.links.lock().unwrap();
        links.retain(|link| link.receiver_count() > 0 && link.borrow().is_none());
        let Some(count) = std::num::NonZeroU64::new(links.len() as u64) else { return false };
        links.swap_remove((choice % count) as usize).send_replace(Some(cut));
        true
    }

    pub(crate) fn cut_all(&self, cut: Cut) {
        for link in self.shared.links.lock().unwrap().drain(..) {
            link.send_replace(Some(cut));
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut swallowed = Vec::new();
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let swallow = |left: u64| left.checked_sub(1);
        if shared.to_swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, swallow).is_ok() {
            swallowed.push(client);
            continue;
        }
        if shared.refusing.load(Ordering::SeqCst) {
            reset(&client);
            continue;
        }
        if shared.lossy.load(Ordering::SeqCst) {
            lose_segments(&client);
        }
        let (sender, receiver) = watch::channel(None);
        shared.links.lock().unwrap().push(sender);
        tokio::spawn(relay(client, Arc::clone(&shared), receiver));
    }
}

/// A filter (`Documentation/networking/filter.rst`) that drops by chance.
fn lose_segments(socket: &TcpStream) {
    /// `SKF_AD_OFF + SKF_AD_RANDOM`.
    const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
    let filter = [
        SockFilter::new(0x20, 0, 0, RANDOM),      // ld rand
        SockFilter::new(0x54, 0, 0, 15),          // and #15
        SockFilter::new(0x15, 0, 1, 0),           // jeq #0
        SockFilter::new(0x06, 0, 0, 0),           // ret #0: drop
        SockFilter::new(0x06, 0, 0, 0xffff_ffff), // ret #-1: take all of it
    ];
    socket2::SockRef::from(socket).attach_filter(&filter).unwrap();
}

fn reset(socket: &TcpStream) {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn relay(mut client: TcpStream, shared: Arc<Shared>, mut cut: watch::Receiver<Option<Cut>>) {
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let how = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        tokio::select! {
            () = pump(client_read, server_write, Some(&shared)) => Cut::Close,
            () = pump(server_read, client_write, None) => Cut::Close,
            how = cut.wait_for(Option::is_some) => how.ok().and_then(|how| *how).unwrap_or(Cut::Reset),
        }
    };
    match how {
        Cut::Close => {}
        Cut::Reset => {
            reset(&client);
            reset(&server);
        }
        // Both sockets stay open and unread until the test is over.
        Cut::Blackhole => std::future::pending().await,
    }
}

/// Copies until one side ends.
async fn pump(
    mut from: tokio::net::tcp::ReadHalf<'_>,
    mut to: tokio::net::tcp::WriteHalf<'_>,
    counted: Option<&Shared>,
) {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if count >= CHUNK_LEN / 2
            && counted.is_some_and(|shared| shared.altering.swap(false, Ordering::SeqCst))
        {
            buffer[count / 2] ^= 1;
        }
        if let Some(gate) = counted.and_then(|shared| shared.gate.as_ref()) {
            gate.acquire_many(count as u32).await.unwrap().forget();
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if let Some(shared) = counted {
            shared.forwarded.fetch_add(count as u64, Ordering::SeqCst);
        }
    }
}
