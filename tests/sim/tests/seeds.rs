//! Short runs of many seeds: nothing goes wrong, and everything that can go wrong is tried.

use sim::{run, run_all};

const SEEDS: u64 = 4000;

#[test]
fn no_seed_finds_anything() {
    let report = match run_all(0..SEEDS, None) {
        Ok(report) => report,
        Err(found) => panic!("{found}"),
    };
    println!("{report:#?}");
    assert_eq!(report.runs, SEEDS);
    // Runs that do not try what they should would find nothing either.
    assert!(report.answered > 40 * SEEDS, "clients are answered: {report:?}");
    assert!(report.unanswered > 5 * SEEDS, "and not always: {report:?}");
    assert!(report.events_watched > 20 * SEEDS, "watchers are told: {report:?}");
    assert!(report.lease_reads > SEEDS, "and without asking others: {report:?}");
    assert!(report.serializable_reads > 5 * SEEDS, "{report:?}");
    assert!(report.crashes > SEEDS && report.terms_led > 2 * SEEDS, "{report:?}");
    assert!(report.syncs_failed > SEEDS / 4, "{report:?}");
    assert!(report.snapshots_restored > SEEDS / 2 && report.members_changed > SEEDS, "{report:?}");
    assert!(report.elections_hinted > SEEDS / 4, "{report:?}");
    assert!(report.damage_noticed > SEEDS / 50, "{report:?}");
    assert!(report.uncertain < SEEDS / 100, "histories can be judged: {report:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first, run(seed + 1, None, false), "seed {seed} and the next");
    }
}
