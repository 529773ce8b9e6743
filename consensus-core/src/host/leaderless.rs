//! Requests that nobody can be asked for now: they wait for a leader, so many of them.

use consensus_disk::Disk;
use consensus_raft::Message;

use super::{Host, Outbox};
use crate::ProposeError;

/// Requests that wait for a leader, and their bytes; more are refused.
const LEADERLESS_REQUESTS_MAX: usize = 4096;
const LEADERLESS_BYTES_MAX: usize = 64 << 20;
/// How many of the first ones there is room for, by their bytes.
fn room(bytes: impl Iterator<Item = usize>) -> usize {
    let mut all = 0;
    let fits = |bytes: &usize| {
        all += bytes;
        all <= LEADERLESS_BYTES_MAX
    };
    bytes.take(LEADERLESS_REQUESTS_MAX).take_while(fits).count()
}

impl<D: Disk, R, O: Outbox> Host<D, R, O> {
    /// What cannot be proposed now is tried again in the next turn, as long as somebody waits for it.
    pub(super) fn wait_for_leader(&mut self) {
        self.proposals.retain(|request| self.desk.requests.has(request.id));
        let room = room(self.proposals.iter().map(|request| request.payload.len()));
        self.refuse(ProposeError::NoLeader, room);
    }

    /// What followers have passed on, and cannot be done now, waits as well.
    pub(super) fn bound_passed_on(&mut self) {
        let room = room(self.passed_on.iter().map(Message::payload_bytes));
        self.passed_on.truncate(room);
    }

    /// Refuses all requests but the first ones.
    pub(super) fn refuse(&mut self, error: ProposeError, but: usize) {
        let refused = self.proposals.drain(but..).map(|request| (request.id, Err(error)));
        self.desk.requests.answer(refused);
    }
}
