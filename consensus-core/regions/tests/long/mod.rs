//! Items that have become longer than any message: what several regions have added while they could not talk.

use std::collections::BTreeMap;

use bytes::Bytes;
use consensus_regions::{
    Alarm, Body, Change, Command, Config, Delta, Item, Message, Phase, RegionId, Stamp, View, limits,
};

use crate::group::{Group, put};

const A: RegionId = RegionId(1);
const B: RegionId = RegionId(2);
const C: RegionId = RegionId(3);
const D: RegionId = RegionId(4);
const E: RegionId = RegionId(5);

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Elements of a set, each added by a change of its own.
fn set(region: RegionId, changes: &[u64], element: impl Fn(u64) -> Vec<u8>) -> Item {
    let mut record = Vec::new();
    number(&mut record, 0);
    number(&mut record, changes.len() as u64);
    for change in changes.iter().copied() {
        let element = element(change);
        record.push(4);
        number(&mut record, element.len() as u64);
        record.extend_from_slice(&element);
        for _ in ["seen", "in force"] {
            record.push(1);
            number(&mut record, region.0.into());
            number(&mut record, change);
        }
        record.extend_from_slice(&[0, 0, 0]);
    }
    Item::from_record(record.into()).expect("a set")
}

/// A region has added elements, one by one.
fn add(group: &mut Group, region: RegionId, elements: u64, element: impl Fn(u64) -> Vec<u8>) {
    let made = group.version_of(region, region);
    let to = made + elements;
    let changes: Vec<_> = (made + 1..=to).collect();
    let delta = Delta {
        from: region,
        version: [(region, to)].into_iter().collect(),
        latest: Stamp::new(group.now_ms, 0),
        ranges: vec![consensus_regions::Range { region, after: made, to }],
        items: BTreeMap::from([(Bytes::from_static(b"set"), set(region, &changes, element))]),
    };
    group.apply(region, Command::Merge(delta));
}

fn elements(group: &Group, region: RegionId) -> usize {
    match group.views(region, "set") {
        Some(View::Set(elements)) => elements.len(),
        _ => 0,
    }
}

/// Whatever a region says can be sent.
fn check_lengths(said: &[Message]) {
    let longest = said.iter().map(|message| message.encode().len()).max().unwrap_or_default();
    assert!(longest <= limits::MESSAGE_BYTES_MAX, "{longest}");
}

fn count(said: &[Message], is: impl Fn(&Body) -> bool) -> usize {
    said.iter().filter(|message| is(&message.body)).count()
}

/// REGIONS-4.2, REGIONS-5.4
#[test]
fn sets_of_three_regions_become_one_that_is_longer_than_each_may_make() {
    let mut group = Group::acquainted(3, Config::default());
    let regions = [A, B, C];
    for (one, other) in [(A, B), (A, C), (B, C)] {
        group.cut(one, other);
    }
    for region in regions {
        add(&mut group, region, 50_000, |change| {
            [&[region.0 as u8][..], &change.to_be_bytes()[5..]].concat()
        });
    }
    group.heal();
    let said = group.rounds(3);
    check_lengths(&said);
    assert_eq!(regions.map(|region| elements(&group, region)), [150_000; 3]);
    // Each change has crossed each way once.
    let deltas = count(&said, |body| matches!(body, Body::Delta(_)));
    assert!(deltas <= 6 * (50_000 / limits::ITEMS_MAX + 1), "{deltas} deltas");
    for region in regions {
        let item = group.item(region, "set").expect("it is there");
        assert_eq!(Item::from_record(item.to_record()).as_ref(), Ok(item), "and is so after a restart");
    }
    // Nobody adds to it any more, but anybody takes away, and others hear of it.
    group.change(A, "set", Change::OrSetAdd { element: "more".into() });
    group.change(A, "set", Change::OrSetRemove { element: [&[1_u8][..], &[0, 0, 7]].concat().into() });
    group.rounds(2);
    assert_eq!(regions.map(|region| elements(&group, region)), [149_999; 3]);
    // Another region joins.
    group.apply(A, Command::AddRegion { wall_ms: 1, region: D, info: "late".into() });
    group.join(D, &[A]);
    let said = group.rounds(3);
    check_lengths(&said);
    assert_eq!(group.region(D).replica.phase(), Phase::Active);
    assert!(count(&said, |body| matches!(body, Body::Chunk(_))) > 8);
    assert_eq!(elements(&group, D), 149_999);
    assert_eq!(group.alarms, []);
}

/// REGIONS-8.4
#[test]
fn a_register_beside_sets_of_several_regions() {
    let mut group = Group::acquainted(4, Config::default());
    let regions = [A, B, C, D];
    for one in regions {
        for other in regions {
            group.cut(one, other);
        }
    }
    for region in [B, C, D] {
        add(&mut group, region, 1_000, |change| {
            [&[b'x'; 1_000][..], &[region.0 as u8], &change.to_be_bytes()].concat()
        });
    }
    group.change(A, "set", Change::Put(vec![b'v'; limits::VALUE_BYTES_MAX].into()));
    group.heal();
    check_lengths(&group.rounds(3));
    let records = regions.map(|region| group.item(region, "set").map(Item::to_record));
    assert!(records[0].as_ref().is_some_and(|record| record.len() > limits::MESSAGE_BYTES_MAX));
    assert!(records.iter().all(|record| *record == records[0]));
    // One that joins is sent it in parts.
    group.apply(A, Command::AddRegion { wall_ms: 1, region: E, info: "late".into() });
    group.join(E, &[A]);
    check_lengths(&group.rounds(3));
    assert_eq!(group.item(E, "set").map(Item::to_record), records[0]);
    assert_eq!(group.alarms, []);
    // So is one whose disk has lost it.
    group.lose_item(B, "set");
    check_lengths(&group.rounds(40));
    assert_eq!(group.item(B, "set").map(Item::to_record), records[0]);
    assert!(matches!(group.alarms[..], [Alarm::Differs { items: 1, .. }, ..]), "{:?}", group.alarms);
}

/// REGIONS-5.5: a snapshot goes on in the middle of an item, and what is gone at the source meanwhile goes.
#[test]
fn a_snapshot_is_interrupted_in_the_middle_of_an_item() {
    let mut group = Group::acquainted(2, Config::default());
    add(&mut group, A, 50_000, |change| change.to_be_bytes().to_vec());
    group.rounds(2);
    group.apply(A, Command::AddRegion { wall_ms: 1, region: C, info: "late".into() });
    group.rounds(1);
    group.join(C, &[A, B]);
    let mut said = group.interval_of(C);
    for _ in 0..20 {
        let is_within = |position: &consensus_regions::Position| position.cell.is_some();
        if group.region(C).replica.catch_up().is_some_and(|catch_up| is_within(&catch_up.after)) {
            break;
        }
        said = if said.is_empty() { group.interval_of(C) } else { group.deliver(std::mem::take(&mut said)) };
    }
    let taken = elements(&group, C);
    assert!((1..50_000).contains(&taken), "{taken}");
    // The state is kept, and the leader is another one.
    let replica = &group.region(C).replica;
    let members = group.item(C, "").cloned();
    let again = consensus_regions::Replica::from_record(replica.to_record(), members.as_ref());
    assert_eq!(again.as_ref(), Ok(replica));
    group.lead(C);
    for change in [7_u64, 49_999] {
        let element = Bytes::copy_from_slice(&change.to_be_bytes());
        group.change(A, "set", Change::OrSetRemove { element });
    }
    group.change(A, "other", put("v"));
    check_lengths(&group.rounds(8));
    assert_eq!([A, B, C].map(|region| elements(&group, region)), [49_998; 3]);
    assert_eq!((group.values("other"), &group.alarms[..]), (vec!["v".to_owned(); 3], &[][..]));
}

/// Changes of several long items that take turns are told as they come, and none more than once.
#[test]
fn long_items_that_change_in_turn() {
    let mut group = Group::acquainted(2, Config::default());
    let keys: Vec<_> = (0..6).map(|key| format!("set{key}")).collect();
    let (per_key, turns) = (12_000, keys.len() as u64);
    let items = keys.iter().zip(1..).map(|(key, first)| {
        let changes: Vec<_> = (0..per_key).map(|turn| first + turn * turns).collect();
        let item = set(A, &changes, |change| [&[b'x'; 16][..], &change.to_be_bytes()].concat());
        (Bytes::from(key.clone()), item)
    });
    let to = per_key * turns;
    let delta = Delta {
        from: A,
        version: [(A, to)].into_iter().collect(),
        latest: Stamp::new(group.now_ms, 0),
        ranges: vec![consensus_regions::Range { region: A, after: 0, to }],
        items: items.collect(),
    };
    group.apply(A, Command::Merge(delta));
    let said = group.rounds(3);
    check_lengths(&said);
    assert_eq!(group.version_of(B, A), to);
    for key in &keys {
        assert_eq!(group.item(A, key), group.item(B, key));
    }
    let bytes: usize = said.iter().map(|message| message.encode().len()).sum();
    let whole: usize =
        keys.iter().filter_map(|key| group.item(A, key)).map(|item| item.to_record().len()).sum();
    assert!(bytes < whole * 5 / 4, "{bytes} for {whole}");
}

/// REGIONS-1.2: what is deleted at once is gone everywhere, however much it is, and is forgotten.
#[test]
fn a_long_item_is_deleted() {
    let mut group = Group::acquainted(2, Config::default());
    add(&mut group, A, 20_000, |change| change.to_be_bytes().to_vec());
    group.rounds(2);
    group.change(B, "set", Change::Delete);
    assert_eq!(group.version_of(B, B), 20_000);
    check_lengths(&group.rounds(7));
    assert_eq!([A, B].map(|region| elements(&group, region)), [0; 2]);
    assert_eq!([A, B].map(|region| group.items_of(region)), [1; 2], "the members are left");
    assert_eq!(group.alarms, []);
}
