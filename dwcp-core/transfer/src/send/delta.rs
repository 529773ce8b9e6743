//! What this side knows of the receiver's older version of a content, and pieces as their difference from it (T7).

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use dwcp_delta::{
    Baseline as _, BaselineName, DeltaError, Encoder, Regions, RegionsBuilder,
    chunks::{self, Cutting, Index},
};

use super::source::{Piece, SourceFile};
use crate::{
    BaselineStore, ContentHash, Failure,
    baselines::OpenBaseline,
    delta::{Offer, count_fallback, version_of},
    limits::{CHUNKS_HELD_MAX, CHUNKS_MAX},
};

/// Of zstd, for what is new in a piece: there is little of it.
const LEVEL: i32 = 6;
/// Read at once of a baseline.
const READ_BYTES: usize = 1 << 20;

/// What is known of the receiver's older version.
#[derive(Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    /// Which it is.
    Offered(Offer),
    /// Its chunks are on their way.
    Waiting(Offer, Held),
    Ready(Arc<Counterpart>),
}

/// What a piece is compared with.
pub(super) enum Counterpart {
    /// This side has it, too.
    Baseline { open: OpenBaseline, regions: OnceLock<Option<Arc<Regions>>> },
    /// Only its chunks are known.
    Chunks { name: BaselineName, cutting: Cutting, chunks: Held },
}

/// Chunks that count among those that a sender holds.
#[derive(Default)]
pub(super) struct Held {
    index: Index,
    count: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.count, Relaxed);
    }
}

impl Known {
    pub(super) fn looked_for(self, store: Option<&BaselineStore>) -> Self {
        let Self::Offered(offer) = self else { return self };
        let open = store.and_then(|store| store.with_hash(ContentHash(offer.name.hash), offer.len));
        match open {
            Some(open) => {
                let open = OpenBaseline { name: offer.name, ..open };
                Self::Ready(Arc::new(Counterpart::Baseline { open, regions: OnceLock::new() }))
            }
            None => Self::Waiting(offer, Held::default()),
        }
    }

    /// More chunks than this side may hold are forgotten: the content is sent in full, or almost.
    pub(super) fn described(&mut self, list: &[u8], all: &Arc<AtomicUsize>) -> Result<bool, DeltaError> {
        let Self::Waiting(offer, held) = self else { return Ok(false) };
        let found = chunks::decode(list, offer.len, CHUNKS_MAX - held.count)?;
        if all.fetch_add(found.len(), Relaxed) + found.len() > CHUNKS_HELD_MAX {
            all.fetch_sub(found.len(), Relaxed);
            count_fallback("too_many_chunks");
        } else {
            held.all = all.clone();
            held.count += found.len();
            held.index.extend(&found);
        }
        Ok(true)
    }

    pub(super) fn counterpart(&mut self) -> Option<Arc<Counterpart>> {
        if let Self::Waiting(offer, held) = self {
            let (name, cutting, chunks) = (offer.name, offer.cutting, std::mem::take(held));
            *self = match chunks.index.is_empty() {
                true => Self::Nothing,
                false => Self::Ready(Arc::new(Counterpart::Chunks { name, cutting, chunks })),
            };
        }
        match self {
            Self::Ready(counterpart) => Some(counterpart.clone()),
            _ => None,
        }
    }
}

impl Counterpart {
    /// What of this side's store is used.
    pub(super) fn of_store(&self) -> Option<(ContentHash, u64)> {
        match self {
            Self::Baseline { open, .. } => Some((ContentHash(open.name.hash), open.len())),
            Self::Chunks { .. } => None,
        }
    }
}

/// Makes deltas; one for each worker.
pub(super) struct Differ {
    encoder: Encoder,
    window: Vec<u8>,
    dense: Vec<u8>,
}

impl Differ {
    pub(super) fn new(block_bytes: usize) -> Self {
        Self { encoder: Encoder::new(block_bytes, LEVEL), window: Vec::new(), dense: Vec::new() }
    }

    /// The delta of a piece, if there is something to compare it with and it is worth it.
    pub(super) fn delta(&mut self, file: &SourceFile, piece: &Piece) -> Result<Option<Vec<u8>>, Failure> {
        let Some(counterpart) = file.counterpart() else { return Ok(None) };
        let Some(layout) = file.layout() else { return Ok(None) };
        // Holes alone are said in a header.
        if piece.extents.is_empty() {
            return Ok(None);
        }
        let offset = layout.offset(piece.index);
        let mut delta = Vec::new();
        let made = match &*counterpart {
            Counterpart::Baseline { open, regions } => {
                let dense = dense(piece, &mut self.dense);
                let regions = || regions.get_or_init(|| regions_of(open)).clone();
                let made = self.encoder.by_baseline((offset, dense), &open.name, open, regions, &mut delta);
                made.unwrap_or_else(|_| {
                    count_fallback("unreadable");
                    file.forget_baseline();
                    false
                })
            }
            Counterpart::Chunks { name, cutting, chunks } => {
                let begin = offset.saturating_sub(cutting.lead_bytes() as u64);
                let end = offset + u64::from(piece.len) + cutting.bytes_max() as u64;
                file.read_around(begin..end, &mut self.window)?;
                let start = (offset - begin) as usize;
                let part = start..start + piece.len as usize;
                let place = (offset, &self.window[..]);
                self.encoder.by_chunks(place, part, name, (*cutting, &chunks.index), &mut delta)
            }
        };
        Ok(made.then_some(delta))
    }
}

/// A piece with its holes.
fn dense<'a>(piece: &'a Piece, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let data = piece.data.as_ref();
    if data.len() == piece.len as usize && piece.extents.len() == 1 {
        return data;
    }
    buffer.clear();
    buffer.resize(piece.len as usize, 0);
    for (extent, &start) in piece.extents.iter().zip(&piece.starts) {
        let (at, len) = (extent.start as usize, extent.len as usize);
        buffer[at..at + len].copy_from_slice(&data[start..start + len]);
    }
    buffer
}

/// Reads a baseline once. One that is not what its name says is of no use at the receiver either.
fn regions_of(open: &OpenBaseline) -> Option<Arc<Regions>> {
    let mut builder = RegionsBuilder::new(open.len());
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < open.len() {
        let part = &mut buffer[..(open.len() - at).min(READ_BYTES as u64) as usize];
        open.read_at(at, part).ok()?;
        builder.update(part);
        at += part.len() as u64;
    }
    Some(Arc::new(builder.finish()))
}

/// Contents that were sent, to be kept for the next version of each.
pub(super) struct Keep {
    pub(super) store: Arc<BaselineStore>,
    pub(super) sent: Vec<(Arc<SourceFile>, ContentHash)>,
}

impl Keep {
    /// Reads and writes as much as was sent. What has changed since, or cannot be kept, is not.
    pub(super) fn keep(self) {
        for (file, hash) in self.sent {
            let Some(content) = file.reopen() else { continue };
            // Not the receiver's name: two sides need not agree on more than the hash.
            let id = version_of("", &file.path);
            match self.store.keep(id, file.path.as_bytes(), hash, &content) {
                Ok(kept) => tracing::debug!(path = %file.path, ?kept, "baseline"),
                Err(error) => {
                    tracing::warn!(%error, path = %file.path, "not kept as a baseline");
                    count_fallback("not_kept");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dwcp_delta::chunks::Chunk;

    use super::*;

    fn waiting() -> Known {
        let name = BaselineName { id: [1; 16], version: 2, hash: [3; 32] };
        Known::Offered(Offer { name, len: 1 << 20, cutting: Cutting::Content(13) }).looked_for(None)
    }

    #[test]
    fn t7_6_chunks_beyond_the_bound_are_forgotten_and_their_room_comes_back() {
        let chunk = |number: u8| Chunk { offset: u64::from(number) * 10, len: 10, id: [number; 8] };
        let list = chunks::encode(&[chunk(0), chunk(1)]);
        let all = Arc::new(AtomicUsize::new(CHUNKS_HELD_MAX - 3));
        let (mut first, mut second) = (waiting(), waiting());
        assert_eq!(first.described(&list, &all), Ok(true));
        assert_eq!(second.described(&list, &all), Ok(true), "not the peer's mistake");
        assert!(first.counterpart().is_some());
        assert!(second.counterpart().is_none(), "sent in full");
        assert_eq!(all.load(Relaxed), CHUNKS_HELD_MAX - 1);
        drop(first);
        assert_eq!(all.load(Relaxed), CHUNKS_HELD_MAX - 3);
        let Known::Waiting(_, mut held) = waiting() else { panic!("this side has no store") };
        held.count = CHUNKS_MAX - 1;
        assert!(Known::Waiting(waiting_offer(), held).described(&list, &Arc::default()).is_err());
    }

    fn waiting_offer() -> Offer {
        let Known::Waiting(offer, _) = waiting() else { panic!("this side has no store") };
        offer
    }
}
