//! Snapshots: part by part, each asked for when the one before is applied. How far it is is in the replicated state, so another
//! leader goes on; whoever is asked keeps nothing.

use std::ops::ControlFlow;

use super::{Local, Output, Replicator, ship::Batch};
use crate::{
    command::Command,
    delta::{Chunk, Position},
    items::Items,
    limits::{RESEND_MS_MIN, SNAPSHOT_TRIES},
    message::{Body, SnapshotRequest},
    replica::Phase,
    vector::{RegionId, VersionVector},
};

/// A question for a part of a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    source: RegionId,
    after: Option<Position>,
    /// Whether the part is here, and proposed.
    is_taken: bool,
    tries: u32,
    pub(super) deadline_ms: u64,
}

impl Replicator {
    /// A part of a snapshot that was proposed is applied, or not: then it is asked for again.
    pub fn handle_taken<I: Items>(&mut self, now_ms: u64, local: Local<'_, I>) {
        self.fetch = None;
        self.rows.settle(local.replica);
        self.fetch_on(now_ms, local);
    }

    /// Asks for what comes next, if something does.
    pub(super) fn fetch_on<I: Items>(&mut self, now_ms: u64, local: Local<'_, I>) {
        if local.replica.phase() == Phase::Active {
            self.fetch = None;
            return;
        }
        let tries = match &self.fetch {
            Some(fetch) if fetch.deadline_ms > now_ms => return,
            Some(fetch) => fetch.tries,
            None => 0,
        };
        let running = local.replica.catch_up().filter(|_| tries < SNAPSHOT_TRIES);
        let running = running.filter(|running| self.speaks_with(running.source, local.replica));
        let (source, after) = match running {
            Some(running) => (running.source, Some(running.after.clone())),
            None => match self.source(tries, local) {
                Some(source) => (source, None),
                None => return,
            },
        };
        let deadline_ms = now_ms + self.peer(source).patience_ms();
        self.fetch =
            Some(Fetch { source, after: after.clone(), is_taken: false, tries: tries + 1, deadline_ms });
        self.send(source, Body::SnapshotRequest(SnapshotRequest { after }));
    }

    /// The nearest region that answers; the next one after some tries in vain.
    fn source<I>(&self, tries: u32, local: Local<'_, I>) -> Option<RegionId> {
        let others = self.others(local).into_iter().filter(|region| {
            self.peers.get(region).is_some_and(|peer| peer.is_heard && peer.phase != Some(Phase::Joining))
        });
        let ranked = self.ranked(&others.collect());
        ranked.get((tries / SNAPSHOT_TRIES) as usize % ranked.len().max(1)).copied()
    }

    pub(super) fn handle_request<I: Items>(
        &mut self,
        from: RegionId,
        request: SnapshotRequest,
        local: Local<'_, I>,
    ) -> Result<(), I::Error> {
        let replica = local.replica;
        if replica.phase() == Phase::Joining {
            return Ok(());
        }
        let nothing = VersionVector::default();
        let (mut batch, mut next, mut last) = (Batch::new(&nothing), None, None);
        let after = request.after.as_ref();
        local.items.scan(Position::bound(after), &mut |key, item| {
            next = if batch.is_full() { last.take() } else { batch.add_behind(after, key, item) };
            if next.is_some() {
                return ControlFlow::Break(());
            }
            last = Some(Position::behind(key));
            ControlFlow::Continue(())
        })?;
        let chunk = Chunk {
            from: self.region,
            version: replica.version().clone(),
            horizon: replica.horizon().clone(),
            latest: replica.latest(),
            after: request.after,
            next,
            items: batch.items,
        };
        self.send(from, Body::Chunk(chunk));
        Ok(())
    }

    /// Only what was asked for: an old answer may have what is collected here meanwhile.
    pub(super) fn handle_chunk(&mut self, now_ms: u64, chunk: Chunk) {
        let Some(fetch) = &mut self.fetch else { return };
        if fetch.is_taken || fetch.source != chunk.from || fetch.after != chunk.after {
            return;
        }
        fetch.is_taken = true;
        fetch.deadline_ms = now_ms + 4 * RESEND_MS_MIN;
        self.outputs.push_back(Output::Propose(Command::Take(chunk)));
    }
}
