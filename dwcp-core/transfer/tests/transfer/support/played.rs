//! One side of a transfer played by hand, byte by byte: what no sender or receiver of ours would say, and when.

use std::time::Duration;

use bytes::Bytes;
use dwcp_transfer::{
    ByteSink, ByteSource, ProgressSource, Receiver, ReceiverConfig, Summary, TransferError, Transport,
    manifest::{self, Batch, Entry, EntryKind, Metadata},
};
use tokio::task::JoinHandle;

use super::{ByteStream, Memory, Sink, connection, rel};

pub const BATCH: u8 = 3;
pub const FILE_END: u8 = 4;
pub const FINISH: u8 = 6;
pub const OUTCOMES: u8 = 7;
pub const FATAL: u8 = 9;
pub const FINISHED: u8 = 10;
pub const WITHDRAW: u8 = 11;

/// Outcomes.
pub const DONE: u8 = 0;
pub const SKIPPED: u8 = 1;
pub const SEND: u8 = 2;
pub const CHECK: u8 = 3;
pub const FAILED: u8 = 4;

/// Only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PIECE: u32 = dwcp_transfer::limits::PIECE_BYTES as u32;

/// One frame of the control stream.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 1).to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

pub fn hello(version: u16, checksum: bool) -> Vec<u8> {
    let body = [&version.to_le_bytes()[..], &[7; 16], &[checksum.into()]].concat();
    [b"DWTX\x01\0\0\0".to_vec(), message(1, &body)].concat()
}

pub fn opening() -> Vec<u8> {
    hello(1, false)
}

pub fn entry(id: u64, path: &str, kind: EntryKind) -> Entry {
    Entry { id, path: rel(path), kind, metadata: Metadata { mode: 0o644, ..Metadata::default() } }
}

pub fn file(id: u64, path: &str, size: u64) -> Entry {
    entry(id, path, EntryKind::File { size, differs: false })
}

pub fn batch(entries: Vec<Entry>) -> Vec<u8> {
    message(BATCH, &manifest::encode(&Batch { entries }))
}

/// An opening, and one file with id 5.
pub fn announce(path: &str, size: u64) -> Vec<u8> {
    [opening(), batch(vec![file(5, path, size)])].concat()
}

pub fn file_end(id: u64, size: u64, pieces_sent: u64, hash: [u8; 32]) -> Vec<u8> {
    let fields: Vec<u8> = [id, size, pieces_sent].into_iter().flat_map(u64::to_le_bytes).collect();
    message(FILE_END, &[&fields[..], &hash].concat())
}

/// A record of piece `index`; its chaining value is that of no content.
pub fn record(id: u64, index: u64, len: u32, data: &[u8]) -> Vec<u8> {
    record_with(id, index, len, data, [0; 32])
}

/// A record of a whole piece.
pub fn piece(id: u64, index: u64, data: &[u8]) -> Vec<u8> {
    use blake3::hazmat::HasherExt;
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index * u64::from(PIECE)).update(data);
    record_with(id, index, data.len() as u32, data, hasher.finalize_non_root())
}

fn record_with(id: u64, index: u64, len: u32, data: &[u8], chaining_value: [u8; 32]) -> Vec<u8> {
    let mut bytes = [id.to_le_bytes(), index.to_le_bytes()].concat();
    bytes.extend([len.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat());
    bytes.extend(u16::from(!data.is_empty()).to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(chaining_value);
    if !data.is_empty() {
        bytes.extend([0u32.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat());
    }
    bytes.extend(data);
    bytes
}

pub fn data(records: &[Vec<u8>]) -> Vec<u8> {
    [b"DWTX\x02\0\0\0".to_vec(), records.concat()].concat()
}

/// Messages of the other side's control stream.
pub struct Messages {
    pub source: ByteStream,
    pub bytes: Vec<u8>,
}

impl Messages {
    pub fn new(source: ByteStream) -> Self {
        Self { source, bytes: Vec::new() }
    }

    /// Type and body of the next message; `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((len, rest)) = self.bytes.split_first_chunk::<4>()
                && let Some(body) = rest.get(..u32::from_le_bytes(*len) as usize)
            {
                let message = (body[0], body[1..].to_vec());
                self.bytes.drain(..4 + body.len());
                return Some(message);
            }
            let chunk = self.chunk().await?;
            self.bytes.extend_from_slice(&chunk);
        }
    }

    pub async fn skip_to(&mut self, kind: u8) -> Option<Vec<u8>> {
        loop {
            match self.next().await? {
                (is, body) if is == kind => return Some(body),
                _ => {}
            }
        }
    }

    /// Takes the eight bytes that a stream begins with.
    pub async fn preamble(&mut self) -> [u8; 8] {
        while self.bytes.len() < 8 {
            let chunk = self.chunk().await.expect("a preamble");
            self.bytes.extend_from_slice(&chunk);
        }
        self.bytes.drain(..8).collect::<Vec<_>>().try_into().unwrap()
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        let chunk = tokio::time::timeout(PATIENCE, self.source.read_chunk()).await;
        chunk.expect("the other side hangs").ok()?
    }
}

/// Ids and outcomes in a message that has them.
pub fn outcomes(body: &[u8]) -> Vec<(u64, u8)> {
    let mut rest = &body[4..];
    let mut found = Vec::new();
    while let Some((id, after)) = rest.split_first_chunk::<8>() {
        let extra = match after[0] {
            CHECK => 32,
            // Kind and error number; a text behind its length.
            FAILED => 9 + u32::from_le_bytes(after[6..10].try_into().unwrap()) as usize,
            _ => 0,
        };
        found.push((u64::from_le_bytes(*id), after[0]));
        rest = &after[1 + extra..];
    }
    assert_eq!(found.len(), u32::from_le_bytes(body[..4].try_into().unwrap()) as usize);
    found
}

/// A sender played by hand against a real receiver.
pub struct PlayedSender {
    here: Memory,
    control: Sink,
    pub answers: Messages,
    serving: JoinHandle<Result<Summary, TransferError>>,
}

impl PlayedSender {
    pub async fn begin(receiver: ReceiverConfig, hello: Vec<u8>) -> Self {
        let (here, there, _) = connection(u64::MAX);
        let serving = tokio::spawn(async move {
            Receiver::open(receiver).unwrap().serve(&there, "peer", &ProgressSource::default()).await
        });
        let (control, source) = here.open_stream().await.unwrap();
        let mut played = Self { here, control, answers: Messages::new(source), serving };
        played.say(hello).await;
        played
    }

    pub async fn say(&mut self, bytes: Vec<u8>) {
        self.control.write_bytes(bytes.into()).await.unwrap();
    }

    /// Sends records on a data stream of their own.
    pub async fn data(&self, records: &[Vec<u8>]) {
        let (mut sink, _source) = self.here.open_stream().await.unwrap();
        sink.write_bytes(data(records).into()).await.unwrap();
    }

    /// The next outcomes, whatever else is said before.
    pub async fn outcomes(&mut self) -> Vec<(u64, u8)> {
        outcomes(&self.answers.skip_to(OUTCOMES).await.expect("outcomes"))
    }

    /// Says that this was all; the receiver has to agree.
    pub async fn finish(mut self) -> Summary {
        self.say(message(FINISH, b"")).await;
        assert_eq!(self.answers.next().await, Some((FINISHED, Vec::new())));
        self.ended().await.unwrap()
    }

    pub async fn ended(self) -> Result<Summary, TransferError> {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the receiver hangs").unwrap()
    }
}
