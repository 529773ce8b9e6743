//! The sending side: wiring of one transfer. What is sent is found in `scan`, read in `source`, and put on data
//! streams in `worker`; `shared` holds what they have in common.

mod buffer;
mod queue;
mod scan;
mod shared;
mod source;
mod worker;

use std::{io::Read, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use crate::{
    ByteSink, ByteSource, ProgressSource, RelPath, Summary, TransferError, Transport,
    control::{Incoming, Message, StreamKind, Token, VERSION, ended},
    limits::{DATA_STREAMS, DATA_STREAMS_MAX},
};
use shared::Shared;

/// Writes that wait between a worker and its data stream; a large one is a piece.
const WRITES_QUEUED_MAX: usize = 4;
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
    /// Data streams, 1..=16.
    pub data_streams: usize,
    /// Distinguishes transfers of the same sources by different senders, for instance a node name.
    pub sender: String,
}

impl SenderConfig {
    /// The defaults, for these sources.
    pub fn new(sources: Vec<Source>) -> Self {
        Self { sources, checksum: false, data_streams: DATA_STREAMS, sender: String::new() }
    }
}

/// Sends once.
pub struct Sender {
    config: SenderConfig,
    token: Token,
    progress: ProgressSource,
}

impl Sender {
    /// Checks that the sources exist and can be sent.
    pub fn new(mut config: SenderConfig) -> Result<Self, TransferError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.sender.as_bytes());
        for source in &mut config.sources {
            let (place, dest) = match source {
                Source::Path { path, dest } => {
                    *path = scan::resolve(path)?;
                    (path.as_os_str().as_encoded_bytes(), dest)
                }
                Source::Stream { dest, .. } => (&b"-"[..], dest),
            };
            for part in [place, dest.as_bytes()] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
        }
        let token = *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than a token");
        config.data_streams = config.data_streams.clamp(1, DATA_STREAMS_MAX);
        Ok(Self { config, token, progress: ProgressSource::default() })
    }

    /// Counters to watch while [`run`](Self::run) runs.
    pub fn progress(&self) -> ProgressSource {
        self.progress.clone()
    }

    /// Sends everything. `Ok` even if single files failed: see [`Summary::failures`].
    pub async fn run<T: Transport>(self, transport: &T) -> Result<Summary, TransferError> {
        let (mut sink, source) =
            transport.open_stream().await.map_err(|source| stream("opening the control stream", source))?;
        let hello = Message::Hello { version: VERSION, token: self.token, checksum: self.config.checksum };
        for bytes in [StreamKind::Control.preamble(), hello.encode()] {
            sink.write_bytes(bytes).await.map_err(|source| stream("writing", source))?;
        }
        let mut incoming = Incoming::new(source);
        let sequential = match incoming.message().await?.ok_or_else(ended)? {
            Message::Welcome { version: VERSION, sequential } => sequential,
            Message::Welcome { version: theirs, .. } => {
                return Err(TransferError::Version { ours: VERSION, theirs });
            }
            Message::Fatal { failure, path } => return Err(peer_gave_up(failure, &path)),
            _ => return Err(TransferError::Protocol { rule: "T1.4: Welcome answers Hello" }),
        };

        let (control, control_queue) = mpsc::channel(CONTROL_QUEUED_MAX);
        let shared = Arc::new(Shared::new(control, self.progress.clone(), sequential));
        let abort = AbortOnDrop(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(write_control(sink, control_queue));
        for _ in 0..if sequential { 1 } else { self.config.data_streams } {
            let (sink, source) =
                transport.open_stream().await.map_err(|source| stream("opening a data stream", source))?;
            let (writes, queue) = mpsc::channel(WRITES_QUEUED_MAX);
            tasks.spawn(write_data(sink, source, queue));
            let shared = shared.clone();
            tasks.spawn_blocking(move || {
                worker::run(&shared, &writes);
                Ok(())
            });
        }
        let scanned = shared.clone();
        tasks.spawn_blocking(move || {
            scan::run(&scanned, self.config.sources);
            Ok(())
        });

        let ended = loop {
            tokio::select! {
                message = incoming.message() => match message?.ok_or_else(ended)? {
                    Message::Finished => break Ok(()),
                    message => handle(&shared, message)?,
                },
                Some(result) = tasks.join_next() => match task_result(result) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        if let Err(error) = ended {
            // The receiver may have ended a stream because it gives up, or because it has finished, and be about to
            // say so.
            match tokio::time::timeout(LAST_WORDS_TIMEOUT, last_words(&mut incoming, &shared)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason @ (TransferError::Peer { .. } | TransferError::Superseded))) => {
                    return Err(reason);
                }
                _ => return Err(error),
            }
        }
        drop((abort, shared));
        while let Some(result) = tasks.join_next().await {
            match task_result(result) {
                // The receiver has all it wants; pieces of a file that failed may still have been on their way.
                Ok(()) | Err(TransferError::Stream { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.progress.summary())
    }
}

/// Frees the blocking threads, however `run` ends.
struct AbortOnDrop(Arc<Shared>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
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
) -> Result<(), TransferError> {
    while let Some(message) = queue.recv().await {
        sink.write_bytes(message.encode()).await.map_err(|source| stream("writing", source))?;
    }
    sink.finish().map_err(|source| stream("finishing", source))
}

/// The receiving half of a data stream is unused but kept until the end: dropping it early is an event.
async fn write_data<S: ByteSink, R: ByteSource>(
    mut sink: S,
    _source: R,
    mut queue: mpsc::Receiver<Bytes>,
) -> Result<(), TransferError> {
    let failed = |source| stream("sending content", source);
    sink.write_bytes(StreamKind::Data.preamble()).await.map_err(failed)?;
    while let Some(bytes) = queue.recv().await {
        sink.write_bytes(bytes).await.map_err(failed)?;
    }
    sink.finish().map_err(failed)
}

fn task_result(ended: Result<Result<(), TransferError>, JoinError>) -> Result<(), TransferError> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

fn stream(doing: &'static str, source: std::io::Error) -> TransferError {
    TransferError::Stream { doing, source }
}
