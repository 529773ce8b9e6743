//! Three regions as real processes, each in a network namespace of its own, on links of 80, 150 and 300 ms that can be cut.

mod world;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use consensus_proto::regions::change_request::Change;
use world::{REGIONS, World};

/// Between deltas. What was changed is to be everywhere after one of them, and a way there.
const INTERVAL: Duration = Duration::from_secs(1);
/// Changes whose time on the way is measured.
const MEASURED: usize = 60;

fn text(number: usize) -> String {
    format!("{number:04}")
}

/// Also prints how long changes take to be everywhere: a figure of this machine at this moment, which nothing is asserted of.
#[test]
fn regions_on_long_links_converge_through_cuts_and_crashes() {
    let Some(mut world) = World::start(INTERVAL) else { return };
    // All have heard of each other.
    for region in 0..REGIONS {
        world.put(region, &format!("/global/first{region}"), "x");
    }
    world.until_equal(REGIONS);

    measure(&world);

    // One that is cut off from all goes on by itself, and so do the others.
    world.cut(0, 1, true);
    world.cut(0, 2, true);
    for round in 0..10 {
        for region in 0..REGIONS {
            world.put(region, &format!("/global/cut{round}"), &format!("of {region}"));
            world.change(region, "/global/sum", Change::CounterAdd(1 + region as i64));
            world.change(region, "/global/set", Change::SetAdd(format!("{region}.{round}").into()));
        }
    }
    world.delete(1, "/global/first1");
    world.delete(2, "/global/first2");
    world.until("what is not cut off is equal", || world.state(1) == world.state(2));
    assert!(world.state(0).contains_key("/global/first1"), "region 0 has not heard of it");
    // The one that was cut off crashes, and starts from its disk.
    world.kill(0);
    world.restart(0);
    world.put(0, "/global/after", "the crash");
    // It can speak with one of the others, and through it with all.
    world.cut(0, 1, false);
    let state = world.until_equal_state();
    assert_eq!(state["/global/sum"], "60");
    assert_eq!(state["/global/set"].matches(',').count(), 29);
    assert_eq!(state["/global/after"], "the crash");
    assert!(!state.contains_key("/global/first1") && !state.contains_key("/global/first2"), "{state:?}");
    world.cut(0, 2, false);

    // Tombstones go, and nothing that was deleted comes back.
    let live = state.len() as u64;
    world.until("tombstones are collected everywhere", || {
        (0..REGIONS).all(|region| world.status(region).items == live + 1)
    });
    assert_eq!(world.until_equal_state(), state);
    for region in 0..REGIONS {
        let alarms = world.status(region).alarms;
        assert!(alarms.iter().all(|alarm| alarm.kind == "busy"), "{alarms:?}");
    }
}

/// How long it takes until a change is in all regions.
fn measure(world: &World) {
    let mut waiting: BTreeMap<String, (usize, Instant, usize)> = BTreeMap::new();
    let mut times = Vec::new();
    let mut made = 0;
    while made < MEASURED || !waiting.is_empty() {
        if made < MEASURED {
            let (region, key) = (made % REGIONS, format!("/global/t{}", text(made)));
            world.put(region, &key, "x");
            waiting.insert(key, (region, Instant::now(), 1 << region));
            made += 1;
        }
        for region in 0..REGIONS {
            let seen = world.state(region);
            for (key, (_, _, where_seen)) in &mut waiting {
                if seen.contains_key(key) {
                    *where_seen |= 1 << region;
                }
            }
        }
        waiting.retain(|_, (_, began, where_seen)| {
            let everywhere = *where_seen == (1 << REGIONS) - 1;
            if everywhere {
                times.push(began.elapsed());
            }
            !everywhere
        });
        world.check_patience();
        std::thread::sleep(Duration::from_millis(20));
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    eprintln!(
        "{} changes, interval {INTERVAL:?}, links of 80, 150 and 300 ms: everywhere after {:?} (median), {:?} (p99), {:?} (longest)",
        times.len(),
        at(50),
        at(99),
        times[times.len() - 1]
    );
}
