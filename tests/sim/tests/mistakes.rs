//! Checks that find nothing would be worth nothing: mistakes that are made on purpose are found.

use sim::{Mistake, Violation, run, scenario::lease_over_changes};

/// Seeds within which each has to be found.
const SEEDS: u64 = 4000;

/// Whether a violation is what the mistake is about. That nothing works any more is seen soon, and not the point.
fn fits(mistake: Mistake, violation: &Violation) -> bool {
    match mistake {
        Mistake::ReadWithoutAsking
        | Mistake::LeaseFromAnswer
        | Mistake::LeaseKeptInTransfer
        | Mistake::LeaseKeptInChange => matches!(violation, Violation::NotLinearizable { .. }),
        Mistake::PromiseForgotten | Mistake::ClockStandsStill => {
            matches!(violation, Violation::NotLinearizable { .. } | Violation::LeaseBroken { .. })
        }
        // Not that the member notices by itself: entries that others rely on are gone.
        Mistake::SyncRepeated => !matches!(
            violation,
            Violation::NotLive { .. } | Violation::Stopped { .. } | Violation::Panicked { .. }
        ),
        Mistake::VoteForgotten => matches!(violation, Violation::TwoLeaders { .. }),
        _ => !matches!(violation, Violation::NotLive { .. }),
    }
}

#[test]
fn each_mistake_is_found() {
    for mistake in Mistake::ALL {
        let made = |seed| match mistake {
            // Chance does not bring it about: who has not promised anything must not know of any promise either.
            Mistake::LeaseKeptInChange => lease_over_changes(seed, Some(mistake)).err(),
            _ => run(seed, Some(mistake), false).err(),
        };
        let violations = (0..SEEDS).filter_map(|seed| Some((seed, made(seed)?)));
        let found = violations.into_iter().find(|(_, violation)| fits(mistake, violation));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{SEEDS} seeds do not find {mistake:?}"));
        println!("{mistake:?}: seed {seed}: {violation}");
    }
}
