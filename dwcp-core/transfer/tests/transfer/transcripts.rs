//! Conversations with one side played by hand: who says what, and when.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, UNIX_EPOCH},
};

use crate::support::{played::*, *};
use dwcp_transfer::{
    ByteSink, Destination, FailureKind, ReceiverConfig, Sender, SenderConfig, TransferError, Transport,
    limits::{BATCH_ENTRIES_MAX, DATA_STREAMS, DATA_STREAMS_MAX, ENTRIES_IN_FLIGHT_MAX},
    manifest::{self, EntryKind},
};

fn into_output() -> ReceiverConfig {
    ReceiverConfig::new(Destination::Output(Box::new(std::io::sink())))
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_4_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut sender = PlayedSender::begin(into_folder(dir.path()), hello(2, false)).await;
    let (kind, body) = sender.answers.next().await.unwrap();
    assert_eq!((kind, body[0]), (FATAL, FailureKind::Version as u8));
    let ended = sender.ended().await;
    assert!(matches!(ended, Err(TransferError::Version { ours: 1, theirs: 2 })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_4_what_cannot_seek_asks_for_order() {
    let dir = tempfile::tempdir().unwrap();
    for (receiver, sequential) in [(into_folder(dir.path()), 0), (into_output(), 1)] {
        let mut sender = PlayedSender::begin(receiver, announce("f", u64::from(PIECE) + 1)).await;
        assert_eq!(sender.answers.next().await, Some((2, vec![1, 0, sequential])), "Welcome");
        assert_eq!(sender.outcomes().await, [(5, SEND)]);
        sender.data(&[piece(5, 1, b"x")]).await;
        if sequential == 1 {
            assert!(sender.answers.skip_to(FATAL).await.is_some(), "the second piece comes first");
        } else {
            sender.data(&[piece(5, 0, &vec![1; PIECE as usize])]).await;
            let hash = [&vec![1; PIECE as usize][..], b"x"].concat();
            sender.say(file_end(5, u64::from(PIECE) + 1, 2, *blake3::hash(&hash).as_bytes())).await;
            assert_eq!(sender.outcomes().await, [(5, DONE)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_5_there_are_no_more_than_16_data_streams() {
    let dir = tempfile::tempdir().unwrap();
    let mut sender = PlayedSender::begin(into_folder(dir.path()), announce("f", 3)).await;
    for _ in 0..DATA_STREAMS_MAX {
        sender.data(&[]).await;
    }
    // Still going.
    assert_eq!(sender.outcomes().await, [(5, SEND)]);
    sender.data(&[piece(5, 0, b"one")]).await;
    assert!(sender.answers.skip_to(FATAL).await.is_some());
    assert!(matches!(sender.ended().await, Err(TransferError::Protocol { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_3_files_that_wait_for_content_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut sender = PlayedSender::begin(into_folder(dir.path()), opening()).await;
    let batch_of = |first: u64| {
        let ids = first..first + BATCH_ENTRIES_MAX as u64;
        batch(ids.map(|id| file(id, &format!("f{id}"), 5)).collect())
    };
    let most = 2 * ENTRIES_IN_FLIGHT_MAX as u64;
    for first in (0..most).step_by(BATCH_ENTRIES_MAX) {
        sender.say(batch_of(first)).await;
        let decided = sender.outcomes().await;
        assert_eq!(decided.len(), BATCH_ENTRIES_MAX);
        assert!(decided.iter().all(|&(_, outcome)| outcome == SEND));
    }
    sender.say(batch(vec![file(most, "one too many", 5)])).await;
    assert!(sender.answers.skip_to(FATAL).await.is_some());
}

/// What a real sender says to a receiver that has everything already and takes its time: kinds and paths in order,
/// each with the number of entries without an outcome at that moment; and how many data streams it opened.
async fn said(sender: SenderConfig, sequential: bool) -> (Vec<(EntryKind, String, usize)>, usize) {
    let (here, there, _) = connection(u64::MAX);
    let sending = tokio::spawn(async move { Sender::new(sender).unwrap().run(&here).await });
    let (mut sink, source) = there.accept_stream().await.unwrap();
    let mut messages = Messages::new(source);
    assert_eq!(messages.preamble().await, *b"DWTX\x01\0\0\0");
    assert_eq!(messages.next().await.unwrap().0, 1, "Hello");
    sink.write_bytes(message(2, &[1, 0, sequential.into()]).into()).await.unwrap();
    let mut said = Vec::new();
    // Answers are kept back for as long as the sender goes on without them.
    let mut unanswered: Vec<u64> = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(100), messages.next()).await {
            Ok(Some((BATCH, body))) => {
                let waiting = unanswered.len();
                for entry in manifest::decode(&body).unwrap().entries {
                    unanswered.push(entry.id);
                    said.push((entry.kind, entry.path.to_string(), waiting));
                }
            }
            Ok(Some((FINISH, _))) => break,
            Ok(other) => panic!("{other:?}"),
            Err(_) => {
                let mut body = (unanswered.len() as u32).to_le_bytes().to_vec();
                for id in unanswered.drain(..) {
                    body.extend(id.to_le_bytes());
                    body.push(SKIPPED);
                }
                sink.write_bytes(message(OUTCOMES, &body).into()).await.unwrap();
            }
        }
    }
    sink.write_bytes(message(FINISHED, b"").into()).await.unwrap();
    let mut streams = 0;
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(100), there.accept_stream()).await {
        streams += 1;
    }
    sending.await.unwrap().unwrap();
    (said, streams)
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_4_directories_come_first_links_after_all_and_the_ends_of_directories_last() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("a/b")).unwrap();
    for path in ["a/b/file", "a/file", "z"] {
        fs::write(from.join(path), path).unwrap();
    }
    fs::hard_link(from.join("z"), from.join("a/link")).unwrap();
    symlink("z", from.join("s")).unwrap();
    let (said, streams) = said(SenderConfig::new(vec![source(&from, "t")]), false).await;
    assert_eq!(streams, DATA_STREAMS);
    let position = |path: &str| said.iter().position(|(_, said, _)| said == path).expect(path);
    for (directory, inside) in [("t", "t/z"), ("t", "t/a"), ("t/a", "t/a/b"), ("t/a/b", "t/a/b/file")] {
        assert!(position(directory) < position(inside), "{said:?}");
    }
    let rank = |kind: &EntryKind| match kind {
        EntryKind::HardLink { .. } => 1,
        EntryKind::DirectoryEnd => 2,
        _ => 0,
    };
    assert!(said.is_sorted_by_key(|(kind, ..)| rank(kind)), "{said:?}");
    for rank_begins in [1, 2] {
        let (_, path, waiting) =
            said.iter().find(|(kind, ..)| rank(kind) == rank_begins).expect("one of each");
        assert_eq!(*waiting, 0, "{path} is announced while others wait: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_4_a_sender_that_is_asked_for_order_opens_one_data_stream() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let (said, streams) = said(SenderConfig::new(vec![source(dir.path().join("f"), "f")]), true).await;
    assert_eq!((said.len(), streams), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_5_each_entry_gets_one_final_outcome() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    for path in ["same", "other size"] {
        fs::write(dir.path().join(path), b"12345").unwrap();
        File::open(dir.path().join(path)).unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
    let entries = || {
        vec![
            entry(1, "new directory", EntryKind::Directory),
            entry(2, "d", EntryKind::Directory),
            file(3, "same", 5),
            file(4, "other size", 6),
            file(5, "new", 5),
            file(6, "empty", 0),
            entry(7, "link", EntryKind::Symlink { target: b"same".to_vec() }),
            entry(8, "again", EntryKind::HardLink { target: rel("same") }),
            entry(9, "of nothing", EntryKind::HardLink { target: rel("nothing") }),
        ]
    };
    // The same file, if times count and if content is compared.
    for (checksum, same) in [(false, SKIPPED), (true, CHECK)] {
        let mut sender = PlayedSender::begin(into_folder(dir.path()), hello(1, checksum)).await;
        sender.say(batch(entries())).await;
        let mut heard: Vec<(u64, u8)> = Vec::new();
        while heard.len() < 9 {
            heard.extend(sender.outcomes().await);
        }
        heard.sort_unstable();
        // What the first round has made is there in the second.
        let made = if checksum { SKIPPED } else { DONE };
        let expected = [
            (1, made),
            (2, SKIPPED),
            (3, same),
            (4, FAILED),
            (5, SEND),
            (6, made),
            (7, made),
            (8, made),
            (9, FAILED),
        ];
        assert_eq!(heard, expected);
        sender.data(&[piece(5, 0, b"fresh")]).await;
        assert_eq!(sender.outcomes().await, [(5, DONE)]);
        if checksum {
            // Its source turned out to have another hash: again, under a new id.
            sender.say(batch(vec![entry(10, "same", EntryKind::File { size: 5, differs: true })])).await;
            assert_eq!(sender.outcomes().await, [(10, FAILED)]);
        }
        // Nothing else is said.
        sender.finish().await;
        fs::remove_file(dir.path().join("new")).unwrap();
    }
}

/// A power failure is not tried: that the syncs come before is in the code only.
#[tokio::test(flavor = "multi_thread")]
async fn t5_5_when_done_is_said_the_file_is_there_with_its_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let mut sender = PlayedSender::begin(into_folder(dir.path()), opening()).await;
    let mut announced = file(5, "f", 5);
    announced.metadata.mode = 0o640;
    announced.metadata.modified.seconds = 1_000_000_000;
    sender.say(batch(vec![announced])).await;
    assert_eq!(sender.outcomes().await, [(5, SEND)]);
    assert!(!dir.path().join("f").exists());
    sender.data(&[piece(5, 0, b"fresh")]).await;
    assert_eq!(sender.outcomes().await, [(5, DONE)]);
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"fresh");
    let found = fs::metadata(dir.path().join("f")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o640);
    assert_eq!(found.modified().unwrap(), UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    assert_eq!(sender.finish().await.failures, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_5_the_end_may_come_before_the_pieces_and_tells_how_many_to_wait_for() {
    let (size, pieces) = (u64::from(PIECE) + 3, [vec![1; PIECE as usize], b"end".to_vec()]);
    let hash = *blake3::hash(&pieces.concat()).as_bytes();
    for (hash, outcome) in [(hash, DONE), ([0; 32], FAILED)] {
        let dir = tempfile::tempdir().unwrap();
        let mut sender = PlayedSender::begin(into_folder(dir.path()), announce("f", size)).await;
        assert_eq!(sender.outcomes().await, [(5, SEND)]);
        sender.say(file_end(5, size, 2, hash)).await;
        sender.data(&[piece(5, 1, &pieces[1])]).await;
        // Another entry has its outcome first.
        sender.say(batch(vec![entry(6, "d", EntryKind::Directory)])).await;
        assert_eq!(sender.outcomes().await, [(6, DONE)]);
        sender.data(&[piece(5, 0, &pieces[0])]).await;
        assert_eq!(sender.outcomes().await, [(5, outcome)]);
        assert_eq!(dir.path().join("f").exists(), outcome == DONE);
        sender.finish().await;
    }
    for wrong in
        [file_end(5, size + 1, 2, hash), [file_end(5, size, 2, hash), file_end(5, size, 2, hash)].concat()]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut sender = PlayedSender::begin(into_folder(dir.path()), announce("f", size)).await;
        sender.say(wrong).await;
        assert!(sender.answers.skip_to(FATAL).await.is_some(), "another size, or two ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_8_a_withdrawn_entry_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut sender = PlayedSender::begin(into_folder(dir.path()), announce("f", 5)).await;
    assert_eq!(sender.outcomes().await, [(5, SEND)]);
    let again = batch(vec![file(6, "f", 3)]);
    sender.say([message(WITHDRAW, &5u64.to_le_bytes()), again].concat()).await;
    assert_eq!(sender.outcomes().await, [(6, SEND)]);
    // What was still on its way, even if it is broken, is dropped.
    sender.data(&[piece(5, 0, b"stale"), piece(6, 0, b"new")]).await;
    assert_eq!(sender.outcomes().await, [(6, DONE)]);
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
    let received = sender.finish().await;
    assert_eq!((received.failures, received.progress.entries_total), (vec![], 1));
    assert_eq!(received.progress.bytes_total, 3);
}
