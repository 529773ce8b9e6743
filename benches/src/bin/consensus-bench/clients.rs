//! Clients that ask one thing after the other, and how long the answers take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use consensus_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::{
    random::Random,
    swap::{Swap, Swapper},
    unary::Connection,
};

/// As etcd's own benchmark has it.
pub(crate) const VALUE_BYTES: usize = 256;
/// Keys that are put and read.
pub(crate) const KEYS: u64 = 10_000;
/// Clients share connections, as they do in services.
pub(crate) const CONNECTIONS_MAX: usize = 99;
/// Before what counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// Of a hundred operations of mixed clients.
const PUTS_OF_100: u64 = 20;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    LinearizableRead,
    SerializableRead,
    /// Four linearizable reads for each put.
    Mixed,
    /// A transaction that puts if the key is unchanged since it was last seen.
    Swap,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Of all that were answered, in microseconds.
    pub(crate) times: Histogram<u64>,
    pub(crate) failed: u64,
    /// Transactions that put.
    pub(crate) swapped: u64,
    /// Those before the warm-up was over as well.
    pub(crate) swapped_ever: u64,
}

impl Measured {
    fn nothing() -> Self {
        let times = Histogram::new(3).expect("three digits are possible");
        Self { seconds: 0.0, times, failed: 0, swapped: 0, swapped_ever: 0 }
    }

    pub(crate) fn operations(&self) -> f64 {
        self.times.len() as f64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.operations() / self.seconds
    }

    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64
    }
}

pub(crate) fn key(n: u64) -> Bytes {
    format!("key{n:08}").into()
}

/// One client.
struct Client {
    /// To all members, taken in turns, as etcd's own clients do.
    connections: Arc<[Connection]>,
    next: usize,
    operation: Operation,
    value: Bytes,
    random: Random,
    swapper: Swapper,
}

impl Client {
    fn connection(&mut self) -> Connection {
        self.next = (self.next + 1) % self.connections.len();
        self.connections[self.next].clone()
    }

    async fn put(&mut self) -> bool {
        let key = key(self.random.below(KEYS));
        let request = PutRequest { key, value: self.value.clone(), ..Default::default() };
        self.connection().call::<PutResponse>("/etcdserverpb.KV/Put", &request).await.is_ok()
    }

    async fn read(&mut self, serializable: bool) -> bool {
        let key = key(self.random.below(KEYS));
        let request = RangeRequest { key, serializable, ..Default::default() };
        self.connection().call::<RangeResponse>("/etcdserverpb.KV/Range", &request).await.is_ok()
    }

    /// Whether it was answered, and whether it swapped.
    async fn ask(&mut self) -> (bool, bool) {
        let answered = match self.operation {
            Operation::Put => self.put().await,
            Operation::LinearizableRead => self.read(false).await,
            Operation::SerializableRead => self.read(true).await,
            Operation::Mixed if self.random.below(100) < PUTS_OF_100 => self.put().await,
            Operation::Mixed => self.read(false).await,
            Operation::Swap => {
                let connection = self.connection();
                let swap = self.swapper.swap(&connection, &mut self.random).await;
                return (swap != Swap::Failed, swap == Swap::Done);
            }
        };
        (answered, false)
    }

    async fn run(mut self, start: Instant, stop: Arc<AtomicBool>) -> Measured {
        let mut measured = Measured::nothing();
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let (answered, swapped) = self.ask().await;
            measured.swapped_ever += u64::from(swapped);
            if asked < start {
                continue;
            }
            match answered {
                true => measured.times += asked.elapsed().as_micros() as u64,
                false => measured.failed += 1,
            }
            measured.swapped += u64::from(swapped);
        }
        measured
    }
}

/// Clients at work.
pub(crate) struct Clients {
    start: Instant,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Measured>,
}

impl Clients {
    /// Clients that ask until they are stopped. What they do counts from the moment when this returns.
    pub(crate) async fn start(endpoints: &[String], operation: Operation, count: usize) -> Result<Self> {
        let members = endpoints.len();
        let mut connections = Vec::new();
        // As many to each member.
        for endpoint in endpoints.iter().cycle().take(count.next_multiple_of(members).min(CONNECTIONS_MAX)) {
            connections.push(Connection::open(endpoint).await?);
        }
        let connections: Arc<[Connection]> = connections.into();
        let start = Instant::now() + WARM_UP;
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for n in 0..count {
            let client = Client {
                connections: Arc::clone(&connections),
                next: n,
                operation,
                value: vec![b'v'; VALUE_BYTES].into(),
                random: Random::new(n as u64),
                swapper: Swapper::default(),
            };
            tasks.spawn(client.run(start, stop.clone()));
        }
        tokio::time::sleep_until(start.into()).await;
        Ok(Self { start, stop, tasks })
    }

    /// Lets each have its last answer.
    pub(crate) async fn finish(mut self) -> Result<Measured> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Measured { seconds: self.start.elapsed().as_secs_f64(), ..Measured::nothing() };
        while let Some(ended) = self.tasks.join_next().await {
            let one = ended?;
            all.times += one.times;
            all.failed += one.failed;
            all.swapped += one.swapped;
            all.swapped_ever += one.swapped_ever;
        }
        Ok(all)
    }
}
