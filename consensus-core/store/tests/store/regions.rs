//! A store that is a region: entries of its log make the same bytes on every member, whatever becomes of the members.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use consensus_disk::{Disk as _, MemoryDisk, Order, Space};
use consensus_proto::{
    etcdserverpb::{
        DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
        TxnRequest, request_op,
    },
    internal::{
        InternalRequest, RegionBeginRequest, RegionFounder, RequestHeader, internal_request::Request,
    },
    regions::{ChangeRequest, Delete, Field, change_request},
};
use consensus_regions::{
    Change, Changed, Command, Delta, Item, Items, MemoryItems, Phase, Range, Refused, RegionId, Replica,
    Stamp, VersionVector,
};
use consensus_store::{Applied, Response, SPACES, Store, StoreError};
use proptest::prelude::*;
use prost::Message as _;

const PREFIX: &[u8] = b"/global/";
const OWN: RegionId = RegionId(1);
const OTHER: RegionId = RegionId(2);

fn entry(wall_ms: u64, request: Request) -> Bytes {
    let header = Some(RequestHeader { wall_ms, ..Default::default() });
    InternalRequest { header, request: Some(request) }.encode_to_vec().into()
}

fn founders() -> Vec<RegionFounder> {
    [(1, "eu"), (2, "us")].map(|(region, info)| RegionFounder { region, info: info.to_owned() }).to_vec()
}

fn begin(founders: Vec<RegionFounder>) -> Request {
    Request::RegionBegin(RegionBeginRequest { region: OWN.0, prefix: PREFIX.into(), founders })
}

fn put(key: &str, value: &str) -> Request {
    Request::Put(PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    })
}

fn change(key: &str, change: change_request::Change) -> Request {
    let key = key.to_owned().into();
    Request::RegionChange(ChangeRequest { key, urgent: false, change: Some(change) })
}

fn open(disk: &Arc<MemoryDisk>) -> Store<MemoryDisk> {
    Store::open(Arc::clone(disk)).unwrap()
}

fn apply(store: &mut Store<MemoryDisk>, entries: &[Bytes]) -> Applied {
    store.apply(store.applied() + entries.len() as u64, entries).unwrap()
}

fn one(store: &mut Store<MemoryDisk>, wall_ms: u64, request: Request) -> Result<Response, StoreError> {
    apply(store, &[entry(wall_ms, request)]).responses.remove(0)
}

fn dump(disk: &MemoryDisk) -> Vec<(Space, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for space in (0..SPACES).map(Space) {
        disk.scan(space, &[], None, Order::Ascending, &mut |key, value| {
            all.push((space, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    all
}

fn value(store: &Store<MemoryDisk>, key: &str) -> Option<String> {
    let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let found = store.reader().range(&request).unwrap();
    found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// Another region, without a store.
struct Other {
    replica: Replica,
    items: MemoryItems,
    told: u64,
}

impl Other {
    fn new() -> Self {
        let founders = founders().into_iter().map(|founder| (RegionId(founder.region), founder.info.into()));
        let (replica, members) = Replica::founder(OTHER, &founders.collect::<Vec<_>>());
        let mut items = MemoryItems::default();
        items.write(&members);
        Self { replica, items, told: 0 }
    }

    fn change(&mut self, wall_ms: u64, key: &str, change: Change) {
        let Ok(changed) = self.replica.change(&self.items, wall_ms, key.as_bytes(), change);
        changed.unwrap().iter().for_each(|changed: &Changed| self.items.write(changed));
    }

    /// What it has not told yet.
    fn delta(&mut self) -> Option<Request> {
        let made = self.replica.version().get(OTHER);
        if made == self.told {
            return None;
        }
        let known: VersionVector = [(OTHER, self.told)].into_iter().collect();
        let items: BTreeMap<_, _> = self
            .items
            .iter()
            .map(|(key, item)| (key.clone(), item.since(&known)))
            .filter(|(_, item)| !item.is_empty())
            .collect();
        let ranges = vec![Range { region: OTHER, after: std::mem::replace(&mut self.told, made), to: made }];
        let (version, latest) = (self.replica.version().clone(), self.replica.latest());
        let delta = Delta { from: OTHER, version, latest, ranges, items };
        Some(Request::RegionCommand(Command::Merge(delta).encode()))
    }
}

#[test]
fn what_other_regions_change_is_read_and_watched() {
    let mut store = open(&Arc::default());
    one(&mut store, 5, begin(founders())).unwrap();
    one(&mut store, 10, put("/global/a", "here")).unwrap();
    let mut other = Other::new();
    other.change(20, "a", Change::Put("there".into()));
    other.change(21, "n", Change::CounterAdd(4));
    let merge = other.delta().unwrap();
    let applied = apply(&mut store, &[entry(0, merge.clone())]);
    assert_eq!(applied.responses, [Ok(Response::Region { changed: true })]);
    assert_eq!(applied.changes.len(), 1, "a delta is one revision");
    let events = &applied.changes[0].events;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].prev_kv.as_ref().map(|kv| &kv.value[..]), Some(&b"here"[..]));
    assert_eq!(value(&store, "/global/a").as_deref(), Some("there"));
    one(&mut store, 22, change("/global/n", change_request::Change::CounterAdd(-1))).unwrap();
    assert_eq!(value(&store, "/global/n").as_deref(), Some("3"));
    // Once more it is nothing new.
    let again = apply(&mut store, &[entry(0, merge)]);
    assert_eq!((again.responses, again.changes), (vec![Ok(Response::Region { changed: false })], vec![]));
}

#[test]
fn a_later_local_change_wins_and_an_earlier_one_elsewhere_does_not() {
    let mut store = open(&Arc::default());
    one(&mut store, 5, begin(founders())).unwrap();
    one(&mut store, 100, put("/global/a", "here")).unwrap();
    let mut other = Other::new();
    other.change(50, "a", Change::Put("earlier".into()));
    let applied = apply(&mut store, &[entry(0, other.delta().unwrap())]);
    assert_eq!((value(&store, "/global/a").as_deref(), applied.changes.len()), (Some("here"), 0));
}

#[test]
fn a_store_that_is_no_region_knows_nothing_of_this() {
    let disk = Arc::new(MemoryDisk::default());
    let mut store = open(&disk);
    one(&mut store, 0, put("/global/a", "1")).unwrap();
    let refused = one(&mut store, 0, change("/global/n", change_request::Change::CounterAdd(1)));
    assert_eq!(refused, Err(StoreError::NoRegion));
    let merged = one(&mut store, 0, {
        let mut other = Other::new();
        other.change(1, "a", Change::Delete);
        other.change(1, "a", Change::Put("x".into()));
        other.delta().unwrap()
    });
    assert_eq!(merged, Err(StoreError::NoRegion));
    assert!(dump(&disk).iter().all(|(space, ..)| space.0 < 6), "nothing in the spaces of regions");
    assert!(!store.reader().is_region());
}

#[test]
fn what_was_there_before_is_told_to_others() {
    let disk = Arc::new(MemoryDisk::default());
    let mut store = open(&disk);
    one(&mut store, 0, put("/global/a", "1")).unwrap();
    one(&mut store, 0, put("/globally", "2")).unwrap();
    one(&mut store, 0, put("/global/", "3")).unwrap();
    one(&mut store, 7, begin(founders())).unwrap();
    one(&mut store, 8, begin(founders())).unwrap();
    let refused = one(&mut store, 9, begin(Vec::new()));
    assert_eq!(refused, Ok(Response::Region { changed: false }), "said again, it changes nothing");
    let (made, regions) = store
        .reader()
        .with_region(|prefix, local| {
            assert_eq!(prefix, PREFIX);
            (local.replica.version().get(OWN), local.replica.membership().regions().count())
        })
        .unwrap();
    assert_eq!((made, regions), (2, 2));
    assert_eq!(store.reader().region_items(), Ok(2), "the members are under the prefix itself");
    // Another number is another region.
    let other = RegionBeginRequest { region: 2, prefix: PREFIX.into(), founders: founders() };
    assert_eq!(one(&mut store, 9, Request::RegionBegin(other)), Err(StoreError::RegionBegun));
}

#[test]
fn a_region_that_joins_has_nothing_and_does_not_write() {
    let mut store = open(&Arc::default());
    one(&mut store, 0, put("/global/a", "1")).unwrap();
    assert_eq!(one(&mut store, 1, begin(Vec::new())), Err(StoreError::RegionKeysInTheWay));
    assert!(!store.reader().is_region());
    let delete = DeleteRangeRequest { key: "/global/a".into(), ..Default::default() };
    one(&mut store, 1, Request::DeleteRange(delete)).unwrap();
    one(&mut store, 2, begin(Vec::new())).unwrap();
    let phase = store.reader().with_region(|_, local| local.replica.phase());
    assert_eq!(phase, Some(Phase::Joining));
    let refused = one(&mut store, 3, put("/global/a", "1")).unwrap_err();
    assert!(matches!(refused, StoreError::Region(consensus_regions::Refused::Joining)), "{refused}");
    one(&mut store, 3, put("elsewhere", "1")).unwrap();
    assert_eq!(value(&store, "/global/a"), None);
}

/// A transaction that is refused has done nothing to items either.
#[test]
fn a_transaction_is_replicated_as_a_whole_or_not() {
    let disk = Arc::new(MemoryDisk::default());
    let mut store = open(&disk);
    one(&mut store, 1, begin(founders())).unwrap();
    let before = store.reader().with_region(|_, local| local.replica.clone());
    let long = "k".repeat(consensus_regions::limits::KEY_BYTES_MAX + 1);
    let op = |key: &str| {
        let Request::Put(put) = put(key, "v") else { unreachable!() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    };
    let success = vec![op("/global/a"), op(&format!("/global/{long}"))];
    let refused = one(&mut store, 2, Request::Txn(TxnRequest { success, ..Default::default() })).unwrap_err();
    assert!(matches!(refused, StoreError::Region(_)), "{refused}");
    assert_eq!(value(&store, "/global/a"), None);
    assert_eq!(store.reader().with_region(|_, local| local.replica.clone()), before);
    let success = vec![op("/global/a"), op("/global/b"), op("c")];
    one(&mut store, 2, Request::Txn(TxnRequest { success, ..Default::default() })).unwrap();
    let made = store.reader().with_region(|_, local| local.replica.version().get(OWN));
    assert_eq!(made, Some(2));
}

/// What three regions have added while they could not talk: more than any of them may add, and than a message may have.
#[test]
fn a_set_that_regions_have_made_long_is_read_changed_and_found_after_a_restart() {
    let number = |out: &mut Vec<u8>, mut value: u32| {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    let disk = Arc::new(MemoryDisk::default());
    let mut store = open(&disk);
    one(&mut store, 5, begin(founders())).unwrap();
    for region in 0..3_u32 {
        let mut record = vec![0];
        number(&mut record, 50_000);
        for change in region * 50_000 + 1..=(region + 1) * 50_000 {
            record.extend_from_slice(&[4, 4]);
            record.extend_from_slice(&change.to_be_bytes());
            for _ in ["seen", "in force"] {
                record.extend_from_slice(&[1, OTHER.0 as u8]);
                number(&mut record, change);
            }
            record.extend_from_slice(&[0, 0, 0]);
        }
        let item = Item::from_record(record.into()).unwrap();
        let version = [(OTHER, 150_000)].into_iter().collect();
        let items = [(Bytes::from("s"), item)].into();
        let delta = Delta { from: OTHER, version, latest: Stamp::default(), ranges: Vec::new(), items };
        one(&mut store, 0, Request::RegionCommand(Command::Merge(delta).encode())).unwrap();
    }
    let elements = |store: &Store<MemoryDisk>| value(store, "/global/s").unwrap().matches(',').count() + 1;
    assert_eq!(elements(&store), 150_000);
    let removed = Bytes::copy_from_slice(&7_u32.to_be_bytes());
    one(&mut store, 9, change("/global/s", change_request::Change::SetRemove(removed))).unwrap();
    assert_eq!(elements(&store), 149_999);
    let full = one(&mut store, 9, change("/global/s", change_request::Change::SetAdd("x".into())));
    assert!(matches!(full, Err(StoreError::Region(Refused::ItemTooLarge { .. }))), "{full:?}");
    let again = open(&disk);
    let tree = |store: &Store<MemoryDisk>| store.reader().with_region(|_, local| local.tree.clone());
    assert_eq!((elements(&again), tree(&again)), (149_999, tree(&store)));
    one(&mut store, 10, change("/global/s", change_request::Change::Delete(Delete {}))).unwrap();
    assert_eq!(value(&store, "/global/s"), None);
}

/// One step of a region's life.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    PutLeased(u8),
    DeleteRange(u8, u8),
    Revoke,
    Outside(u8),
    Count(u8, i8),
    SetAdd(u8, u8),
    SetRemove(u8, u8),
    MapPut(u8, u8, u8),
    MapRemove(u8, u8),
    Elsewhere(u8, u8),
    Merge,
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..4_u8;
    prop_oneof![
        (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        key.clone().prop_map(Step::PutLeased),
        (key.clone(), key.clone()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        Just(Step::Revoke),
        any::<u8>().prop_map(Step::Outside),
        (key.clone(), any::<i8>()).prop_map(|(key, amount)| Step::Count(key, amount)),
        (key.clone(), 0..3_u8).prop_map(|(key, element)| Step::SetAdd(key, element)),
        (key.clone(), 0..3_u8).prop_map(|(key, element)| Step::SetRemove(key, element)),
        (key.clone(), 0..3_u8, any::<u8>()).prop_map(|(key, field, value)| Step::MapPut(key, field, value)),
        (key.clone(), 0..3_u8).prop_map(|(key, field)| Step::MapRemove(key, field)),
        (key, any::<u8>()).prop_map(|(key, what)| Step::Elsewhere(key, what)),
        Just(Step::Merge),
        Just(Step::Collect),
    ]
}

/// The entries that some steps are. `None`: the step is not one of the region.
fn entry_of(step: &Step, wall_ms: u64, other: &mut Other) -> Option<Bytes> {
    let key = |number: &u8| format!("/global/k{number}");
    let text = |number: &u8| Bytes::from(number.to_string());
    Some(entry(
        wall_ms,
        match step {
            Step::Put(number, value) => put(&key(number), &value.to_string()),
            Step::PutLeased(number) => {
                let Request::Put(request) = put(&key(number), "leased") else { unreachable!() };
                Request::Put(PutRequest { lease: 7, ..request })
            }
            Step::DeleteRange(from, to) => Request::DeleteRange(DeleteRangeRequest {
                key: key(from).into(),
                range_end: key(to).into(),
                ..Default::default()
            }),
            Step::Revoke => Request::LeaseRevoke(LeaseRevokeRequest { id: 7 }),
            Step::Outside(value) => put("outside", &value.to_string()),
            Step::Count(number, amount) => {
                change(&key(number), change_request::Change::CounterAdd((*amount).into()))
            }
            Step::SetAdd(number, element) => {
                change(&key(number), change_request::Change::SetAdd(text(element)))
            }
            Step::SetRemove(number, element) => {
                change(&key(number), change_request::Change::SetRemove(text(element)))
            }
            Step::MapPut(number, field, value) => {
                let field = Field { field: text(field), value: text(value) };
                change(&key(number), change_request::Change::MapPut(field))
            }
            Step::MapRemove(number, field) => {
                change(&key(number), change_request::Change::MapRemove(text(field)))
            }
            Step::Elsewhere(number, what) => {
                let made = match what % 4 {
                    0 => Change::Put(text(what)),
                    1 => Change::Delete,
                    2 => Change::CounterAdd((*what).into()),
                    _ => Change::OrSetAdd { element: text(&(what % 3)) },
                };
                other.change(wall_ms, &format!("k{number}"), made);
                return None;
            }
            Step::Merge => other.delta()?,
            Step::Collect => {
                let keys = (0..4).map(|number| format!("k{number}").into()).collect();
                let known = [(OWN, 5), (OTHER, other.told / 2)].into_iter().collect();
                Request::RegionCommand(Command::Collect { keys, known }.encode())
            }
        },
    ))
}

/// What clients see under the prefix is what the items say.
fn check_views(store: &Store<MemoryDisk>) {
    let request = RangeRequest { key: PREFIX.into(), range_end: "/global0".into(), ..Default::default() };
    let seen = store.reader().range(&request).unwrap().kvs.into_iter().map(|kv| kv.key);
    let mut visible = Vec::new();
    store.reader().with_region(|prefix, local| {
        local
            .items
            .scan(std::ops::Bound::Unbounded, &mut |key, item| {
                if item.is_visible() {
                    visible.push(Bytes::from([prefix, key].concat()));
                }
                ControlFlow::Continue(())
            })
            .unwrap();
    });
    visible.sort_unstable();
    assert_eq!(seen.collect::<Vec<_>>(), visible);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// One member applies entries one by one, one several at once, and one is lost again and again and starts from what its disk
    /// has kept: all have the same bytes in the end.
    #[test]
    fn members_have_the_same_bytes(
        steps in prop::collection::vec(step(), 1..60),
        batches in prop::collection::vec(1..6_usize, 60),
        crashes in prop::collection::vec((any::<bool>(), 0..8_usize), 60),
    ) {
        let mut other = Other::new();
        let grant = Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 100 });
        let mut log = vec![entry(1, grant), entry(2, begin(founders()))];
        for (n, step) in steps.iter().enumerate() {
            log.extend(entry_of(step, 10 + n as u64 / 2, &mut other));
        }

        let single = Arc::new(MemoryDisk::default());
        let mut store = open(&single);
        log.iter().for_each(|entry| drop(apply(&mut store, std::slice::from_ref(entry))));
        check_views(&store);

        let batched = Arc::new(MemoryDisk::default());
        let mut many = open(&batched);
        let mut rest = &log[..];
        for size in batches.iter().cycle() {
            let (batch, left) = rest.split_at((*size).min(rest.len()));
            if batch.is_empty() {
                break;
            }
            apply(&mut many, batch);
            rest = left;
        }
        prop_assert_eq!(dump(&single), dump(&batched));

        let crashing = Arc::new(MemoryDisk::default());
        let mut member = open(&crashing);
        let mut crashes = crashes.into_iter();
        while member.applied() < log.len() as u64 {
            let next = member.applied() as usize;
            apply(&mut member, &log[next..=next]);
            if let Some((true, survivors)) = crashes.next() {
                crashing.crash(survivors);
                member = open(&crashing);
            }
        }
        prop_assert_eq!(dump(&single), dump(&crashing));

        // What the leader sees is what a start finds.
        let again = open(&single);
        let tree = |store: &Store<MemoryDisk>| {
            store.reader().with_region(|_, local| (local.replica.clone(), local.tree.clone()))
        };
        prop_assert_eq!(tree(&store), tree(&again));
        prop_assert_eq!(tree(&many), tree(&again));
    }
}
