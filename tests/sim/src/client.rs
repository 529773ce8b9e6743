//! Clients: each asks for one thing at a time, at some member, and does not wait for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use consensus_core::{ProposeError, sim::Reply};
use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
        TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request as Op,
    },
    internal::{InternalRequest, internal_request::Request},
};
use consensus_raft::Role;
use consensus_store::Response;
use linearizability::{
    EtcdKey, EtcdKeyInput as Input, EtcdKeyOutput as Output, History, OperationId, Verdict, check,
    merge_unseen_writes,
};
use prost::Message as _;

use crate::{
    Mistake,
    checks::{Checks, Violation},
    computer::{Computer, Running},
    machine::Answer,
    plan::Plan,
    random::Random,
    trace::Trace,
};

const KEYS: u8 = 5;
/// Where a client is that looks for a member that answers.
const NOBODY: u64 = 0;
/// Steps that a client waits for an answer.
const PATIENCE: (u64, u64) = (20, 70);
/// Operations of a run with faults, about.
const OPERATIONS: u64 = 110;
/// The same of a run with leases, which are worth something only to who reads often.
const LEASE_OPERATIONS: u64 = 250;
/// What each client gets done when the faults have ended.
const CALM_OPERATIONS: u64 = 4;
/// Operations that are tried at some place of an order, for each key.
const CHECK_STEPS_MAX: u64 = 300_000;
/// The value that stands for all that nobody saw.
const UNSEEN: u64 = u64::MAX;

enum Asked {
    Write { request: u64, reply: Reply<Result<Answer, ProposeError>> },
    Read { reply: Reply<Result<(), ProposeError>> },
}

struct Call {
    /// The member, and which of its starts.
    at: (u64, u64),
    key: u8,
    deadline: u64,
    operation: OperationId,
    /// Its place in the history.
    place: usize,
    asked: Asked,
}

struct Client {
    id: u64,
    at: u64,
    idle_until: u64,
    call: Option<Call>,
    done: u64,
}

pub(crate) struct Clients {
    pub(crate) keys: BTreeMap<u8, Bytes>,
    random: Random,
    mistake: Option<Mistake>,
    clients: Vec<Client>,
    idle: u64,
    /// Of runs with leases: one of so many operations is a read at a member that believes to lead; 0: none is chosen so.
    leader_reads: u64,
    /// All only read, at such members.
    pub(crate) hushed: bool,
    calm: bool,
    history: History<u8, Input<u64>, Output<u64>>,
    /// Operations that did surely not happen.
    refused: Vec<usize>,
    /// The last value of each key that anybody saw.
    seen: BTreeMap<u8, Option<u64>>,
    next_value: u64,
    next_request: u64,
    /// Of the history: each call and return has one of its own.
    moment: u64,
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    pub(crate) serializable: u64,
    /// Reads that were answered when they were asked for.
    pub(crate) at_once: u64,
}

/// What happened to a call.
enum Outcome {
    Waiting,
    Answered(Output<u64>),
    /// It did not happen.
    Refused,
    Unknown,
}

impl Clients {
    pub(crate) fn new(seed: u64, plan: &Plan, mistake: Option<Mistake>) -> Self {
        let operations = if plan.leases { LEASE_OPERATIONS } else { OPERATIONS };
        let client = |id| Client { id, at: 1 + id % 3, idle_until: 5 + id, call: None, done: 0 };
        Self {
            keys: (0..KEYS).map(|key| (key, Bytes::from(format!("k{key}")))).collect(),
            random: Random::new(seed, 2),
            mistake,
            clients: (0..plan.clients).map(client).collect(),
            idle: 2 * plan.rough_steps * plan.clients / operations,
            leader_reads: if plan.leases { 2 } else { 0 },
            hushed: false,
            calm: false,
            history: History::default(),
            refused: Vec::new(),
            seen: BTreeMap::new(),
            next_value: 0,
            next_request: 0,
            moment: 0,
            answered: 0,
            unanswered: 0,
            serializable: 0,
            at_once: 0,
        }
    }

    /// The faults have ended: from now on it is counted what gets done.
    pub(crate) fn calm(&mut self) {
        (self.calm, self.hushed) = (true, false);
        for client in &mut self.clients {
            (client.done, client.idle_until) = (0, 0);
        }
    }

    /// Nobody asks for anything before then.
    pub(crate) fn rest(&mut self, until: u64) {
        self.clients.iter_mut().for_each(|client| client.idle_until = until);
    }

    /// Whether nobody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| client.call.is_none())
    }

    /// Whether each has got done what it wanted, and waits for nothing.
    pub(crate) fn satisfied(&self) -> bool {
        self.is_idle() && self.clients.iter().all(|client| client.done >= CALM_OPERATIONS)
    }

    pub(crate) fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    pub(crate) fn step(
        &mut self,
        now: u64,
        computers: &BTreeMap<u64, Computer>,
        checks: &mut Checks,
        trace: &mut Trace,
    ) -> Result<(), Violation> {
        for n in 0..self.clients.len() {
            match self.clients[n].call.take() {
                Some(call) => {
                    let (at, place) = (call.at.0, call.place as u64);
                    let what = self.look(n, call, now, computers, checks)?;
                    what.into_iter().for_each(|what| trace.note(now, at, what, place));
                }
                None if self.clients[n].idle_until > now => {}
                None if self.calm && self.clients[n].done >= CALM_OPERATIONS => {}
                None => {
                    self.ask(n, now, computers, checks)?;
                    if let Some(call) = &self.clients[n].call {
                        trace.note(now, call.at.0, "is asked for operation", call.place as u64);
                    }
                    self.look_at_once(n, now, computers, checks, trace)?;
                }
            }
        }
        Ok(())
    }

    /// A read may be answered already, from a lease. Now and then the task that has asked goes on only later.
    fn look_at_once(
        &mut self,
        n: usize,
        now: u64,
        computers: &BTreeMap<u64, Computer>,
        checks: &mut Checks,
        trace: &mut Trace,
    ) -> Result<(), Violation> {
        let read = |call: &mut Call| matches!(call.asked, Asked::Read { .. });
        let Some(call) = self.clients[n].call.take_if(read) else { return Ok(()) };
        if self.random.one_in(4) {
            self.clients[n].call = Some(call);
            return Ok(());
        }
        let (at, place, before) = (call.at.0, call.place as u64, self.answered);
        if let Some(what) = self.look(n, call, now, computers, checks)? {
            trace.note(now, at, what, place);
        }
        self.at_once += self.answered - before;
        Ok(())
    }

    /// Looks after an answer; what became of it, if anything.
    fn look(
        &mut self,
        n: usize,
        mut call: Call,
        now: u64,
        computers: &BTreeMap<u64, Computer>,
        checks: &mut Checks,
    ) -> Result<Option<&'static str>, Violation> {
        let computer = &computers[&call.at.0];
        let member = computer.member.as_ref().filter(|_| computer.starts == call.at.1);
        let outcome = match &mut call.asked {
            Asked::Write { reply, request } => match reply.take() {
                None => Outcome::Waiting,
                Some(None) => Outcome::Unknown,
                Some(Some(Err(ProposeError::NoLeader | ProposeError::Busy))) => Outcome::Refused,
                Some(Some(Err(_))) => Outcome::Unknown,
                Some(Some(Ok(answer))) => {
                    checks.acknowledged(call.at.0, *request);
                    Outcome::Answered(output(answer).ok_or(Violation::Stopped {
                        member: call.at.0,
                        why: "a request that makes sense was refused".to_owned(),
                    })?)
                }
            },
            Asked::Read { reply } => match (reply.take(), member) {
                (None, Some(_)) => Outcome::Waiting,
                (Some(Some(Ok(()))), Some(member)) => {
                    Outcome::Answered(got(&read(member, &self.keys[&call.key])?))
                }
                _ => Outcome::Refused,
            },
        };
        let client = &mut self.clients[n];
        let what = match outcome {
            Outcome::Waiting if now < call.deadline => {
                client.call = Some(call);
                return Ok(None);
            }
            Outcome::Answered(output) => {
                client.done += 1;
                self.answered += 1;
                self.note_seen(&call, &output);
                let at = self.moment();
                self.history.returned(call.operation, output, at);
                "has answered operation"
            }
            Outcome::Refused => {
                self.refused.push(call.place);
                client.at = NOBODY;
                "has refused operation"
            }
            Outcome::Waiting | Outcome::Unknown => {
                client.at = NOBODY;
                self.unanswered += 1;
                if let (Asked::Write { request, .. }, Some(member)) = (&call.asked, member) {
                    member.forget(*request);
                }
                "has no answer to operation"
            }
        };
        let idle = if self.calm { 3 } else { self.idle };
        self.clients[n].idle_until = now + self.random.below(idle + 1);
        Ok(Some(what))
    }

    fn note_seen(&mut self, call: &Call, output: &Output<u64>) {
        let value = match (output, &self.history.operations()[call.place].input) {
            (Output::Got(got), _) => got.map(|(value, _)| value),
            (Output::Put { .. }, Input::Put(value)) => Some(*value),
            (Output::Swapped { succeeded: true, .. }, Input::Cas { new, .. }) => Some(*new),
            (Output::Deleted { .. }, _) => None,
            _ => return,
        };
        self.seen.insert(call.key, value);
    }

    /// Asks for something at the member of before, or, if that is down or now and then, at another.
    fn ask(
        &mut self,
        n: usize,
        now: u64,
        computers: &BTreeMap<u64, Computer>,
        checks: &Checks,
    ) -> Result<(), Violation> {
        let before = self.clients[n].at;
        let is_up = computers.get(&before).is_some_and(|computer| computer.member.is_some());
        let chosen = self.leader_reads > 0 && self.random.one_in(self.leader_reads);
        let from_leader = self.hushed || !self.calm && chosen;
        let stays = is_up && !self.random.one_in(4);
        let at = match (from_leader, stays) {
            (true, _) => self.random.pick(&leaders(computers)),
            (_, true) => Some(before),
            _ => self.random.pick(&endpoints(computers)),
        };
        let Some(at) = at else { return Ok(()) };
        if !from_leader {
            self.clients[n].at = at;
        }
        let computer = &computers[&at];
        let Some(member) = &computer.member else { return Ok(()) };
        let key = self.random.below(KEYS.into()) as u8;
        let input = match self.random.below(12) {
            _ if from_leader => Input::Get,
            0..=3 => Input::Get,
            4..=6 => Input::Put(self.value()),
            7 => Input::Delete,
            8..=9 => {
                let expected = self.seen.get(&key).copied().flatten();
                Input::Cas { expected, new: self.value() }
            }
            _ => {
                self.serializable += 1;
                return checks.read(at, &self.keys[&key], &read(member, &self.keys[&key])?);
            }
        };
        let (id, moment) = (self.clients[n].id, self.moment());
        let place = self.history.operations().len();
        let operation = self.history.call(id, key, input.clone(), moment);
        let leads = member.status().role == Role::Leader;
        let reads_anyhow = match self.mistake {
            Some(Mistake::ReadWithoutAsking) => leads,
            Some(Mistake::LeaseFromAnswer | Mistake::LeaseKeptInTransfer | Mistake::LeaseKeptInChange) => {
                computer.believed_to_lead()
            }
            _ => false,
        };
        if input == Input::Get && reads_anyhow {
            let output = got(&read(member, &self.keys[&key])?);
            let at = self.moment();
            self.history.returned(operation, output, at);
            return Ok(());
        }
        let asked = match request(&self.keys[&key], &input) {
            None => Asked::Read { reply: member.read_index() },
            Some(payload) => {
                let request = self.next_request();
                Asked::Write { request, reply: member.propose(request, payload) }
            }
        };
        let deadline = now + self.random.between(PATIENCE.0, PATIENCE.1);
        let at = (at, computer.starts);
        self.clients[n].call = Some(Call { at, key, deadline, operation, place, asked });
        Ok(())
    }

    fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// Asks some member to forget old revisions. Nobody waits for the answer.
    pub(crate) fn compact(&mut self, member: &Running) {
        let revision = member.machine().store.reader().revision();
        let revision = revision - self.random.below(10) as i64;
        let compaction = Request::Compaction(CompactionRequest { revision, physical: false });
        self.propose(member, compaction);
    }

    /// Proposes something of which nobody waits for the answer.
    pub(crate) fn propose(&mut self, member: &Running, request: Request) {
        let number = self.next_request();
        drop(member.propose(number, encode(request)));
    }

    /// Whether there is an order that explains all answers; `false`: that took too long to tell.
    pub(crate) fn check(self) -> Result<bool, Violation> {
        let all = self.history.into_operations().into_iter().enumerate();
        let mut operations: Vec<_> =
            all.filter(|(place, _)| !self.refused.contains(place)).map(|(_, operation)| operation).collect();
        merge_unseen_writes(&mut operations, &UNSEEN);
        match check(&EtcdKey::default(), &operations, CHECK_STEPS_MAX) {
            Verdict::Linearizable => Ok(true),
            Verdict::Unknown { .. } => Ok(false),
            Verdict::Violation(violation) => {
                let explanation = violation.explain(&operations).to_string();
                Err(Violation::NotLinearizable { explanation })
            }
        }
    }
}

/// The members that are up, as the newest list of them has it that any of them knows.
fn endpoints(computers: &BTreeMap<u64, Computer>) -> Vec<u64> {
    let up = || computers.values().filter_map(|computer| Some((computer.id, computer.member.as_ref()?)));
    let newest = up().map(|(_, member)| member.membership()).max_by_key(|membership| membership.index);
    let members = newest.unwrap_or_default().members;
    up().map(|(id, _)| id).filter(|id| members.contains_key(id)).collect()
}

/// The members that believe to lead.
fn leaders(computers: &BTreeMap<u64, Computer>) -> Vec<u64> {
    let leads = |computer: &&Computer| {
        computer.member.as_ref().is_some_and(|member| member.status().role == Role::Leader)
    };
    computers.values().filter(leads).map(|computer| computer.id).collect()
}

/// What a member has, without asking others.
pub(crate) fn read(member: &Running, key: &Bytes) -> Result<RangeResponse, Violation> {
    let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    member
        .machine()
        .store
        .reader()
        .range(&request)
        .map_err(|error| Violation::Stopped { member: 0, why: error.to_string() })
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(UNSEEN, u64::from_le_bytes)
}

fn got(answer: &RangeResponse) -> Output<u64> {
    Output::Got(answer.kvs.first().map(|kv| (number(&kv.value), kv.mod_revision as u64)))
}

/// What an answer to a write means; `None`: it was refused.
fn output(answer: Answer) -> Option<Output<u64>> {
    let revision = |header: Option<consensus_proto::etcdserverpb::ResponseHeader>| {
        header.map(|header| header.revision as u64)
    };
    match answer.ok()? {
        Response::Put(put) => Some(Output::Put { revision: revision(put.header) }),
        Response::DeleteRange(deleted) => {
            let existed = deleted.deleted > 0;
            Some(Output::Deleted { existed, revision: revision(deleted.header).filter(|_| existed) })
        }
        Response::Txn(txn) => {
            let succeeded = txn.succeeded;
            Some(Output::Swapped { succeeded, revision: revision(txn.header).filter(|_| succeeded) })
        }
        _ => None,
    }
}

fn encode(request: Request) -> Bytes {
    InternalRequest { header: None, request: Some(request) }.encode_to_vec().into()
}

/// A write as the log has it; `None`: it is none.
fn request(key: &Bytes, input: &Input<u64>) -> Option<Bytes> {
    let put = |value: &u64| PutRequest {
        key: key.clone(),
        value: Bytes::copy_from_slice(&value.to_le_bytes()),
        ..PutRequest::default()
    };
    Some(encode(match input {
        Input::Get => return None,
        Input::Put(value) => Request::Put(put(value)),
        Input::Delete => {
            Request::DeleteRange(DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() })
        }
        Input::Cas { expected, new } => {
            let (target, union) = match expected {
                None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
                Some(value) => {
                    let value = Bytes::copy_from_slice(&value.to_le_bytes());
                    (CompareTarget::Value, TargetUnion::Value(value))
                }
            };
            let compare = Compare {
                result: CompareResult::Equal.into(),
                target: target.into(),
                key: key.clone(),
                target_union: Some(union),
                ..Compare::default()
            };
            let success = vec![RequestOp { request: Some(Op::RequestPut(put(new))) }];
            Request::Txn(TxnRequest { compare: vec![compare], success, failure: Vec::new() })
        }
    }))
}
