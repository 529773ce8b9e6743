//! A client that asks one thing after the other and writes down what it asked and saw.
//!
//! An operation that is sent and has no answer may have happened: whatever the error says, the history says that nobody
//! knows. One that cannot be sent, for want of a connection, is not in the history.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    net::SocketAddr,
    time::{Duration, Instant},
};

use consensus_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op::Request,
};
use dwcp_lab::random::SplitMix64;
use linearizability::{EtcdKeyInput as Input, EtcdKeyOutput as Output, History};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use crate::KEYS;

/// Longer than an election, shorter than most faults.
const ANSWER: Duration = Duration::from_millis(1_000);
const CONNECT: Duration = Duration::from_millis(300);
/// Between two operations, at most.
const PAUSE_MAX_US: u64 = 10_000;
/// Kinds of errors that are counted.
const ERRORS_MAX: usize = 100;
/// The stream of random numbers of the first client.
const PURPOSE: u64 = 1_000;

/// How clients read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The latest state, as the store promises.
    Linearizable,
    /// Whatever a member has. The history is not linearizable then, if anything works.
    Serializable,
}

/// A client.
pub(crate) struct Client {
    id: u64,
    members: Vec<SocketAddr>,
    connections: Vec<Option<KvClient<Channel>>>,
    reads: Reads,
    random: SplitMix64,
    clock: Instant,
    written: u64,
    /// The value that it saw last of each key, for swaps that may succeed.
    seen: HashMap<u64, Option<String>>,
    pub(crate) history: History<u64, Input<String>, Output<String>>,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Client {
    /// Times in the history count from `clock`.
    pub(crate) fn new(id: u64, seed: u64, members: Vec<SocketAddr>, reads: Reads, clock: Instant) -> Self {
        Self {
            id,
            connections: vec![None; members.len()],
            members,
            reads,
            random: SplitMix64::new(seed, PURPOSE + id),
            clock,
            written: 0,
            seen: HashMap::new(),
            history: History::default(),
            errors: BTreeMap::new(),
        }
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }

    /// Asks something of somebody, and waits a little.
    pub(crate) async fn turn(&mut self) {
        let (member, key) = (self.below(self.members.len() as u64) as usize, self.below(KEYS));
        let input = self.input(key);
        self.ask(member, key, input).await;
        let pause = self.below(PAUSE_MAX_US);
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }

    /// Values are written once.
    fn value(&mut self) -> String {
        self.written += 1;
        format!("{}-{}", self.id, self.written)
    }

    fn input(&mut self, key: u64) -> Input<String> {
        match self.below(10) {
            0..4 => Input::Get,
            4..7 => Input::Put(self.value()),
            7 => Input::Delete,
            _ => {
                let expected = self.seen.get(&key).cloned().flatten();
                Input::Cas { expected, new: self.value() }
            }
        }
    }

    /// Asks a member and records it. Whether there was an answer.
    pub(crate) async fn ask(&mut self, member: usize, key: u64, input: Input<String>) -> bool {
        let Some(kv) = self.connection(member).await else {
            return false;
        };
        let id = self.history.call(self.id, key, input.clone(), self.now());
        let answer = tokio::time::timeout(ANSWER, send(kv, key, &input, self.reads)).await;
        let error = match answer {
            Ok(Ok(output)) => {
                self.remember(key, &input, &output);
                self.history.returned(id, output, self.now());
                return true;
            }
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Err(_) => "no answer in time".to_owned(),
        };
        self.count(error);
        // It may hang in a connection that was cut: the next operation gets a new one.
        self.connections[member] = None;
        false
    }

    fn remember(&mut self, key: u64, input: &Input<String>, output: &Output<String>) {
        let seen = match (input, output) {
            (_, Output::Got(held)) => held.as_ref().map(|(value, _)| value.clone()),
            (Input::Put(value), _) => Some(value.clone()),
            (Input::Cas { new, .. }, Output::Swapped { succeeded: true, .. }) => Some(new.clone()),
            (Input::Delete, _) => None,
            _ => return,
        };
        self.seen.insert(key, seen);
    }

    fn count(&mut self, error: String) {
        if self.errors.len() < ERRORS_MAX || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
    }

    async fn connection(&mut self, member: usize) -> Option<KvClient<Channel>> {
        if let Some(kv) = &self.connections[member] {
            return Some(kv.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", self.members[member])).expect("a URL");
        let endpoint = endpoint.tcp_nodelay(true);
        match tokio::time::timeout(CONNECT, endpoint.connect()).await {
            Ok(Ok(channel)) => {
                let kv = KvClient::new(channel);
                self.connections[member] = Some(kv.clone());
                Some(kv)
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

async fn send(
    mut kv: KvClient<Channel>,
    key: u64,
    input: &Input<String>,
    reads: Reads,
) -> Result<Output<String>, Status> {
    let name = format!("chaos/{key}");
    match input {
        Input::Get => {
            let serializable = reads == Reads::Serializable;
            let request = RangeRequest { key: name.into(), serializable, ..Default::default() };
            let held = answer(kv.range(request)).await?.kvs.into_iter().next();
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            Ok(Output::Got(held.map(|held| (text(&held.value), held.mod_revision as u64))))
        }
        Input::Put(value) => {
            let header = answer(kv.put(put(&name, value))).await?.header;
            Ok(Output::Put { revision: header.map(|header| header.revision as u64) })
        }
        Input::Delete => {
            let request = DeleteRangeRequest { key: name.into(), ..Default::default() };
            let response = answer(kv.delete_range(request)).await?;
            let revision = response.header.map(|header| header.revision as u64);
            Ok(Output::Deleted { existed: response.deleted > 0, revision })
        }
        Input::Cas { expected, new } => {
            let success = vec![RequestOp { request: Some(Request::RequestPut(put(&name, new))) }];
            let compare = vec![compare(&name, expected.as_deref())];
            let response = answer(kv.txn(TxnRequest { compare, success, failure: vec![] })).await?;
            let revision = response.header.map(|header| header.revision as u64);
            Ok(Output::Swapped { succeeded: response.succeeded, revision })
        }
    }
}

async fn answer<T>(response: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    Ok(response.await?.into_inner())
}

fn put(name: &str, value: &str) -> PutRequest {
    PutRequest { key: name.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

/// That a key has this value, or does not exist.
fn compare(name: &str, expected: Option<&str>) -> Compare {
    let (target, union) = match expected {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.to_owned().into())),
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: name.to_owned().into(),
        target_union: Some(union),
        ..Default::default()
    }
}
