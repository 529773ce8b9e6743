//! Messages of the control stream (T3), pure, and their framing over a [`ByteSource`] / [`ByteSink`].

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};

use dwcp_delta::{BASELINE_NAME_BYTES, BaselineName, chunks::Cutting};

use crate::{
    ByteSource, DecodeError, Failure, TransferError,
    codec::{Put, Reader},
    delta::Offer,
    limits::{BATCH_ENTRIES_MAX, CONTROL_BYTES_MAX, FILE_BYTES_MAX, HAVE_PIECES_MAX, PATH_BYTES_MAX},
};

/// Version of the transfer protocol (T1.2).
pub(crate) const VERSION: u16 = 1;

/// First eight bytes of each stream: magic, kind, three zeros (T1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Control,
    Data,
}

pub(crate) const PREAMBLE_BYTES: usize = 8;
const MAGIC: [u8; 4] = *b"DWTX";

impl StreamKind {
    pub(crate) fn preamble(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Control => b"DWTX\x01\0\0\0",
            Self::Data => b"DWTX\x02\0\0\0",
        })
    }

    pub(crate) fn decode(bytes: [u8; PREAMBLE_BYTES]) -> Result<Self, DecodeError> {
        match bytes.split_first_chunk::<4>() {
            Some((&MAGIC, [1, 0, 0, 0])) => Ok(Self::Control),
            Some((&MAGIC, [2, 0, 0, 0])) => Ok(Self::Data),
            _ => Err(DecodeError::Invalid("stream preamble")),
        }
    }
}

/// Names a transfer: the same command run again has the same token (T1.3).
pub(crate) type Token = [u8; 16];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Sender: first.
    Hello { version: u16, token: Token, checksum: bool },
    /// Receiver: answer. `sequential`: one data stream, pieces in order. `baselines`: it may offer some, and takes deltas.
    Welcome { version: u16, sequential: bool, baselines: bool },
    /// Sender: a manifest batch, still encoded.
    Batch(Bytes),
    /// Sender: all pieces of a file of more than one piece are sent or skipped.
    FileEnd(FileEnd),
    /// Sender: this entry will not be completed.
    Abandon { id: u64, failure: Failure },
    /// Sender: the source of this entry changed while it was read; a new entry for it follows.
    Withdraw { id: u64 },
    /// Sender: no more entries.
    Finish,
    /// Receiver: what becomes of entries.
    Outcomes(Vec<(u64, Outcome)>),
    /// Receiver: pieces of a file that it has; before the entry's outcome.
    Have { id: u64, pieces: Vec<(u64, [u8; 32])> },
    /// Receiver: an older version of an entry's content that it has; before the entry's outcome.
    Baseline { id: u64, offer: Offer },
    /// Sender: it does not have the baseline of this entry and asks for its chunks.
    Describe { id: u64 },
    /// Receiver: some of them, encoded.
    Chunks { id: u64, last: bool, list: Bytes },
    /// Receiver: a delta of this piece was of no use; it is wanted in full.
    Again { id: u64, index: u64 },
    /// Either: the transfer cannot go on.
    Fatal { failure: Failure, path: Vec<u8> },
    /// Receiver: everything is committed; last.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileEnd {
    pub(crate) id: u64,
    /// Bytes of the content.
    pub(crate) size: u64,
    /// Pieces that travelled in this transfer.
    pub(crate) pieces_sent: u64,
    /// BLAKE3 of the content.
    pub(crate) hash: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Made.
    Done,
    /// Was there already, identical.
    Skipped,
    /// Content is wanted, except what `Have` named.
    Send,
    /// Something of the same size is there; is this its hash? If not, the sender asks again.
    Check([u8; 32]),
    /// Not made.
    Failed(Failure),
}

mod tag {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const BATCH: u8 = 3;
    pub(super) const FILE_END: u8 = 4;
    pub(super) const ABANDON: u8 = 5;
    pub(super) const FINISH: u8 = 6;
    pub(super) const OUTCOMES: u8 = 7;
    pub(super) const HAVE: u8 = 8;
    pub(super) const FATAL: u8 = 9;
    pub(super) const FINISHED: u8 = 10;
    pub(super) const WITHDRAW: u8 = 11;
    pub(super) const BASELINE: u8 = 12;
    pub(super) const DESCRIBE: u8 = 13;
    pub(super) const CHUNKS: u8 = 14;
    pub(super) const AGAIN: u8 = 15;
}

impl Message {
    /// With its length in front.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![0; 4];
        match self {
            Self::Hello { version, token, checksum } => {
                out.put_u8(tag::HELLO);
                out.put_u16(*version);
                out.extend_from_slice(token);
                out.put_u8((*checksum).into());
            }
            Self::Welcome { version, sequential, baselines } => {
                out.put_u8(tag::WELCOME);
                out.put_u16(*version);
                out.put_u8((*sequential).into());
                // Only to a sender that has said that it knows this field.
                if *baselines {
                    out.put_u8(1);
                }
            }
            Self::Batch(batch) => {
                out.put_u8(tag::BATCH);
                out.extend_from_slice(batch);
            }
            Self::FileEnd(end) => {
                out.put_u8(tag::FILE_END);
                out.put_u64(end.id);
                out.put_u64(end.size);
                out.put_u64(end.pieces_sent);
                out.extend_from_slice(&end.hash);
            }
            Self::Abandon { id, failure } => {
                out.put_u8(tag::ABANDON);
                out.put_u64(*id);
                failure.encode(&mut out);
            }
            Self::Withdraw { id } => {
                out.put_u8(tag::WITHDRAW);
                out.put_u64(*id);
            }
            Self::Finish => out.put_u8(tag::FINISH),
            Self::Outcomes(outcomes) => {
                out.put_u8(tag::OUTCOMES);
                out.put_u32(outcomes.len() as u32);
                for (id, outcome) in outcomes {
                    out.put_u64(*id);
                    outcome.encode(&mut out);
                }
            }
            Self::Have { id, pieces } => {
                out.put_u8(tag::HAVE);
                out.put_u64(*id);
                out.put_u32(pieces.len() as u32);
                for (index, cv) in pieces {
                    out.put_u64(*index);
                    out.extend_from_slice(cv);
                }
            }
            Self::Fatal { failure, path } => {
                out.put_u8(tag::FATAL);
                failure.encode(&mut out);
                out.put_blob(path);
            }
            Self::Finished => out.put_u8(tag::FINISHED),
            Self::Baseline { id, offer } => {
                out.put_u8(tag::BASELINE);
                out.put_u64(*id);
                out.extend_from_slice(&offer.name.encode());
                out.put_u64(offer.len);
                out.extend_from_slice(&offer.cutting.encode());
            }
            Self::Describe { id } => {
                out.put_u8(tag::DESCRIBE);
                out.put_u64(*id);
            }
            Self::Chunks { id, last, list } => {
                out.put_u8(tag::CHUNKS);
                out.put_u64(*id);
                out.put_u8((*last).into());
                out.extend_from_slice(list);
            }
            Self::Again { id, index } => {
                out.put_u8(tag::AGAIN);
                out.put_u64(*id);
                out.put_u64(*index);
            }
        }
        let len = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&len.to_le_bytes());
        Bytes::from(out)
    }

    /// Without its length.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&bytes);
        let message = match reader.u8()? {
            tag::HELLO => {
                let (version, token) = (reader.u16()?, reader.array()?);
                Self::Hello { version, token, checksum: reader.flag("checksum flag")? }
            }
            tag::WELCOME => {
                let (version, sequential) = (reader.u16()?, reader.flag("sequential flag")?);
                let baselines = !reader.is_at_end();
                if baselines && !reader.flag("baselines flag")? {
                    return Err(DecodeError::Invalid("baselines flag"));
                }
                Self::Welcome { version, sequential, baselines }
            }
            tag::BATCH => return Ok(Self::Batch(bytes.slice(1..))),
            tag::FILE_END => Self::FileEnd(FileEnd {
                id: reader.u64()?,
                size: reader.u64()?,
                pieces_sent: reader.u64()?,
                hash: reader.array()?,
            }),
            tag::ABANDON => Self::Abandon { id: reader.u64()?, failure: Failure::decode(&mut reader)? },
            tag::WITHDRAW => Self::Withdraw { id: reader.u64()? },
            tag::FINISH => Self::Finish,
            tag::OUTCOMES => {
                let count = reader.count("number of outcomes", BATCH_ENTRIES_MAX)?;
                let outcomes = (0..count).map(|_| Ok((reader.u64()?, Outcome::decode(&mut reader)?)));
                Self::Outcomes(outcomes.collect::<Result<_, DecodeError>>()?)
            }
            tag::HAVE => {
                let id = reader.u64()?;
                let count = reader.count("number of pieces", HAVE_PIECES_MAX)?;
                let pieces = (0..count).map(|_| Ok((reader.u64()?, reader.array()?)));
                Self::Have { id, pieces: pieces.collect::<Result<_, DecodeError>>()? }
            }
            tag::FATAL => Self::Fatal {
                failure: Failure::decode(&mut reader)?,
                path: reader.blob("path length", PATH_BYTES_MAX)?.to_vec(),
            },
            tag::FINISHED => Self::Finished,
            tag::BASELINE => {
                let (id, name) =
                    (reader.u64()?, BaselineName::decode(&reader.array::<BASELINE_NAME_BYTES>()?));
                let (len, cutting) = (reader.u64()?, Cutting::decode(reader.array()?));
                let cutting = cutting.map_err(|_| DecodeError::Invalid("kind of chunks"))?;
                if len > FILE_BYTES_MAX {
                    return Err(DecodeError::TooLarge { what: "baseline", value: len, max: FILE_BYTES_MAX });
                }
                Self::Baseline { id, offer: Offer { name, len, cutting } }
            }
            tag::DESCRIBE => Self::Describe { id: reader.u64()? },
            tag::CHUNKS => {
                let (id, last) = (reader.u64()?, reader.flag("last flag")?);
                Self::Chunks { id, last, list: bytes.slice_ref(reader.rest()) }
            }
            tag::AGAIN => Self::Again { id: reader.u64()?, index: reader.u64()? },
            value => return Err(DecodeError::Unknown { what: "message type", value: value.into() }),
        };
        reader.end()?;
        Ok(message)
    }
}

impl Outcome {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.put_u8(0),
            Self::Skipped => out.put_u8(1),
            Self::Send => out.put_u8(2),
            Self::Check(hash) => {
                out.put_u8(3);
                out.extend_from_slice(hash);
            }
            Self::Failed(failure) => {
                out.put_u8(4);
                failure.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::Done,
            1 => Self::Skipped,
            2 => Self::Send,
            3 => Self::Check(reader.array()?),
            4 => Self::Failed(Failure::decode(reader)?),
            value => return Err(DecodeError::Unknown { what: "outcome", value: value.into() }),
        })
    }
}

/// Bytes of a stream, regrouped into the lengths that the protocol asks for.
pub(crate) struct Incoming<S> {
    source: S,
    chunks: VecDeque<Bytes>,
    buffered: usize,
}

impl<S: ByteSource> Incoming<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, chunks: VecDeque::new(), buffered: 0 }
    }

    /// The stream's preamble.
    pub(crate) async fn preamble(&mut self) -> Result<StreamKind, TransferError> {
        if !self.fill(PREAMBLE_BYTES).await? {
            return Err(ended());
        }
        let bytes = self.take(PREAMBLE_BYTES);
        let bytes = bytes[..].try_into().expect("exactly as many bytes as asked for");
        StreamKind::decode(bytes).map_err(|source| TransferError::Decode { what: "stream preamble", source })
    }

    /// The next control message; `None` if the stream ends between two. Cancellation-safe: nothing is consumed
    /// before all of it is there.
    pub(crate) async fn message(&mut self) -> Result<Option<Message>, TransferError> {
        if !self.fill(4).await? {
            return Ok(None);
        }
        let len = self.peek_u32() as usize;
        let decode_error = |source| TransferError::Decode { what: "control message", source };
        if len == 0 || len > CONTROL_BYTES_MAX {
            let (value, max) = (len as u64, CONTROL_BYTES_MAX as u64);
            return Err(decode_error(DecodeError::TooLarge { what: "message length", value, max }));
        }
        self.fill(4 + len).await?;
        self.take(4);
        Message::decode(self.take(len)).map(Some).map_err(decode_error)
    }

    /// What was read but not asked for yet, and the source.
    pub(crate) fn into_parts(self) -> (VecDeque<Bytes>, S) {
        (self.chunks, self.source)
    }

    /// Reads until `len` bytes are buffered; `false` if the stream ends before the first.
    async fn fill(&mut self, len: usize) -> Result<bool, TransferError> {
        while self.buffered < len {
            match self.source.read_chunk().await {
                Ok(Some(chunk)) => {
                    self.buffered += chunk.len();
                    self.chunks.push_back(chunk);
                }
                Ok(None) if self.buffered == 0 => return Ok(false),
                Ok(None) => return Err(ended()),
                Err(source) => return Err(TransferError::Stream { doing: "reading", source }),
            }
        }
        Ok(true)
    }

    /// Only after enough was filled.
    fn peek_u32(&self) -> u32 {
        let mut bytes = self.chunks.iter().flatten().copied();
        u32::from_le_bytes(std::array::from_fn(|_| bytes.next().expect("filled")))
    }

    /// Only after enough was filled. Copies only across chunk boundaries.
    fn take(&mut self, len: usize) -> Bytes {
        self.buffered -= len;
        while self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        if let Some(front) = self.chunks.front_mut()
            && front.len() >= len
        {
            return front.split_to(len);
        }
        let mut out = BytesMut::with_capacity(len);
        while out.len() < len {
            let front = self.chunks.front_mut().expect("filled");
            let step = front.len().min(len - out.len());
            out.extend_from_slice(&front.split_to(step));
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        out.freeze()
    }
}

/// A stream ended in the middle of something.
pub(crate) fn ended() -> TransferError {
    TransferError::Stream { doing: "reading", source: io::ErrorKind::UnexpectedEof.into() }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::FailureKind;

    fn samples() -> Vec<Message> {
        let failure = Failure::from_errno("openat2", rustix::io::Errno::LOOP);
        let name = BaselineName { id: [1; 16], version: 2, hash: [3; 32] };
        let offer = Offer { name, len: 1 << 33, cutting: Cutting::Content(13) };
        let end = FileEnd { id: 9, size: 1 << 40, pieces_sent: 77, hash: [3; 32] };
        vec![
            Message::Hello { version: VERSION, token: [7; 16], checksum: true },
            Message::Welcome { version: VERSION, sequential: false, baselines: false },
            Message::Batch(Bytes::from_static(b"not decoded here")),
            Message::FileEnd(end),
            Message::Abandon { id: 3, failure: Failure::new(FailureKind::SourceChanged, "grew") },
            Message::Withdraw { id: 1 << 33 },
            Message::Finish,
            Message::Outcomes(vec![
                (1, Outcome::Done),
                (2, Outcome::Skipped),
                (3, Outcome::Send),
                (4, Outcome::Check([1; 32])),
                (5, Outcome::Failed(failure.clone())),
            ]),
            Message::Have { id: 4, pieces: vec![(0, [1; 32]), (9, [2; 32])] },
            Message::Fatal { failure, path: b"a/\xff".to_vec() },
            Message::Finished,
            Message::Baseline { id: 4, offer },
            Message::Describe { id: 4 },
            Message::Again { id: 4, index: 1 << 40 },
        ]
    }

    #[test]
    fn t3_1_messages_come_back_and_their_prefixes_do_not_decode() {
        for message in samples() {
            let bytes = message.encode();
            assert_eq!(bytes.len() - 4, u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize);
            assert_eq!(Message::decode(bytes.slice(4..)), Ok(message.clone()));
            if !matches!(message, Message::Batch(_)) {
                for end in 4..bytes.len() {
                    assert!(Message::decode(bytes.slice(4..end)).is_err(), "{message:?} cut at {end}");
                }
            }
        }
    }

    #[test]
    fn t7_2_messages_about_older_versions_have_their_layout() {
        let name = BaselineName { id: [1; 16], version: 2, hash: [3; 32] };
        let offer = Offer { name, len: 5, cutting: Cutting::Blocks(13) };
        let layout = |message: Message| message.encode()[4..].to_vec();
        let number = |number: u64| number.to_le_bytes().to_vec();
        let baseline = [vec![12], number(4), name.encode().to_vec(), number(5), vec![1, 13]].concat();
        assert_eq!(layout(Message::Baseline { id: 4, offer }), baseline);
        assert_eq!(layout(Message::Describe { id: 4 }), [vec![13], number(4)].concat());
        let chunks = Message::Chunks { id: 4, last: true, list: Bytes::from_static(b"list") };
        assert_eq!(layout(chunks), [vec![14], number(4), vec![1], b"list".to_vec()].concat());
        assert_eq!(layout(Message::Again { id: 4, index: 6 }), [vec![15], number(4), number(6)].concat());
    }

    #[test]
    fn t7_1_what_only_new_peers_understand() {
        let welcome = Message::Welcome { version: VERSION, sequential: false, baselines: true };
        let bytes = welcome.encode();
        assert_eq!(Message::decode(bytes.slice(4..)), Ok(welcome));
        let older = Message::Welcome { version: VERSION, sequential: false, baselines: false }.encode();
        assert_eq!(older[5..], bytes[5..bytes.len() - 1], "without the field it is as it was before");
        assert!(Message::decode([&older[4..], &[0]].concat().into()).is_err(), "there is one encoding");
        let list = Bytes::from_static(b"decoded elsewhere");
        for last in [true, false] {
            let chunks = Message::Chunks { id: 4, last, list: list.clone() };
            assert_eq!(Message::decode(chunks.encode().slice(4..)), Ok(chunks));
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(bytes.into());
        }
    }
}
