//! A sender that breaks the rules: the receiver says so, ends, and keeps its folder as it was.

#[path = "transfer/support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use dwcp_transfer::{
    ByteSink, FailureKind, ProgressSource, Receiver, Summary, TransferError, Transport, manifest::EntryKind,
};
use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata as MetricMetadata, Recorder, SharedString, Unit,
};
use support::{played::*, *};

/// Plays a sender with these bytes, content only once it is asked for; the receiver's result, and the outcome or
/// last words that came after.
async fn play(
    into: &Path,
    control: Vec<u8>,
    content: Option<Vec<u8>>,
) -> (Result<Summary, TransferError>, Option<(u8, Vec<u8>)>) {
    let (here, there, link) = connection(u64::MAX);
    let config = into_folder(into);
    let serving = tokio::spawn(async move {
        Receiver::open(config).unwrap().serve(&there, "peer", &ProgressSource::default()).await
    });
    let (mut sink, source) = here.open_stream().await.unwrap();
    let mut answers = Messages::new(source);
    sink.write_bytes(Bytes::from(control)).await.unwrap();
    let mut answer = None;
    if let Some(content) = content {
        answers.skip_to(OUTCOMES).await.expect("an outcome");
        let (mut sink, _source) = here.open_stream().await.unwrap();
        sink.write_bytes(Bytes::from(content)).await.unwrap();
        answer = answers.next().await;
    } else if let Some(last_words) = answers.skip_to(FATAL).await {
        answer = Some((FATAL, last_words));
    }
    // The receiver ends by itself, or because its peer is gone.
    link.kill();
    (tokio::time::timeout(PATIENCE, serving).await.expect("the receiver hangs").unwrap(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_end_the_transfer_and_change_nothing() {
    let escaping = {
        let mut bytes = announce("aa/x", 3);
        let at = bytes.windows(2).position(|bytes| bytes == b"aa").unwrap();
        bytes[at..at + 2].copy_from_slice(b"..");
        bytes
    };
    let absolute = {
        let mut bytes = announce("aa/x", 3);
        let at = bytes.windows(2).position(|bytes| bytes == b"aa").unwrap();
        bytes[at..at + 2].copy_from_slice(b"/a");
        bytes
    };
    let large = announce("f", u64::from(PIECE) * 3);
    let huge_message = [opening(), u32::MAX.to_le_bytes().to_vec()].concat();
    type Case = (&'static str, Vec<u8>, Option<Vec<u8>>);
    let cases: Vec<Case> = vec![
        ("T1.1 preamble", b"GET / HTTP/1.1\r\n".to_vec(), None),
        ("T1.2 length", huge_message, None),
        ("T1.2 type", [opening(), message(77, b"")].concat(), None),
        ("T1.3 first message", [b"DWTX\x01\0\0\0".to_vec(), message(6, b"")].concat(), None),
        ("T2.1 dot dot", escaping, None),
        ("T2.1 absolute", absolute, None),
        ("T3.1 other side's", [opening(), message(10, b"")].concat(), None),
        ("T3.7 early finish", [large.clone(), message(6, b"")].concat(), None),
        ("T4.4 behind the end", large.clone(), Some(data(&[record(5, 3, PIECE, b"")]))),
        ("T4.4 length", large.clone(), Some(data(&[record(5, 0, PIECE - 1, b"")]))),
        ("T4.3 extents", large, Some(data(&[record(5, 0, 10, &[1; 20])]))),
    ];
    for (rule, control, data) in cases {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("into");
        let (ended, answer) = play(&into, control, data).await;
        let error = ended.expect_err(rule);
        // Before the opening is complete there is nobody to talk to.
        let opened = !rule.starts_with("T1.1") && !rule.starts_with("T1.3");
        assert_eq!(answer.map(|(kind, _)| kind), opened.then_some(FATAL), "{rule}");
        assert!(
            matches!(error, TransferError::Protocol { .. } | TransferError::Decode { .. }),
            "{rule}: {error}"
        );
        let left: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".novacron-partial"], "{rule}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{rule}");
    }
}

/// Keeps one counter. Of the whole process: contents are checked on threads of their own.
#[derive(Default)]
struct IntegrityFailures(Arc<AtomicU64>);

impl Recorder for IntegrityFailures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &MetricMetadata<'_>) -> Counter {
        match key.name() {
            "dwcp_integrity_failures_total" => Counter::from_arc(Arc::clone(&self.0)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &MetricMetadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &MetricMetadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn integrity_failures() -> u64 {
    static COUNT: OnceLock<Arc<AtomicU64>> = OnceLock::new();
    let count = COUNT.get_or_init(|| {
        let recorder = IntegrityFailures::default();
        let count = Arc::clone(&recorder.0);
        metrics::set_global_recorder(recorder).expect("the only one");
        count
    });
    count.load(Relaxed)
}

/// One test, because the counter is one: a piece that is wrong, and right pieces of which the whole is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn t4_2_content_that_does_not_match_its_hash_never_appears_and_is_counted() {
    assert_eq!(integrity_failures(), 0);
    let stream_of_one = {
        let end = file_end(5, 5, 1, *blake3::hash(b"wrong").as_bytes());
        let control = [opening(), batch(vec![entry(5, "f", EntryKind::Stream)]), end].concat();
        (control, data(&[piece(5, 0, b"right")]))
    };
    let cases = [(announce("f", 5), data(&[record(5, 0, 5, b"wrong")])), stream_of_one];
    for (number, (control, content)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (ended, answer) = play(dir.path(), control, Some(content)).await;
        let (kind, body) = answer.unwrap_or_else(|| panic!("no outcome: {ended:?}"));
        // One outcome, for id 5: failed, integrity.
        let expected =
            [&1u32.to_le_bytes()[..], &5u64.to_le_bytes(), &[4, FailureKind::Integrity as u8]].concat();
        assert_eq!((kind, &body[..14]), (OUTCOMES, &expected[..]));
        assert_eq!(integrity_failures(), number as u64 + 1);
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), [".novacron-partial"]);
    }
}
