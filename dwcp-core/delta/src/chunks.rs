//! Contents as chunks that are recognised anywhere: cut where the content says (FastCDC), so that an insertion moves no
//! boundary but its own, or aligned blocks where nothing is ever inserted: disk images, memory (DELTA-5).

use std::collections::HashMap;

use fastcdc::v2020::FastCDC;

use crate::{
    DeltaError,
    limits::{CHUNK_BITS_MAX, CHUNK_BITS_MIN, CHUNK_MAX_FACTOR, CHUNKS_TARGET, LEAD_CHUNKS},
    varint,
};

/// First bytes of a chunk's BLAKE3. So few may be equal by accident; a hash of the result tells.
pub type ChunkId = [u8; 8];
/// Content-defined chunks are at least this part of their average.
const MIN_DIVISOR: usize = 4;

/// How a content is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// Where the content says, this power of two apart on average.
    Content(u8),
    /// In blocks of this power of two, aligned.
    Blocks(u8),
}

/// A run of bytes of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// What it is.
    pub id: ChunkId,
}

impl Cutting {
    /// For a content of this length, blocks of a disk or memory, or chunks. They grow with the square root of the length, and
    /// so does what it costs to tell of them.
    pub fn of(len: u64, in_blocks: bool, block_bytes: usize) -> Self {
        let least = if in_blocks { block_bytes.next_power_of_two().ilog2() } else { CHUNK_BITS_MIN.into() };
        let root = len.isqrt().next_power_of_two().ilog2();
        let enough = (len / CHUNKS_TARGET).next_power_of_two().ilog2();
        let bits = least.max(root).max(enough).clamp(CHUNK_BITS_MIN.into(), CHUNK_BITS_MAX.into()) as u8;
        if in_blocks { Self::Blocks(bits) } else { Self::Content(bits) }
    }

    /// Two bytes: the kind, and the power of two.
    pub fn encode(self) -> [u8; 2] {
        match self {
            Self::Content(bits) => [0, bits],
            Self::Blocks(bits) => [1, bits],
        }
    }

    /// What [`encode`](Self::encode) made.
    pub fn decode(bytes: [u8; 2]) -> Result<Self, DeltaError> {
        match bytes {
            [0, bits @ CHUNK_BITS_MIN..=CHUNK_BITS_MAX] => Ok(Self::Content(bits)),
            [1, bits @ CHUNK_BITS_MIN..=CHUNK_BITS_MAX] => Ok(Self::Blocks(bits)),
            _ => Err(DeltaError::Invalid("kind of chunks")),
        }
    }

    /// Average, or exact, bytes of a chunk.
    fn bytes(self) -> usize {
        match self {
            Self::Content(bits) | Self::Blocks(bits) => 1 << bits,
        }
    }

    /// Most bytes of a chunk.
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Content(_) => self.bytes() * CHUNK_MAX_FACTOR,
            Self::Blocks(_) => self.bytes(),
        }
    }

    /// Bytes before a part that a sender needs to find the chunks that a receiver has found, who has read from the beginning.
    pub fn lead_bytes(self) -> usize {
        match self {
            Self::Content(_) => self.bytes() * LEAD_CHUNKS,
            Self::Blocks(_) => 0,
        }
    }

    /// Length of the chunk that begins `bytes`.
    fn cut(self, bytes: &[u8]) -> usize {
        match self {
            Self::Blocks(_) => self.bytes().min(bytes.len()),
            Self::Content(_) => {
                let average = self.bytes();
                let window = &bytes[..bytes.len().min(self.bytes_max())];
                let cutter = FastCDC::new(window, average / MIN_DIVISOR, average, self.bytes_max());
                cutter.cut(0, window.len()).1
            }
        }
    }

    /// Calls `found` with the chunks of bytes that begin at `offset` of their content, none of which end behind the bytes
    /// unless these are the `last`. Returns how many bytes were cut.
    pub fn chunks(self, bytes: &[u8], offset: u64, last: bool, mut found: impl FnMut(Chunk)) -> usize {
        let mut at = 0;
        while at < bytes.len() && (last || bytes.len() - at >= self.bytes_max()) {
            let len = self.cut(&bytes[at..]).max(1);
            let chunk = &bytes[at..at + len];
            if !is_zero(chunk) {
                found(Chunk { offset: offset + at as u64, len: len as u32, id: id_of(chunk) });
            }
            at += len;
        }
        at
    }
}

fn id_of(chunk: &[u8]) -> ChunkId {
    *blake3::hash(chunk).as_bytes().first_chunk().expect("a hash is longer")
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // In groups that the compiler compares at once.
    let (groups, rest) = bytes.as_chunks::<32>();
    groups.iter().all(|group| *group == [0; 32]) && rest.iter().all(|&byte| byte == 0)
}

/// Writes down chunks, ascending, for a peer.
pub fn encode(chunks: &[Chunk]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * 12);
    let mut end = 0;
    for chunk in chunks {
        // Of the first, where it is; then the gaps.
        varint::put(chunk.offset - end, &mut out);
        varint::put(chunk.len.into(), &mut out);
        out.extend_from_slice(&chunk.id);
        end = chunk.offset + u64::from(chunk.len);
    }
    out
}

/// Reads what [`encode`] wrote: chunks of a content of `content_len` bytes, at most `max` of them.
pub fn decode(mut bytes: &[u8], content_len: u64, max: usize) -> Result<Vec<Chunk>, DeltaError> {
    let invalid = DeltaError::Invalid("place of a chunk");
    let (mut chunks, mut end) = (Vec::new(), 0u64);
    while !bytes.is_empty() {
        if chunks.len() == max {
            return Err(DeltaError::Invalid("number of chunks"));
        }
        let offset = end.checked_add(varint::take(&mut bytes)?).ok_or(invalid)?;
        let len = varint::take_count(&mut bytes, CHUNK_MAX_FACTOR << CHUNK_BITS_MAX, "length of a chunk")?;
        end = offset.checked_add(len as u64).filter(|&end| end <= content_len && len > 0).ok_or(invalid)?;
        let id = *varint::take_bytes(&mut bytes, size_of::<ChunkId>())?.first_chunk().expect("8 bytes");
        chunks.push(Chunk { offset, len: len as u32, id });
    }
    Ok(chunks)
}

/// Where each chunk is.
#[derive(Debug, Default)]
pub struct Index(HashMap<ChunkId, (u64, u32)>);

impl Index {
    /// Of equal chunks, the first is kept.
    pub fn extend(&mut self, chunks: &[Chunk]) {
        for chunk in chunks {
            self.0.entry(chunk.id).or_insert((chunk.offset, chunk.len));
        }
    }

    /// Different chunks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn find(&self, chunk: &Chunk) -> Option<u64> {
        let &(offset, len) = self.0.get(&chunk.id)?;
        (len == chunk.len).then_some(offset)
    }
}
