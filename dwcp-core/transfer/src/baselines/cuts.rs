//! Where the chunks of a content are: read from it, and cached beside it. A cache that is damaged or does not fit is made
//! again.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf};

use dwcp_delta::{
    Baseline as _,
    chunks::{self, Chunk, Cutting},
};
use rustix::{fs::SeekFrom, io::Errno};

use super::{BaselineStore, CUTS, OpenBaseline};
use crate::{ContentHash, delta::count_fallback, limits::CHUNKS_MAX};

/// Read at once.
const READ_BYTES: usize = 4 << 20;
const CHECK_BYTES: usize = 32;

/// Reads a content once, for its chunks and its hash. Ends early, with any hash, when told to stop.
pub(crate) fn read_cuts(
    file: &File,
    len: u64,
    cutting: Cutting,
    stop: &dyn Fn() -> bool,
) -> io::Result<(Vec<Chunk>, ContentHash)> {
    let (mut found, mut hasher) = (Vec::new(), blake3::Hasher::new());
    let mut buffer = vec![0; READ_BYTES + cutting.bytes_max()];
    // From here on nothing has been cut, and this many bytes are there.
    let (mut at, mut held) = (0u64, 0usize);
    while at + (held as u64) < len && !stop() {
        let next = at + held as u64;
        if held == 0 {
            let data = data_from(file, next, len);
            if data > next {
                // Aligned, so that blocks stay aligned; between chunks it does not matter.
                let data = data - data % cutting.bytes_max() as u64;
                zeros(&mut hasher, data.saturating_sub(next));
                at = data.max(next);
                if data > next {
                    continue;
                }
            }
        }
        let step = (len - next).min((buffer.len() - held) as u64) as usize;
        let part = &mut buffer[held..held + step];
        file.read_exact_at(part, next)?;
        hasher.update(part);
        held += step;
        let last = at + held as u64 == len;
        let cut = cutting.chunks(&buffer[..held], at, last, |chunk| found.push(chunk));
        if found.len() > CHUNKS_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        buffer.copy_within(cut..held, 0);
        at += cut as u64;
        held -= cut;
    }
    Ok((found, ContentHash(*hasher.finalize().as_bytes())))
}

fn zeros(hasher: &mut blake3::Hasher, mut len: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while len > 0 {
        let step = len.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..step as usize]);
        len -= step;
    }
}

/// Where the next data is; here, where that cannot be told.
fn data_from(file: &File, at: u64, len: u64) -> u64 {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(len),
        Err(Errno::NXIO) => len,
        Err(_) => at,
    }
}

fn path(store: &BaselineStore, baseline: &OpenBaseline, cutting: Cutting) -> PathBuf {
    let [kind, bits] = cutting.encode();
    let hash = ContentHash(baseline.name.hash);
    store.config.folder.join(CUTS).join(format!("{hash}-{kind}-{bits}"))
}

pub(super) fn cached(store: &BaselineStore, baseline: &OpenBaseline, cutting: Cutting) -> Option<Vec<Chunk>> {
    let bytes = std::fs::read(path(store, baseline, cutting)).ok()?;
    let cuts = checked(&bytes, baseline.len());
    if cuts.is_none() {
        count_fallback("chunks_damaged");
    }
    cuts
}

fn checked(bytes: &[u8], len: u64) -> Option<Vec<Chunk>> {
    let (list, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if blake3::hash(list).as_bytes() != check {
        return None;
    }
    chunks::decode(list, len, CHUNKS_MAX).ok()
}

/// A cache that cannot be written is none.
pub(super) fn cache(store: &BaselineStore, baseline: &OpenBaseline, cutting: Cutting, cuts: &[Chunk]) {
    let mut bytes = chunks::encode(cuts);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    let written = store.growing().and_then(|growing| {
        growing.file.write_all_at(&bytes, 0)?;
        growing.publish(&path(store, baseline, cutting))
    });
    if let Err(error) = written {
        tracing::warn!(%error, "a list of chunks is not kept");
    }
}
