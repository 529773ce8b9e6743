//! One worker for each data stream: reads and hashes pieces off the async threads and queues them for the stream.
//!
//! Small files and record headers are packed, so that a thousand small files are a few writes.

use std::{io::Read, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    buffer::Pool,
    delta::Differ,
    queue::Job,
    shared::{Aborted, Shared},
    source::{Complete, Piece, SourceFile},
};
use crate::{
    Failure, FailureKind,
    control::{FileEnd, Message, Outcome},
    limits::{PACK_BYTES, PIECE_BYTES, PIECES_MAX},
    progress::Add,
    record::Header,
};

struct Worker<'a> {
    shared: &'a Shared,
    writes: &'a mpsc::Sender<Bytes>,
    pack: Vec<u8>,
    pool: Pool,
    differ: Option<Differ>,
}

/// Works until the queue closes or the stream is gone.
pub(super) fn run(shared: &Shared, writes: &mpsc::Sender<Bytes>) {
    let differ = shared.delta.as_ref().map(|delta| Differ::new(delta.block_bytes));
    let mut worker = Worker { shared, writes, pack: Vec::new(), pool: Pool::default(), differ };
    // Nothing to report: the stream's own task says why it ended.
    let _: Result<(), Aborted> = worker.work();
}

impl Worker<'_> {
    fn work(&mut self) -> Result<(), Aborted> {
        loop {
            let job = match self.shared.queue.try_take() {
                Some(job) => job,
                None => {
                    self.flush()?;
                    match self.shared.queue.take() {
                        Some(job) => job,
                        None => return Ok(()),
                    }
                }
            };
            match job {
                Job::Piece(file, index) => self.piece(&file, index)?,
                Job::Stream(file) => self.stream(&file)?,
                Job::Prepare(file) => self.prepare(file)?,
                Job::Again(file, index) => self.again(&file, index)?,
                Job::Check(file, hash) => self.check(&file, hash)?,
            }
        }
    }

    /// The receiver has an older version: is it here, too? Else the receiver is asked for its chunks.
    fn prepare(&mut self, file: Arc<SourceFile>) -> Result<(), Aborted> {
        let store = self.shared.delta.as_ref().and_then(|delta| delta.store.as_deref());
        if file.prepare(store) {
            self.shared.begin(file);
            return Ok(());
        }
        self.shared.send(Message::Describe { id: file.id })
    }

    fn again(&mut self, file: &SourceFile, index: u64) -> Result<(), Aborted> {
        if file.is_cancelled() {
            return Ok(());
        }
        let store = self.shared.delta.as_ref().and_then(|delta| delta.store.as_ref());
        if let (Some((hash, len)), Some(store)) = (file.take_compared(), store) {
            store.suspect(hash, len);
        }
        match file.read_piece_again(index, &self.pool) {
            Ok(piece) => {
                let len = u64::from(piece.data_len());
                self.shared.progress.counters().bytes_moved.add(len);
                self.write(file.id, piece)?;
                self.flush()
            }
            Err(failure) => self.shared.source_failed(file, failure),
        }
    }

    fn piece(&mut self, file: &Arc<SourceFile>, index: u64) -> Result<(), Aborted> {
        if file.is_cancelled() {
            return Ok(());
        }
        let piece = match file.read_piece(index, &self.pool) {
            Ok(piece) => piece,
            Err(failure) => return self.shared.source_failed(file, failure),
        };
        let counters = self.shared.progress.counters();
        let (digest, len) = (piece.digest, u64::from(piece.len));
        let send = !file.receiver_has_piece(index, &digest);
        let delta = match self.differ.as_mut().filter(|_| send) {
            Some(differ) => differ.delta(file, &piece),
            None => Ok(None),
        };
        let delta = match delta {
            Ok(delta) => delta,
            Err(failure) => return self.shared.source_failed(file, failure),
        };
        if let Some(delta) = &delta {
            let saved = len.saturating_sub(delta.len() as u64);
            counters.bytes_moved.add(delta.len() as u64);
            counters.bytes_skipped.add(saved);
            counters.bytes_from_baselines.add(saved);
            file.delta_sent(index, saved);
        } else if send {
            counters.bytes_moved.add(u64::from(piece.data_len()));
        } else {
            counters.bytes_skipped.add(len);
        }
        // Before it is queued: what waits in queues is taken off again where progress is told.
        if file.count(len) {
            counters.bytes_done.add(len);
        }
        match delta {
            Some(delta) => self.write_delta(file.id, &piece, delta)?,
            None if send => self.write(file.id, piece)?,
            None => {}
        }
        match file.piece_done(index, digest, send) {
            Ok(Some(complete)) => {
                self.shared.sent(file, complete.hash);
                match file.layout().is_some_and(|layout| layout.pieces() > 1) {
                    true => self.end(file.id, &complete),
                    false => Ok(()),
                }
            }
            Ok(None) => Ok(()),
            Err(failure) => self.shared.source_failed(file, failure),
        }
    }

    fn stream(&mut self, file: &SourceFile) -> Result<(), Aborted> {
        let Some(mut reader) = file.take_reader() else { return Ok(()) };
        let counters = self.shared.progress.counters();
        let mut size = 0u64;
        for index in 0.. {
            let mut buffer = self.pool.take(PIECE_BYTES as usize, PIECE_BYTES as usize);
            let len = match fill(&mut reader, buffer.bytes_mut()) {
                Ok(len) => len,
                Err(error) => return self.shared.abandon(file.id, Failure::at_source("read", &error)),
            };
            if len == 0 || file.is_cancelled() {
                break;
            }
            if index == PIECES_MAX {
                let failure = Failure::new(FailureKind::Limit, "stream longer than 16 TiB");
                return self.shared.abandon(file.id, failure);
            }
            buffer.truncate(len);
            let piece = Piece::dense(index, size, buffer);
            size += len as u64;
            counters.bytes_total.add(len as u64);
            counters.bytes_done.add(len as u64);
            counters.bytes_moved.add(len as u64);
            let digest = piece.digest;
            self.write(file.id, piece)?;
            // Without a layout nothing is complete before the end is known.
            let _ = file.piece_done(index, digest, true);
        }
        self.end(file.id, &file.stream_done(size))
    }

    fn end(&mut self, id: u64, complete: &Complete) -> Result<(), Aborted> {
        self.flush()?;
        let Complete { size, pieces_sent, hash } = *complete;
        self.shared.send(Message::FileEnd(FileEnd { id, size, pieces_sent, hash: hash.0 }))
    }

    fn check(&mut self, file: &SourceFile, theirs: [u8; 32]) -> Result<(), Aborted> {
        match file.hash(&self.pool) {
            Ok(hash) if hash.0 == theirs => {
                self.shared.resolve(file.id, Outcome::Skipped);
                Ok(())
            }
            Ok(_) => self.shared.resubmit(file),
            Err(failure) => self.shared.source_failed(file, failure),
        }
    }

    fn write(&mut self, id: u64, piece: Piece) -> Result<(), Aborted> {
        let header = Header {
            id,
            index: piece.index,
            len: piece.len,
            data_len: piece.data_len(),
            extents: piece.extents.len() as u16,
            delta: false,
            cv: piece.digest.cv,
        };
        header.encode(&piece.extents, &mut self.pack);
        let small = header.data_len as usize <= PACK_BYTES;
        if !small {
            self.flush()?;
        }
        let ranges = piece.extents.iter().zip(&piece.starts).map(|(e, &start)| start..start + e.len as usize);
        if small {
            for range in ranges {
                self.pack.extend_from_slice(&piece.data.as_ref()[range]);
            }
            if self.pack.len() >= PACK_BYTES {
                self.flush()?;
            }
            return Ok(());
        }
        // Extents that lie side by side in the buffer are one write.
        let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
        for range in ranges {
            match runs.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => runs.push(range),
            }
        }
        let data = piece.data.freeze();
        runs.into_iter().try_for_each(|run| self.queue(data.slice(run)))
    }

    fn write_delta(&mut self, id: u64, piece: &Piece, delta: Vec<u8>) -> Result<(), Aborted> {
        let Piece { index, len, digest, .. } = piece;
        let data_len = delta.len() as u32;
        let header =
            Header { id, index: *index, len: *len, data_len, extents: 0, delta: true, cv: digest.cv };
        header.encode(&[], &mut self.pack);
        if delta.len() > PACK_BYTES {
            self.flush()?;
            return self.queue(delta.into());
        }
        self.pack.extend_from_slice(&delta);
        if self.pack.len() >= PACK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Aborted> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let pack = std::mem::replace(&mut self.pack, Vec::with_capacity(2 * PACK_BYTES));
        self.queue(pack.into())
    }

    fn queue(&self, bytes: Bytes) -> Result<(), Aborted> {
        self.shared.progress.counters().bytes_queued.add(bytes.len() as u64);
        self.writes.blocking_send(bytes).map_err(|_| Aborted)
    }
}

/// Reads until the buffer is full or the reader ends.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
