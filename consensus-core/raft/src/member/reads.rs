//! How reads without a lease are confirmed: the leader asks the others whether they still follow it, and what is committed
//! before it asks is what the reads have to see (ReadIndex; Ongaro 2014, 6.4).
//!
//! All reads that wait, those that followers have passed on as well, rest on one such round; raft-rs has one for each, with
//! as many heartbeats and answers. One at a time, unless the host says that reads have waited long enough. Every round is
//! the leader's own and asks for what its lease needs: raft-rs takes an answer to one for an answer to all before it.
//!
//! A follower passes its reads on to the leader, as raft-rs does. Not here: what a round is good for beside that
//! (`lease.rs`).

use std::{collections::VecDeque, mem, time::Duration};

use bytes::Bytes;
use consensus_disk::Disk;
use raft::{
    StateRole,
    eraftpb::{self, MessageType},
};

use super::{
    Member,
    lease::{Context, RENEWALS, ROUNDS_MAX},
    work::{Read, Work},
};

/// Reads that wait for a round. More are not answered, and asked for again.
const READS_WAITING_MAX: usize = 16 << 10;

/// One read, or all that a member has asked for together.
#[derive(Debug)]
enum Question {
    /// Of this member's host.
    Own(u64),
    /// Of another member, and what that knows it by.
    PassedOn(u64, Bytes),
}

/// What this leader is asked in a term.
#[derive(Debug, Default)]
pub(super) struct Reads {
    term: u64,
    /// They wait for a round.
    waiting: Vec<Question>,
    /// Rounds under way, in order.
    rounds: VecDeque<(u64, Vec<Question>)>,
    /// How many there were, in all terms: a number is not used again.
    begun: u64,
}

impl<D: Disk> Member<D> {
    fn reads_in_this_term(&mut self) -> &mut Reads {
        let term = self.raw.raft.term;
        if self.reads.term != term {
            self.reads = Reads { term, begun: self.reads.begun, ..Reads::default() };
        }
        &mut self.reads
    }

    fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Asks for an index to read at. The answer, with the same number, comes in [`Work::reads`](super::Work::reads), perhaps
    /// twice, or never: whoever asks asks again after a while, with another number. A number is not used again, and below 2^63.
    pub fn read_index(&mut self, number: u64, now: Duration) {
        assert!(number < RENEWALS, "a host's number");
        self.look_at_clock(now);
        self.lease_used();
        if self.leads() {
            self.wait_for_round(Question::Own(number));
        } else {
            let context = Context { id: self.config.id, seed: self.config.seed, number, promise: None };
            self.raw.read_index(context.encode());
        }
    }

    /// A read that another member has passed on to this leader. With a lease, it is answered at once; raft-rs' own kind of
    /// lease is not used, which trusts ticks.
    pub(super) fn read_for_other(&mut self, message: &mut eraftpb::Message) {
        let known_by = message.mut_entries()[0].take_data();
        if self.lease_end().is_some_and(|end| self.now < end) {
            let answer = self.answer(message.from, known_by, self.raw.raft.raft_log.committed);
            self.raw.raft.msgs.push(answer);
        } else {
            self.wait_for_round(Question::PassedOn(message.from, known_by));
        }
        self.lease_used();
        self.renew_lease();
    }

    fn wait_for_round(&mut self, question: Question) {
        let waiting = &mut self.reads_in_this_term().waiting;
        if waiting.len() < READS_WAITING_MAX {
            waiting.push(question);
        }
    }

    /// Whether reads wait at this leader for the end of the round that is under way. They need not:
    /// [`ask_beside`](Self::ask_beside).
    pub fn reads_wait(&self) -> bool {
        self.leads() && self.reads.term == self.raw.raft.term && !self.reads.waiting.is_empty()
    }

    /// Begins a round beside those that are under way.
    pub fn ask_beside(&mut self) {
        // What a leader took over may not be committed: nobody can read before it is.
        let may_read = self.raw.raft.commit_to_current_term();
        if self.reads_wait() && may_read && self.reads.rounds.len() < ROUNDS_MAX {
            self.begin_round();
        }
    }

    /// Begins a round if reads wait, and none is under way.
    pub(super) fn ask(&mut self) {
        if self.leads() && self.reads_in_this_term().rounds.is_empty() {
            self.ask_beside();
        }
    }

    /// Begins a round.
    pub(super) fn begin_round(&mut self) {
        let reads = self.reads_in_this_term();
        reads.begun += 1;
        let number = RENEWALS | reads.begun;
        let questions = mem::take(&mut reads.waiting);
        reads.rounds.push_back((number, questions));
        let promise = self.begin_lease(number);
        let context = Context { id: self.config.id, seed: self.config.seed, number, promise };
        self.raw.read_index(context.encode());
    }

    /// Takes note of what raft-rs has an answer to: a read that a leader has answered, or a round of this leader's, and the
    /// reads that rest on it.
    pub(super) fn read(&mut self, state: &raft::ReadState, work: &mut Work) {
        let index = state.index;
        let Some(context) = Context::decode(&state.request_ctx) else { return };
        if (context.id, context.seed) != (self.config.id, self.config.seed) {
            return;
        }
        if context.number < RENEWALS {
            work.reads.push(Read { number: context.number, index });
            return;
        }
        if context.promise.is_some() {
            self.confirm_round(context.number);
        }
        let leads = self.leads();
        let rounds = &mut self.reads_in_this_term().rounds;
        let Some(place) = rounds.iter().position(|(number, _)| *number == context.number) else { return };
        let questions: Vec<_> = rounds.drain(..=place).flat_map(|(_, questions)| questions).collect();
        for question in questions {
            match question {
                Question::Own(number) => work.reads.push(Read { number, index }),
                Question::PassedOn(id, known_by) if leads => {
                    let answer = self.answer(id, known_by, index);
                    work.messages.extend(self.address(vec![answer]));
                }
                // An answer says who leads, and in which term.
                Question::PassedOn(..) => {}
            }
        }
    }

    /// What tells a member where to read.
    fn answer(&mut self, to: u64, known_by: Bytes, index: u64) -> eraftpb::Message {
        self.follower_waits(to, index);
        let (from, term) = (self.config.id, self.raw.raft.term);
        let mut message = eraftpb::Message { from, to, term, index, ..Default::default() };
        message.set_msg_type(MessageType::MsgReadIndexResp);
        let entry = eraftpb::Entry { data: known_by, ..Default::default() };
        message.set_entries(vec![entry].into());
        message
    }
}

#[cfg(test)]
mod tests;
