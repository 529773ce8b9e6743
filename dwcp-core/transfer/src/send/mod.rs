//! The sending side: wiring of one transfer. What is sent is found in `scan`, which looks through trees by means of
//! `walk`, `found` and `place`, read in `source`, and put on data streams in `worker`; `shared` holds what they have in
//! common, and `stop` ends them early.

mod buffer;
mod delta;
mod found;
mod place;
mod queue;
mod scan;
mod shared;
mod source;
mod stop;
mod walk;
mod worker;

use std::{io::Read, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use crate::{
    ByteSink, ByteSource, DeltaConfig, ProgressSource, RelPath, Summary, TransferError, Transport, Unsent,
    control::{Incoming, Message, StreamKind, Token, VERSION, ended},
    limits::{DATA_STREAMS, DATA_STREAMS_MAX},
    progress::Add,
};
use place::Place;
use scan::Origin;
use shared::Shared;
pub use stop::Stopper;

/// Writes that wait between a worker and its data stream; a large one is a piece.
const WRITES_QUEUED_MAX: usize = 4;
/// Bytes that are written at once: what progress is shown too early by, on each data stream.
const WRITE_BYTES: usize = 1 << 20;
/// Control messages that wait to be written.
const CONTROL_QUEUED_MAX: usize = 64;

/// How long a peer that ended a stream may take to say why.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// One thing to send.
pub enum Source {
    /// A file, directory or block device. Symbolic links are followed here, and kept as links below it.
    Path {
        /// Where it is.
        path: PathBuf,
        /// What it is called at the receiver.
        dest: RelPath,
    },
    /// What may be asked for by somebody who may not read everything: a file, directory or block device below a folder,
    /// reached through no symbolic link, whatever is renamed meanwhile (T4.9).
    Beneath {
        /// The folder. Symbolic links are followed here.
        folder: PathBuf,
        /// Where it is, below the folder.
        path: RelPath,
        /// What it is called at the receiver.
        dest: RelPath,
    },
    /// A byte stream, read to its end; cannot resume.
    Stream {
        /// Where the bytes come from.
        reader: Box<dyn Read + Send>,
        /// What it is called at the receiver.
        dest: RelPath,
    },
}

/// What and how to send.
#[non_exhaustive]
pub struct SenderConfig {
    /// In this order; directories are sent with everything in them.
    pub sources: Vec<Source>,
    /// Compare content, not only size and time, before a file counts as already there.
    pub checksum: bool,
    /// Nobody writes to these files any more: one that gets or loses a name while it is read has not changed.
    pub written_once: bool,
    /// Data streams, 1..=16.
    pub data_streams: usize,
    /// Sends of what the receiver has in an older version only what differs; `None`: does not.
    pub delta: Option<DeltaConfig>,
    /// Distinguishes transfers of the same sources by different senders, for instance a node name.
    pub sender: String,
}

impl SenderConfig {
    /// The defaults, for these sources.
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            sources,
            checksum: false,
            written_once: false,
            data_streams: DATA_STREAMS,
            delta: None,
            sender: String::new(),
        }
    }
}

/// Sends once.
pub struct Sender {
    /// Its sources are in `origins`.
    config: SenderConfig,
    origins: Vec<(Origin, RelPath)>,
    token: Token,
    progress: ProgressSource,
    stopper: Stopper,
}

/// How a task of a sender ended.
enum Ended {
    /// What was under way is finished; something else was left out.
    Drained,
    Other,
}

impl Sender {
    /// Checks that the sources exist and can be sent.
    pub fn new(mut config: SenderConfig) -> Result<Self, TransferError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.sender.as_bytes());
        let everywhere = Place::everywhere()?;
        let mut origins = Vec::new();
        for source in std::mem::take(&mut config.sources) {
            let (origin, dest) = match source {
                Source::Path { path, dest } => (Origin::Place(Place::at(&everywhere, &path)?), dest),
                Source::Beneath { folder, path, dest } => {
                    (Origin::Place(Place::beneath(&folder, &path)?), dest)
                }
                Source::Stream { reader, dest } => (Origin::Reader(reader), dest),
            };
            let place = match &origin {
                Origin::Place(place) => place.whole(),
                Origin::Reader(_) => "-".into(),
            };
            for part in [place.as_os_str().as_encoded_bytes(), dest.as_bytes()] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            origins.push((origin, dest));
        }
        let mut token = *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a token");
        crate::delta::mark(&mut token, config.delta.is_some());
        config.data_streams = config.data_streams.clamp(1, DATA_STREAMS_MAX);
        Ok(Self { config, origins, token, progress: ProgressSource::default(), stopper: Stopper::new() })
    }

    /// Counters to watch while [`run`](Self::run) runs.
    pub fn progress(&self) -> ProgressSource {
        self.progress.clone()
    }

    /// Ends [`run`](Self::run) early.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Sends everything. `Ok` even if single files failed, or if it was told to end early: see [`Summary::failures`]
    /// and [`Summary::unsent`].
    pub async fn run<T: Transport>(self, transport: &T) -> Result<Summary, TransferError> {
        let (stopper, progress) = (self.stopper.clone(), self.progress.clone());
        let hello = Message::Hello { version: VERSION, token: self.token, checksum: self.config.checksum };
        let opened = tokio::select! {
            opened = open(transport, hello, self.config.data_streams) => Some(opened?),
            () = stopper.draining() => None,
        };
        let unsent = match opened {
            Some(opened) => self.carry(opened).await?,
            None => Some(self.nothing_sent()),
        };
        Ok(Summary { unsent, ..progress.summary() })
    }

    fn nothing_sent(&self) -> Unsent {
        let mut unsent = Unsent { more: true, ..Unsent::default() };
        self.origins.iter().for_each(|(_, dest)| unsent.add(dest));
        unsent
    }

    /// Everything else; what was left out, if it was told to end early.
    async fn carry<T: Transport>(self, opened: Opened<T>) -> Result<Option<Unsent>, TransferError> {
        let Opened { sink, mut incoming, sequential, baselines, data } = opened;
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUED_MAX);
        let delta = self.config.delta.filter(|_| baselines);
        let shared = Arc::new(Shared::new(control, self.progress, sequential, delta));
        let abort = AbortOnDrop(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(write_control(sink, control_queue));
        for (sink, source) in data {
            let (writes, queue) = mpsc::channel(WRITES_QUEUED_MAX);
            tasks.spawn(write_data(sink, source, queue, shared.progress.clone()));
            let shared = shared.clone();
            tasks.spawn_blocking(move || {
                worker::run(&shared, &writes);
                Ok(Ended::Other)
            });
        }
        let scanned = shared.clone();
        tasks.spawn_blocking(move || Ok(scan::run(&scanned, self.origins, self.config.written_once)));

        let mut draining = false;
        let ended = loop {
            tokio::select! {
                message = incoming.message() => match message?.ok_or_else(ended)? {
                    Message::Finished => break Ok(None),
                    message => handle(&shared, message)?,
                },
                Some(result) = tasks.join_next() => match task_result(result) {
                    Ok(Some(Ended::Drained)) => break Ok(Some(shared.unsent())),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                },
                () = self.stopper.draining(), if !draining => {
                    draining = true;
                    shared.drain();
                }
                () = self.stopper.stopped() => return Ok(Some(shared.unsent())),
            }
        };
        let unsent = match ended {
            Ok(unsent) => unsent,
            // The receiver may have ended a stream because it gives up, or because it has finished, and be about to
            // say so.
            Err(error) => {
                match tokio::time::timeout(LAST_WORDS_TIMEOUT, last_words(&mut incoming, &shared)).await {
                    Ok(Ok(())) => None,
                    Ok(Err(reason @ (TransferError::Peer { .. } | TransferError::Superseded))) => {
                        return Err(reason);
                    }
                    _ => return Err(error),
                }
            }
        };
        let keep = shared.keep();
        drop((abort, shared));
        tokio::select! {
            finished = finish(tasks) => finished?,
            // Nothing is under way any more: this costs nothing.
            () = self.stopper.stopped() => return Ok(unsent),
        }
        if let Some(keep) = keep {
            let kept = tokio::task::spawn_blocking(move || keep.keep()).await;
            task_result(kept.map(|()| Ok(Ended::Other)))?;
        }
        Ok(unsent)
    }
}

/// The streams of a transfer that the receiver has welcomed.
struct Opened<T: Transport> {
    sink: T::Sink,
    incoming: Incoming<T::Source>,
    sequential: bool,
    baselines: bool,
    data: Vec<(T::Sink, T::Source)>,
}

/// Frees the blocking threads, however `run` ends.
struct AbortOnDrop(Arc<Shared>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens all streams: before the receiver's welcome, it is not known how many.
async fn open<T: Transport>(
    transport: &T,
    hello: Message,
    data_streams: usize,
) -> Result<Opened<T>, TransferError> {
    let (mut sink, source) =
        transport.open_stream().await.map_err(|source| stream("opening the control stream", source))?;
    for bytes in [StreamKind::Control.preamble(), hello.encode()] {
        sink.write_bytes(bytes).await.map_err(|source| stream("writing", source))?;
    }
    let mut incoming = Incoming::new(source);
    let (sequential, baselines) = match incoming.message().await?.ok_or_else(ended)? {
        Message::Welcome { version: VERSION, sequential, baselines } => (sequential, baselines),
        Message::Welcome { version: theirs, .. } => {
            return Err(TransferError::Version { ours: VERSION, theirs });
        }
        Message::Fatal { failure, path } => return Err(peer_gave_up(failure, &path)),
        _ => return Err(TransferError::Protocol { rule: "T1.4: Welcome answers Hello" }),
    };
    let mut data = Vec::new();
    for _ in 0..if sequential { 1 } else { data_streams } {
        let opened = transport.open_stream().await;
        data.push(opened.map_err(|source| stream("opening a data stream", source))?);
    }
    Ok(Opened { sink, incoming, sequential, baselines, data })
}

/// Waits until all streams are finished.
async fn finish(mut tasks: JoinSet<Result<Ended, TransferError>>) -> Result<(), TransferError> {
    while let Some(result) = tasks.join_next().await {
        match task_result(result) {
            // The receiver has all it wants; pieces of a file that failed may still have been on their way.
            Ok(_) | Err(TransferError::Stream { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn handle(shared: &Shared, message: Message) -> Result<(), TransferError> {
    match message {
        Message::Outcomes(outcomes) => {
            for (id, outcome) in outcomes {
                shared.resolve(id, outcome);
            }
            Ok(())
        }
        Message::Have { id, pieces } => {
            shared.receiver_has(id, &pieces);
            Ok(())
        }
        Message::Baseline { id, offer } => {
            shared.receiver_offers(id, offer);
            Ok(())
        }
        Message::Chunks { id, last, list } => shared.receiver_describes(id, last, &list),
        Message::Again { id, index } => {
            shared.receiver_refuses(id, index);
            Ok(())
        }
        Message::Fatal { failure, path } => Err(peer_gave_up(failure, &path)),
        _ => Err(TransferError::Protocol { rule: "T3.1: message of the other side" }),
    }
}

/// Takes the receiver's messages to the last one.
async fn last_words<S: ByteSource>(incoming: &mut Incoming<S>, shared: &Shared) -> Result<(), TransferError> {
    loop {
        match incoming.message().await?.ok_or_else(ended)? {
            Message::Finished => return Ok(()),
            message => handle(shared, message)?,
        }
    }
}

fn peer_gave_up(failure: crate::Failure, path: &[u8]) -> TransferError {
    if failure.kind == crate::FailureKind::Superseded {
        return TransferError::Superseded;
    }
    let path = RelPath::new(path).map(|path| path.to_string()).unwrap_or_default();
    TransferError::Peer { failure, path }
}

async fn write_control<S: ByteSink>(
    mut sink: S,
    mut queue: mpsc::Receiver<Message>,
) -> Result<Ended, TransferError> {
    while let Some(message) = queue.recv().await {
        sink.write_bytes(message.encode()).await.map_err(|source| stream("writing", source))?;
    }
    sink.finish().map(|()| Ended::Other).map_err(|source| stream("finishing", source))
}

/// The receiving half of a data stream is unused but kept until the end: dropping it early is an event.
async fn write_data<S: ByteSink, R: ByteSource>(
    mut sink: S,
    _source: R,
    mut queue: mpsc::Receiver<Bytes>,
    progress: ProgressSource,
) -> Result<Ended, TransferError> {
    let failed = |source| stream("sending content", source);
    sink.write_bytes(StreamKind::Data.preamble()).await.map_err(failed)?;
    while let Some(mut bytes) = queue.recv().await {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(WRITE_BYTES));
            progress.counters().bytes_queued.take_back(part.len() as u64);
            sink.write_bytes(part).await.map_err(failed)?;
        }
    }
    sink.finish().map(|()| Ended::Other).map_err(failed)
}

/// `None`: it was cancelled.
fn task_result(
    ended: Result<Result<Ended, TransferError>, JoinError>,
) -> Result<Option<Ended>, TransferError> {
    match ended {
        Ok(result) => result.map(Some),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(None),
    }
}

fn stream(doing: &'static str, source: std::io::Error) -> TransferError {
    TransferError::Stream { doing, source }
}
