//! Clients that ask one thing after the other.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use consensus_proto::etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::unary::Connection;

/// As etcd's own benchmark has it.
const VALUE_BYTES: usize = 256;
const KEYS: u64 = 10_000;
/// Clients share connections, as they do in services.
const CONNECTIONS_MAX: usize = 99;
/// Before what counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Put,
    LinearizableRead,
    SerializableRead,
}

/// How many ask what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) operation: Operation,
    pub(crate) clients: usize,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.operation {
            Operation::Put => "put",
            Operation::LinearizableRead => "linearizable read",
            Operation::SerializableRead => "serializable read",
        };
        write!(f, "{what}, {} clients", self.clients)
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) operations: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) failures: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, p50_us, p99_us, failures, .. } = self;
        write!(f, "{per_second:.0}/s, p50 {p50_us:.0} us, p99 {p99_us:.0} us, {failures} failed")
    }
}

/// One client.
struct Client {
    /// To all members, taken in turns, as etcd's own clients do.
    connections: Arc<[Connection]>,
    next: usize,
    operation: Operation,
    value: Bytes,
    /// State of its generator of keys.
    random: u64,
}

impl Client {
    fn key(&mut self) -> Bytes {
        // xorshift64 (Marsaglia 2003)
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        format!("key{:08}", self.random % KEYS).into()
    }

    async fn ask(&mut self) -> bool {
        let key = self.key();
        let connection = &self.connections[self.next % self.connections.len()];
        self.next += 1;
        match self.operation {
            Operation::Put => {
                let request = PutRequest { key, value: self.value.clone(), ..Default::default() };
                connection.call::<PutResponse>("/etcdserverpb.KV/Put", &request).await.is_ok()
            }
            Operation::LinearizableRead | Operation::SerializableRead => {
                let serializable = self.operation == Operation::SerializableRead;
                let request = RangeRequest { key, serializable, ..Default::default() };
                connection.call::<RangeResponse>("/etcdserverpb.KV/Range", &request).await.is_ok()
            }
        }
    }

    async fn run(mut self, start: Instant, end: Instant) -> (Histogram<u64>, u64) {
        let mut times = Histogram::new(3).expect("three digits are possible");
        let mut failures = 0;
        loop {
            let asked = Instant::now();
            if asked >= end {
                return (times, failures);
            }
            let answered = self.ask().await;
            if asked >= start {
                match answered {
                    true => times += asked.elapsed().as_micros() as u64,
                    false => failures += 1,
                }
            }
        }
    }
}

/// Runs a load against members, connections spread evenly over them.
pub(crate) async fn run(endpoints: &[String], load: &Load, time: Duration) -> Result<Measured> {
    let mut connections = Vec::new();
    for n in 0..load.clients.next_multiple_of(endpoints.len()).min(CONNECTIONS_MAX) {
        let endpoint = &endpoints[n % endpoints.len()];
        connections.push(Connection::open(endpoint).await?);
    }
    let connections: Arc<[Connection]> = connections.into();
    let start = Instant::now() + WARM_UP;
    let mut clients = JoinSet::new();
    for n in 0..load.clients {
        let client = Client {
            connections: Arc::clone(&connections),
            next: n,
            operation: load.operation,
            value: vec![b'v'; VALUE_BYTES].into(),
            random: 0x9e37_79b9_7f4a_7c15 ^ (n as u64 + 1),
        };
        clients.spawn(client.run(start, start + time));
    }
    let mut all = Histogram::<u64>::new(3)?;
    let mut failures = 0;
    while let Some(ended) = clients.join_next().await {
        let (times, failed) = ended?;
        all += times;
        failures += failed;
    }
    Ok(Measured {
        operations: all.len() as f64,
        per_second: all.len() as f64 / time.as_secs_f64(),
        p50_us: all.value_at_quantile(0.5) as f64,
        p99_us: all.value_at_quantile(0.99) as f64,
        failures,
    })
}
