//! The next step.

use std::collections::BTreeMap;

use super::{Decision, Goal, Health, Member, Pod, Step, View, Votes};
use crate::api::Reason;

/// What to do next.
pub fn decide(view: &View, goal: &Goal) -> Decision {
    if let Some(decision) = rescue(view) {
        return decision;
    }
    if !view.bootstrapped {
        return begin(view);
    }
    if view.members.is_empty() {
        let message = "no member says who the members are".to_owned();
        return Decision::wait(Reason::StoreUnreachable, message);
    }
    if let Some(decision) = without_quorum(view) {
        return decision;
    }
    let rules: [fn(&View, &Goal) -> Option<Decision>; 6] =
        [go_on_with_learner, replace, add, remove, shrink, upgrade];
    rules.into_iter().find_map(|rule| rule(view, goal)).unwrap_or_else(|| finish(view))
}

/// For each pod: whether it is a member with a vote and what the others have.
pub fn gates(view: &View) -> BTreeMap<u16, bool> {
    let is = |ordinal| view.members.iter().any(|m| m.ordinal == ordinal && !m.learner && m.is_well());
    view.pods.keys().map(|ordinal| (*ordinal, is(*ordinal))).collect()
}

/// A pod that is not as it should be, and does not run: its member does nothing for the others, whatever becomes of the pod.
fn rescue(view: &View) -> Option<Decision> {
    let does_nothing = |ordinal| {
        view.members.iter().filter(|member| member.ordinal == ordinal).all(|m| m.health == Health::Away)
    };
    let (&ordinal, _) = view.pods.iter().find(|(n, pod)| pod.outdated && !pod.ready && does_nothing(**n))?;
    let message = format!("pod {ordinal} does not run, and is not as it should be");
    Some(Decision::do_now(Step::RestartPod(ordinal), Reason::Upgrading, message))
}

/// All first pods together make the first members.
fn begin(view: &View) -> Decision {
    let expected = usize::from(view.pods_wanted);
    let is_there = |ordinal| view.members.iter().any(|m| m.ordinal == ordinal && m.started && m.is_well());
    let there = (0..view.pods_wanted).filter(|ordinal| is_there(*ordinal)).count();
    let message = format!("{there} of {expected} members have started");
    if there == expected && view.members.len() == expected && expected > 0 {
        return Decision::do_now(Step::RecordBegin(view.pods_wanted), Reason::Bootstrapping, message);
    }
    Decision::wait(Reason::Bootstrapping, message)
}

fn without_quorum(view: &View) -> Option<Decision> {
    let votes = Votes::of(&view.members);
    let answering = voters(view).filter(|voter| voter.health != Health::Away).count();
    (answering < votes.quorum() || !view.members.iter().any(|member| member.leader)).then(|| {
        let message = format!("{answering} of {} voters answer, {} are needed", votes.voters, votes.quorum());
        Decision::wait(Reason::QuorumLost, message)
    })
}

fn go_on_with_learner(view: &View, goal: &Goal) -> Option<Decision> {
    let learner = view.members.iter().find(|member| member.learner)?;
    let (id, ordinal) = (learner.id, learner.ordinal);
    if ordinal >= goal.voters {
        let message = format!("pod {ordinal} is to be no member any more");
        return Some(Decision::do_now(Step::Remove(id), Reason::ScalingDown, message));
    }
    if learner.volume_lost {
        let message = format!("pod {ordinal} has lost its volume before it had a vote");
        return Some(Decision::do_now(Step::Remove(id), Reason::ReplacingMember, message));
    }
    if ordinal >= view.pods_wanted {
        let message = format!("pod {ordinal} is a member, and is to run");
        return Some(Decision::do_now(Step::SetPods(ordinal + 1), Reason::ScalingUp, message));
    }
    if !learner.is_well() {
        let message = format!("pod {ordinal} does not have what the others have yet");
        return Some(Decision::wait(Reason::CatchingUp, message));
    }
    let now = Votes::of(&view.members);
    let then = Votes { voters: now.voters + 1, well: now.well + 1 };
    let message = format!("pod {ordinal} has what the others have");
    Some(guarded(Step::Promote(id), Reason::ScalingUp, message, [now, then], goal))
}

/// A voter whose volume is lost must not come back as who it was: it has forgotten what it has promised.
fn replace(view: &View, goal: &Goal) -> Option<Decision> {
    let lost = voters(view).find(|voter| voter.volume_lost)?;
    let now = Votes::of(&view.members);
    let then = Votes { voters: now.voters - 1, ..now };
    let message = format!("the volume of pod {} is lost", lost.ordinal);
    Some(guarded(Step::Remove(lost.id), Reason::ReplacingMember, message, [now, then], goal))
}

fn add(view: &View, goal: &Goal) -> Option<Decision> {
    let has = |ordinal: &u16| view.members.iter().any(|member| member.ordinal == *ordinal);
    let ordinal = (0..goal.voters).find(|ordinal| !has(ordinal))?;
    // The store refuses it as well: one more makes a quorum harder to reach.
    if let Some(unwell) = voters(view).find(|voter| !voter.is_well()) {
        if unwell.ordinal >= goal.voters {
            return None; // it is to go anyway
        }
        let message = format!("pod {} does not do well, and another member waits for it", unwell.ordinal);
        return Some(Decision::wait(Reason::MemberUnhealthy, message));
    }
    let reason = if ordinal < view.pods_wanted { Reason::ReplacingMember } else { Reason::ScalingUp };
    Some(Decision::do_now(Step::AddLearner(ordinal), reason, format!("pod {ordinal} is to be a member")))
}

fn remove(view: &View, goal: &Goal) -> Option<Decision> {
    let surplus = voters(view).filter(|voter| voter.ordinal >= goal.voters);
    // First those that are of no use, then from the end.
    let goes = surplus.max_by_key(|voter| (!voter.is_well(), voter.ordinal))?;
    let (id, ordinal) = (goes.id, goes.ordinal);
    let now = Votes::of(&view.members);
    let then = Votes { voters: now.voters - 1, well: now.well - usize::from(goes.is_well()) };
    let message = format!("pod {ordinal} is to be no member any more");
    let decision = guarded(Step::Remove(id), Reason::ScalingDown, message, [now, then], goal);
    if goes.leader && decision.step.is_some() {
        return Some(move_leader(view, id, Reason::ScalingDown, |other| other.ordinal < goal.voters));
    }
    Some(decision)
}

fn shrink(view: &View, goal: &Goal) -> Option<Decision> {
    let used = view.members.iter().map(|member| member.ordinal + 1).max().unwrap_or(0).max(goal.voters);
    (view.pods_wanted > used).then(|| {
        let message = format!("pods from {used} on are no members any more");
        Decision::do_now(Step::SetPods(used), Reason::ScalingDown, message)
    })
}

fn upgrade(view: &View, goal: &Goal) -> Option<Decision> {
    let outdated = |ordinal: &u16| view.pods.get(ordinal).is_some_and(|pod| pod.outdated);
    let leader = view.members.iter().find(|member| member.leader)?;
    let follower = voters(view).filter(|v| !v.leader && outdated(&v.ordinal)).map(|v| v.ordinal).max();
    let ordinal = follower.or_else(|| Some(leader.ordinal).filter(outdated))?;
    if let Some(unwell) = view.members.iter().find(|member| !member.is_well()) {
        let message = format!("pod {} does not do well, and the next one waits for it", unwell.ordinal);
        return Some(Decision::wait(Reason::MemberUnhealthy, message));
    }
    if let Some((fresh, _)) = view.pods.iter().find(|(_, pod)| !pod.outdated && !is_baked(pod, goal)) {
        let message = format!("pod {fresh} has to do well for {:?} before the next one", goal.bake);
        return Some(Decision::wait(Reason::Baking, message));
    }
    let now = Votes::of(&view.members);
    // One that is alone has nobody who could stand in for it, and those who made it so know that.
    if now.spare() < 1 && now.voters > 1 && !goal.allow_no_spare {
        let message = format!("without pod {ordinal} there would be no quorum");
        return Some(Decision::wait(Reason::NoSpare, message));
    }
    if follower.is_none() && now.voters > 1 {
        return Some(move_leader(view, leader.id, Reason::Upgrading, |_| true));
    }
    let message = format!("pod {ordinal} is to run another version, or other settings");
    Some(Decision::do_now(Step::RestartPod(ordinal), Reason::Upgrading, message))
}

fn is_baked(pod: &Pod, goal: &Goal) -> bool {
    pod.ready && pod.ready_for >= goal.bake
}

fn finish(view: &View) -> Decision {
    let unwell = view.members.iter().find(|member| !member.is_well()).map(|member| member.ordinal);
    let missing = (0..view.pods_wanted).find(|ordinal| !view.pods.get(ordinal).is_some_and(|pod| pod.ready));
    if let Some(ordinal) = unwell.or(missing) {
        let message = format!("pod {ordinal} does not do well");
        return Decision::wait(Reason::MemberUnhealthy, message);
    }
    Decision::wait(Reason::AsSpecified, format!("{} members do well", view.members.len()))
}

fn voters(view: &View) -> impl Iterator<Item = &Member> + Clone {
    view.members.iter().filter(|member| !member.learner)
}

/// The step, if those who are left afterwards have a quorum, and somebody to spare where they had before.
fn guarded(step: Step, reason: Reason, message: String, [now, then]: [Votes; 2], goal: &Goal) -> Decision {
    let least = if goal.allow_no_spare { 0 } else { now.spare().clamp(0, 1) };
    if then.spare() >= least {
        return Decision::do_now(step, reason, message);
    }
    let message = format!(
        "{message}, which waits: of {} voters then, {} would do well, and {} are needed",
        then.voters,
        then.well,
        then.quorum()
    );
    Decision::wait(if then.spare() < 0 { Reason::MemberUnhealthy } else { Reason::NoSpare }, message)
}

fn move_leader(view: &View, from: u64, reason: Reason, fits: impl Fn(&Member) -> bool) -> Decision {
    let to = voters(view).filter(|voter| voter.id != from && voter.is_well() && fits(voter));
    match to.min_by_key(|voter| voter.ordinal) {
        Some(to) => {
            let message = format!("pod {} is to lead", to.ordinal);
            Decision::do_now(Step::MoveLeader { from, to: to.id }, reason, message)
        }
        None => Decision::wait(Reason::MemberUnhealthy, "nobody else could lead".to_owned()),
    }
}
