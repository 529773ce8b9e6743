//! The trouble that promises of voters are for, which chance alone hardly ever brings about: a rival that has not heard the leader
//! for long asks those for votes who have just promised the leader not to give any, and who have just been restarted.

use crate::{plan::Plan, random::Random};

/// Steps until everybody has what was written.
const QUIET: u64 = 12;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// Nobody writes any more, or the rival would lack entries when its time has come.
    Hush,
    /// A rival does not hear the leader any more, nor the leader the rival.
    Part(u64, u64),
    /// Nobody hears the leader any more, and all others but the rival are restarted.
    Fall { leader: u64, rival: u64 },
    /// It is over.
    Mend,
}

impl Blow {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hush => "nobody writes",
            Self::Part(..) => "a rival does not hear the leader",
            Self::Fall { .. } => "nobody hears the leader, the others restart",
            Self::Mend => "the leader is heard again",
        }
    }
}

pub(crate) struct Ambush {
    random: Random,
    /// The next blow, and its step.
    next: Option<(u64, Blow)>,
}

impl Ambush {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, 5), next: None }
    }

    /// The blow of this step, if there is one.
    pub(crate) fn next(&mut self, now: u64, plan: &Plan, leader: Option<u64>, ids: &[u64]) -> Option<Blow> {
        let election = plan.election_ticks as u64;
        let Some((_, blow)) = self.next.take_if(|(step, _)| *step <= now) else {
            if self.next.is_some() || !self.random.per_mille(plan.ambushes) {
                return None;
            }
            let leader = leader?;
            let others: Vec<u64> = ids.iter().copied().filter(|id| *id != leader).collect();
            let rival = self.random.pick(&others)?;
            self.next = Some((now + QUIET, Blow::Part(leader, rival)));
            return Some(Blow::Hush);
        };
        self.next = match blow {
            Blow::Part(leader, rival) => {
                let fall = now + self.random.between(election, 2 * election);
                Some((fall, Blow::Fall { leader, rival }))
            }
            Blow::Fall { .. } => Some((now + 2 * election, Blow::Mend)),
            Blow::Hush | Blow::Mend => None,
        };
        Some(blow)
    }
}
