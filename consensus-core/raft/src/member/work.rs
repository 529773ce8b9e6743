//! What the host does for a member, one step at a time.

use std::mem;

use consensus_disk::{Batch, Disk, Durability};
use raft::{
    StateRole,
    eraftpb::{self, EntryType},
};

use super::{Member, skip, split};
use crate::{
    membership::{MemberChange, Membership},
    message::Message,
    proposal::{self, Request},
    snapshot::SnapshotMetadata,
};

/// One step. See the host contract of this crate for the order in which its parts are to be done.
#[derive(Debug)]
pub struct Work {
    /// Messages that wait for nothing: a leader's own write goes on beside its followers' (Ongaro 2014, 10.2.1).
    pub messages: Vec<Message>,
    /// To be written, all or nothing.
    pub batch: Batch,
    /// How.
    pub durability: Durability,
    /// Messages that promise what the batch holds: only after it is written.
    pub messages_after: Vec<Message>,
    /// After the batch is written, the state machine is to be replaced by this snapshot, before anything else is applied.
    pub restored: Option<SnapshotMetadata>,
    /// To be applied, in this order, after the batch is written.
    pub committed: Vec<Committed>,
    /// Indices to read at.
    pub reads: Vec<Read>,
}

/// A read may see the state machine as of this index or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// As given to [`Member::read_index`].
    pub number: u64,
    /// What must be applied before.
    pub index: u64,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// For the state machine; of an entry that is not for it, none.
    pub requests: Vec<Request>,
    /// For the host.
    pub membership: Option<MembershipApplied>,
}

/// A change of the membership that is now in force.
#[derive(Clone, Debug, PartialEq)]
pub struct MembershipApplied {
    /// Whose request it was: (origin, id).
    pub request: (u64, u64),
    /// Who the members are now.
    pub membership: Membership,
    /// What was asked for.
    pub change: MemberChange,
    /// Whether it was done; a change that no longer makes sense is not.
    pub done: bool,
}

impl<D: Disk> Member<D> {
    /// The next step, if there is one. It must be done, and [`written`](Self::written) called, before anything else is asked of
    /// the member.
    pub fn work(&mut self) -> Option<Work> {
        assert!(self.written.is_none(), "the step before was not reported as written");
        self.ask();
        let leaves = self.leaves();
        if !self.raw.has_ready() && self.committed.is_empty() && !leaves {
            return None;
        }
        if leaves {
            self.prepare_to_leave();
        }
        let mut ready = self.raw.ready();
        let mut batch = Batch::default();
        let durability = if ready.must_sync() { Durability::Synced } else { Durability::Ordered };
        // What was to be applied before a snapshot is in it.
        let restored = (!ready.snapshot().is_empty()).then(|| {
            self.committed.clear();
            self.forget_removal();
            self.restoring.take().expect("raft-rs has only the snapshot that it was given")
        });
        let log = self.raw.mut_store();
        if let Some(metadata) = &restored {
            log.restore(metadata, &mut batch);
        }
        log.append(ready.take_entries(), &mut batch);
        // A new leader's first messages rest on its term, which has to be on the disk before.
        let new_term = ready
            .hs()
            .is_some_and(|state| (state.term, state.vote) != (log.hard_state.term, log.hard_state.vote));
        if let Some(state) = ready.hs() {
            log.hard_state = state.clone();
            self.commit_unsaved = true;
        }
        let mut entries = mem::take(&mut self.committed);
        entries.extend(ready.take_committed_entries());
        let entries = self.hold_removal(entries, leaves);
        let mut work = Work {
            messages: self.address(ready.take_messages()),
            batch,
            durability,
            messages_after: self.address(ready.take_persisted_messages()),
            restored,
            committed: Vec::with_capacity(entries.len()),
            reads: Vec::new(),
        };
        for state in ready.take_read_states() {
            self.read(&state, &mut work);
        }
        if new_term {
            work.messages_after.splice(..0, work.messages.drain(..));
        }
        for entry in entries {
            let committed = self.commit(entry, &mut work);
            work.committed.push(committed);
        }
        if new_term || self.commit_unsaved && !work.batch.is_empty() {
            self.raw.store().save_hard_state(&mut work.batch);
            self.commit_unsaved = false;
        }
        // A follower's messages are all of those that wait.
        if self.save_promise(&mut work.batch) {
            work.durability = Durability::Synced;
        }
        self.written = Some(ready);
        Some(work)
    }

    /// The batch of the last step is written. More messages, for which the host has to wait no longer.
    pub fn written(&mut self) -> Vec<Message> {
        let ready = self.written.take().expect("a step is under way");
        let restored = ready.snapshot().get_metadata().index;
        let mut light = self.raw.advance_append(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().hard_state.commit = commit;
            self.commit_unsaved = true;
        }
        // Whether or not the state machine has it yet: raft-rs looks for entries after this one, and there are none before it.
        self.applied(restored);
        self.committed.extend(light.take_committed_entries());
        self.address(light.take_messages())
    }

    pub(super) fn address(&self, messages: Vec<eraftpb::Message>) -> Vec<Message> {
        let messages =
            messages.into_iter().flat_map(|raw| split::split(raw, self.config.entries_per_message_max));
        messages.map(|raw| Message { group: self.config.group, raw: self.with_priority(raw) }).collect()
    }

    fn commit(&mut self, mut entry: eraftpb::Entry, work: &mut Work) -> Committed {
        let mut committed =
            Committed { index: entry.index, term: entry.term, requests: Vec::new(), membership: None };
        if !entry.context.is_empty() || entry.get_entry_type() == EntryType::EntryConfChangeV2 {
            committed.membership = self.commit_change(&entry, work);
        } else if !entry.data.is_empty() {
            match proposal::decode(mem::take(&mut entry.data)) {
                Ok(requests) => committed.requests = requests,
                Err(error) => skip(entry.index, &error),
            }
        }
        committed
    }

    /// A change takes effect as soon as it is committed. It is on the disk, synced, before the state machine goes past
    /// it, and one that is there already is not done twice.
    fn commit_change(&mut self, entry: &eraftpb::Entry, work: &mut Work) -> Option<MembershipApplied> {
        if entry.index <= self.raw.store().membership.index {
            return None;
        }
        let conf_change = match entry.get_entry_type() {
            EntryType::EntryConfChangeV2 => match crate::conf_change::decode(&entry.data) {
                Ok(conf_change) => Some(conf_change),
                Err(error) => {
                    skip(entry.index, &error);
                    return None;
                }
            },
            _ => None,
        };
        let decoded = MemberChange::decode(entry.context.clone());
        let (request, change) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                skip(entry.index, &error);
                return None;
            }
        };
        let sensible = self.membership().allows(&change) && conf_change == change.conf_change();
        let conf = match conf_change.filter(|_| sensible) {
            None => None,
            Some(conf_change) => match self.raw.apply_conf_change(&conf_change) {
                Ok(conf) => {
                    self.forget_rounds();
                    Some(conf)
                }
                Err(error) => {
                    tracing::error!(index = entry.index, %error, "a membership change is not possible");
                    return None;
                }
            },
        };
        let removed = !self.raw.raft.prs().conf().voters().contains(self.config.id);
        if removed && self.raw.raft.state == StateRole::Leader {
            // raft-rs leaves it a leader without a place among the members, and stumbles over that.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
            self.draw_timeout();
        }
        let log = self.raw.mut_store();
        if sensible {
            log.membership.apply(entry.index, &change, conf);
        } else {
            log.membership.index = entry.index;
        }
        log.save_membership(&mut work.batch);
        work.durability = Durability::Synced;
        if !removed {
            // Whoever is removed leaves when it hears of that, and must not be needed once more because this member has
            // forgotten it.
            work.messages_after.splice(..0, work.messages.drain(..));
        }
        let membership = log.membership.clone();
        Some(MembershipApplied { request, membership, change, done: sensible })
    }
}
