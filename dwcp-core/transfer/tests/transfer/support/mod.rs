//! An in-memory transport whose connection can be made to die at a chosen byte, and what tests do with it.
#![allow(dead_code, unreachable_pub)]

pub mod pair;
pub mod played;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use dwcp_transfer::{
    ByteSink, ByteSource, Destination, ProgressSource, Receiver, ReceiverConfig, RelPath, Sender,
    SenderConfig, Source, Summary, TransferError, Transport,
};
use tokio::sync::{Mutex, mpsc, watch};

/// Largest chunk a reader sees, like a frame of the real transport.
const CHUNK_BYTES: usize = 64 << 10;

type Streams = (mpsc::Sender<(Sink, ByteStream)>, Arc<Mutex<mpsc::Receiver<(Sink, ByteStream)>>>);

/// One end of a connection.
#[derive(Clone)]
pub struct Memory {
    link: Arc<Link>,
    open: mpsc::Sender<(Sink, ByteStream)>,
    accept: Arc<Mutex<mpsc::Receiver<(Sink, ByteStream)>>>,
}

/// The connection itself: dies after a number of bytes.
pub struct Link {
    budget: AtomicU64,
    pub carried: AtomicU64,
    dead: watch::Sender<bool>,
    /// After this many bytes nothing moves any more, and nobody is told.
    hangs_after: AtomicU64,
    /// Called before each chunk, with the bytes that were carried before it.
    before_chunk: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
}

pub struct Sink {
    link: Arc<Link>,
    queue: Option<mpsc::Sender<Bytes>>,
}

pub struct ByteStream {
    link: Arc<Link>,
    queue: mpsc::Receiver<Bytes>,
}

fn lost() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// A connection that dies after `budget` bytes.
pub fn connection(budget: u64) -> (Memory, Memory, Arc<Link>) {
    let link = Arc::new(Link {
        budget: budget.into(),
        carried: 0.into(),
        dead: watch::channel(false).0,
        hangs_after: u64::MAX.into(),
        before_chunk: OnceLock::new(),
    });
    let ((a_open, b_accept), (b_open, a_accept)): (Streams, Streams) = (channel(), channel());
    let a = Memory { link: link.clone(), open: a_open, accept: a_accept };
    let b = Memory { link: link.clone(), open: b_open, accept: b_accept };
    (a, b, link)
}

fn channel() -> Streams {
    let (send, receive) = mpsc::channel(64);
    (send, Arc::new(Mutex::new(receive)))
}

impl Link {
    fn stream(self: &Arc<Self>) -> (Sink, ByteStream) {
        let (queue, chunks) = mpsc::channel(8);
        (Sink { link: self.clone(), queue: Some(queue) }, ByteStream { link: self.clone(), queue: chunks })
    }

    async fn died(&self) {
        let mut dead = self.dead.subscribe();
        let _ = dead.wait_for(|dead| *dead).await;
    }

    pub fn hang_after(&self, bytes: u64) {
        self.hangs_after.store(bytes, Relaxed);
    }

    pub fn before_each_chunk(&self, hook: impl Fn(u64) + Send + Sync + 'static) {
        assert!(self.before_chunk.set(Box::new(hook)).is_ok(), "one hook");
    }

    pub fn kill(&self) {
        self.dead.send_replace(true);
    }
}

impl Transport for Memory {
    type Sink = Sink;
    type Source = ByteStream;

    async fn open_stream(&self) -> io::Result<(Sink, ByteStream)> {
        let ((there, here_in), (here, there_in)) = (self.link.stream(), self.link.stream());
        self.open.send((there, there_in)).await.map_err(|_| lost())?;
        Ok((here, here_in))
    }

    async fn accept_stream(&self) -> io::Result<(Sink, ByteStream)> {
        let mut accept = self.accept.lock().await;
        tokio::select! {
            biased;
            () = self.link.died() => Err(lost()),
            stream = accept.recv() => stream.ok_or_else(lost),
        }
    }
}

impl ByteSink for Sink {
    async fn write_bytes(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            if let Some(hook) = self.link.before_chunk.get() {
                hook(self.link.carried.load(Relaxed));
            }
            if self.link.carried.load(Relaxed) >= self.link.hangs_after.load(Relaxed) {
                self.link.died().await;
                return Err(lost());
            }
            let left = self.link.budget.load(Relaxed);
            if left < chunk.len() as u64 {
                self.link.kill();
                return Err(lost());
            }
            self.link.budget.fetch_sub(chunk.len() as u64, Relaxed);
            self.link.carried.fetch_add(chunk.len() as u64, Relaxed);
            let queue = self.queue.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            tokio::select! {
                biased;
                () = self.link.died() => return Err(lost()),
                sent = queue.send(chunk) => sent.map_err(|_| lost())?,
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.queue = None;
        Ok(())
    }
}

impl ByteSource for ByteStream {
    async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        tokio::select! {
            biased;
            () = self.link.died() => Err(lost()),
            chunk = self.queue.recv() => Ok(chunk),
        }
    }
}

/// Both ends of a finished transfer.
pub struct Ended {
    pub sent: Result<Summary, TransferError>,
    pub received: Result<Summary, TransferError>,
    /// Bytes through the connection in both directions.
    pub carried: u64,
}

impl Ended {
    /// Both ends succeeded without a failed file.
    #[track_caller]
    pub fn clean(self) -> (Summary, Summary) {
        let (sent, received) = (self.sent.expect("sender"), self.received.expect("receiver"));
        assert_eq!((&sent.failures[..], &received.failures[..]), (&[][..], &[][..]));
        (sent, received)
    }

    /// The failures of a transfer that went through, as the sender has them.
    #[track_caller]
    pub fn failures(&self) -> Vec<(String, dwcp_transfer::FailureKind)> {
        let sent = self.sent.as_ref().expect("sender");
        let mut failures: Vec<_> =
            sent.failures.iter().map(|failed| (failed.path.to_string(), failed.failure.kind)).collect();
        failures.sort_by(|a, b| a.0.cmp(&b.0));
        failures
    }
}

pub fn rel(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

pub fn source(path: impl Into<PathBuf>, dest: &str) -> Source {
    Source::Path { path: path.into(), dest: rel(dest) }
}

pub fn into_folder(path: &Path) -> ReceiverConfig {
    ReceiverConfig::new(Destination::Folder(path.into()))
}

/// Sends over a connection that dies after `budget` bytes; both ends are dropped then, like killed processes.
pub async fn transfer_until(budget: u64, sender: SenderConfig, receiver: ReceiverConfig) -> Ended {
    transfer_over(connection(budget), sender, receiver).await
}

/// Both ends over this connection.
pub async fn transfer_over(
    (here, there, link): (Memory, Memory, Arc<Link>),
    sender: SenderConfig,
    receiver: ReceiverConfig,
) -> Ended {
    let receiving = tokio::spawn(async move {
        let receiver = Receiver::open(receiver)?;
        receiver.serve(&there, "peer", &ProgressSource::default()).await
    });
    let sent = match Sender::new(sender) {
        Ok(sender) => sender.run(&here).await,
        Err(error) => Err(error),
    };
    drop(here);
    if sent.is_err() {
        link.kill();
    }
    let received = receiving.await.unwrap();
    Ended { sent, received, carried: link.carried.load(Relaxed) }
}

pub async fn transfer(sender: SenderConfig, receiver: ReceiverConfig) -> Ended {
    transfer_until(u64::MAX, sender, receiver).await
}

/// Sends one path into a folder.
pub async fn send(from: &Path, dest: &str, into: &Path) -> Ended {
    transfer(SenderConfig::new(vec![source(from, dest)]), into_folder(into)).await
}

/// Bytes that do not repeat at any distance a bug would copy them.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
