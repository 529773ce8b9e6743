//! Takes records out of the store into the database.
//!
//! Who has served a change takes its record from memory, soon. What this leaves, because the replica was lost, its database
//! was away or there was too much, any replica finds in the store. An entry goes when the database has its record on the disk, so
//! it may be taken twice; it has one id.

use std::{sync::Arc, time::Duration};

use consensus_proto::mvccpb::KeyValue;
use futures_util::future::try_join_all;
use novacron_store::StoreError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    database::AuditError,
    outbox::{OUTBOX, Waiting, key},
    record::{Record, time_of},
    writer::BATCH_MAX,
};
use crate::{
    app::{App, now_ms},
    store::{delete, name_of},
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
/// Entries that a transaction removes: what etcd allows, if nobody says otherwise.
const REMOVED_MAX: usize = 128;

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
    fn takes(self, app: &App, name: &str, old: &str, waiting: &Waiting) -> bool {
        match self {
            Self::Own => waiting.replica() == app.settings.replica,
            Self::Old => name < old,
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
    let (mut left, mut is_first) = (None, true);
    loop {
        let page = app.store.list(OUTBOX, &after, BATCH_MAX, 0).await?;
        if is_first {
            app.audit.outbox.set(page.count);
            is_first = false;
        }
        let mut taken = Vec::new();
        for kv in &page.kvs {
            let Some(name) = name_of(OUTBOX, &kv.key) else { continue };
            name.clone_into(&mut after);
            match Waiting::parsed(kv).filter(|waiting| which.takes(app, name, &old, waiting)) {
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
    let completed = entries.into_iter().map(|(waiting, kv)| waiting.completed(&app.store, kv.mod_revision));
    let records: Vec<Record> = try_join_all(completed).await?;
    let written = app.audit.write_all(&records).await?;
    let ids = records.into_iter().zip(written).filter_map(|(record, written)| written.then_some(record.id));
    let ids: Vec<_> = ids.collect();
    tracing::info!(records = ids.len(), "records that waited are in the database");
    Ok(remove(app, &ids).await?)
}

/// Removes entries whose records the database has.
async fn remove(app: &App, ids: &[String]) -> Result<(), StoreError> {
    for ids in ids.chunks(REMOVED_MAX) {
        let then = ids.iter().map(|id| delete(&key(id))).collect();
        app.store.txn("remove records", Vec::new(), then, Vec::new()).await?;
        app.audit.outbox.add(-(ids.len() as i64));
    }
    Ok(())
}

/// Removes entries as the database has written their records, for as long as the replica runs.
pub(crate) async fn remove_written(app: Arc<App>) {
    let mut written = app.audit.written.lock().await;
    let mut ids = Vec::new();
    while written.recv_many(&mut ids, REMOVED_MAX).await > 0 {
        if let Err(error) = remove(&app, &ids).await {
            tracing::debug!(%error, "records are left to be taken again");
        }
        ids.clear();
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
