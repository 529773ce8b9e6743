//! From who the members are, and how they are, to the next thing to do. A function: nothing is remembered between two steps, so
//! an operator that was killed goes on wherever it was.
//!
//! Rules:
//!
//! 1. One change at a time: a learner that is there is a change that goes on, and nothing else begins before it has ended.
//! 2. A learner gets a vote once it has what the others have.
//! 3. No step takes a quorum away. None leaves the members with nobody to spare where there was one, unless a field allows it by
//!    name ([`Goal::allow_no_spare`]).
//! 4. A leader is moved before its member is removed or its pod restarted.
//! 5. Pods get another version one at a time: followers, the leader last, each after the one before has done well for a while. A
//!    pod that does not run at all is no loss, and gets it at once: that is how a version that does not start is taken back.
//! 6. While a quorum does not answer, nothing is done.
//!
//! Deliberately not here: asking the store and the API server ([`store`](crate::store), [`reconcile`](crate::reconcile)).

mod decide;
#[cfg(test)]
mod simulation;
pub mod version;

use std::{collections::BTreeMap, time::Duration};

use crate::api::Reason;
pub use decide::{decide, gates};

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It does not answer, or knows no leader.
    Away,
    /// It answers, and lacks much of what the leader has.
    Behind,
    /// It answers, and has what the others have.
    Well,
}

/// A member of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Who it is.
    pub id: u64,
    /// Its pod.
    pub ordinal: u16,
    /// It has run.
    pub started: bool,
    /// It has no vote.
    pub learner: bool,
    /// It leads.
    pub leader: bool,
    /// How it is.
    pub health: Health,
    /// The volume that had its data is not there any more.
    pub volume_lost: bool,
}

/// A member's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// It is not as the StatefulSet would make it now.
    pub outdated: bool,
    /// Its container runs and says that it is ready.
    pub ready: bool,
    /// For how long.
    pub ready_for: Duration,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The store has begun.
    pub bootstrapped: bool,
    /// How many pods the StatefulSet is to have.
    pub pods_wanted: u16,
    /// Its pods by number.
    pub pods: BTreeMap<u16, Pod>,
    /// The members as the store has agreed on them; none: it cannot be asked.
    pub members: Vec<Member>,
}

/// What is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Members with a vote, of the pods with the lowest numbers.
    pub voters: u16,
    /// Steps that leave nobody to spare are allowed.
    pub allow_no_spare: bool,
    /// How long a restarted member has to do well.
    pub bake: Duration,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write down that the store has begun with so many members.
    RecordBegin(u16),
    /// Have so many pods.
    SetPods(u16),
    /// Add a member without a vote for this pod.
    AddLearner(u16),
    /// Give this member a vote.
    Promote(u64),
    /// Have another member lead.
    MoveLeader {
        /// Who leads.
        from: u64,
        /// Who is to.
        to: u64,
    },
    /// Remove this member.
    Remove(u64),
    /// Delete this pod, which comes back as it should be.
    RestartPod(u16),
}

impl Step {
    /// As metrics and events call it.
    pub fn operation(self) -> &'static str {
        match self {
            Self::RecordBegin(_) => "begin",
            Self::SetPods(_) => "set_pods",
            Self::AddLearner(_) => "add_learner",
            Self::Promote(_) => "promote",
            Self::MoveLeader { .. } => "move_leader",
            Self::Remove(_) => "remove",
            Self::RestartPod(_) => "restart_pod",
        }
    }
}

/// What is done, or waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// At most one thing; `None`: wait, or there is nothing left to do.
    pub step: Option<Step>,
    /// What this is part of; [`Reason::AsSpecified`]: everything is done.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

impl Decision {
    fn do_now(step: Step, reason: Reason, message: String) -> Self {
        Self { step: Some(step), reason, message }
    }

    fn wait(reason: Reason, message: String) -> Self {
        Self { step: None, reason, message }
    }

    /// There is nothing left to do.
    pub fn is_done(&self) -> bool {
        self.reason == Reason::AsSpecified
    }
}

/// Voters, and how many of them do well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Votes {
    /// Members with a vote.
    pub voters: usize,
    /// Those of them that do well.
    pub well: usize,
}

impl Votes {
    /// As the members are now.
    pub fn of(members: &[Member]) -> Self {
        let voters = members.iter().filter(|member| !member.learner);
        Self { voters: voters.clone().count(), well: voters.filter(|voter| voter.is_well()).count() }
    }

    /// How many have to agree.
    pub fn quorum(self) -> usize {
        self.voters / 2 + 1
    }

    /// How many of those that do well can be lost; negative: there is no quorum.
    pub fn spare(self) -> isize {
        self.well as isize - self.quorum() as isize
    }
}

impl Member {
    /// Whether its vote can be counted on.
    pub fn is_well(&self) -> bool {
        self.health == Health::Well && !self.volume_lost
    }
}
