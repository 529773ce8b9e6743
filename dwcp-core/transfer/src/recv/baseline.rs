//! What this side has of a content already, and what is made from it (T7). Whatever is wrong with a baseline, the sender is
//! asked for the piece in full.

use std::{
    fs::File,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use dwcp_delta::{
    Baseline as _, BaselineName, Decoder,
    chunks::{self, Chunk},
};

use super::{
    session::{Session, Worker},
    target::Target,
};
use crate::{
    BaselineStore, ContentHash,
    baselines::{OpenBaseline, read_cuts},
    content::{PieceDigest, PieceHasher},
    control::Message,
    delta::{self, Offer, count_fallback, cutting_of, version_of},
    limits::{BASELINES_OPEN_MAX, CHUNKS_BYTES_MAX, DELTA_BYTES_MIN},
};

/// Bytes that a chunk takes at most in a message.
const CHUNK_BYTES_MAX: usize = 24;

/// A baseline that was offered to the sender.
pub(super) struct Offered {
    open: OpenBaseline,
    offer: Offer,
    /// Found while it was hashed.
    cuts: Mutex<Option<Vec<Chunk>>>,
    /// Where it is from, if not from the file that is to be replaced.
    store: Option<Arc<BaselineStore>>,
    /// Something was wrong with it.
    refused: AtomicBool,
    /// Counts those that are open.
    _slot: Arc<()>,
}

/// Says what there is, before the content is asked for.
pub(super) fn offer(session: &Session, target: &Target) {
    if target.size() < DELTA_BYTES_MIN || Arc::strong_count(&session.baselines) > BASELINES_OPEN_MAX {
        return;
    }
    let Some(offered) = find(session, target) else { return };
    let offer = offered.offer;
    target.set_baseline(offered);
    session.send(Message::Baseline { id: target.id, offer });
}

fn find(session: &Session, target: &Target) -> Option<Offered> {
    let delta = session.delta()?;
    let slot = session.baselines.clone();
    let offered = |open: OpenBaseline, cutting, cuts, store| {
        let offer = Offer { name: open.name, len: open.len(), cutting };
        Offered { open, offer, cuts: Mutex::new(cuts), store, refused: AtomicBool::new(false), _slot: slot }
    };
    if let Some(store) = &delta.store
        && let Some(open) = store.newest(&version_of(&session.peer, &target.path))
        && open.len() >= DELTA_BYTES_MIN
    {
        let cutting = cutting_of(open.file(), open.len(), delta.block_bytes);
        return Some(offered(open, cutting, None, Some(store.clone())));
    }
    let file = target.existing()?;
    let len = file.metadata().ok().filter(|found| found.is_file())?.len();
    if len < DELTA_BYTES_MIN {
        return None;
    }
    let cutting = cutting_of(&file, len, delta.block_bytes);
    let (cuts, hash) = read_cuts(&file, len, cutting, &|| session.is_stopped()).ok()?;
    let name = BaselineName { id: version_of(&session.peer, &target.path), version: 0, hash: hash.0 };
    let open = OpenBaseline::new(name, file).ok().filter(|open| open.len() == len)?;
    Some(offered(open, cutting, Some(cuts), None))
}

/// The sender does not have the baseline: tells it what chunks it is made of.
pub(super) fn describe(worker: &Worker, target: Arc<Target>) {
    let session = worker.session.clone();
    worker.slow(move || {
        let cuts = target.baseline().and_then(|offered| offered.cuts(&session)).unwrap_or_default();
        let mut batches = cuts.chunks(CHUNKS_BYTES_MAX / CHUNK_BYTES_MAX).peekable();
        loop {
            let list = chunks::encode(batches.next().unwrap_or_default()).into();
            let last = batches.peek().is_none();
            session.send(Message::Chunks { id: target.id, last, list });
            if last {
                return;
            }
        }
    });
}

impl Offered {
    fn cuts(&self, session: &Session) -> Option<Vec<Chunk>> {
        if let Some(cuts) = self.cuts.lock().unwrap().take() {
            return Some(cuts);
        }
        let cuts = self.store.as_ref()?.cuts_of(&self.open, self.offer.cutting, &|| session.is_stopped());
        match cuts {
            Ok(cuts) => Some(cuts),
            Err(error) => {
                tracing::warn!(%error, "the chunks of a baseline cannot be told");
                self.refuse("unreadable");
                None
            }
        }
    }

    /// Makes a piece from its delta: `None` if what comes out is not what the sender has.
    pub(super) fn piece(
        &self,
        body: &[u8],
        offset: u64,
        chaining_value: &[u8; 32],
        piece: &mut [u8],
    ) -> Option<PieceDigest> {
        if self.refused.load(Relaxed) {
            return None;
        }
        let decoded = Decoder::default().decode(body, &self.offer.name, &self.open, offset, piece);
        if let Err(error) = decoded {
            tracing::warn!(%error, "a delta does not decode");
            self.refuse("undecodable");
            return None;
        }
        let mut hasher = PieceHasher::new(offset);
        hasher.update(piece);
        let digest = hasher.finish(offset);
        if digest.cv != *chaining_value {
            self.refuse("mismatch");
            return None;
        }
        Some(digest)
    }

    /// Not used any more. If it is the store that is wrong, nobody uses it any more.
    fn refuse(&self, reason: &'static str) {
        if self.refused.swap(true, Relaxed) {
            return;
        }
        count_fallback(reason);
        if let Some(store) = &self.store {
            store.discard_if_damaged(&self.open, &ContentHash(self.offer.name.hash));
        }
    }
}

/// Keeps a content that is complete and has its name, for the next version of it.
pub(super) fn keep(session: &Session, target: &Target, file: &File) {
    let Some(store) = session.delta().and_then(|delta| delta.store.as_ref()) else { return };
    let Some(hash) = target.content_hash().filter(|_| target.size() >= DELTA_BYTES_MIN) else { return };
    let id = version_of(&session.peer, &target.path);
    match store.keep(id, target.path.as_bytes(), hash, file) {
        Ok(kept) => tracing::debug!(path = %target.path, ?kept, "baseline"),
        Err(error) => {
            tracing::warn!(%error, path = %target.path, "not kept as a baseline");
            delta::count_fallback("not_kept");
        }
    }
}
