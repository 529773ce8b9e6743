//! Takes records out of the store into the database.
//!
//! Who has served a change takes its record from memory, soon, and writes the entry again. What this leaves, because the replica
//! was lost, its database was away or there was too much, any replica finds in the store. An entry goes when the database has its
//! record on the disk, so it may be taken twice; it has one id.

use std::{sync::Arc, time::Duration};

use consensus_proto::{etcdserverpb::RequestOp, mvccpb::KeyValue};
use futures_util::future::try_join_all;
use novacron_store::StoreError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    database::AuditError,
    outbox::OUTBOX,
    record::{Record, time_of},
    waiting::Waiting,
    writer::BATCH_MAX,
};
use crate::{
    app::{App, now_ms},
    store::{delete, is_at, name_of, when},
};

/// Between looks for records that nobody takes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A record that has waited this long is anybody's. Clocks that differ by more cost work, and nothing else.
const OLD_MS: u64 = 10_000;
/// Looks leave out what is before the oldest record that waited, and this old: what is long gone still costs a look at it, until the
/// store is compacted. Some may come later than others by less than this.
const LATE_MS: u64 = 60_000;
/// After this time nothing is left out, for clocks that differ by more.
const WHOLE_INTERVAL: Duration = Duration::from_secs(3600);
/// Between removals of entries that are not written any more.
const REMOVE_INTERVAL: Duration = Duration::from_secs(1);

/// Which records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those of changes that this replica has served, in this life or another.
    Own,
    /// Those that nobody else takes.
    Old,
    All,
}

/// How far it is.
#[derive(Default)]
pub(crate) struct Place {
    /// Before this nothing waits.
    from: String,
    /// The last look at everything.
    whole: Option<Instant>,
}

impl Which {
    fn takes(self, app: &App, old: &str, waiting: &Waiting) -> bool {
        match self {
            Self::Own => waiting.replica() == app.settings.replica,
            Self::Old => waiting.id() < old,
            Self::All => true,
        }
    }
}

/// Takes records into the database.
pub(crate) async fn drain(app: &App, which: Which) -> Result<(), AuditError> {
    let mut place = app.audit.place.lock().await;
    let (old, late) = (time_of(now_ms().saturating_sub(OLD_MS)), time_of(now_ms().saturating_sub(LATE_MS)));
    let is_whole = place.whole.is_none_or(|whole| whole.elapsed() >= WHOLE_INTERVAL);
    let began = Instant::now();
    let mut after = if is_whole { String::new() } else { place.from.clone() };
    let mut left = None;
    app.audit.outbox.set(app.store.count(OUTBOX).await? as i64);
    loop {
        let page = app.store.list(OUTBOX, &after, BATCH_MAX, 0).await?;
        let mut taken = Vec::new();
        for kv in &page.kvs {
            let Some(name) = name_of(OUTBOX, &kv.key) else { continue };
            name.clone_into(&mut after);
            match Waiting::parsed(kv).filter(|waiting| which.takes(app, &old, waiting)) {
                Some(waiting) => taken.push((waiting, kv)),
                None => left = left.or_else(|| name.get(..old.len()).map(str::to_owned)),
            }
        }
        take(app, taken).await?;
        if !page.more || which == Which::Old && after >= old {
            break;
        }
    }
    place.from = left.map_or(late.clone(), |left| left.min(late));
    if is_whole {
        place.whole = Some(began);
    }
    Ok(())
}

/// Takes some.
async fn take(app: &App, entries: Vec<(Waiting, &KeyValue)>) -> Result<(), AuditError> {
    if entries.is_empty() {
        return Ok(());
    }
    // Whoever has made an entry may write it meanwhile.
    let removals = entries.iter().map(|(_, kv)| {
        let key = String::from_utf8_lossy(&kv.key);
        when(vec![is_at(&key, kv.mod_revision)], vec![delete(&key)])
    });
    let removals: Vec<_> = removals.collect();
    let completed = entries.into_iter().map(|(waiting, kv)| waiting.completed(&app.store, kv.mod_revision));
    let records: Vec<Record> = try_join_all(completed).await?;
    let written = app.audit.write_all(&records).await?;
    let removals =
        removals.into_iter().zip(written).filter_map(|(removal, written)| written.then_some(removal));
    let removals: Vec<_> = removals.collect();
    tracing::info!(records = removals.len(), "records that waited are in the database");
    app.audit.outbox.add(-(removals.len() as i64));
    Ok(remove(app, removals).await?)
}

/// Removes entries whose records the database has.
async fn remove(app: &App, removals: Vec<RequestOp>) -> Result<(), StoreError> {
    app.store.do_all("remove records", removals).await
}

/// Removes entries of this replica that are not written any more, for as long as it runs.
pub(crate) async fn remove_old(app: Arc<App>) {
    let mut ticks = interval(REMOVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let removals = app.audit.outbox.old().iter().map(|entry| delete(&entry.key)).collect();
        if let Err(error) = remove(&app, removals).await {
            tracing::debug!(%error, "records are left to be taken again");
        }
    }
}

/// Takes what others leave, again and again; at first what this replica has left in a former life.
pub(crate) async fn keep_drained(app: Arc<App>) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut which = Which::Own;
    loop {
        ticks.tick().await;
        match drain(&app, which).await {
            Ok(()) => which = Which::Old,
            Err(error) => tracing::warn!(%error, "records of changes wait in the store"),
        }
    }
}
