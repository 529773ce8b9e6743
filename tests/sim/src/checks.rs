//! What must hold whatever happens, and what is known of the run to check it by.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consensus_proto::{
    etcdserverpb::RangeResponse,
    mvccpb::{Event, event::EventType},
};
use consensus_raft::{Committed, Role, Status, proposal::Request};
use consensus_store::{Changes, StoreError, WatchRange};

use crate::machine::{Answer, Machine, News};

/// What a run has found. All of them are defects of the store, or of the simulator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Violation {
    #[error("members {first:x} and {second:x} both lead in term {term}")]
    TwoLeaders { term: u64, first: u64, second: u64 },
    #[error("member {member:x} has a lease of term {term}, and a member leads in term {later}")]
    LeaseBroken { member: u64, term: u64, later: u64 },
    #[error("member {member:x} applies another entry {index} than a member before it")]
    EntriesDiffer { member: u64, index: u64 },
    #[error("member {member:x} applies entry {index} after entry {before}")]
    OutOfOrder { member: u64, index: u64, before: u64 },
    #[error("member {member:x} answers request {id} of member {origin:x} otherwise than a member before it")]
    AnswersDiffer { member: u64, origin: u64, id: u64 },
    #[error("member {member:x} has other changes in revision {revision} than a member before it")]
    RevisionsDiffer { member: u64, revision: i64 },
    #[error("members {first:x} and {second:x} have applied the same and have different states")]
    StatesDiffer { first: u64, second: u64 },
    #[error("request {id} of member {origin:x} was acknowledged, and is in no log")]
    Lost { origin: u64, id: u64 },
    #[error("a read of member {member:x} at revision {revision} is not what the key was then")]
    WrongRead { member: u64, revision: i64 },
    #[error("member {member:x} says that it has applied {says}, and has {has}")]
    SaysTooMuch { member: u64, says: u64, has: u64 },
    #[error("a watcher of member {member:x} was told {what}")]
    WatcherMisled { member: u64, what: &'static str },
    #[error(
        "member {member:x} has not under {key} what the other region has, although it has heard of everything"
    )]
    NotMerged { member: u64, key: String },
    #[error("not linearizable:\n{explanation}")]
    NotLinearizable { explanation: String },
    #[error("member {member:x} opens a log that is damaged")]
    DamageUnnoticed { member: u64 },
    #[error("member {member:x} stops: {why}")]
    Stopped { member: u64, why: String },
    #[error("{steps} steps after the faults ended: {what}")]
    NotLive { steps: u64, what: String },
    #[error("panic: {message}")]
    Panicked { message: String },
}

type Entry = (u64, Vec<Request>);

/// The truth, as the first member saw it that came to it.
#[derive(Default)]
pub(crate) struct Checks {
    leaders: BTreeMap<u64, u64>,
    entries: BTreeMap<u64, Entry>,
    answers: BTreeMap<(u64, u64), Answer>,
    revisions: BTreeMap<i64, Vec<Event>>,
    acknowledged: BTreeSet<(u64, u64)>,
}

impl Checks {
    /// At most one leader a term.
    pub(crate) fn leader(&mut self, member: u64, status: &Status) -> Result<(), Violation> {
        if status.role == Role::Leader {
            let first = *self.leaders.entry(status.term).or_insert(member);
            if first != member {
                return Err(Violation::TwoLeaders { term: status.term, first, second: member });
            }
        }
        Ok(())
    }

    /// What a member says it has applied is there to be read.
    pub(crate) fn applied(&self, member: u64, says: u64, machine: &Machine) -> Result<(), Violation> {
        let has = machine.store.applied();
        if says > has { Err(Violation::SaysTooMuch { member, says, has }) } else { Ok(()) }
    }

    /// Members apply the same entries at the same indices, one after the other. `last` is the last that this one was given
    /// since its start or since it took a snapshot.
    pub(crate) fn entries(
        &mut self,
        member: u64,
        last: &mut Option<u64>,
        committed: Vec<Committed>,
    ) -> Result<(), Violation> {
        for Committed { index, term, requests, .. } in committed {
            if let Some(before) = last.replace(index)
                && before + 1 != index
            {
                return Err(Violation::OutOfOrder { member, index, before });
            }
            match self.entries.get(&index) {
                Some((first_term, first)) if *first_term != term || *first != requests => {
                    return Err(Violation::EntriesDiffer { member, index });
                }
                Some(_) => {}
                None => drop(self.entries.insert(index, (term, requests))),
            }
        }
        Ok(())
    }

    /// The same requests have the same answers and change the same, on whichever member.
    pub(crate) fn news(&mut self, member: u64, news: News) -> Result<(), Violation> {
        for ((origin, id), answer) in news.answers {
            match self.answers.get(&(origin, id)) {
                Some(first) if *first != answer => {
                    return Err(Violation::AnswersDiffer { member, origin, id });
                }
                Some(_) => {}
                None => drop(self.answers.insert((origin, id), answer)),
            }
        }
        for Changes { revision, events } in news.changes {
            let events = comparable(events);
            match self.revisions.get(&revision) {
                Some(first) if *first != events => {
                    return Err(Violation::RevisionsDiffer { member, revision });
                }
                Some(_) => {}
                None => drop(self.revisions.insert(revision, events)),
            }
        }
        Ok(())
    }

    /// A crash that came between the write of changes and the news of them leaves a member that has them and has told nobody.
    pub(crate) fn found(&mut self, member: u64, machine: &Machine) -> Result<(), Violation> {
        let reader = machine.store.reader();
        let first_unknown = (2..).find(|revision| !self.revisions.contains_key(revision)).unwrap_or_default();
        if reader.revision() < first_unknown {
            return Ok(());
        }
        let everything = WatchRange { key: Bytes::from_static(&[0]), range_end: Bytes::from_static(&[0]) };
        match reader.changes(&everything, first_unknown, reader.revision()) {
            Ok((changes, _)) => self.news(member, News { changes, ..News::default() }),
            Err(StoreError::Compacted) => Ok(()),
            Err(error) => Err(Violation::Stopped { member, why: error.to_string() }),
        }
    }

    pub(crate) fn acknowledged(&mut self, origin: u64, id: u64) {
        self.acknowledged.insert((origin, id));
    }

    /// Whatever was acknowledged is in the log that members have applied.
    pub(crate) fn nothing_is_lost(&self) -> Result<(), Violation> {
        let requests = self.entries.values().flat_map(|(_, requests)| requests);
        let there: BTreeSet<_> = requests.map(|request| (request.origin, request.id)).collect();
        match self.acknowledged.difference(&there).next() {
            None => Ok(()),
            Some((origin, id)) => Err(Violation::Lost { origin: *origin, id: *id }),
        }
    }

    /// A serializable read may be old. It must be what the key was at its revision.
    pub(crate) fn read(&self, member: u64, key: &Bytes, answer: &RangeResponse) -> Result<(), Violation> {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let past = self.revisions.range(..=revision).rev().flat_map(|(_, events)| events.iter().rev());
        let last = past.filter_map(|event| Some((event.r#type(), event.kv.as_ref()?)));
        let last = last.into_iter().find(|(_, kv)| kv.key == *key);
        let expected = last.filter(|(kind, _)| *kind == EventType::Put).map(|(_, kv)| kv);
        match answer.kvs.first() == expected {
            true => Ok(()),
            false => Err(Violation::WrongRead { member, revision }),
        }
    }

    /// A watcher is told of everything in its range from one revision to another, in order and once.
    pub(crate) fn watched(
        &self,
        member: u64,
        range: &WatchRange,
        (from, to): (i64, i64),
        told: &[(i64, Vec<Event>)],
    ) -> Result<(), Violation> {
        let misled = |what| Err(Violation::WatcherMisled { member, what });
        if !told.is_sorted_by(|(a, _), (b, _)| a < b) {
            return misled("of revisions out of order, or twice");
        }
        let watched = |event: &&Event| {
            event.kv.as_ref().is_some_and(|kv| {
                kv.key == range.key
                    || !range.range_end.is_empty() && kv.key >= range.key && kv.key < range.range_end
            })
        };
        let expected = self.revisions.range(from..=to).filter_map(|(revision, events)| {
            let events: Vec<_> = events.iter().filter(watched).cloned().collect();
            (!events.is_empty()).then_some((*revision, events))
        });
        match expected.eq(told.iter().cloned()) {
            true => Ok(()),
            false => misled("something else than what happened"),
        }
    }

    /// The last entry that any member has applied.
    pub(crate) fn last_entry(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    pub(crate) fn terms_led(&self) -> u64 {
        self.leaders.len() as u64
    }
}

/// What was before may be compacted, and then is not told.
pub(crate) fn comparable(mut events: Vec<Event>) -> Vec<Event> {
    events.iter_mut().for_each(|event| event.prev_kv = None);
    events
}
