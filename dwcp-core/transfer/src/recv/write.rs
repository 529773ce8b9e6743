//! One writer for each data stream: takes records apart, hashes and writes, off the async threads.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{session::Worker, target::Target, write_back::Gathered};
use crate::{
    Failure, FailureKind, TransferError,
    content::{PieceDigest, PieceHasher},
    control::{Message, ended},
    delta::{count_piece, count_saved},
    progress::Add,
    record::{EXTENT_BYTES, Extent, HEADER_BYTES, Header},
};

/// Runs of zeros of this length in a piece that was made from a baseline become holes.
const HOLE_BYTES: usize = 4096;

/// Bytes of a stream as they came, taken in the lengths that records ask for.
struct Chunks {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
}

/// Works until the stream ends.
pub(super) fn run(worker: &Worker, queue: mpsc::Receiver<Bytes>) -> Result<(), TransferError> {
    let mut chunks = Chunks { queue, current: Bytes::new() };
    let (mut head, mut list, mut extents) = ([0; HEADER_BYTES], Vec::new(), Vec::new());
    while chunks.has_more() {
        chunks.copy(&mut head)?;
        let invalid = |source| TransferError::Decode { what: "record", source };
        let header = Header::decode(&head).map_err(invalid)?;
        list.resize(usize::from(header.extents) * EXTENT_BYTES, 0);
        chunks.copy(&mut list)?;
        header.decode_extents(&list, &mut extents).map_err(invalid)?;
        if header.delta && worker.session.delta().is_none() {
            return Err(TransferError::Protocol { rule: "T7.4: a delta where none was agreed on" });
        }
        match worker.session.target(header.id) {
            Some(target) if header.delta => delta(worker, &target, &header, &mut chunks)?,
            Some(target) => piece(worker, &target, &header, &extents, &mut chunks)?,
            // Failed meanwhile; the sender does not know yet.
            None => chunks.skip(header.data_len)?,
        }
    }
    Ok(())
}

fn piece(
    worker: &Worker,
    target: &Arc<Target>,
    header: &Header,
    extents: &[Extent],
    chunks: &mut Chunks,
) -> Result<(), TransferError> {
    let Some(_writing) = target.begin_writing() else { return chunks.skip(header.data_len) };
    target.check(header)?;
    worker.session.count_digest()?;
    let (opened, mut failed) = match target.open() {
        Ok(opened) => (opened, None),
        Err(failure) => (None, Some(failure)),
    };
    let offset = target.offset(header.index);
    let mut hasher = PieceHasher::new(offset);
    let mut gathered = Gathered::from(offset);
    let mut at = 0;
    let tail = Extent { start: header.len, len: 0 };
    for extent in extents.iter().chain([&tail]) {
        let gap = extent.start - at;
        hasher.update_zeros(gap.into());
        if failed.is_none() {
            failed = target.write_zeros(opened.as_deref(), header.index, at, gap).err();
        }
        at = extent.start;
        let end = extent.start + extent.len;
        while at < end {
            let data = chunks.up_to(end - at)?;
            hasher.update(&data);
            if failed.is_none() {
                failed = target.write(opened.as_deref(), header.index, at, &data).err();
            }
            at += data.len() as u32;
            let due = gathered.add(data.len() as u64, offset + u64::from(at));
            if failed.is_none()
                && let Some(part) = due
            {
                failed = worker.session.write_back(target, opened.as_deref(), part).err();
            }
        }
    }
    let counters = worker.session.progress.counters();
    counters.bytes_moved.add(header.data_len.into());
    counters.bytes_done.add(header.len.into());
    target.count(header.len.into());
    let digest = hasher.finish(offset);
    if failed.is_none() && digest.cv != header.cv {
        failed = Some(Failure::new(FailureKind::Integrity, "piece"));
    }
    if failed.is_none() {
        failed = target.piece_received(opened.as_deref(), header, digest, worker.session.setup.fsync).err();
    }
    match failed {
        Some(failure) => worker.session.fail(target, failure),
        None => worker.finish_if_complete(target),
    }
    Ok(())
}

/// A piece as its difference from a baseline. One that does not come out as the sender has it is asked for in full.
fn delta(
    worker: &Worker,
    target: &Arc<Target>,
    header: &Header,
    chunks: &mut Chunks,
) -> Result<(), TransferError> {
    let Some(_writing) = target.begin_writing() else { return chunks.skip(header.data_len) };
    target.check(header)?;
    let mut body = vec![0; header.data_len as usize];
    chunks.copy(&mut body)?;
    let counters = worker.session.progress.counters();
    counters.bytes_moved.add(header.data_len.into());
    let (offset, mut bytes) = (target.offset(header.index), vec![0; header.len as usize]);
    let made = target.baseline().and_then(|offered| offered.piece(&body, offset, &header.cv, &mut bytes));
    let Some(digest) = made else {
        counters.deltas_refused.add(1);
        count_piece("refused");
        worker.session.send(Message::Again { id: target.id, index: header.index });
        return Ok(());
    };
    worker.session.count_digest()?;
    match write_made(worker, target, header, &bytes, digest) {
        Err(failure) => worker.session.fail(target, failure),
        Ok(()) => {
            let saved = u64::from(header.len - header.data_len);
            counters.bytes_skipped.add(saved);
            counters.bytes_from_baselines.add(saved);
            counters.bytes_done.add(header.len.into());
            target.count(header.len.into());
            count_piece("delta");
            count_saved(saved);
            worker.finish_if_complete(target);
        }
    }
    Ok(())
}

/// Writes a piece that is whole; runs of zeros as holes.
fn write_made(
    worker: &Worker,
    target: &Target,
    header: &Header,
    bytes: &[u8],
    digest: PieceDigest,
) -> Result<(), Failure> {
    let opened = target.open()?;
    let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    let mut at = 0;
    while at < bytes.len() {
        let zero = is_zero(&bytes[at..bytes.len().min(at + HOLE_BYTES)]);
        let blocks = bytes[at..].chunks(HOLE_BYTES).take_while(|block| is_zero(block) == zero);
        let run = &bytes[at..at + blocks.map(<[u8]>::len).sum::<usize>()];
        match zero {
            true => target.write_zeros(opened.as_deref(), header.index, at as u32, run.len() as u32)?,
            false => target.write(opened.as_deref(), header.index, at as u32, run)?,
        }
        at += run.len();
    }
    let end = target.offset(header.index) + u64::from(header.len);
    worker.session.write_back(target, opened.as_deref(), end - u64::from(header.len)..end)?;
    target.piece_received(opened.as_deref(), header, digest, worker.session.setup.fsync)
}

impl Chunks {
    fn has_more(&mut self) -> bool {
        while self.current.is_empty() {
            match self.queue.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return false,
            }
        }
        true
    }

    /// The next bytes without copying, at least one and at most `max`.
    fn up_to(&mut self, max: u32) -> Result<Bytes, TransferError> {
        if !self.has_more() {
            return Err(ended());
        }
        let len = self.current.len().min(max as usize);
        Ok(self.current.split_to(len))
    }

    fn copy(&mut self, mut out: &mut [u8]) -> Result<(), TransferError> {
        while !out.is_empty() {
            let part = self.up_to(out.len() as u32)?;
            let (head, rest) = out.split_at_mut(part.len());
            head.copy_from_slice(&part);
            out = rest;
        }
        Ok(())
    }

    fn skip(&mut self, mut len: u32) -> Result<(), TransferError> {
        while len > 0 {
            len -= self.up_to(len)?.len() as u32;
        }
        Ok(())
    }
}
