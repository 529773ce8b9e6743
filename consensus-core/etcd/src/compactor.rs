//! Compacts by itself: when, and to which revision. The leader's compactor proposes; those of the others wait.
//!
//! [`Compactor`] knows neither the store nor a clock. How often and what for is as in etcd 3.4, see "History compaction" in
//! its page on maintenance.

use std::{collections::VecDeque, time::Duration};

use consensus_core::Role;
use consensus_proto::{etcdserverpb::CompactionRequest, internal::internal_request::Request as Internal};
use consensus_store::{Caller, StoreError};

use crate::server::Server;

/// What is kept when a member compacts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AutoCompaction {
    /// What was there within this time. Compacts once in it, or every hour if it is longer.
    Periodic(Duration),
    /// So many revisions. Compacts every five minutes.
    Revisions(i64),
}

const HOUR: Duration = Duration::from_secs(3600);
/// Revisions are noted this many times between two compactions.
const NOTES: u32 = 10;
/// Between looks at how many revisions there are.
const REVISIONS_LOOK: Duration = Duration::from_secs(300);
/// With a time that is next to nothing, it still looks no more often than this.
const LOOK_MIN: Duration = Duration::from_millis(10);

impl AutoCompaction {
    /// Between two compactions.
    fn interval(self) -> Duration {
        match self {
            Self::Periodic(kept) => kept.min(HOUR),
            Self::Revisions(_) => REVISIONS_LOOK,
        }
    }

    /// Between two looks.
    fn look(self) -> Duration {
        match self {
            Self::Periodic(_) => (self.interval() / NOTES).max(LOOK_MIN),
            Self::Revisions(_) => REVISIONS_LOOK,
        }
    }
}

/// Decides to which revision a leader compacts.
#[derive(Debug)]
struct Compactor {
    keeps: AutoCompaction,
    /// The term in which it leads and what it knows is of.
    term: Option<u64>,
    /// When it was which revision, the oldest first: what is needed of the time that is kept.
    notes: VecDeque<(Duration, i64)>,
    /// Nothing is compacted before.
    next: Duration,
    last: i64,
}

impl Compactor {
    fn new(keeps: AutoCompaction) -> Self {
        Self { keeps, term: None, notes: VecDeque::new(), next: Duration::ZERO, last: 0 }
    }

    /// Takes note of the newest revision, and gives the one to compact to if it is time. A member that leads since another term
    /// begins anew: nobody knows what the one before had kept.
    fn look(&mut self, leads_in: Option<u64>, revision: i64, now: Duration) -> Option<i64> {
        if self.term != leads_in {
            self.term = leads_in;
            self.notes.clear();
            self.next = now + self.first_wait();
        }
        self.term?;
        let target = match self.keeps {
            AutoCompaction::Periodic(kept) => self.noted_before(kept, revision, now)?,
            AutoCompaction::Revisions(kept) => revision.saturating_sub(kept),
        };
        (now >= self.next && target > self.last).then_some(target)
    }

    /// The newest revision of those that are at least `kept` old.
    fn noted_before(&mut self, kept: Duration, revision: i64, now: Duration) -> Option<i64> {
        self.notes.push_back((now, revision));
        let is_old = |note: &(Duration, i64)| now.saturating_sub(note.0) >= kept;
        while self.notes.get(1).is_some_and(is_old) {
            self.notes.pop_front();
        }
        self.notes.front().filter(|note| is_old(note)).map(|(_, revision)| *revision)
    }

    /// The first time there is something to compact.
    fn first_wait(&self) -> Duration {
        match self.keeps {
            AutoCompaction::Periodic(kept) => kept,
            AutoCompaction::Revisions(_) => REVISIONS_LOOK,
        }
    }

    /// It is compacted to a revision. As long as nobody says so, the next look gives one again.
    fn compacted(&mut self, revision: i64, now: Duration) {
        self.last = revision;
        self.next = now + self.keeps.interval();
    }
}

/// Compacts for as long as the server runs.
pub(crate) async fn run(server: Server, keeps: AutoCompaction) {
    let mut compactor = Compactor::new(keeps);
    let mut look = tokio::time::interval(keeps.look());
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = server.closing() => return,
        }
        let shared = &server.shared;
        let status = shared.node.status();
        let leads_in = (status.role == Role::Leader).then_some(status.term);
        let (revision, now) = (shared.reader.revision(), shared.news.now());
        let Some(target) = compactor.look(leads_in, revision, now) else { continue };
        let request = Internal::Compaction(CompactionRequest { revision: target, physical: false });
        match server.commit(&Caller::Member, request).await {
            // Someone else may have compacted to a later one.
            Ok(Ok(_) | Err(StoreError::Compacted)) => {
                tracing::info!(revision = target, "compacted by itself");
                compactor.compacted(target, now);
            }
            Ok(Err(error)) => tracing::warn!(revision = target, %error, "not compacted: it is tried again"),
            Err(error) => tracing::warn!(revision = target, %error, "not compacted: it is tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for `seconds` as often as it should, with a revision a second; gives when it compacted, and to what.
    fn simulate(
        compactor: &mut Compactor,
        leads_in: Option<u64>,
        from: u64,
        seconds: u64,
    ) -> Vec<(u64, i64)> {
        let (mut now, end) = (Duration::from_secs(from), Duration::from_secs(from + seconds));
        let mut compactions = Vec::new();
        while now <= end {
            let revision = now.as_secs() as i64 + 1;
            if let Some(target) = compactor.look(leads_in, revision, now) {
                compactor.compacted(target, now);
                compactions.push((now.as_secs(), target));
            }
            now += compactor.keeps.look();
        }
        compactions
    }

    fn periodic(seconds: u64) -> Compactor {
        Compactor::new(AutoCompaction::Periodic(Duration::from_secs(seconds)))
    }

    #[test]
    fn less_than_an_hour_is_compacted_once_in_that_time() {
        let compactions = simulate(&mut periodic(600), Some(1), 0, 1860);
        assert_eq!(compactions, [(600, 1), (1200, 601), (1800, 1201)]);
    }

    #[test]
    fn more_than_an_hour_is_compacted_every_hour() {
        let compactions = simulate(&mut periodic(10 * 3600), Some(1), 0, 12 * 3600 + 60);
        assert_eq!(compactions, [(36_000, 1), (39_600, 3601), (43_200, 7201)]);
    }

    #[test]
    fn no_more_is_remembered_than_is_kept() {
        let mut compactor = periodic(10 * 3600);
        simulate(&mut compactor, Some(1), 0, 50 * 3600);
        assert!(compactor.notes.len() <= 102, "{}", compactor.notes.len());
    }

    #[test]
    fn who_does_not_lead_does_nothing_and_a_new_leader_begins_anew() {
        let mut compactor = periodic(600);
        assert_eq!(simulate(&mut compactor, None, 0, 1000), []);
        assert_eq!(simulate(&mut compactor, Some(1), 1000, 500), []);
        assert_eq!(simulate(&mut compactor, Some(2), 1500, 500), []);
        assert_eq!(simulate(&mut compactor, Some(2), 2040, 60), [(2100, 1501)]);
    }

    #[test]
    fn what_failed_is_tried_again_at_the_next_look() {
        let mut compactor = periodic(600);
        simulate(&mut compactor, Some(1), 0, 540);
        let at = |seconds| Duration::from_secs(seconds);
        assert_eq!(compactor.look(Some(1), 700, at(600)), Some(1));
        assert_eq!(compactor.look(Some(1), 700, at(660)), Some(61));
    }

    #[test]
    fn so_many_revisions_are_kept() {
        let mut compactor = Compactor::new(AutoCompaction::Revisions(1000));
        assert_eq!(simulate(&mut compactor, Some(1), 0, 1500), [(1200, 201), (1500, 501)]);
        // Nothing new: nothing to do.
        assert_eq!(compactor.look(Some(1), 1501, Duration::from_secs(9999)), None);
    }
}
