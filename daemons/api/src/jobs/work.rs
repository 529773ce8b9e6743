//! What jobs do, in steps: each is one change, which is written together with the progress.

use std::collections::VecDeque;

use consensus_proto::mvccpb::KeyValue;
use novacron_store::StoreError;

use super::{
    migrate::Migrate,
    queue::Change,
    record::{Job, Progress, Work},
};
use crate::{
    app::App,
    routes::vms,
    store::{Store, is_at, put},
    vm::Vm,
};

/// Entries that are read at once.
const READ_ENTRIES: usize = 200;

/// A job under way. It knows nothing that the store does not: whoever takes it over begins anew, and finds what is left.
pub(crate) enum Run {
    MoveRegion(MoveRegion),
    Migrate(Box<Migrate>),
}

/// One change.
pub(crate) struct Step {
    pub(crate) change: Change,
    /// How far the job is with it; `None`: by one.
    pub(crate) progress: Option<Progress>,
}

/// Why there is no next change.
#[derive(Debug)]
pub(crate) enum StepError {
    Store(StoreError),
    /// The attempt has failed.
    Failed {
        why: String,
        for_good: bool,
    },
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
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
    pub(crate) fn new(job: &Job) -> Self {
        match &job.work {
            Work::MoveRegion { from, to } => Self::MoveRegion(MoveRegion::new(from, to)),
            Work::Migrate(migration) => Self::Migrate(Box::new(Migrate::new(job, migration))),
        }
    }

    /// How much is left, if that is known.
    pub(crate) async fn left(&self, store: &Store) -> Result<Option<u64>, StoreError> {
        match self {
            Self::MoveRegion(work) => MoveRegion::new(&work.from, &work.to).count(store).await.map(Some),
            Self::Migrate(_) => Ok(None),
        }
    }

    /// The next change. `None`: there is nothing left to do.
    pub(crate) async fn step(&mut self, app: &App) -> Result<Option<Step>, StepError> {
        match self {
            Self::MoveRegion(work) => Ok(work.step(&app.store).await?),
            Self::Migrate(work) => work.step(app).await,
        }
    }

    /// The change was made.
    pub(crate) fn made(&mut self) {
        if let Self::MoveRegion(work) = self {
            work.next.pop_front();
        }
    }

    /// Something was changed meanwhile, or may have been.
    pub(crate) async fn look_again(&mut self, store: &Store) -> Result<(), StoreError> {
        match self {
            Self::MoveRegion(work) => work.look_again(store).await,
            Self::Migrate(work) => {
                work.look_again();
                Ok(())
            }
        }
    }

    /// The job is about to end, and so is what goes on elsewhere. Whether nothing does any more.
    pub(crate) async fn stop(&self, app: &App) -> bool {
        match self {
            Self::MoveRegion(_) => true,
            Self::Migrate(work) => work.stop(app).await,
        }
    }
}

impl MoveRegion {
    fn new(from: &str, to: &str) -> Self {
        let (from, to) = (from.to_owned(), to.to_owned());
        Self { from, to, next: VecDeque::new(), after: Some(String::new()) }
    }

    /// How many there are.
    async fn count(mut self, store: &Store) -> Result<u64, StoreError> {
        let mut count = 0;
        while self.read(store).await? {
            count += self.next.len() as u64;
            self.next.clear();
        }
        Ok(count)
    }

    async fn step(&mut self, store: &Store) -> Result<Option<Step>, StoreError> {
        while self.next.is_empty() {
            if !self.read(store).await? {
                return Ok(None);
            }
        }
        let change = self.next.front().map(|(kv, vm)| self.change(kv, vm));
        Ok(change.map(|change| Step { change, progress: None }))
    }

    async fn look_again(&mut self, store: &Store) -> Result<(), StoreError> {
        let Some((kv, _)) = self.next.front() else { return Ok(()) };
        let found = store.get(&String::from_utf8_lossy(&kv.key)).await?;
        let fits = found.and_then(|kv| self.fit(kv));
        self.next.pop_front();
        self.next.extend(fits);
        Ok(())
    }

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
