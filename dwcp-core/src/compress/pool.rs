//! Worker threads that encode payloads. Owns the threads and a bounded queue; deliberately not the choice of encoding,
//! nor any order: jobs of one stream may complete out of order, since frames carry their offsets.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::{
    codec::{Encoding, encode},
    common::Common,
};

/// Jobs that may wait for each worker. Two keep it busy while the result of one is taken away.
const WAITING_PER_WORKER: usize = 2;
/// More threads than this do not pay: the socket side is reached first.
const WORKERS_MAX: usize = 16;

/// A bounded pool of compressor threads. Dropped, it drops what waits and lets each thread finish what it runs.
#[derive(Debug)]
pub struct CompressPool {
    shared: Arc<Shared>,
    workers: usize,
}

/// The result of a job.
#[derive(Debug)]
pub struct Encoded {
    /// The encoded payload; `None` if it does not shrink usefully and must travel as it is.
    pub wire: Option<Bytes>,
    /// Time that the worker was busy with it.
    pub took: Duration,
}

/// The pool was dropped before the job was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the compression pool was shut down")]
pub struct PoolClosed;

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// One permit for each job that waits or runs.
    room: Semaphore,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    encoding: Encoding,
    raw: Bytes,
    common: Option<Arc<Common>>,
    done: oneshot::Sender<Encoded>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics with the lock held; a poisoned queue is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        while let Some(Job { encoding, raw, common, done }) = self.next_job() {
            // Nobody waits any more: a cancelled sender costs nothing.
            if !done.is_closed() {
                let started = Instant::now();
                let wire = encode(encoding, &raw, common.as_deref());
                // An error means that nobody waits any more.
                let _ = done.send(Encoded { wire, took: started.elapsed() });
            }
            self.room.add_permits(1);
        }
    }
}

impl CompressPool {
    /// Starts as many threads as there are processors, at most 16.
    pub fn new() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self::with_workers(processors.min(WORKERS_MAX))
    }

    /// Starts this many threads, at least one.
    pub fn with_workers(workers: usize) -> io::Result<Self> {
        let workers = workers.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            room: Semaphore::new(workers * (1 + WAITING_PER_WORKER)),
        });
        let pool = Self { shared, workers };
        for number in 0..workers {
            let shared = pool.shared.clone();
            thread::Builder::new().name(format!("dwcp-compress-{number}")).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Number of threads.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Whether [`submit`](Self::submit) would return at once.
    pub fn has_room(&self) -> bool {
        self.shared.room.available_permits() > 0
    }

    /// Waits for room, then queues a job, for a connection with these dictionaries. The receiver resolves when it is done, and fails if the pool is dropped.
    /// Cancellation-safe: a job is queued or it is not.
    pub async fn submit(
        &self,
        encoding: Encoding,
        raw: Bytes,
        common: Option<Arc<Common>>,
    ) -> Result<oneshot::Receiver<Encoded>, PoolClosed> {
        self.shared.room.acquire().await.map_err(|_| PoolClosed)?.forget();
        Ok(self.push(encoding, raw, common))
    }

    /// Like [`submit`](Self::submit), but gives the payload back if there is no room.
    pub fn try_submit(
        &self,
        encoding: Encoding,
        raw: Bytes,
        common: Option<Arc<Common>>,
    ) -> Result<oneshot::Receiver<Encoded>, Bytes> {
        match self.shared.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(raw),
        }
        Ok(self.push(encoding, raw, common))
    }

    fn push(
        &self,
        encoding: Encoding,
        raw: Bytes,
        common: Option<Arc<Common>>,
    ) -> oneshot::Receiver<Encoded> {
        let (done, receiver) = oneshot::channel();
        self.shared.queue().jobs.push_back(Job { encoding, raw, common, done });
        self.shared.arrived.notify_one();
        receiver
    }
}

impl Drop for CompressPool {
    fn drop(&mut self) {
        self.shared.room.close();
        let mut queue = self.shared.queue();
        queue.closed = true;
        queue.jobs.clear();
        drop(queue);
        self.shared.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use dwcp_proto::frame::Codec;

    use super::*;
    use crate::{compress::decode, sample_data::SampleData};

    #[tokio::test]
    async fn many_jobs_all_decode() {
        let pool = CompressPool::with_workers(3).unwrap();
        let frames: Vec<Bytes> =
            (0..64).map(|seed| Bytes::from(SampleData::Text.generate(seed, 30_000))).collect();
        let mut receivers = Vec::new();
        for frame in &frames {
            receivers.push(pool.submit(Encoding::Zstd(1), frame.clone(), None).await.unwrap());
        }
        for (frame, receiver) in frames.iter().zip(receivers) {
            let encoded = receiver.await.unwrap();
            assert_eq!(decode(Codec::Zstd, &encoded.wire.unwrap(), frame.len(), None).unwrap(), frame);
        }
        assert!(pool.has_room());
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let pool = CompressPool::with_workers(1).unwrap();
        let slow = Bytes::from(SampleData::Vm.generate(1, 4 << 20));
        let mut receivers = Vec::new();
        let refused = loop {
            match pool.try_submit(Encoding::Zstd(19), slow.clone(), None) {
                Ok(receiver) => receivers.push(receiver),
                Err(raw) => break raw,
            }
            receivers.retain_mut(|done| matches!(done.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
            assert!(receivers.len() <= 3, "one runs and two wait");
        };
        assert_eq!(refused.len(), slow.len());
        // Nobody waits for these: the worker skips them, and there is room again.
        drop(receivers);
        let receiver = pool.submit(Encoding::Lz4, slow.slice(..1000), None).await.unwrap();
        receiver.await.unwrap();
    }

    #[tokio::test]
    async fn dropping_the_pool_ends_threads_and_jobs() {
        let pool = CompressPool::with_workers(2).unwrap();
        let slow = Bytes::from(SampleData::Vm.generate(1, 1 << 20));
        let receivers: Vec<_> =
            (0..6).map(|_| pool.try_submit(Encoding::Zstd(19), slow.clone(), None).unwrap()).collect();
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        for receiver in receivers {
            // Done or dropped, but it resolves.
            let _ = receiver.await;
        }
        while shared.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
