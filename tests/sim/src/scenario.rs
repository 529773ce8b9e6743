//! Directed runs: one thing happens, nothing else does, and what follows is known.
//!
//! An election timeout is 50 ticks here and a heartbeat 10, so that an election that waits for the timer takes long. Each run
//! ends as others do, with all that must hold whatever happens.

use consensus_core::sim::GROUP;
use consensus_raft::{MemberChange, MemberInfo, join};

use crate::{Mistake, Report, Violation, computer::Computer, plan::Plan, random::Random, world::World};

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

/// Steps that clients read from the lease of a leader that is alone: the learners have long since started.
const ALONE: u64 = 200;
/// Steps of a run in which others lead, and the leader of before is asked as well.
const LED_BY_TWO: u64 = 60;

/// A leader that is alone has a lease, for which nobody else has promised anything. Two learners become voters; as soon as they
/// know, they lose their links with it, elect one of themselves, and clients write there and ask the old leader as well.
pub fn lease_over_changes(seed: u64, mistake: Option<Mistake>) -> Result<Outcome, Violation> {
    let plan = Plan { leases: true, election_ticks: 100, clients: 5, ..Plan::calm(1) };
    let mut world = World::with(plan, Random::new(seed, 0), seed, mistake, false);
    let before = settle(&mut world)?;
    for id in [2, 3] {
        add_learner(&mut world, id, mistake);
        wait_until(&mut world, "a learner that has everything", |world| {
            let applied = |id| world.computers[&id].member.as_ref().map(|member| member.status().applied);
            knows(world, id, |membership| membership.is_learner(id)) && applied(id) == applied(1)
        })?;
    }
    world.clients.hushed = true;
    for _ in 0..ALONE {
        world.step(false)?;
    }
    // A round would tell the others that the leader has a lease.
    world.clients.rest(u64::MAX);
    for id in [2, 3] {
        ask_leader(&mut world, MemberChange::Promote { id });
        wait_until(&mut world, "another voter", |world| {
            (1..=id).all(|at| knows(world, at, |membership| membership.is_voter(id)))
        })?;
    }
    for other in [2, 3] {
        let mut network = world.network.borrow_mut();
        network.reset(other, 1);
        network.part(other, 1);
    }
    let (steps, after) = wait_for(&mut world, "another leader", |id| id != 1)?;
    world.clients.hushed = false;
    world.clients.rest(world.now);
    for _ in 0..LED_BY_TWO {
        world.step(false)?;
    }
    Ok(Outcome { steps, before, after, report: world.finish()? })
}

/// Steps that those who stay do not hear from a leader that is removed: no election timeout.
const DEAF: u64 = 30;

/// A leader is removed, and nobody who has made that committed hears that it is, for a while.
pub fn leader_is_removed(seed: u64, voters: u64) -> Result<Outcome, Violation> {
    let mut world = world(seed, Plan::calm(voters));
    let before = settle(&mut world)?;
    world.clients.rest(u64::MAX);
    wait_until(&mut world, "nobody asks for anything", |world| world.clients.is_idle())?;
    let last = |world: &World, id| world.computers[&id].member.as_ref().map(|member| member.status().last);
    let removal = last(&world, before.0).map(|last| last + 1);
    ask_leader(&mut world, MemberChange::Remove { id: before.0 });
    let others: Vec<u64> = (1..=voters).filter(|id| *id != before.0).collect();
    for _ in 0..DEAF {
        world.step(false)?;
        // What it answers is still on its way.
        let have = others.iter().filter(|id| last(&world, **id) >= removal);
        have.for_each(|id| world.network.borrow_mut().cut(before.0, *id));
    }
    world.network.borrow_mut().mend();
    let (steps, after) = wait_for(&mut world, "another leader", |id| id != before.0)?;
    wait_until(&mut world, "the removed one stops", |world| world.computers[&before.0].gone.is_some())?;
    Ok(Outcome { steps, before, after, report: world.finish()? })
}

/// Whether a member is up and this holds for the members that it knows.
fn knows(world: &World, at: u64, what: impl Fn(&consensus_raft::Membership) -> bool) -> bool {
    world.computers[&at].member.as_ref().is_some_and(|member| what(&member.membership()))
}

fn add_learner(world: &mut World, id: u64, mistake: Option<Mistake>) {
    let others = (1..=id).map(|id| (id, MemberInfo::default())).collect();
    let computer = Computer::new(id, join(GROUP, &others), &world.plan, mistake, &mut world.random);
    world.computers.insert(id, computer);
    ask_leader(world, MemberChange::Add { id, info: MemberInfo::default(), learner: true });
}

/// Nobody waits for the answer: what comes of it can be seen.
fn ask_leader(world: &mut World, change: MemberChange) {
    let request = world.clients.next_request();
    if let Some(member) = world.leader().and_then(|leader| leader.member.as_ref()) {
        drop(member.change_members(request, change));
    }
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
    let leads = |world: &World| leader(world).filter(|(id, _)| is_it(*id));
    let steps = wait_until(world, what, |world| leads(world).is_some())?;
    Ok((steps, leads(world).expect("it was waited for")))
}

/// Steps until something holds.
fn wait_until(world: &mut World, what: &str, holds: impl Fn(&World) -> bool) -> Result<u64, Violation> {
    for steps in 0..PATIENCE {
        if holds(world) {
            return Ok(steps);
        }
        world.step(false)?;
    }
    Err(Violation::NotLive { steps: PATIENCE, what: format!("there is still to come: {what}") })
}
