//! Replays the fuzz corpora that are kept in git through the same bodies that the fuzz targets run, and random bytes as well.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p consensus-regions --test fuzz_corpus` writes the `seed-*` files again: what
//! regions say while one changes items, another joins and they compare, and the same with a byte changed.

#![allow(clippy::duplicate_mod)] // each body is a crate of its own in `fuzz`, and brings its reader of input along

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;
use consensus_regions::{
    Change, Command, Config, DecodeError, Item, Message, RegionId, VERSION, VersionVector, limits,
};
use proptest::prelude::*;

#[path = "../../../fuzz/bodies/regions_codec.rs"]
mod codec;
#[path = "../../../fuzz/corpus.rs"]
mod corpus;
#[allow(dead_code)] // transcripts need more of it
mod group;
#[path = "../../../fuzz/bodies/regions_peer.rs"]
mod peer;

use group::{Group, put};

#[test]
fn regions_codec_corpus() {
    corpus::replay("regions_codec", codec_seeds, codec::run);
}

#[test]
fn regions_peer_corpus() {
    corpus::replay("regions_peer", peer_seeds, peer::run);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    // REGIONS-2.2
    #[test]
    fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..300), kind in 1..9_u8) {
        codec::run(&data);
        codec::run(&[&[0, 1, kind, 1, 2], &data[..]].concat());
    }

    #[test]
    fn what_peers_say_altered_is_read_or_refused(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), xor in 1..=255_u8) {
        let said = &*SAID;
        let mut bytes = said[which.index(said.len())].encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        codec::run(&[&[0], &bytes[..]].concat());
    }

    #[test]
    fn a_leader_bears_whatever_peers_say(data in prop::collection::vec(any::<u8>(), 0..1500)) {
        peer::run(&data);
    }
}

/// REGIONS-2.3, REGIONS-3.1: each type is among the seeds, and is read as it was said.
#[test]
fn the_seeds_are_real() {
    let kinds: BTreeMap<u8, Message> =
        conversation().into_iter().map(|said| (said.encode()[1], said)).collect();
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    for (kind, message) in kinds {
        let bytes = message.encode();
        assert_eq!(bytes[..2], [VERSION, kind]);
        assert_eq!(Message::decode(bytes.clone()), Ok(message));
        let other = |at: usize, value: u8| {
            let mut other = bytes.to_vec();
            other[at] = value;
            Message::decode(other.into())
        };
        assert_eq!(other(0, 2), Err(DecodeError::Unknown { what: "protocol version", value: 2 }));
        assert_eq!(other(1, 9), Err(DecodeError::Unknown { what: "type of a message", value: 9 }));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            Message::decode(longer.into()),
            Err(DecodeError::Trailing { what: "message of a region", left: 1 })
        );
        assert!(Message::decode(bytes.slice(..bytes.len() - 1)).is_err());
    }
    let long = Message::decode(vec![VERSION; limits::MESSAGE_BYTES_MAX + 1].into());
    assert!(matches!(long, Err(DecodeError::TooMany { .. })));
}

/// REGIONS-1.1, REGIONS-1.2, REGIONS-1.3, REGIONS-1.4, REGIONS-2.1, REGIONS-2.4, REGIONS-2.5,
/// REGIONS-2.6, REGIONS-2.7, REGIONS-2.8
#[test]
fn bytes_of_a_delta() {
    let mut group = Group::acquainted(2, Config::default());
    let (a, b) = (RegionId(1), RegionId(2));
    group.apply(a, Command::Change { wall_ms: 2_000_000, key: "k".into(), change: put("v") });
    group.apply(a, Command::Change { wall_ms: 2_000_003, key: "n".into(), change: Change::CounterAdd(-3) });
    group.apply(
        a,
        Command::Change {
            wall_ms: 2_000_003,
            key: "s".into(),
            change: Change::OrSetAdd { element: "e".into() },
        },
    );
    group.now_ms = 2_000_000;
    let said = group.interval_of(a);
    let delta = said.iter().map(Message::encode).find(|bytes| bytes[1] == 3).expect("a delta");
    let latest = [0x83, 0x89, 0x7a, 1];
    let expected = [
        &[1, 3, 1, 2][..],         // version, DELTA, from, to
        &[1, 1, 3],                // what A knows: three changes of its own
        &latest,                   // 2,000,003 ms, and 1
        &[1, 1, 0, 3],             // a range: region 1, after 0, three
        &[3],                      // items
        &[1, b'k', 1],             // key, cells
        &[1, 1, 1, 3, 0, 2, b'v'], // register: dot (1, 1), 3 ms and 0 before latest, a byte and one, the value
        &[1, b'n', 1],
        &[5, 1, 1, 2, 1, 1, 2, 0, 0, 2, 0, 3], // counter: seen (1, 2), an entry: (1, 2), stamp, share of two bytes
        &[1, b's', 1],
        &[4, 1, b'e', 1, 1, 3, 1, 1, 3, 0, 1, 0], // element, seen (1, 3), an entry: (1, 3), stamp, nothing
    ]
    .concat();
    assert_eq!(delta[..], expected[..]);
    assert_eq!(group.version_of(b, a), 0);
}

/// REGIONS-2.2, REGIONS-2.7
#[test]
fn cells_that_cannot_be_are_refused() {
    let read = |record: &'static [u8]| Item::from_record(Bytes::from_static(record));
    let contradiction = Err(DecodeError::Contradiction { what: "stored item" });
    let cases: [(&str, &[u8]); 6] = [
        ("an entry that was not seen", &[0, 1, 4, 0, 1, 1, 3, 1, 1, 4, 0, 0, 0]),
        ("dots that have seen nothing", &[0, 1, 4, 0, 0, 0]),
        ("a vector that is not sorted", &[0, 1, 4, 0, 2, 2, 1, 1, 1, 0]),
        ("a counter of nothing", &[0, 1, 4, 0, 1, 1, 0, 0]),
        ("a change of nobody", &[0, 1, 1, 0, 1, 0, 0, 0]),
        ("cells that are not sorted", &[0, 2, 5, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0]),
    ];
    for (what, record) in cases {
        assert_eq!(read(record), contradiction, "{what}");
    }
    assert_eq!(read(&[0, 1, 8, 0, 0]), Err(DecodeError::Unknown { what: "stored item", value: 8 }));
    let share = Err(DecodeError::Truncated { what: "share of a counter", needed: 1, left: 0 });
    assert_eq!(read(&[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0]), share);
    assert_eq!(read(&[0, 0]), Ok(Item::default()));
    assert_eq!(VersionVector::default().iter().count(), 0);
}

static SAID: LazyLock<Vec<Message>> = LazyLock::new(conversation);

/// What regions say while one changes items, another one joins, and an item is lost.
fn conversation() -> Vec<Message> {
    let mut group = Group::acquainted(3, Config::default());
    let (a, b, late) = (RegionId(1), RegionId(2), RegionId(4));
    group.change(a, "k", put("v"));
    group.change(a, "n", Change::CounterAdd(3));
    group.change(b, "m", Change::OrMapPut { field: "f".into(), value: "v".into() });
    group.change(b, "r", Change::RegisterMapPut { field: "f".into(), value: "v".into() });
    let mut all = group.rounds(2);
    group.change(b, "k", Change::Delete);
    group.apply(b, Command::AddRegion { wall_ms: 1, region: late, info: "late".into() });
    group.join(late, &[a]);
    all.extend(group.rounds(3));
    group.lose_item(a, "n");
    group.lose_item(b, "m");
    all.extend(group.rounds(14));
    all
}

fn codec_seeds() -> Vec<Vec<u8>> {
    let mut by_shape: BTreeMap<(u8, usize), Message> = BTreeMap::new();
    for message in conversation() {
        let bytes = message.encode();
        if bytes.len() < 1000 {
            by_shape.insert((bytes[1], bytes.len() / 16), message);
        }
    }
    let mut seeds: Vec<_> = by_shape.values().map(|message| [&[0], &message.encode()[..]].concat()).collect();
    let changes = [
        put("v"),
        Change::Delete,
        Change::RegisterMapPut { field: "f".into(), value: "v".into() },
        Change::OrMapRemove { field: "f".into() },
        Change::OrSetAdd { element: "e".into() },
        Change::CounterAdd(-7),
    ];
    for change in changes {
        let command = Command::Change { wall_ms: 1_000_000, key: "k".into(), change };
        seeds.push([&[1], &command.encode()[..]].concat());
    }
    let known = VersionVector::from_iter([(RegionId(1), 7)]);
    let commands = [
        Command::AddRegion { wall_ms: 1, region: RegionId(9), info: "i".into() },
        Command::RemoveRegion { wall_ms: 1, region: RegionId(9) },
        Command::Collect { keys: vec!["a".into(), "b".into()], known },
    ];
    seeds.extend(commands.map(|command| [&[1], &command.encode()[..]].concat()));
    let mut group = Group::acquainted(2, Config::default());
    group.change(RegionId(1), "k", put("v"));
    group.change(RegionId(1), "k", Change::CounterAdd(1));
    group.rounds(2);
    let item = group.item(RegionId(2), "k").expect("it is there");
    seeds.push([&[2], &item.to_record()[..]].concat());
    seeds.push([&[3], &group.region(RegionId(2)).replica.to_record()[..]].concat());
    let altered = seeds.clone().into_iter().enumerate().map(|(number, mut seed)| {
        let at = 1 + (number * 37) % (seed.len() - 1);
        seed[at] ^= 1 << (number % 8);
        seed
    });
    seeds.extend(altered.collect::<Vec<_>>());
    seeds
}

/// What the first region hears, in pieces, for one that was there from the beginning and for one that joins.
fn peer_seeds() -> Vec<Vec<u8>> {
    let said: Vec<_> = conversation().iter().filter_map(peer::said).collect();
    let tick = vec![0];
    let change = vec![1, 0, 2, b'h', b'i', 1, b'k'];
    let mut seeds = Vec::new();
    for first in [0_u8, 3] {
        for part in said.chunks(6).take(14) {
            let steps = part.iter().flat_map(|said| [said.clone(), tick.clone(), change.clone()]);
            seeds.push([vec![first], steps.collect::<Vec<_>>().concat()].concat());
        }
    }
    seeds
}
