//! Another region: it changes keys of its own below the common prefix, and tells the store, which merges what it is told.
//!
//! What is told is proposed at whichever member, and nobody waits for the answer: it is lost, is late, or comes twice, as
//! requests do. What the other region's replicator would do about that is `consensus-regions`' own simulation.

use bytes::Bytes;
use consensus_proto::internal::{RegionBeginRequest, RegionFounder, internal_request::Request};
use consensus_regions::{
    Change, Command, Delta, Items as _, MEMBERS_KEY, MemoryItems, Range, RegionId, Replica, View,
};

use crate::{checks::Violation, client::read, computer::Running, random::Random};

/// What all keys begin with.
const PREFIX: &[u8] = b"k";
/// The store, and the other region.
const HERE: RegionId = RegionId(1);
const THERE: RegionId = RegionId(2);
/// Keys of the other region, below the prefix. No client's is among them: clients' histories know nothing of merges.
const KEYS: [&str; 4] = ["there-0", "there-1", "there-2", "there-3"];
/// What was told before is told again once in so many times.
const OLD: u64 = 4;
/// Steps are so long for its clock.
const STEP_MS: u64 = 10;

pub(crate) struct OtherRegion {
    replica: Replica,
    items: MemoryItems,
    random: Random,
    /// What it told in the past.
    told: Vec<Delta>,
}

fn founders() -> [(RegionId, Bytes); 2] {
    [(HERE, Bytes::from_static(b"here")), (THERE, Bytes::from_static(b"there"))]
}

impl OtherRegion {
    pub(crate) fn new(seed: u64) -> Self {
        let (replica, members) = Replica::founder(THERE, &founders());
        let mut items = MemoryItems::default();
        items.write(&members);
        Self { replica, items, random: Random::new(seed, 7), told: Vec::new() }
    }

    /// Puts or deletes a key of its own.
    pub(crate) fn change(&mut self, step: u64) {
        let key = KEYS[self.random.below(KEYS.len() as u64) as usize];
        let change = match self.random.one_in(3) {
            true => Change::Delete,
            false => Change::Put(Bytes::from(format!("{step}"))),
        };
        let Ok(changed) = self.replica.change(&self.items, step * STEP_MS, key.as_bytes(), change);
        let changed = changed.expect("a founder may change what it likes");
        changed.iter().for_each(|changed| self.items.write(changed));
    }

    /// What is proposed to the store next: that it becomes a region, then what this one has to tell or, in turn, that
    /// tombstones are collected. `settled`: nothing but the newest, which must get through.
    pub(crate) fn request(&mut self, member: &Running, settled: bool) -> Request {
        let known = member.machine().store.reader().with_region(|_, local| local.replica.version().clone());
        let Some(known) = known else { return begin() };
        if !settled && self.random.one_in(3) {
            let keys = KEYS.iter().map(|key| Bytes::from_static(key.as_bytes()));
            let keys = keys.chain((0..5).map(|key| Bytes::from(format!("{key}")))).collect();
            return Request::RegionCommand(Command::Collect { keys, known }.encode());
        }
        let old =
            (!settled && self.random.one_in(OLD)).then(|| self.random.below(self.told.len() as u64 + 1));
        let old = old.and_then(|place| self.told.get(place as usize).cloned());
        let delta = old.unwrap_or_else(|| {
            let newest = self.delta();
            self.told.push(newest.clone());
            newest
        });
        Request::RegionCommand(Command::Merge(delta).encode())
    }

    /// All it has.
    fn delta(&self) -> Delta {
        let items = self.items.iter().filter(|(key, _)| *key != MEMBERS_KEY);
        Delta {
            from: THERE,
            version: self.replica.version().clone(),
            latest: self.replica.latest(),
            ranges: vec![Range { region: THERE, after: 0, to: self.replica.version().get(THERE) }],
            items: items.map(|(key, item)| (key.clone(), item.clone())).collect(),
        }
    }

    /// Whether a member has heard of everything.
    pub(crate) fn is_heard(&self, member: &Running) -> bool {
        let reader = member.machine().store.reader();
        reader.with_region(|_, local| local.replica.version().get(THERE))
            == Some(self.replica.version().get(THERE))
    }

    /// The store has under its keys what this region has, after so many changes.
    pub(crate) fn check(&self, id: u64, member: &Running) -> Result<u64, Violation> {
        for key in KEYS {
            let Ok(item) = self.items.get(key.as_bytes());
            let here = match item.and_then(|item| item.view()) {
                Some(View::Register(value)) => Some(value),
                _ => None,
            };
            let stored = [PREFIX, key.as_bytes()].concat().into();
            let there = read(member, &stored)?.kvs.into_iter().next().map(|kv| kv.value);
            if here != there {
                return Err(Violation::NotMerged { member: id, key: key.to_owned() });
            }
        }
        Ok(self.replica.version().get(THERE))
    }
}

fn begin() -> Request {
    let founders = founders().into_iter().map(|(region, info)| RegionFounder {
        region: region.0,
        info: String::from_utf8_lossy(&info).into_owned(),
    });
    Request::RegionBegin(RegionBeginRequest {
        region: HERE.0,
        prefix: Bytes::from_static(PREFIX),
        founders: founders.collect(),
    })
}
