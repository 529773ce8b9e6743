//! Reconciliations of what watches have said, which is old, beside requests that fail, answers that are lost and operators that are
//! killed: whatever comes in which order, the store never loses its quorum, members change one at a time, what was written down of them
//! is not forgotten, and once there is peace everything comes to be as it should.

use serde_json::json;

use crate::{
    server::Fault,
    world::{REGION, World},
};

const SEEDS: u64 = 12;
/// Until a mistake is found.
const SEEDS_MAX: u64 = 300;
/// Rounds until everything is there; and until it is again.
const BEGIN: usize = 12;
const PEACE: usize = 40;
/// Rounds of trouble for each seed.
const TROUBLES: usize = 30;
/// A watch is behind by so many changes at most.
const BEHIND_MAX: u64 = 12;
/// A fault is this many writes ahead at most.
const AHEAD_MAX: u64 = 6;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// What is wrong after a time of trouble, in words. `believes`: the API server itself answers with what was, as if the operator
/// believed what its watch says.
async fn troubled(seed: u64, believes: bool) -> Result<(), String> {
    let mut random = Random(seed);
    let mut world = World::new(3);
    world.rounds(BEGIN).await;
    let first = world.server.get(REGION).unwrap()["status"]["bootstrapped"].clone();
    if !world.is_ready() {
        return Err("it does not even begin".to_owned());
    }
    for _ in 0..TROUBLES {
        match random.below(8) {
            0 => world.set_spec("/spec/regions/0/voters", json!(3 + 2 * random.below(2))),
            1 => world.lose_volume_if_spare(random.below(3) as u16),
            2 => world = world.killed(),
            3 | 4 => {
                let after = random.below(AHEAD_MAX) as usize;
                let code = if random.below(2) == 0 { 409 } else { 500 };
                let is_done = random.below(2) == 0;
                world.server.0.lock().unwrap().faults.push(Fault { after, code, is_done });
            }
            _ => {}
        }
        let behind = random.below(BEHIND_MAX) as usize;
        world.server.0.lock().unwrap().behind = if believes { behind } else { 0 };
        world.behind(behind).await;
        world.server.0.lock().unwrap().behind = 0;
        if random.below(2) == 0 {
            world.kubernetes();
        }
        check(&world, &first)?;
    }
    world.server.0.lock().unwrap().faults.clear();
    world.set_spec("/spec/regions/0/voters", json!(5));
    for _ in 0..PEACE {
        world.round().await;
        check(&world, &first)?;
    }
    if !world.is_ready() || world.voters() != [0, 1, 2, 3, 4] {
        return Err(format!("it ends as {:?} with {:?}", world.condition(REGION, "Ready"), world.voters()));
    }
    Ok(())
}

fn check(world: &World, first: &serde_json::Value) -> Result<(), String> {
    let members = world.store.0.lock().unwrap();
    if members.was_without_quorum {
        return Err(format!("the quorum was lost: {:?}", members.steps));
    }
    if members.learners_max > 1 {
        return Err(format!("two changes at a time: {:?}", members.steps));
    }
    let bootstrapped = &world.server.get(REGION).unwrap()["status"]["bootstrapped"];
    if bootstrapped != first {
        return Err(format!("that the store has begun with {first} members was forgotten: {bootstrapped}"));
    }
    Ok(())
}

#[tokio::test]
async fn what_watches_say_late_breaks_nothing() {
    for seed in 0..SEEDS {
        if let Err(what) = troubled(seed, false).await {
            panic!("seed {seed}: {what}");
        }
    }
}

#[tokio::test]
async fn an_operator_that_believed_its_watch_would_be_found() {
    for seed in 0..SEEDS_MAX {
        if let Err(what) = troubled(seed, true).await {
            return println!("seed {seed}: {what}");
        }
    }
    panic!("nothing is found");
}
