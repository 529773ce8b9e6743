//! What the MTU of an uplink may be, and when it changes. Pure: time is an argument.

use std::{fmt, time::Duration};

/// How long an uplink stays raised that somebody does not agree with any more. Nothing larger is sent meanwhile; the others
/// need the time to hear of it, and a peer that begins anew is back.
pub const PUT_BACK_AFTER: Duration = Duration::from_secs(10);
/// For the interfaces of peers to be raised, too.
pub const RAISE_TIME_MAX: Duration = Duration::from_secs(30);
/// Before an uplink is raised again that was put back; doubled each time up to the longest. Cards lose their link for a
/// moment when their MTU changes.
pub const REST_MIN: Duration = Duration::from_secs(60);
/// The longest rest; and after so long with larger packets, the next is the shortest again.
pub const REST_MAX: Duration = Duration::from_secs(3600);

/// An uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its MTU before it was raised, or now if it is not.
    pub former: u32,
    /// Its MTU now.
    pub device: u32,
    /// The longest packets that anybody may send through it now.
    pub traffic: u32,
    /// The most that it may be raised to.
    pub limit: u32,
}

impl Uplink {
    /// Whether it is raised.
    pub fn is_raised(self) -> bool {
        self.device > self.former
    }
}

/// A peer that is reached through the uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// What its interface may be raised to, as it says; `None`: it does not take part.
    pub offered: Option<u32>,
    /// What its interface takes now, as it says.
    pub taken: Option<u32>,
    /// The largest IP packet that was seen to arrive there.
    pub carried: u32,
    /// Whether larger ones are still tried.
    pub is_searching: bool,
}

/// What an uplink should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The MTU of the interface.
    pub device: u32,
    /// The longest packets that may be sent through it.
    pub traffic: u32,
    /// Why not more.
    pub reason: Reason,
}

/// Why packets are as long as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It had what is wanted before.
    Already,
    /// Every path carries what all interfaces take.
    Carried {
        /// How many.
        peers: usize,
    },
    /// Nobody is reached through it.
    NoPeers,
    /// At so many addresses there should be a peer, and nobody knows its path.
    Missing(usize),
    /// A peer does not take part, or takes no more.
    Peer {
        /// Its name.
        name: String,
        /// What it takes.
        offered: Option<u32>,
    },
    /// A peer's interface is not raised yet.
    Waits {
        /// Its name.
        name: String,
    },
    /// A path is still being looked at.
    Searching {
        /// Whose.
        name: String,
    },
    /// A path carries no more.
    Path {
        /// Whose.
        name: String,
        /// What it carries.
        carried: u32,
    },
    /// It was put back, and rests.
    Rests,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Already => write!(f, "it is no less than is wanted"),
            Self::Carried { peers: 1 } => write!(f, "the path to the only peer carries it"),
            Self::Carried { peers } => write!(f, "the paths to all {peers} peers carry it"),
            Self::NoPeers => write!(f, "no peer is reached through it"),
            Self::Missing(1) => write!(f, "a peer is missing, of whose path nobody knows"),
            Self::Missing(count) => write!(f, "{count} peers are missing, of whose paths nobody knows"),
            Self::Peer { name, offered: None } => write!(f, "{name} does not raise its MTU"),
            Self::Peer { name, offered: Some(most) } => write!(f, "{name} takes {most} at most"),
            Self::Waits { name } => write!(f, "the interface of {name} is not raised yet"),
            Self::Searching { name } => write!(f, "the path to {name} is being measured"),
            Self::Path { name, carried } => write!(f, "the path to {name} carries {carried}"),
            Self::Rests => write!(f, "it was put back a while ago, and is not raised again so soon"),
        }
    }
}

/// What an uplink should be, given what all peers that are reached through it say, and what their paths have proved.
/// `missing`: peers of which nothing is known, wherever they are.
///
/// The interface is raised when all agree, for paths cannot be measured before; larger packets are sent through it when
/// all paths carry them. A peer that goes missing later takes nothing back: nothing was sent to it that it did not take.
pub fn plan(uplink: Uplink, peers: &[Peer], missing: usize) -> Plan {
    let Uplink { former, device, traffic, limit } = uplink;
    let back = |reason| Plan { device: former, traffic: former, reason };
    if limit <= former {
        return back(Reason::Already);
    }
    let Some(least) = peers.iter().min_by_key(|peer| peer.offered) else { return back(Reason::NoPeers) };
    let agreed = least.offered.unwrap_or(0).min(limit);
    if agreed <= former {
        return back(Reason::Peer { name: least.name.clone(), offered: least.offered });
    }
    let is_known = missing == 0 || traffic > former;
    if !uplink.is_raised() {
        let device = if is_known { agreed } else { former };
        let reason = match is_known {
            true => Reason::Waits { name: least.name.clone() },
            false => Reason::Missing(missing),
        };
        return Plan { device, traffic: former, reason };
    }
    let held = |reason| Plan { device, traffic: former, reason };
    if let Some(peer) = peers.iter().find(|peer| peer.taken.unwrap_or(0) < agreed) {
        return held(Reason::Waits { name: peer.name.clone() });
    }
    let worst = peers.iter().min_by_key(|peer| peer.carried).expect("there are peers");
    let reason = if worst.carried >= agreed {
        Reason::Carried { peers: peers.len() }
    } else if let Some(peer) = peers.iter().find(|peer| peer.is_searching) {
        // What is sent already goes on while larger packets are tried.
        let traffic = if worst.carried >= traffic { traffic.min(agreed) } else { former };
        return Plan { device, traffic, reason: Reason::Searching { name: peer.name.clone() } };
    } else if worst.carried <= former {
        return back(Reason::Path { name: worst.name.clone(), carried: worst.carried });
    } else {
        Reason::Path { name: worst.name.clone(), carried: worst.carried }
    };
    match is_known {
        true => Plan { device, traffic: worst.carried.min(agreed), reason },
        false => held(Reason::Missing(missing)),
    }
}

/// When an uplink follows its plan.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Since when it is to be put back.
    refused_at: Option<Duration>,
    /// Since when it waits for others.
    waits_at: Option<Duration>,
    /// Since when larger packets are sent.
    carried_at: Option<Duration>,
    rest: Duration,
    rests_until: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refused_at: None,
            waits_at: None,
            carried_at: None,
            rest: REST_MIN,
            rests_until: Duration::ZERO,
        }
    }
}

impl Pace {
    /// Whether it is not to be raised now, whatever others say.
    pub fn rests(&self, now: Duration) -> bool {
        now < self.rests_until
    }

    /// What of the plan is due now.
    pub fn follow(&mut self, now: Duration, uplink: Uplink, mut plan: Plan) -> Plan {
        let Uplink { former, device, .. } = uplink;
        if !uplink.is_raised() {
            (self.refused_at, self.waits_at, self.carried_at) = (None, None, None);
            if plan.device > former && self.rests(now) {
                (plan.device, plan.reason) = (former, Reason::Rests);
            }
            return plan;
        }
        let waits_at = match plan.reason {
            Reason::Waits { .. } => Some(*self.waits_at.get_or_insert(now)),
            _ => None,
        };
        self.waits_at = waits_at;
        if waits_at.is_some_and(|at| now >= at + RAISE_TIME_MAX) {
            plan.device = former;
        }
        if plan.traffic > former {
            let carried_at = *self.carried_at.get_or_insert(now);
            if now >= carried_at + REST_MAX {
                self.rest = REST_MIN;
            }
        } else {
            self.carried_at = None;
        }
        if plan.device > former {
            self.refused_at = None;
            return plan;
        }
        if now < *self.refused_at.get_or_insert(now) + PUT_BACK_AFTER {
            plan.device = device;
            return plan;
        }
        self.rests_until = now + self.rest;
        self.rest = (self.rest * 2).min(REST_MAX);
        plan
    }

    /// Whether it is about to be put back: then others should not count on it.
    pub fn is_leaving(&self) -> bool {
        self.refused_at.is_some()
    }
}

#[cfg(test)]
mod tests;
