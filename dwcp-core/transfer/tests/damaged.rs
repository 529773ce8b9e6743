//! Wrong, missing, corrupt, evicted and half-written baselines, records and lists of chunks: what arrives is right, nobody is
//! told of an error, the store gets well by itself, and a metric says so.

#[path = "transfer/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use support::{pair::*, *};

/// Counters of this process.
#[derive(Default)]
struct Counts(Mutex<HashMap<String, Arc<AtomicU64>>>);

impl Counts {
    /// Baselines that were of no use since the last look, by reason.
    fn fallbacks(&self) -> HashMap<String, u64> {
        let counts = self.0.lock().unwrap();
        let taken = counts.iter().map(|(reason, count)| (reason.clone(), count.swap(0, Relaxed)));
        taken.filter(|(_, count)| *count > 0).collect()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let reason = key.labels().find(|label| label.key() == "reason");
        match reason.filter(|_| key.name() == "dwcp_delta_fallbacks_total") {
            Some(reason) => {
                let mut counts = self.0.lock().unwrap();
                Counter::from_arc(counts.entry(reason.value().to_owned()).or_default().clone())
            }
            None => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// What can become of a file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Corrupt,
    HalfWritten,
    Empty,
    /// Evicted, or never there.
    Gone,
    /// Of the same length, and nothing of it right.
    Wrong,
}
use Damage::*;

fn damage(path: &Path, how: Damage) {
    let file = File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    match how {
        Corrupt => file.write_all_at(b"damaged", len / 2).unwrap(),
        HalfWritten => file.set_len(len / 2).unwrap(),
        Empty => file.set_len(0).unwrap(),
        Gone => fs::remove_file(path).unwrap(),
        Wrong => file.write_all_at(&noise(len as usize, 99), 0).unwrap(),
    }
}

/// Why the baseline is of no use, as metrics say it; nothing where nobody can know that there was one, or where what there is
/// has nothing in common with the content.
fn reason(sender_has_one: bool, side: &str, folder: &str, how: Damage) -> Option<&'static str> {
    Some(match (side, folder, how) {
        ("received", "contents", Corrupt | Wrong) if sender_has_one => "mismatch",
        ("received", "contents", Corrupt | Wrong) => "unreadable",
        ("received", "contents", _) => "missing",
        ("received", "versions", Corrupt | HalfWritten | Empty | Wrong) => "record_damaged",
        ("received", "cuts", Corrupt | HalfWritten | Empty | Wrong) if !sender_has_one => "chunks_damaged",
        ("sent", "contents", Corrupt) => "mismatch",
        _ => return None,
    })
}

/// T7.5, DELTA-1.1, DELTA-6.3, DELTA-6.5
#[tokio::test(flavor = "multi_thread")]
async fn t7_5_damaged_stores_cost_bytes_and_nothing_else() {
    let counts = Arc::new(Counts::default());
    assert!(metrics::set_global_recorder(counts.clone()).is_ok(), "the only test of this process");
    let (old, new) = versions();
    for (sender_has_one, side) in [(false, "received"), (true, "received"), (true, "sent")] {
        for folder in ["contents", "versions", "cuts"] {
            for how in [Corrupt, HalfWritten, Empty, Gone, Wrong] {
                let pair = Pair::new(sender_has_one, true);
                pair.send(&old).await;
                if folder == "cuts" {
                    // There is a list of the newest version once it was asked for, as an older one.
                    let mut other = old.clone();
                    other[0] ^= 1;
                    pair.send(&other).await;
                    pair.send(&old).await;
                }
                assert_eq!(counts.fallbacks(), HashMap::new());
                pair.stored(side, folder).iter().for_each(|path| damage(path, how));
                pair.send(&new).await;
                let found = counts.fallbacks();
                if let Some(reason) = reason(sender_has_one, side, folder, how) {
                    assert!(found.contains_key(reason), "{side} {folder} {how:?}: {found:?}, not {reason}");
                }
                let report = pair.store(side).verify().unwrap();
                assert!(report.damaged <= 2, "{side} {folder} {how:?}: {report:?}");
                assert_eq!(pair.store(side).verify().unwrap().damaged, 0, "what is damaged is removed");
                // And the next time all is as it should be.
                counts.fallbacks();
                let mut next = new.clone();
                next[7 * MIB] ^= 1;
                let (_, _, carried) = pair.send(&next).await;
                assert!(carried < 600_000, "{side} {folder} {how:?}: {carried} bytes");
                assert_eq!(counts.fallbacks(), HashMap::new(), "{side} {folder} {how:?}");
            }
        }
    }
}
