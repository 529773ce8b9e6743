//! Reads that ask the leader: which question they rest on, and asking again.
//!
//! Not here: what the leader does with a question (`consensus-raft`), and readers that wait until an index is applied
//! (`readers.rs`).

use std::mem;

use consensus_disk::Disk;
use consensus_raft::{Role, Status};

use super::{Host, Outbox};
use crate::inbox::Waiter;

/// Ticks after which a read that was not answered is asked for again.
const READ_RETRY_TICKS: u64 = 20;

/// Reads that were asked for together.
pub(crate) struct Asked {
    /// When for the last time.
    tick: u64,
    pub(super) waiters: Vec<Waiter<()>>,
}

impl<D: Disk, R, O: Outbox> Host<D, R, O> {
    /// All reads that came together rest on one question. Those that come while one is on its way to the leader wait for its
    /// answer, and rest on the next, unless it takes long. A leader's member does as much for all who ask it.
    pub(super) fn ask_to_read(&mut self, release: bool) {
        let Status { role, leader, term, .. } = self.member.status();
        let leader = leader.map(|leader| (leader, term));
        if self.asked_of != leader {
            self.asked_of = leader;
            // Those before it may have taken the questions with them.
            self.ask_again(|_| leader.is_some());
        }
        self.reads.retain(|waiter| !waiter.is_closed());
        self.reads_wait = false;
        if self.reads.is_empty() || leader.is_none() {
            return;
        }
        let leads = role == Role::Leader;
        if !self.asked.is_empty() && !release && !leads {
            self.reads_wait = true;
            return;
        }
        let waiters = mem::take(&mut self.reads);
        self.asked.insert(self.next_read, Asked { tick: self.ticks, waiters });
        self.ask(self.next_read);
    }

    /// Asks with a number that was never used before: an answer to a question of before must not be taken for one to this.
    fn ask(&mut self, first: u64) {
        let number = self.next_read;
        self.next_read += 1;
        self.asked_as.insert(number, first);
        self.member.read_index(number, self.clock.now());
    }

    /// A question may get lost on its way, or find a leader that is none any more.
    pub(super) fn retry_reads(&mut self) {
        let now = self.ticks;
        self.ask_again(|asked| asked.tick + READ_RETRY_TICKS <= now);
    }

    /// The first answer to any of the numbers counts.
    fn ask_again(&mut self, is_due: impl Fn(&Asked) -> bool) {
        let mut again = Vec::new();
        self.asked.retain(|first, asked| {
            asked.waiters.retain(|waiter| !waiter.is_closed());
            if is_due(asked) {
                asked.tick = self.ticks;
                again.push(*first);
            }
            !asked.waiters.is_empty()
        });
        again.retain(|first| self.asked.contains_key(first));
        self.asked_as.retain(|_, first| self.asked.contains_key(first));
        again.into_iter().for_each(|first| self.ask(first));
    }
}
