//! Whether a cluster can still decide anything without one of its members.

use std::collections::BTreeSet;

use consensus_proto::etcdserverpb::Member;

/// The voters that would be left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quorum {
    pub(crate) voters: usize,
    /// Those of them that answer now.
    pub(crate) answering: usize,
}

impl Quorum {
    /// After `removed` is gone, if only `answering` members work.
    pub(crate) fn without(members: &[Member], answering: &BTreeSet<u64>, removed: u64) -> Self {
        let left = members.iter().filter(|member| !member.is_learner && member.id != removed);
        let (up, down): (Vec<_>, Vec<_>) = left.partition(|member| answering.contains(&member.id));
        Self { voters: up.len() + down.len(), answering: up.len() }
    }

    /// How many have to answer.
    pub(crate) fn needed(&self) -> usize {
        self.voters / 2 + 1
    }

    pub(crate) fn holds(&self) -> bool {
        self.answering >= self.needed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_has_to_have_a_majority_that_answers() {
        let member = |id, is_learner| Member { id, is_learner, ..Default::default() };
        let members: Vec<_> = (1..=3).map(|id| member(id, false)).chain([member(4, true)]).collect();
        let holds = |answering: &[u64], removed| {
            Quorum::without(&members, &answering.iter().copied().collect(), removed).holds()
        };
        assert!(holds(&[1, 2, 3], 3));
        assert!(holds(&[1, 2], 3), "the one that is down goes");
        assert!(!holds(&[1, 2], 2), "1 and 3 are left, and 3 is down");
        assert!(!holds(&[1, 4], 3), "a learner has no vote");
        assert!(holds(&[1, 2], 4), "nor is its going a loss");
        assert!(!Quorum::without(&members[..1], &BTreeSet::from([1]), 1).holds(), "nobody is left");
    }
}
