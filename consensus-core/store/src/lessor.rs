//! When leases end. Only the leader knows, and only while it leads: a new leader gives every lease its full time again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Deadlines of leases. Times are since some beginning of the host's.
#[derive(Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Running>,
    /// By deadline.
    deadlines: BTreeSet<(Duration, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    ttl: Duration,
    deadline: Duration,
    /// Its time was over once: it is being revoked, and cannot be renewed.
    expired: bool,
}

impl Lessor {
    /// A lease was granted, or its time begins anew.
    pub fn start(&mut self, id: i64, ttl: Duration, now: Duration) {
        self.stop(id);
        let deadline = now + ttl;
        self.leases.insert(id, Running { ttl, deadline, expired: false });
        self.deadlines.insert((deadline, id));
    }

    /// Every lease gets its full time again: whoever led before may have renewed it just now.
    pub fn restart_all(&mut self, now: Duration) {
        self.deadlines.clear();
        for (id, running) in &mut self.leases {
            (running.deadline, running.expired) = (now + running.ttl, false);
            self.deadlines.insert((running.deadline, *id));
        }
    }

    /// A lease is gone.
    pub fn stop(&mut self, id: i64) {
        if let Some(running) = self.leases.remove(&id) {
            self.deadlines.remove(&(running.deadline, id));
        }
    }

    /// Its holder is alive: the time begins anew. The time to live, or `None` if there is no such lease or its time is
    /// over, whether or not it has been revoked yet.
    pub fn renew(&mut self, id: i64, now: Duration) -> Option<Duration> {
        let running =
            self.leases.get(&id).copied().filter(|running| !running.expired && running.deadline > now)?;
        self.start(id, running.ttl, now);
        Some(running.ttl)
    }

    /// What is left of a lease's time.
    pub fn remaining(&self, id: i64, now: Duration) -> Option<Duration> {
        let running = self.leases.get(&id)?;
        Some(if running.expired { Duration::ZERO } else { running.deadline.saturating_sub(now) })
    }

    /// Since when some lease's time is over, if one's is.
    pub fn expired_at(&self, now: Duration) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline).filter(|deadline| *deadline <= now)
    }

    /// Up to `max` leases whose time is over. Each is asked about again after `retry`, in case its revocation gets lost.
    pub fn expired(&mut self, now: Duration, max: usize, retry: Duration) -> Vec<i64> {
        let due: Vec<_> =
            self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).take(max).copied().collect();
        for (deadline, id) in &due {
            self.deadlines.remove(&(*deadline, *id));
            self.deadlines.insert((now + retry, *id));
            if let Some(running) = self.leases.get_mut(id) {
                (running.deadline, running.expired) = (now + retry, true);
            }
        }
        due.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_lives_as_long_as_it_is_renewed() {
        let mut lessor = Lessor::default();
        lessor.start(7, 3 * S, S);
        assert_eq!(lessor.renew(7, 3 * S), Some(3 * S));
        assert!(lessor.expired(5 * S, 10, S).is_empty());
        assert_eq!(lessor.remaining(7, 5 * S), Some(S));
        assert_eq!(lessor.expired(6 * S, 10, S), [7]);
        assert_eq!(lessor.renew(7, 6 * S), None, "it is being revoked");
        assert_eq!(lessor.remaining(7, 6 * S), Some(Duration::ZERO));
    }

    #[test]
    fn a_revocation_that_gets_lost_is_asked_for_again() {
        let mut lessor = Lessor::default();
        lessor.start(1, S, Duration::ZERO);
        lessor.start(2, S, Duration::ZERO);
        assert_eq!(lessor.expired(S, 1, S), [1], "as many as asked for");
        assert_eq!(lessor.expired(S, 10, S), [2]);
        assert!(lessor.expired(S, 10, S).is_empty());
        lessor.stop(2);
        assert_eq!(lessor.expired(2 * S, 10, S), [1]);
    }
}
