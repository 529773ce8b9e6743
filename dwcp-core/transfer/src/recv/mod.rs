//! The receiving side: wiring of one session. `plan` decides about entries, `write` takes content, `commit` makes
//! files appear; `folder` is where every path is confined.

mod area;
mod baseline;
mod commit;
mod folder;
mod journal;
mod metadata;
mod plan;
mod session;
mod target;
mod write;
mod write_back;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, JoinSet},
};

use crate::{
    ByteSink, ByteSource, DeltaConfig, Failure, FailureKind, ProgressSource, Summary, TransferError,
    Transport,
    control::{Incoming, Message, StreamKind, Token, VERSION, ended},
    delta,
    limits::{CHUNKS_QUEUED_MAX, COMMIT_GROUP_MAX, DATA_STREAMS_MAX, LOCK_WAIT_MS},
};
pub use area::{CleanReport, clean_partials};
use folder::Folder;
use session::{Agreed, Session, Worker};

/// Control messages that wait in either direction.
const CONTROL_QUEUED_MAX: usize = 64;
/// How long a peer may take to say what it wants to send.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take to read why this side gives up.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Where received content goes.
pub enum Destination {
    /// Below this folder, which is made if it is missing.
    Folder(PathBuf),
    /// Over this block device (or existing file), in place; one file or stream. Not atomic.
    Device(PathBuf),
    /// Into a byte stream, in order; one file or stream. The hash is known only at the end.
    Output(Box<dyn Write + Send>),
}

/// Where and how to receive.
#[non_exhaustive]
pub struct ReceiverConfig {
    /// Where to.
    pub destination: Destination,
    /// Existing files may be replaced.
    pub overwrite: bool,
    /// Files are durable before they are reported as done.
    pub fsync: bool,
    /// Others sync files on that disk meanwhile, and must not wait for all of this: content goes there as it comes, a little at
    /// a time. Without others it is faster when the system chooses.
    pub shares_disk: bool,
    /// Also apply owner, setuid bits and extended attributes outside `user.`; needs privileges and trust.
    pub privileged_metadata: bool,
    /// Offers what is there of a content already, so that only differences travel; `None`: does not.
    pub delta: Option<DeltaConfig>,
}

impl ReceiverConfig {
    /// The defaults, for this destination.
    pub fn new(destination: Destination) -> Self {
        Self {
            destination,
            overwrite: false,
            fsync: true,
            shares_disk: false,
            privileged_metadata: false,
            delta: None,
        }
    }
}

/// Receives transfers, one session for each connection.
pub struct Receiver {
    setup: Arc<Setup>,
    running: Mutex<HashMap<Key, RunningSession>>,
}

/// How to end a session, and what tells that it has ended.
type RunningSession = (Arc<Notify>, watch::Receiver<()>);

/// Peer and token.
type Key = (String, Token);

struct Setup {
    destination: DestinationSetup,
    overwrite: bool,
    fsync: bool,
    shares_disk: bool,
    privileged: bool,
    delta: Option<DeltaConfig>,
}

enum DestinationSetup {
    Folder(Folder),
    Device { file: Arc<File>, size: u64 },
    Output(target::Output),
}

impl Receiver {
    /// Opens the destination.
    pub fn open(config: ReceiverConfig) -> Result<Self, TransferError> {
        let destination = match config.destination {
            Destination::Folder(path) => DestinationSetup::Folder(Folder::open(&path, config.fsync)?),
            Destination::Device(path) => {
                let setup = |call| {
                    let path = path.clone();
                    move |source: io::Error| TransferError::Setup { call, path, source }
                };
                let mut file = File::options().read(true).write(true).open(&path).map_err(setup("open"))?;
                let size = file.seek(SeekFrom::End(0)).map_err(setup("lseek"))?;
                DestinationSetup::Device { file: Arc::new(file), size }
            }
            Destination::Output(output) => DestinationSetup::Output(Arc::new(Mutex::new(output))),
        };
        let ReceiverConfig { overwrite, fsync, shares_disk, privileged_metadata: privileged, delta, .. } =
            config;
        let setup = Arc::new(Setup { destination, overwrite, fsync, shares_disk, privileged, delta });
        Ok(Self { setup, running: Mutex::default() })
    }

    /// Receives one transfer from `peer`, whose name should be one that TLS has proved: a second transfer with
    /// the same name and sources takes over from a first that has not noticed yet that its connection is dead.
    /// `Ok` even if single files failed: see [`Summary::failures`].
    pub async fn serve<T: Transport>(
        &self,
        transport: &T,
        peer: &str,
        progress: &ProgressSource,
    ) -> Result<Summary, TransferError> {
        let greeted = tokio::time::timeout(HELLO_TIMEOUT, greeted(transport)).await;
        let Greeted { mut sink, incoming, token, checksum } = greeted
            .map_err(|_| stream("waiting for the transfer to begin", io::ErrorKind::TimedOut.into()))??;
        let running = Running::take_over(self, (peer.to_owned(), token)).await;
        let sequential = matches!(self.setup.destination, DestinationSetup::Output(_));
        let in_folder = matches!(self.setup.destination, DestinationSetup::Folder(_));
        let baselines = in_folder && self.setup.delta.is_some() && delta::is_marked(&token);
        let welcome = Message::Welcome { version: VERSION, sequential, baselines };
        sink.write_bytes(welcome.encode()).await.map_err(|source| stream("writing", source))?;

        let (out, out_queue) = mpsc::channel(CONTROL_QUEUED_MAX);
        let mut writer = tokio::spawn(write_control(sink, out_queue));
        let agreed = Agreed { peer: peer.to_owned(), checksum, baselines };
        let session = Arc::new(Session::new(self.setup.clone(), progress.clone(), agreed, out.clone()));
        let stop = StopOnDrop(session.clone());
        let mut tasks = JoinSet::new();
        let mut ended = self.session(transport, incoming, session, &running.superseded, &mut tasks).await;
        drop(stop);
        let last_words = ended.as_ref().err().and_then(last_words);
        match (&ended, last_words) {
            // The planner has sent the last message.
            (Ok(()), _) => ended = task_result(writer.await).map(drop),
            (Err(_), Some(last_words)) => {
                let spoken = async {
                    let _ = out.send(last_words).await;
                    (&mut writer).await
                };
                // Best effort: the connection may be what failed.
                let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, spoken).await;
                writer.abort();
            }
            (Err(_), None) => writer.abort(),
        }
        drop(out);
        // What threads still do to files is done before a next run of this transfer looks at them.
        tasks.shutdown().await;
        ended.map(|()| progress.summary())
    }

    async fn session<T: Transport>(
        &self,
        transport: &T,
        mut incoming: Incoming<T::Source>,
        session: Arc<Session>,
        superseded: &Notify,
        tasks: &mut JoinSet<Result<Ended, TransferError>>,
    ) -> Result<(), TransferError> {
        let (commits, commit_queue) = mpsc::channel(COMMIT_GROUP_MAX);
        let worker = Worker { session: session.clone(), commits };
        let (messages, message_queue) = mpsc::channel(CONTROL_QUEUED_MAX);
        let (committing, fsync) = (session.clone(), self.setup.fsync);
        tasks.spawn_blocking(move || {
            commit::run(&committing, commit_queue, fsync);
            Ok(Ended::Other)
        });
        let planning = worker.clone();
        tasks.spawn_blocking(move || plan::run(&planning, message_queue).map(|()| Ended::Planner));
        let mut data_streams = 0;
        let mut last_seen = false;
        loop {
            tokio::select! {
                message = incoming.message(), if !last_seen => {
                    let message = message?.ok_or_else(ended)?;
                    last_seen = message == Message::Finish;
                    // Closed only if the planner has failed; its result is on its way.
                    let _ = messages.send(message).await;
                }
                accepted = transport.accept_stream(), if !last_seen => {
                    let (sink, source) = accepted.map_err(|source| stream("waiting for streams", source))?;
                    data_streams += 1;
                    if data_streams > DATA_STREAMS_MAX {
                        return Err(TransferError::Protocol { rule: "T1.5: too many data streams" });
                    }
                    let (chunks, chunk_queue) = mpsc::channel(CHUNKS_QUEUED_MAX);
                    tasks.spawn(read_data(sink, source, chunks));
                    let worker = worker.clone();
                    tasks.spawn_blocking(move || write::run(&worker, chunk_queue).map(|()| Ended::Other));
                }
                Some(result) = tasks.join_next() => match task_result(result) {
                    Ok(Some(Ended::Planner)) => return Ok(()),
                    Ok(_) => {}
                    // All content is committed: the sender may be gone before its streams have ended.
                    Err(TransferError::Stream { .. }) if last_seen => {}
                    Err(error) => return Err(error),
                },
                () = session.fatal_set.notified() => {
                    if let Some((failure, path)) = session.fatal() {
                        return Err(TransferError::Destination { failure, path: path.to_string() });
                    }
                }
                () = superseded.notified() => return Err(TransferError::Superseded),
            }
        }
    }
}

/// A control stream whose sender has said what it wants.
struct Greeted<T: Transport> {
    sink: T::Sink,
    incoming: Incoming<T::Source>,
    token: Token,
    checksum: bool,
}

/// Waits for the control stream and the sender's first message.
async fn greeted<T: Transport>(transport: &T) -> Result<Greeted<T>, TransferError> {
    let accepted = transport.accept_stream().await;
    let (mut sink, source) = accepted.map_err(|source| stream("waiting for the control stream", source))?;
    let mut incoming = Incoming::new(source);
    if incoming.preamble().await? != StreamKind::Control {
        return Err(TransferError::Protocol { rule: "T1.1: the first stream is the control stream" });
    }
    match incoming.message().await?.ok_or_else(ended)? {
        Message::Hello { version: VERSION, token, checksum } => {
            Ok(Greeted { sink, incoming, token, checksum })
        }
        Message::Hello { version: theirs, .. } => {
            let failure = Failure::new(FailureKind::Version, "");
            let refusal = Message::Fatal { failure, path: Vec::new() };
            sink.write_bytes(refusal.encode()).await.map_err(|source| stream("writing", source))?;
            sink.finish().map_err(|source| stream("finishing", source))?;
            Err(TransferError::Version { ours: VERSION, theirs })
        }
        _ => Err(TransferError::Protocol { rule: "T1.3: the first message is Hello" }),
    }
}

enum Ended {
    /// The transfer is complete.
    Planner,
    Other,
}

/// Registers a session so that a newer run of the same transfer can end it.
struct Running<'a> {
    receiver: &'a Receiver,
    key: Key,
    superseded: Arc<Notify>,
    /// Dropped when the session has ended.
    _alive: watch::Sender<()>,
}

impl<'a> Running<'a> {
    /// Ends an older run of the same transfer and waits, for a while, until it has let go of its files.
    async fn take_over(receiver: &'a Receiver, key: Key) -> Self {
        let superseded = Arc::new(Notify::new());
        let (alive, ended) = watch::channel(());
        let older = receiver.running.lock().unwrap().insert(key.clone(), (superseded.clone(), ended));
        let running = Self { receiver, key, superseded, _alive: alive };
        if let Some((older, mut ended)) = older {
            older.notify_one();
            let _ = tokio::time::timeout(Duration::from_millis(LOCK_WAIT_MS), ended.changed()).await;
        }
        running
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.receiver.running.lock().unwrap();
        if running.get(&self.key).is_some_and(|(now, _)| Arc::ptr_eq(now, &self.superseded)) {
            running.remove(&self.key);
        }
    }
}

struct StopOnDrop(Arc<Session>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What the sender should hear when this side gives up.
fn last_words(error: &TransferError) -> Option<Message> {
    let (failure, path) = match error {
        TransferError::Destination { failure, path } => (failure.clone(), path.clone().into_bytes()),
        TransferError::Superseded => (Failure::new(FailureKind::Superseded, ""), Vec::new()),
        TransferError::Protocol { .. } | TransferError::Decode { .. } => {
            (Failure::new(FailureKind::Protocol, &error.to_string()), Vec::new())
        }
        _ => return None,
    };
    Some(Message::Fatal { failure, path })
}

/// Ends after a last message, or when nobody can send any more.
async fn write_control<S: ByteSink>(
    mut sink: S,
    mut queue: mpsc::Receiver<Message>,
) -> Result<(), TransferError> {
    while let Some(message) = queue.recv().await {
        sink.write_bytes(message.encode()).await.map_err(|source| stream("writing", source))?;
        if matches!(message, Message::Finished | Message::Fatal { .. }) {
            // The sender may have heard enough and be gone.
            let _ = sink.finish();
            return Ok(());
        }
    }
    sink.finish().map_err(|source| stream("finishing", source))
}

async fn read_data<S: ByteSink, R: ByteSource>(
    mut sink: S,
    source: R,
    chunks: mpsc::Sender<bytes::Bytes>,
) -> Result<Ended, TransferError> {
    // Nothing is said on this half.
    let _ = sink.finish();
    let mut incoming = Incoming::new(source);
    if incoming.preamble().await? != StreamKind::Data {
        return Err(TransferError::Protocol { rule: "T1.1: one control stream" });
    }
    let (first, mut source) = incoming.into_parts();
    for chunk in first {
        if chunks.send(chunk).await.is_err() {
            return Ok(Ended::Other);
        }
    }
    while let Some(chunk) = source.read_chunk().await.map_err(|source| stream("receiving content", source))? {
        if chunks.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(Ended::Other)
}

fn task_result<T>(ended: Result<Result<T, TransferError>, JoinError>) -> Result<Option<T>, TransferError> {
    match ended {
        Ok(result) => result.map(Some),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(None),
    }
}

fn stream(doing: &'static str, source: io::Error) -> TransferError {
    TransferError::Stream { doing, source }
}
