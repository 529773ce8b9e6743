//! Merging: in whatever order, however often, whole or as deltas, the outcome is the same.
//!
//! States that regions can be in are made as regions make them: by changes, and by exchanging what they have.

use bytes::Bytes;
use consensus_regions::{
    Change, Command, Item, MEMBERS_KEY, MemoryItems, RegionId, Replica, Tree, VersionVector, View,
};
use proptest::prelude::*;

const REGIONS: u32 = 3;
const KEY: &[u8] = b"item";

/// A region, without a log: what is asked for is done.
#[derive(Clone)]
struct Region {
    replica: Replica,
    items: MemoryItems,
}

#[derive(Clone, Debug)]
enum Step {
    Change(usize, u64, Change),
    /// One region gets the whole item of another.
    Exchange(usize, usize),
}

impl Region {
    fn all() -> Vec<Self> {
        let founders: Vec<_> = (1..=REGIONS).map(|id| (RegionId(id), Bytes::new())).collect();
        let found = |id: u32| {
            let (replica, members) = Replica::founder(RegionId(id), &founders);
            let mut items = MemoryItems::default();
            items.write(&members);
            Self { replica, items }
        };
        (1..=REGIONS).map(found).collect()
    }

    fn change(&mut self, wall_ms: u64, change: Change) {
        let command = Command::Change { wall_ms, key: KEY.into(), change };
        let Ok(outcome) = self.replica.apply(&self.items, command);
        outcome.into_iter().flatten().for_each(|changed| self.items.write(&changed));
    }

    fn item(&self) -> Item {
        self.items.iter().find(|(key, _)| *key == KEY).map(|(_, item)| item.clone()).unwrap_or_default()
    }

    /// As a delta without a range: nothing is known to be complete.
    fn take(&mut self, other: &Self) {
        let delta = consensus_regions::Delta {
            from: other.replica.region(),
            version: other.replica.version().clone(),
            latest: other.replica.latest(),
            ranges: Vec::new(),
            items: [(Bytes::from_static(KEY), other.item())]
                .into_iter()
                .filter(|(_, item)| !item.is_empty())
                .collect(),
        };
        let Ok(outcome) = self.replica.merge(&self.items, delta);
        outcome.expect("a member").iter().for_each(|changed| self.items.write(changed));
    }
}

fn run(steps: &[Step]) -> Vec<Region> {
    let mut regions = Region::all();
    for step in steps {
        match step {
            Step::Change(region, wall_ms, change) => regions[*region].change(*wall_ms, change.clone()),
            Step::Exchange(from, to) => {
                let from = regions[*from].clone();
                regions[*to].take(&from);
            }
        }
    }
    regions
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(Bytes::from)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        bytes().prop_map(Change::Put),
        Just(Change::Delete),
        (bytes(), bytes()).prop_map(|(field, value)| Change::RegisterMapPut { field, value }),
        bytes().prop_map(|field| Change::RegisterMapDelete { field }),
        (bytes(), bytes()).prop_map(|(field, value)| Change::OrMapPut { field, value }),
        bytes().prop_map(|field| Change::OrMapRemove { field }),
        bytes().prop_map(|element| Change::OrSetAdd { element }),
        bytes().prop_map(|element| Change::OrSetRemove { element }),
        (-5..5_i64).prop_map(Change::CounterAdd),
    ]
}

/// Of one kind, or of all.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let region = || 0..REGIONS as usize;
    let step = prop_oneof![
        3 => (region(), 0..20_u64, change()).prop_map(|(region, at, change)| Step::Change(region, at, change)),
        2 => (region(), region()).prop_map(|(from, to)| Step::Exchange(from, to)),
    ];
    let kinds = prop::collection::btree_set(0..5_usize, 1..5);
    (prop::collection::vec(step, 0..40), kinds).prop_map(|(steps, kinds)| {
        let kind = |change: &Change| match change {
            Change::Put(_) => Some(0),
            Change::RegisterMapPut { .. } | Change::RegisterMapDelete { .. } => Some(1),
            Change::OrMapPut { .. } | Change::OrMapRemove { .. } => Some(2),
            Change::OrSetAdd { .. } | Change::OrSetRemove { .. } => Some(3),
            Change::CounterAdd(_) => Some(4),
            Change::Delete => None,
        };
        let is_wanted = |step: &Step| match step {
            Step::Change(_, _, change) => kind(change).is_none_or(|kind| kinds.contains(&kind)),
            Step::Exchange(..) => true,
        };
        steps.into_iter().filter(is_wanted).collect()
    })
}

fn merged(mut a: Item, b: &Item) -> Item {
    a.merge(b.clone());
    a
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    // REGIONS-4.1
    #[test]
    fn merging_is_idempotent_commutative_and_associative(steps in steps()) {
        let [a, b, c] = run(&steps).iter().map(Region::item).collect::<Vec<_>>().try_into().expect("three");
        prop_assert_eq!(&merged(a.clone(), &a), &a);
        prop_assert_eq!(merged(a.clone(), &b), merged(b.clone(), &a));
        let left = merged(merged(a.clone(), &b), &c);
        prop_assert_eq!(&left, &merged(a.clone(), &merged(b.clone(), &c)));
        // And again, in the wrong order.
        prop_assert_eq!(&merged(merged(left.clone(), &b), &a), &left);
    }

    // REGIONS-4.2
    #[test]
    fn a_delta_brings_as_much_as_the_state(steps in steps()) {
        let regions = run(&steps);
        for from in &regions {
            for to in &regions {
                // The receiver knows of what its item has seen; whatever else it knows makes the delta smaller.
                let (theirs, own) = (from.item(), to.item());
                let delta = theirs.since(&own.version());
                prop_assert!(delta.cells().count() <= theirs.cells().count());
                let nothing = theirs.since(&VersionVector::default());
                prop_assert_eq!(&nothing, &theirs);
                prop_assert!(theirs.since(&theirs.version()).is_empty());
            }
        }
        // With whole exchanges a region knows of all that any cell has seen.
        let mut joined = regions[0].item();
        let mut by_deltas = joined.clone();
        for other in &regions[1..] {
            joined.merge(other.item());
            let known = seen_of(&by_deltas, &other.item());
            by_deltas.merge(other.item().since(&known));
        }
        prop_assert_eq!(joined, by_deltas);
    }

    #[test]
    fn records_are_read_as_they_were_written(steps in steps()) {
        for region in run(&steps) {
            let item = region.item();
            let record = item.to_record();
            prop_assert_eq!(Item::from_record(record.clone()), Ok(item.clone()));
            prop_assert_eq!(Item::from_record(record).expect("it is one").to_record(), item.to_record());
            let members = region.items.iter().find(|(key, _)| *key == MEMBERS_KEY).map(|(_, item)| item);
            let again = Replica::from_record(region.replica.to_record(), members);
            prop_assert_eq!(again, Ok(region.replica.clone()));
        }
    }

    #[test]
    fn a_tree_is_that_of_what_is_there_however_it_came_there(steps in steps()) {
        let mut regions = run(&steps);
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                let from = regions[from].clone();
                regions[to].take(&from);
            }
        }
        let root = |region: &Region| {
            let mut tree = Tree::default();
            for (key, item) in region.items.iter() {
                tree.update(&consensus_regions::Changed { key: key.clone(), before: None, after: Some(item.clone()) });
            }
            tree.root()
        };
        prop_assert_eq!(root(&regions[0]), root(&regions[1]));
        prop_assert_eq!(root(&regions[0]), root(&regions[2]));
        let views: Vec<Option<View>> = regions.iter().map(|region| region.item().view()).collect();
        prop_assert_eq!(&views[0], &views[1]);
        prop_assert_eq!(&views[0], &views[2]);
    }
}

/// Of each cell what one side has seen is left out of what the other sends, as far as no cell hides behind another.
fn seen_of(own: &Item, theirs: &Item) -> VersionVector {
    let mut known = own.version();
    for (id, cell) in theirs.cells() {
        let same = own.cells().find(|(other, _)| *other == id).map(|(_, cell)| cell);
        let mut wanted = VersionVector::default();
        cell.add_version(&mut wanted);
        let mut has = VersionVector::default();
        same.into_iter().for_each(|cell| cell.add_version(&mut has));
        for (region, counter) in wanted.iter().filter(|(region, counter)| *counter > has.get(*region)) {
            known = known
                .iter()
                .map(|(r, c)| if r == region { (r, c.min(counter - 1)) } else { (r, c) })
                .collect();
        }
    }
    known
}
