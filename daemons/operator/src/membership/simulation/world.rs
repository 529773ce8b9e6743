//! The model: pods, volumes, members, and what happens to them by itself.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::membership::{Goal, Health, Member, Pod, Step, View, Votes};

/// How long a restarted pod has to do well.
pub(super) const BAKE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModelPod {
    runs: bool,
    outdated: bool,
    baked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ModelMember {
    id: u64,
    ordinal: u16,
    started: bool,
    learner: bool,
    has_data: bool,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    bootstrapped: bool,
    pods_wanted: u16,
    pods: BTreeMap<u16, ModelPod>,
    /// Whose data is on the volume of a pod.
    volumes: BTreeMap<u16, u64>,
    members: Vec<ModelMember>,
    leader: Option<u64>,
    deaths_left: u8,
    losses_left: u8,
    /// Pods that are not outdated do not start.
    pub(super) is_broken: bool,
    /// Somebody has died whose return is still to come, so that not everybody dies.
    away: Option<u16>,
}

impl World {
    /// A StatefulSet that was just made.
    pub(super) fn empty(voters: u16) -> Self {
        let pod = ModelPod { runs: false, outdated: false, baked: false };
        Self {
            bootstrapped: false,
            pods_wanted: voters,
            pods: (0..voters).map(|n| (n, pod)).collect(),
            volumes: BTreeMap::new(),
            members: Vec::new(),
            leader: None,
            deaths_left: 0,
            losses_left: 0,
            is_broken: false,
            away: None,
        }
    }

    /// A store of so many members, of which the first leads.
    pub(super) fn running(voters: u16) -> Self {
        let pod = ModelPod { runs: true, outdated: false, baked: true };
        Self {
            bootstrapped: true,
            pods: (0..voters).map(|n| (n, pod)).collect(),
            volumes: (0..voters).map(|n| (n, first_id(n))).collect(),
            members: (0..voters).map(ModelMember::first).collect(),
            leader: Some(first_id(0)),
            ..Self::empty(voters)
        }
    }

    /// The same, and a new version is to be rolled out.
    pub(super) fn outdated(voters: u16) -> Self {
        let mut world = Self::running(voters);
        world.pods.values_mut().for_each(|pod| pod.outdated = true);
        world
    }

    /// So many pods may die, and so many volumes be lost.
    pub(super) fn with_troubles(self, deaths: u8, losses: u8) -> Self {
        Self { deaths_left: deaths, losses_left: losses, ..self }
    }

    /// The version before is to run again.
    pub(super) fn taken_back(mut self) -> Self {
        self.is_broken = false;
        self.pods.values_mut().for_each(|pod| pod.outdated = !pod.outdated);
        self
    }

    fn answers(&self, member: &ModelMember) -> bool {
        member.started
            && self.pods.get(&member.ordinal).is_some_and(|pod| pod.runs)
            && self.volumes.get(&member.ordinal) == Some(&member.id)
    }

    fn is_well(&self, member: &ModelMember) -> bool {
        self.answers(member) && member.has_data
    }

    fn has_quorum(&self) -> bool {
        self.votes().spare() >= 0
    }

    /// A pod, to compare.
    pub(super) fn pod(&self, ordinal: u16) -> Option<impl PartialEq + use<>> {
        self.pods.get(&ordinal).copied()
    }

    pub(super) fn votes(&self) -> Votes {
        let voters = self.members.iter().filter(|member| !member.learner);
        Votes { voters: voters.clone().count(), well: voters.filter(|voter| self.is_well(voter)).count() }
    }

    pub(super) fn learners(&self) -> usize {
        self.members.iter().filter(|member| member.learner).count()
    }

    pub(super) fn leads(&self, step: Step) -> bool {
        matches!(step, Step::Remove(id) if self.leader == Some(id))
    }

    /// What the operator sees.
    pub(super) fn view(&self) -> View {
        let member = |member: &ModelMember| Member {
            id: member.id,
            ordinal: member.ordinal,
            started: member.started,
            learner: member.learner,
            leader: self.leader == Some(member.id),
            health: match (self.answers(member), member.has_data) {
                (false, _) => Health::Away,
                (true, false) => Health::Behind,
                (true, true) => Health::Well,
            },
            volume_lost: member.started && self.volumes.get(&member.ordinal) != Some(&member.id),
        };
        let pod = |pod: &ModelPod| Pod {
            outdated: pod.outdated,
            ready: pod.runs,
            ready_for: if pod.baked { BAKE } else { Duration::ZERO },
        };
        // Without anybody who answers, nobody says who the members are.
        let can_ask = self.members.iter().any(|member| self.answers(member));
        View {
            bootstrapped: self.bootstrapped,
            pods_wanted: self.pods_wanted,
            pods: self.pods.iter().map(|(n, p)| (*n, pod(p))).collect(),
            members: if can_ask { self.members.iter().map(member).collect() } else { Vec::new() },
        }
    }

    /// The state after a step, which the store and the API server do as they are told, if it means anything to them.
    pub(super) fn apply(&self, step: Step) -> Self {
        let mut world = self.clone();
        // Changes of members go through the log.
        let decides = self.has_quorum() && self.leader.is_some();
        match step {
            Step::RecordBegin(_) => world.bootstrapped = true,
            Step::SetPods(count) => world.set_pods(count),
            Step::AddLearner(ordinal) if decides => world.add(ordinal),
            Step::Promote(id) if decides => {
                world
                    .members
                    .iter_mut()
                    .filter(|member| member.id == id)
                    .for_each(|member| member.learner = false);
            }
            Step::Remove(id) if decides => {
                world.members.retain(|member| member.id != id);
                world.leader = world.leader.filter(|leader| *leader != id);
            }
            Step::MoveLeader { to, .. } if decides && world.may_lead(to) => world.leader = Some(to),
            Step::RestartPod(ordinal) => {
                if let Some(pod) = world.pods.get_mut(&ordinal) {
                    *pod = ModelPod { runs: false, outdated: false, baked: false };
                }
            }
            _ => {}
        }
        world.settle()
    }

    fn set_pods(&mut self, count: u16) {
        self.pods_wanted = count;
        self.pods.retain(|ordinal, _| *ordinal < count);
        for ordinal in 0..count {
            self.pods.entry(ordinal).or_insert(ModelPod { runs: false, outdated: false, baked: false });
        }
    }

    fn add(&mut self, ordinal: u16) {
        if self.members.iter().any(|member| member.ordinal == ordinal) {
            return; // its URL is taken
        }
        // The highest that there ever was at this pod, and one more: as few different ids as can be.
        let old = self.volumes.get(&ordinal).copied().unwrap_or(first_id(ordinal));
        let id = old + 1;
        self.members.push(ModelMember { id, ordinal, started: false, learner: true, has_data: false });
        self.members.sort_by_key(|member| member.ordinal);
    }

    fn may_lead(&self, id: u64) -> bool {
        self.members.iter().any(|member| member.id == id && !member.learner && self.is_well(member))
    }

    /// A leader that is gone leads no more.
    fn settle(mut self) -> Self {
        self.leader = self.leader.filter(|id| self.may_lead(*id)).filter(|_| self.has_quorum());
        self
    }

    /// Everything that gets better by itself, one thing at a time.
    pub(super) fn progress(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for ordinal in self.pods.keys() {
            all.extend(self.starts(*ordinal));
        }
        for (at, member) in self.members.iter().enumerate() {
            if self.answers(member) && !member.has_data && self.leader.is_some() {
                let mut world = self.clone();
                world.members[at].has_data = true;
                all.push(world);
            }
        }
        if self.leader.is_none() && self.has_quorum() && !self.members.is_empty() {
            for member in self.members.iter().filter(|member| self.may_lead(member.id)) {
                all.push(Self { leader: Some(member.id), ..self.clone() });
            }
        }
        for (ordinal, _) in self.pods.iter().filter(|(_, pod)| pod.runs && !pod.baked) {
            let mut world = self.clone();
            world.pods.entry(*ordinal).and_modify(|pod| pod.baked = true);
            all.push(world);
        }
        all
    }

    /// A pod starts, if it can: as a member of the first ones, with its data, or as one that was added.
    fn starts(&self, ordinal: u16) -> Option<Self> {
        let pod = self.pods.get(&ordinal)?;
        if pod.runs || (self.is_broken && !pod.outdated) {
            return None;
        }
        let mut world = self.clone();
        let volume = self.volumes.get(&ordinal).copied();
        let at = self.members.iter().position(|member| member.ordinal == ordinal);
        match (at, volume) {
            (None, None) if !self.bootstrapped => {
                world.members.push(ModelMember::first(ordinal));
                world.members.sort_by_key(|member| member.ordinal);
                world.volumes.insert(ordinal, first_id(ordinal));
            }
            (Some(at), _) if self.members[at].id == volume.unwrap_or(0) => {}
            (Some(at), _) if !self.members[at].started => {
                world.members[at].started = true;
                world.volumes.insert(ordinal, self.members[at].id);
            }
            // It is no member, or has lost what it was.
            _ => return None,
        }
        world.pods.insert(ordinal, ModelPod { runs: true, ..*pod });
        world.away = world.away.filter(|away| *away != ordinal);
        Some(world)
    }

    /// Everything that goes wrong by itself, one thing at a time.
    pub(super) fn trouble(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for (ordinal, pod) in self.pods.iter().filter(|_| self.away.is_none()) {
            if self.deaths_left > 0 && pod.runs {
                let mut world = self.clone();
                world.deaths_left -= 1;
                world.away = Some(*ordinal);
                world.pods.insert(*ordinal, ModelPod { runs: false, baked: false, ..*pod });
                all.push(world.settle());
            }
            // What nobody has any more cannot be brought back.
            let mut lost = self.clone();
            lost.volumes.remove(ordinal);
            lost.pods.insert(*ordinal, ModelPod { runs: false, baked: false, ..*pod });
            if self.losses_left > 0 && self.volumes.contains_key(ordinal) && lost.can_go_on() {
                lost.losses_left -= 1;
                all.push(lost.settle());
            }
        }
        all
    }

    /// A quorum of the voters has its volumes, so that it does well again one day.
    fn can_go_on(&self) -> bool {
        let voters = self.members.iter().filter(|member| !member.learner);
        let kept =
            voters.clone().filter(|m| m.has_data && self.volumes.get(&m.ordinal) == Some(&m.id)).count();
        kept > voters.count() / 2
    }

    /// Everything is as it should be.
    pub(super) fn is_as(&self, goal: &Goal) -> bool {
        let voters: Vec<_> =
            self.members.iter().filter(|member| !member.learner).map(|m| m.ordinal).collect();
        voters == (0..goal.voters).collect::<Vec<_>>()
            && self.learners() == 0
            && self.pods_wanted == goal.voters
            && self.pods.values().all(|pod| !pod.outdated && pod.runs)
            && self.votes().well == voters.len()
    }
}

impl ModelMember {
    fn first(ordinal: u16) -> Self {
        Self { id: first_id(ordinal), ordinal, started: true, learner: false, has_data: true }
    }
}

/// Ids say whose they are.
fn first_id(ordinal: u16) -> u64 {
    (u64::from(ordinal) + 1) * 100
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.pods_wanted)?;
        for (ordinal, pod) in &self.pods {
            let runs = if pod.runs { "+" } else { "-" };
            let (old, baked) = (if pod.outdated { "o" } else { "" }, if pod.baked { "b" } else { "" });
            write!(f, " {ordinal}{runs}{old}{baked}({})", self.volumes.get(ordinal).unwrap_or(&0))?;
        }
        write!(f, " |")?;
        for member in &self.members {
            let kind = if member.learner { "learner" } else { "voter" };
            let data = if member.has_data { "" } else { " empty" };
            let leads = if self.leader == Some(member.id) { "*" } else { "" };
            write!(f, " {}{leads}={kind}@{}{data}", member.id, member.ordinal)?;
        }
        Ok(())
    }
}
