//! What clients see of items, kind by kind, in one region and after concurrent changes in two.

use bytes::Bytes;
use consensus_regions::{
    Change, Changed, Command, Delta, MemoryItems, Range, Refused, RegionId, Replica, View, limits,
};

struct Region {
    replica: Replica,
    items: MemoryItems,
}

fn two() -> [Region; 2] {
    let founders = [1, 2].map(|id| (RegionId(id), Bytes::new()));
    founders.clone().map(|(id, _)| {
        let (replica, members) = Replica::founder(id, &founders);
        let mut region = Region { replica, items: MemoryItems::default() };
        region.items.write(&members);
        region
    })
}

impl Region {
    fn apply(&mut self, command: Command) -> Result<Vec<Changed>, Refused> {
        let Ok(outcome) = self.replica.apply(&self.items, command);
        outcome.inspect(|all| all.iter().for_each(|changed| self.items.write(changed)))
    }

    fn change(&mut self, wall_ms: u64, change: Change) -> Result<Vec<Changed>, Refused> {
        self.apply(Command::Change { wall_ms, key: Bytes::from_static(b"k"), change })
    }

    fn view(&self) -> Option<View> {
        self.items.iter().find(|(key, _)| key[..] == b"k"[..])?.1.view()
    }

    /// All that the other has.
    fn hear(&mut self, other: &Self) {
        let (region, version) = (other.replica.region(), other.replica.version().clone());
        let (after, to) = (self.replica.version().get(region), version.get(region));
        let ranges = if to > after { vec![Range { region, after, to }] } else { Vec::new() };
        let items = other.items.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        let delta = Delta { from: region, version, latest: other.replica.latest(), ranges, items };
        self.apply(Command::Merge(delta)).expect("a member");
    }
}

fn exchange([a, b]: &mut [Region; 2]) {
    a.hear(b);
    b.hear(a);
    assert_eq!(a.view(), b.view());
}

fn put(value: &'static str) -> Change {
    Change::Put(Bytes::from_static(value.as_bytes()))
}

fn register(value: &'static str) -> Option<View> {
    Some(View::Register(Bytes::from_static(value.as_bytes())))
}

fn set(elements: &[&'static str]) -> Option<View> {
    Some(View::Set(elements.iter().map(|element| Bytes::from_static(element.as_bytes())).collect()))
}

fn map(fields: &[(&'static str, &'static str)]) -> Option<View> {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Some(View::Map(fields.iter().map(|(field, value)| (bytes(field), bytes(value))).collect()))
}

fn or_put(field: &'static str, value: &'static str) -> Change {
    Change::OrMapPut { field: field.into(), value: value.into() }
}

fn add(element: &'static str) -> Change {
    Change::OrSetAdd { element: element.into() }
}

fn remove(element: &'static str) -> Change {
    Change::OrSetRemove { element: element.into() }
}

/// What the first region does, then the second, both at once after an exchange, and what both see in the end.
#[test]
fn concurrent_changes() {
    let register_put =
        |value: &'static str| Change::RegisterMapPut { field: "f".into(), value: value.into() };
    let register_delete = Change::RegisterMapDelete { field: "f".into() };
    let table: Vec<(&str, Vec<Change>, (u64, Change), (u64, Change), Option<View>)> = vec![
        ("the later put wins", vec![], (20, put("a")), (10, put("b")), register("a")),
        (
            "at the same time, the region with the larger number",
            vec![],
            (10, put("a")),
            (10, put("b")),
            register("b"),
        ),
        ("a later deletion wins", vec![put("x")], (30, Change::Delete), (20, put("b")), None),
        ("an earlier deletion does not", vec![put("x")], (20, Change::Delete), (30, put("b")), register("b")),
        (
            "so it is for fields",
            vec![register_put("x")],
            (30, register_delete),
            (20, register_put("b")),
            None,
        ),
        ("what was not seen is not removed", vec![add("x")], (30, remove("x")), (20, add("x")), set(&["x"])),
        ("elements add up", vec![], (30, add("x")), (20, add("y")), set(&["x", "y"])),
        (
            "nor is a map's field",
            vec![or_put("f", "x")],
            (30, Change::OrMapRemove { field: "f".into() }),
            (20, or_put("f", "y")),
            map(&[("f", "y")]),
        ),
        (
            "of two values the latest",
            vec![],
            (30, or_put("f", "x")),
            (20, or_put("f", "y")),
            map(&[("f", "x")]),
        ),
        (
            "counts add up",
            vec![Change::CounterAdd(5)],
            (30, Change::CounterAdd(-7)),
            (20, Change::CounterAdd(1)),
            Some(View::Counter(-1)),
        ),
        (
            "a reset takes what it has seen",
            vec![Change::CounterAdd(5)],
            (30, Change::Delete),
            (20, Change::CounterAdd(1)),
            Some(View::Counter(1)),
        ),
        ("of two kinds the latest", vec![], (30, put("a")), (20, add("x")), register("a")),
        ("also the other way round", vec![], (20, put("a")), (30, add("x")), set(&["x"])),
    ];
    for (what, before, (first_ms, first), (second_ms, second), expected) in table {
        let mut regions = two();
        for change in before {
            regions[0].change(1, change).expect(what);
        }
        exchange(&mut regions);
        regions[0].change(first_ms, first).expect(what);
        regions[1].change(second_ms, second).expect(what);
        exchange(&mut regions);
        assert_eq!(regions[0].view(), expected, "{what}");
    }
}

#[test]
fn a_later_change_of_another_kind_replaces_what_it_has_seen() {
    let [mut region, _] = two();
    let steps = [
        (Change::CounterAdd(3), Some(View::Counter(3))),
        (put("a"), register("a")),
        (add("x"), set(&["x"])),
        (Change::CounterAdd(1), Some(View::Counter(1))),
        (Change::Delete, None),
        (or_put("f", "y"), map(&[("f", "y")])),
    ];
    for (change, expected) in steps {
        region.change(5, change.clone()).expect("allowed");
        assert_eq!(region.view(), expected, "{change:?}");
    }
}

#[test]
fn what_changes_nothing_is_no_change() {
    let [mut region, _] = two();
    for change in [Change::Delete, remove("x"), Change::OrMapRemove { field: "f".into() }] {
        assert_eq!(region.change(5, change), Ok(Vec::new()));
    }
    assert!(region.replica.version().is_empty(), "no number is used up");
    // A put of the same value is one: it is later.
    assert_eq!(region.change(5, put("a")).map(|all| all.len()), Ok(1));
    assert_eq!(region.change(5, put("a")).map(|all| all.len()), Ok(1));
    assert_eq!(region.replica.version().get(RegionId(1)), 2);
}

#[test]
fn bounds_are_refused_and_nothing_happens() {
    let [mut region, _] = two();
    let long = |len: usize| Bytes::from(vec![b'x'; len + 1]);
    let cases = [
        (Change::Put(long(limits::VALUE_BYTES_MAX)), Refused::ValueTooLong { max: limits::VALUE_BYTES_MAX }),
        (
            Change::OrSetAdd { element: long(limits::FIELD_BYTES_MAX) },
            Refused::FieldTooLong { max: limits::FIELD_BYTES_MAX },
        ),
        (
            Change::RegisterMapPut { field: "f".into(), value: long(limits::ITEM_BYTES_MAX) },
            Refused::ItemTooLarge { max: limits::ITEM_BYTES_MAX },
        ),
        (
            Change::OrMapPut { field: "f".into(), value: long(limits::OR_MAP_VALUE_BYTES_MAX) },
            Refused::ValueTooLong { max: limits::OR_MAP_VALUE_BYTES_MAX },
        ),
    ];
    for (change, refused) in cases {
        assert_eq!(region.change(5, change), Err(refused));
    }
    for amount in [i64::MAX, i64::MAX, 1] {
        region.change(5, Change::CounterAdd(amount)).expect("there is room");
    }
    assert_eq!(region.change(5, Change::CounterAdd(1)), Err(Refused::CounterFull));
    assert_eq!(region.view(), Some(View::Counter(i128::from(u64::MAX))));
    let key = long(limits::KEY_BYTES_MAX);
    let refused = region.apply(Command::Change { wall_ms: 1, key, change: put("a") });
    assert_eq!(refused, Err(Refused::KeyTooLong { max: limits::KEY_BYTES_MAX }));
}

#[test]
fn a_put_is_seen_after_one_of_a_region_whose_clock_is_ahead() {
    let mut regions = two();
    regions[1].change(9_000, put("ahead")).expect("allowed");
    exchange(&mut regions);
    regions[0].change(10, put("after")).expect("allowed");
    assert_eq!(regions[0].view(), register("after"));
    exchange(&mut regions);
    assert_eq!(regions[0].view(), register("after"));
}
