//! What jobs do, in steps: each is one change, which is written together with the progress.

use std::collections::VecDeque;

use consensus_proto::mvccpb::KeyValue;
use novacron_store::StoreError;

use super::{queue::Change, record::Work};
use crate::{
    routes::vms,
    store::{Store, is_at, put},
    vm::Vm,
};

/// Entries that are read at once.
const READ_ENTRIES: usize = 200;

/// A job under way. It knows nothing that the store does not: whoever takes it over begins anew, and finds what is left.
pub(crate) enum Run {
    MoveRegion(MoveRegion),
}

/// VMs of one region that get another.
pub(crate) struct MoveRegion {
    from: String,
    to: String,
    /// Read, and in the region.
    next: VecDeque<(KeyValue, Vm)>,
    /// The last name that was read; `None`: all have been.
    after: Option<String>,
}

impl Run {
    pub(crate) fn new(work: &Work) -> Self {
        match work {
            Work::MoveRegion { from, to } => Self::MoveRegion(MoveRegion {
                from: from.clone(),
                to: to.clone(),
                next: VecDeque::new(),
                after: Some(String::new()),
            }),
        }
    }

    /// How much is left.
    pub(crate) async fn left(&self, store: &Store) -> Result<u64, StoreError> {
        let Self::MoveRegion(MoveRegion { from, to, .. }) = self;
        let mut counting = MoveRegion {
            from: from.clone(),
            to: to.clone(),
            next: VecDeque::new(),
            after: Some(String::new()),
        };
        let mut left = 0;
        while counting.read(store).await? {
            left += counting.next.len() as u64;
            counting.next.clear();
        }
        Ok(left)
    }

    /// The next change. `None`: there is nothing left to do.
    pub(crate) async fn step(&mut self, store: &Store) -> Result<Option<Change>, StoreError> {
        let Self::MoveRegion(work) = self;
        while work.next.is_empty() {
            if !work.read(store).await? {
                return Ok(None);
            }
        }
        Ok(work.next.front().map(|(kv, vm)| work.change(kv, vm)))
    }

    /// The change was made.
    pub(crate) fn made(&mut self) {
        let Self::MoveRegion(work) = self;
        work.next.pop_front();
    }

    /// Something was changed meanwhile, or may have been.
    pub(crate) async fn look_again(&mut self, store: &Store) -> Result<(), StoreError> {
        let Self::MoveRegion(work) = self;
        let Some((kv, _)) = work.next.front() else { return Ok(()) };
        let found = store.get(&String::from_utf8_lossy(&kv.key)).await?;
        let fits = found.and_then(|kv| work.fit(kv));
        work.next.pop_front();
        work.next.extend(fits);
        Ok(())
    }
}

impl MoveRegion {
    /// Reads some more; whether there was any left.
    async fn read(&mut self, store: &Store) -> Result<bool, StoreError> {
        let Some(after) = &self.after else { return Ok(false) };
        let answer = store.list(vms::PREFIX, after, READ_ENTRIES, 0).await?;
        let last = answer.kvs.last().and_then(|kv| crate::store::name_of(vms::PREFIX, &kv.key));
        self.after = last.filter(|_| answer.more).map(str::to_owned);
        let fits: Vec<_> = answer.kvs.into_iter().filter_map(|kv| self.fit(kv)).collect();
        self.next.extend(fits);
        Ok(true)
    }

    fn fit(&self, kv: KeyValue) -> Option<(KeyValue, Vm)> {
        let vm = vms::parsed(&kv).filter(|vm| vm.region == self.from)?;
        Some((kv, vm))
    }

    fn change(&self, kv: &KeyValue, vm: &Vm) -> Change {
        let moved = Vm { region: self.to.clone(), ..vm.clone() };
        let key = vms::key(&vm.name);
        Change { compare: vec![is_at(&key, kv.mod_revision)], then: vec![put(&key, vms::text(&moved), 0)] }
    }
}
