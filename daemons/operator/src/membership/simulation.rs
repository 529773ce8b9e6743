//! Every state that a region can get into, and what the operator does there.
//!
//! A model of the store and of the StatefulSet takes each step in each state: done, refused (nothing happens), or done with the
//! answer lost, which is the same as killed afterwards, since the operator remembers nothing. It also takes steps that were
//! decided on before something else happened. The model's store checks nothing: what the operator gets wrong shows.

mod world;

use std::collections::{HashMap, HashSet, VecDeque};

use world::World;

use super::{Decision, Goal, Member, Step, View, decide};
use crate::api::Reason;

/// More states than any of the cases has.
const STATES_MAX: usize = 3_000_000;
/// Rounds in which everything that can get better does so.
const ROUNDS_MAX: usize = 100;

/// What goes wrong in a case.
#[derive(Clone, Copy, Debug, Default)]
struct Troubles {
    /// Pods that die, at any time, and come back.
    deaths: u8,
    /// Volumes that are lost, at any time.
    losses: u8,
}

type Decider = fn(&View, &Goal) -> Decision;

fn goal(voters: u16) -> Goal {
    Goal { voters, allow_no_spare: false, bake: world::BAKE }
}

/// Visits every state that can be reached, and checks each step and each way to the end. Gives the number of states, or what is
/// wrong.
fn explore(begin: World, goal: &Goal, troubles: Troubles, decider: Decider) -> Result<usize, String> {
    let begin = begin.with_troubles(troubles.deaths, troubles.losses);
    let mut seen: HashMap<World, Option<World>> = HashMap::from([(begin.clone(), None)]);
    let mut queue = VecDeque::from([begin]);
    let mut converging = HashSet::new();
    while let Some(world) = queue.pop_front() {
        let fail = |seen: &HashMap<World, Option<World>>, what: String| {
            let mut way = vec![format!("{world}")];
            let mut at = &world;
            while let Some(Some(before)) = seen.get(at) {
                way.push(format!("{before}"));
                at = before;
            }
            way.reverse();
            Err(format!("{what}\n{}", way.join("\n")))
        };
        let decision = decider(&world.view(), goal);
        let mut next = Vec::new();
        if let Some(step) = decision.step {
            // At once, and after anything else that happens by itself.
            let befores = [world.clone()].into_iter().chain(world.progress());
            for before in befores.filter(|before| is_still_about(step, &world, before)) {
                let after = before.apply(step);
                if let Err(what) = check(&before, &after, step, goal, before == world) {
                    return fail(&seen, format!("{step:?}: {what}: {before} -> {after}"));
                }
                next.push(after);
            }
        }
        next.extend(world.progress());
        next.extend(world.trouble());
        if let Err(what) = converges(&world, goal, decider, &mut converging) {
            return fail(&seen, what);
        }
        for state in next {
            if !seen.contains_key(&state) {
                seen.insert(state.clone(), Some(world.clone()));
                queue.push_back(state);
            }
        }
        if seen.len() > STATES_MAX {
            return Err(format!("more than {STATES_MAX} states"));
        }
    }
    Ok(seen.len())
}

/// A pod is deleted only if it is as it was when that was decided on: the API server compares versions.
fn is_still_about(step: Step, decided_on: &World, now: &World) -> bool {
    !matches!(step, Step::RestartPod(ordinal) if decided_on.pod(ordinal) != now.pod(ordinal))
}

/// What must hold of a step.
fn check(before: &World, after: &World, step: Step, goal: &Goal, is_fresh: bool) -> Result<(), String> {
    let (old, new) = (before.votes(), after.votes());
    let is_alone = old.voters == 1 && matches!(step, Step::RestartPod(_));
    if old.spare() >= 0 && new.spare() < 0 && !is_alone {
        return Err(format!("takes the quorum away: {old:?} -> {new:?}"));
    }
    let changes_votes = !matches!(step, Step::RestartPod(_));
    if is_fresh && changes_votes && !goal.allow_no_spare && old.spare() >= 1 && new.spare() < 1 {
        return Err(format!("leaves nobody to spare: {old:?} -> {new:?}"));
    }
    if old.voters.abs_diff(new.voters) > 1 {
        return Err("changes two votes at a time".to_owned());
    }
    if after.learners() > 1 {
        return Err("two learners at a time".to_owned());
    }
    if matches!(step, Step::Remove(_)) && is_fresh && before.leads(step) {
        return Err("removes the leader".to_owned());
    }
    Ok(())
}

/// Without further trouble, everything comes to be as it should.
fn converges(from: &World, goal: &Goal, decider: Decider, known: &mut HashSet<World>) -> Result<(), String> {
    let mut world = from.clone();
    let mut way = Vec::new();
    for _ in 0..ROUNDS_MAX {
        while let Some(better) = world.progress().into_iter().next() {
            world = better;
        }
        if known.contains(&world) {
            break;
        }
        way.push(world.clone());
        let decision = decider(&world.view(), goal);
        match decision.step {
            Some(step) => world = world.apply(step),
            None if decision.is_done() && world.is_as(goal) => break,
            None if world.is_broken => break, // it waits for somebody to take the version back
            None => return Err(format!("stuck with {decision:?} from {from} at {world}")),
        }
        if way.len() == ROUNDS_MAX {
            return Err(format!("no end from {from}: at {world}, {decision:?}"));
        }
    }
    known.extend(way);
    Ok(())
}

fn explored(begin: World, goal: &Goal, troubles: Troubles) -> usize {
    explore(begin, goal, troubles, decide).unwrap_or_else(|what| panic!("{what}"))
}

#[test]
fn a_store_begins() {
    for voters in [1, 3] {
        let states = explored(World::empty(voters), &goal(voters), Troubles { deaths: 1, losses: 0 });
        println!("0 -> {voters}: {states} states");
    }
}

#[test]
fn members_come_one_at_a_time() {
    for (from, to) in [(1, 3), (3, 5), (3, 7)] {
        let states = explored(World::running(from), &goal(to), Troubles { deaths: 2, losses: 0 });
        println!("{from} -> {to}: {states} states");
    }
}

#[test]
fn members_go_one_at_a_time() {
    for (from, to) in [(5, 3), (7, 3)] {
        let states = explored(World::running(from), &goal(to), Troubles { deaths: 2, losses: 0 });
        println!("{from} -> {to}: {states} states");
    }
    let allowed = Goal { allow_no_spare: true, ..goal(1) };
    let states = explored(World::running(3), &allowed, Troubles::default());
    println!("3 -> 1, allowed: {states} states");
}

#[test]
fn from_three_to_one_needs_to_be_allowed() {
    let decision = decide(&World::running(3).view(), &goal(1));
    assert_eq!((decision.step, decision.reason), (None, Reason::NoSpare), "{}", decision.message);
}

#[test]
fn a_lost_volume_is_replaced() {
    for (from, to) in [(3, 3), (3, 5), (5, 3)] {
        let states = explored(World::running(from), &goal(to), Troubles { deaths: 1, losses: 2 });
        println!("{from} -> {to} with losses: {states} states");
    }
}

#[test]
fn versions_are_rolled_out_one_at_a_time() {
    for voters in [1, 3, 5] {
        let states = explored(World::outdated(voters), &goal(voters), Troubles { deaths: 2, losses: 0 });
        println!("upgrade of {voters}: {states} states");
    }
    for to in [3, 5] {
        let states = explored(World::outdated(3), &goal(to), Troubles { deaths: 1, losses: 1 });
        println!("upgrade of 3 to {to} with a loss: {states} states");
    }
}

#[test]
fn leaders_are_last() {
    let mut world = World::outdated(3);
    let mut restarted = Vec::new();
    loop {
        while let Some(better) = world.progress().into_iter().next() {
            world = better;
        }
        match decide(&world.view(), &goal(3)).step {
            Some(Step::RestartPod(ordinal)) => {
                restarted.push(ordinal);
                world = world.apply(Step::RestartPod(ordinal));
            }
            Some(step) => world = world.apply(step),
            None => break,
        }
    }
    assert_eq!(restarted, [2, 1, 0], "the first one leads");
}

#[test]
fn a_version_that_does_not_start_costs_one_pod_and_is_taken_back() {
    let mut world = World::outdated(3);
    world.is_broken = true;
    let mut steps = Vec::new();
    for _ in 0..ROUNDS_MAX {
        while let Some(better) = world.progress().into_iter().next() {
            world = better;
        }
        let Some(step) = decide(&world.view(), &goal(3)).step else { break };
        steps.push(step);
        world = world.apply(step);
    }
    assert_eq!(steps, [Step::RestartPod(2)], "the others wait");
    assert!(world.votes().spare() >= 0);
    let back = world.taken_back();
    assert_eq!(decide(&back.view(), &goal(3)).step, Some(Step::RestartPod(2)));
    explored(back, &goal(3), Troubles::default());
}

#[test]
fn planted_bugs_are_found() {
    /// Takes every learner for one that has the data.
    fn without_gate(view: &View, goal: &Goal) -> Decision {
        let learn = |member: &Member| {
            let health = if member.learner { super::Health::Well } else { member.health };
            Member { health, ..member.clone() }
        };
        decide(&View { members: view.members.iter().map(learn).collect(), ..view.clone() }, goal)
    }
    /// Takes every pod for one that has done well for long enough.
    fn without_health(view: &View, goal: &Goal) -> Decision {
        let well = |member: &Member| Member { health: super::Health::Well, ..member.clone() };
        let mut view = View { members: view.members.iter().map(well).collect(), ..view.clone() };
        for pod in view.pods.values_mut() {
            (pod.ready, pod.ready_for) = (true, world::BAKE);
        }
        decide(&view, goal)
    }
    /// Does not look at volumes.
    fn without_volumes(view: &View, goal: &Goal) -> Decision {
        let keep = |member: &Member| Member { volume_lost: false, ..member.clone() };
        decide(&View { members: view.members.iter().map(keep).collect(), ..view.clone() }, goal)
    }
    /// Removes a leader as it is.
    fn without_transfer(view: &View, goal: &Goal) -> Decision {
        let mut decision = decide(view, goal);
        if let (Some(Step::MoveLeader { from, .. }), Reason::ScalingDown) = (decision.step, decision.reason) {
            decision.step = Some(Step::Remove(from));
        }
        decision
    }
    let one_death = Troubles { deaths: 1, losses: 0 };
    let one_loss = Troubles { deaths: 0, losses: 1 };
    let found = |begin, voters, troubles, decider| explore(begin, &goal(voters), troubles, decider).err();
    for (name, found, says) in [
        (
            "catch-up gate",
            found(World::running(1), 3, Troubles::default(), without_gate as Decider),
            "quorum",
        ),
        ("health of others", found(World::outdated(3), 3, one_death, without_health), "quorum"),
        ("lost volumes", found(World::running(3), 3, one_loss, without_volumes), "stuck"),
        ("transfer", found(World::running(5), 3, one_death, without_transfer), "removes the leader"),
    ] {
        let found = found.unwrap_or_else(|| panic!("without {name}: nothing is found"));
        assert!(found.contains(says), "without {name}: {found}");
        println!("without {name}: {}", found.lines().next().unwrap_or_default());
    }
}

#[test]
fn trouble_is_bounded() {
    let quiet = World::running(3);
    assert_eq!(quiet.trouble().len(), 0);
    let world = quiet.with_troubles(1, 0);
    assert_eq!(world.trouble().len(), 3, "each of the pods");
}
