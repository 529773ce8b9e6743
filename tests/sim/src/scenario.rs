//! Directed runs: one thing happens, nothing else does, and what follows is known.
//!
//! An election timeout is 50 ticks here and a heartbeat 10, so that an election that waits for the timer takes long. Each run
//! ends as others do, with all that must hold whatever happens.

use crate::{Report, Violation, plan::Plan, random::Random, world::World};

/// Steps until there is a leader that everybody knows.
const SETTLED: u64 = 300;
/// Steps after which something that should happen has not.
const PATIENCE: u64 = 2000;

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Steps from the event to another leader; if there was none, to the end.
    pub steps: u64,
    /// The leaders before and after, and their terms.
    pub before: (u64, u64),
    #[allow(missing_docs)]
    pub after: (u64, u64),
    /// The whole run.
    pub report: Report,
}

/// The leader's process dies, and does not come back before another leads.
pub fn leader_dies(seed: u64, voters: u64, loss: u64) -> Result<Outcome, Violation> {
    let mut world = world(seed, Plan { loss, ..Plan::calm(voters) });
    let before = settle(&mut world)?;
    kill(&mut world, before.0);
    let (steps, after) = wait_for(&mut world, "another leader", |id| id != before.0)?;
    Ok(Outcome { steps, before, after, report: world.finish()? })
}

/// The links between the leader and a follower are reset, and others cannot be made; both still reach the rest.
pub fn follower_loses_leader(seed: u64, voters: u64) -> Result<Outcome, Violation> {
    let mut world = world(seed, Plan::calm(voters));
    let before = settle(&mut world)?;
    let follower = before.0 % voters + 1;
    for (a, b) in [(follower, before.0), (before.0, follower)] {
        let mut network = world.network.borrow_mut();
        network.reset(a, b);
        network.cut(a, b);
    }
    let steps = 3 * PATIENCE / 10;
    for _ in 0..steps {
        world.step(false)?;
    }
    let after = leader(&world).unwrap_or_default();
    Ok(Outcome { steps, before, after, report: world.finish()? })
}

/// One member should lead. It does; it dies, and another leads; it comes back, and leads.
pub fn preferred_member_leads(seed: u64, voters: u64) -> Result<Outcome, Violation> {
    let preferred = voters;
    let mut world = world(seed, Plan { preferred: Some(preferred), ..Plan::calm(voters) });
    let (_, before) = wait_for(&mut world, "the preferred member leads", |id| id == preferred)?;
    for _ in 0..SETTLED {
        world.step(false)?;
    }
    kill(&mut world, preferred);
    let (steps, after) = wait_for(&mut world, "another leader", |id| id != preferred)?;
    if let Some(computer) = world.computers.get_mut(&preferred) {
        computer.down_until = world.now;
    }
    wait_for(&mut world, "the preferred member leads again", |id| id == preferred)?;
    Ok(Outcome { steps, before, after, report: world.finish()? })
}

fn world(seed: u64, plan: Plan) -> World {
    World::with(plan, Random::new(seed, 0), seed, None, false)
}

/// The leader and its term.
fn leader(world: &World) -> Option<(u64, u64)> {
    let computer = world.leader()?;
    computer.member.as_ref().map(|member| (computer.id, member.status().term))
}

/// Lets a leader come, and others get to know it.
fn settle(world: &mut World) -> Result<(u64, u64), Violation> {
    for _ in 0..SETTLED {
        world.step(false)?;
    }
    wait_for(world, "a leader", |_| true).map(|(_, leader)| leader)
}

fn kill(world: &mut World, id: u64) {
    world.crash(id, false, "is killed");
    if let Some(computer) = world.computers.get_mut(&id) {
        computer.down_until = u64::MAX;
    }
}

/// Steps until somebody leads who should, and who does.
fn wait_for(
    world: &mut World,
    what: &str,
    is_it: impl Fn(u64) -> bool,
) -> Result<(u64, (u64, u64)), Violation> {
    for steps in 0..PATIENCE {
        if let Some(leader) = leader(world).filter(|(id, _)| is_it(*id)) {
            return Ok((steps, leader));
        }
        world.step(false)?;
    }
    Err(Violation::NotLive { steps: PATIENCE, what: format!("there is still to come: {what}") })
}
