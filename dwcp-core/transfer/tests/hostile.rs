//! A sender that breaks the rules: the receiver says so, ends, and keeps its folder as it was.

mod support;

use std::{fs, path::Path};

use bytes::Bytes;
use dwcp_transfer::{ByteSink, FailureKind, ProgressSource, Receiver, Summary, TransferError, Transport};
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

#[tokio::test(flavor = "multi_thread")]
async fn t4_2_content_that_does_not_match_its_hash_never_appears() {
    let dir = tempfile::tempdir().unwrap();
    let content = data(&[record(5, 0, 5, b"wrong")]);
    let (_, answer) = play(dir.path(), announce("f", 5), Some(content)).await;
    let (kind, body) = answer.expect("an outcome");
    // One outcome, for id 5: failed, integrity.
    let expected =
        [&1u32.to_le_bytes()[..], &5u64.to_le_bytes(), &[4, FailureKind::Integrity as u8]].concat();
    assert_eq!((kind, &body[..14]), (OUTCOMES, &expected[..]));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".novacron-partial"]);
    assert_eq!(fs::read_dir(dir.path().join(".novacron-partial")).unwrap().count(), 1, "only the lock");
}
