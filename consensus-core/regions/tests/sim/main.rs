//! Regions on a simulated network, with simulated clocks and leaders that are lost, from a seed. `REGIONS_SIM_SEEDS=17..18` replays
//! one, `0..1000` looks further.

mod network;
mod oracle;
mod plan;
#[allow(dead_code)] // it is the simulator's of members, which needs more of it
#[path = "../../../../tests/sim/src/random.rs"]
mod random;
mod region;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::{Mistake, Plan, Shape};
use world::{HEAL_MS, Report, World};

fn run(plan: Plan) -> Result<Report, String> {
    let run = || World::new(plan).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        Err(message
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default())
    })
}

/// No disk loses anything in here, so no comparison may find that anything was lost, whatever becomes of messages.
fn expect(plan: Plan) -> Report {
    let report = run(plan).unwrap_or_else(|violation| panic!("{violation}\n{plan:?}"));
    assert_eq!(report.repaired, 0, "{report:?}\n{plan:?}");
    report
}

/// `REGIONS_SIM_SEEDS=17..18` instead.
#[allow(clippy::disallowed_methods)] // a test may be told by the environment what to do
fn seeds(count: u64) -> std::ops::Range<u64> {
    let told = std::env::var("REGIONS_SIM_SEEDS").ok();
    let range = told.as_deref().and_then(|told| told.split_once(".."));
    let number = |text: &str| text.parse().expect("a seed");
    range.map_or(0..count, |(from, to)| number(from)..number(to))
}

#[test]
fn ten_minutes_of_partitions_and_100_000_changes() {
    let plan = Plan { duration_ms: 600_000, changes: 136_000, keys: 5_000, ..Plan::faults(1) };
    let report = expect(plan);
    println!("{report:?}");
    report.row("ten minutes of partitions, loss and lost leaders");
    assert!(
        report.changes >= 100_000,
        "of what clients want, some changes nothing, and some is lost with a leader"
    );
    assert!(report.deletions > 10_000 && report.collected > 1_000 && report.leaders_lost > 20);
    assert!(report.equal_after_ms <= HEAL_MS);
}

#[test]
fn without_faults_changes_arrive_once_and_in_time() {
    let quiet = Plan { has_faults: false, skew_ms: 10, changes: 20_000, keys: 5_000, ..Plan::faults(2) };
    let report = expect(quiet);
    println!("{report:?}");
    report.row("without faults");
    assert!(report.bytes_ratio() < 1.3, "{report:?}");
    // Simulated time: an interval, and a round trip.
    assert!(report.p99_ms <= 5_000 + 2 * quiet.delay_ms, "{report:?}");
}

/// REGIONS-4.5: members of a region are compared in the end.
#[test]
fn many_seeds() {
    for seed in seeds(12) {
        let report = expect(Plan::faults(seed));
        println!("{seed}: {report:?}");
    }
}

#[test]
fn other_topologies() {
    for seed in seeds(4) {
        expect(Plan { regions: 5, topology: Shape::HubSpoke, ..Plan::faults(seed) });
        expect(Plan { regions: 5, topology: Shape::Chain, ..Plan::faults(seed) });
        expect(Plan { regions: 7, ..Plan::faults(seed) });
    }
}

#[test]
fn regions_come_and_go() {
    for seed in seeds(6) {
        expect(Plan { joins: true, ..Plan::faults(seed) });
        expect(Plan { regions: 4, removes: true, ..Plan::faults(seed) });
        expect(Plan { regions: 4, joins: true, removes: true, ..Plan::faults(seed) });
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let plan = Plan { joins: true, changes: 1_000, ..Plan::faults(7) };
    assert_eq!(expect(plan), expect(plan));
    assert_ne!(expect(plan).trace, expect(Plan { seed: 8, ..plan }).trace);
}

#[test]
fn mistakes_are_found() {
    let all = [
        Mistake::CollectsEarly,
        Mistake::CollectsSilently,
        Mistake::ForgetsClocks,
        Mistake::ReusesDots,
        Mistake::IgnoresGaps,
        Mistake::ReadsItsClock,
    ];
    for mistake in all {
        let plan = |seed| Plan { mistake: Some(mistake), ..Plan::faults(seed) };
        let found = (0..20).find_map(|seed| run(plan(seed)).err().map(|violation| (seed, violation)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{mistake:?} is not found"));
        println!("{mistake:?} with seed {seed}: {violation}");
    }
}
