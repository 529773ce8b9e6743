//! Elections that need not wait for the timer do not, others are not held, and the member that should lead does.

use sim::scenario::{
    Outcome, follower_loses_leader, leader_dies, leader_is_removed, lease_over_changes,
    preferred_member_leads,
};

const SEEDS: u64 = 200;
/// The earliest timer fires 50 ticks after the last heartbeat, which may be twelve steps old when the leader dies.
const BEFORE_ANY_TIMER: u64 = 35;
const MEDIAN: u64 = 15;

/// The greatest of the medians.
fn of_each(
    voters: &[u64],
    run: impl Fn(u64, u64) -> Result<Outcome, sim::Violation>,
    check: impl Fn(&Outcome),
) -> u64 {
    let mut medians = Vec::new();
    for voters in voters {
        let mut steps: Vec<u64> = Vec::new();
        for seed in 0..SEEDS {
            let outcome =
                run(seed, *voters).unwrap_or_else(|found| panic!("{voters} voters, seed {seed}: {found}"));
            println!("{voters} voters, seed {seed}: {} steps", outcome.steps);
            check(&outcome);
            steps.push(outcome.steps);
        }
        steps.sort_unstable();
        let (median, most) = (steps[steps.len() / 2], steps[steps.len() - 1]);
        println!("{voters} voters: median {median} steps, most {most}");
        medians.push(median);
    }
    medians.into_iter().max().unwrap_or_default()
}

#[test]
fn a_leader_that_dies_is_followed_by_another_long_before_the_timer() {
    let median = of_each(
        &[3, 5, 7],
        |seed, voters| leader_dies(seed, voters, 0),
        |outcome| {
            assert!(outcome.steps <= BEFORE_ANY_TIMER, "{outcome:?}");
            assert!(
                outcome.report.elections_hinted >= 1 && outcome.after.1 > outcome.before.1,
                "{outcome:?}"
            );
            assert_eq!(outcome.report.terms_led, 2, "{outcome:?}");
        },
    );
    assert!(median <= MEDIAN, "{median} steps");
}

/// What is said is said again, and a vote that was lost is asked for again.
#[test]
fn a_network_that_loses_messages_does_not_make_it_wait() {
    of_each(
        &[3, 5],
        |seed, voters| leader_dies(seed, voters, 150),
        |outcome| {
            assert!(outcome.report.elections_hinted >= 1, "{outcome:?}");
        },
    );
}

#[test]
fn a_follower_that_alone_has_lost_the_leader_changes_nothing() {
    of_each(&[3, 4, 5], follower_loses_leader, |outcome| {
        assert_eq!(outcome.after, outcome.before, "{outcome:?}");
        assert_eq!(outcome.report.elections_hinted, 0, "{outcome:?}");
    });
}

/// It leads on until they know, and then hands over. One that stops as soon as its removal is committed leaves two voters of whom
/// one never learns that it is the only one.
#[test]
fn a_leader_that_is_removed_does_not_leave_before_those_who_stay_know() {
    of_each(&[2, 3, 4, 5], leader_is_removed, |outcome| {
        assert!(outcome.steps <= BEFORE_ANY_TIMER, "{outcome:?}");
    });
}

#[test]
fn the_preferred_member_leads_while_it_is_there_and_others_do_not_wait_for_it() {
    of_each(&[3, 5], preferred_member_leads, |outcome| {
        assert!(outcome.steps <= BEFORE_ANY_TIMER, "{outcome:?}");
    });
}

/// Otherwise it would be worth nothing that a lease which is kept is looked for there.
#[test]
fn voters_who_know_of_no_lease_do_not_wait_for_one() {
    let mut early = 0;
    for seed in 0..SEEDS {
        let outcome = lease_over_changes(seed, None).unwrap_or_else(|found| panic!("seed {seed}: {found}"));
        early += u64::from(outcome.steps <= BEFORE_ANY_TIMER);
    }
    println!("{early} of {SEEDS} elections come before any timer");
    // In the others, a round that renews the lease has told them of it.
    assert!(early > SEEDS / 10, "{early}");
}
