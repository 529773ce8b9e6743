//! Checks that find nothing would be worth nothing: mistakes that are made on purpose are found.

use sim::{Found, Mistake, run_all};

/// Seeds within which each has to be found.
const SEEDS: u64 = 1000;

#[test]
fn each_mistake_is_found() {
    for mistake in Mistake::ALL {
        let Err(Found { seed, violation }) = run_all(0..SEEDS, Some(mistake)) else {
            panic!("{SEEDS} seeds do not find {mistake:?}");
        };
        println!("{mistake:?}: seed {seed}: {violation}");
    }
}
