//! A source that changes or shrinks while it is read (T4.7): it is sent again as it is now, and never as a mixture.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::support::*;
use dwcp_transfer::{
    Destination, FailureKind, ReceiverConfig, SenderConfig, limits::PIECE_BYTES, limits::SOURCE_READS_MAX,
};

/// Much more than a sender reads ahead on one data stream.
const LEN: usize = 60 << 20;

/// One data stream, so that only a few pieces are read when the first bytes travel.
fn sender(from: &Path) -> SenderConfig {
    let mut config = SenderConfig::new(vec![source(from, "f")]);
    config.data_streams = 1;
    config
}

fn unsynced(into: &Path) -> ReceiverConfig {
    let mut config = into_folder(into);
    config.fsync = false;
    config
}

/// Changes the file once, when a megabyte of it has travelled.
fn change_once(path: &Path, change: fn(&File)) -> (Memory, Memory, std::sync::Arc<Link>) {
    let connection = connection(u64::MAX);
    let (file, done) = (File::options().write(true).open(path).unwrap(), AtomicBool::new(false));
    connection.2.before_each_chunk(move |carried| {
        if carried > 1 << 20 && !done.swap(true, Relaxed) {
            change(&file);
        }
    });
    connection
}

type Change = fn(&File);
const CHANGES: [(&str, Change); 5] = [
    ("grows", |file| file.set_len(70 << 20).unwrap()),
    ("shrinks", |file| file.set_len(50 << 20).unwrap()),
    ("shrinks below what was sent", |file| file.set_len(5).unwrap()),
    ("is emptied", |file| file.set_len(0).unwrap()),
    ("is written", |file| file.write_all_at(b"x", 0).unwrap()),
];

#[tokio::test(flavor = "multi_thread")]
async fn t4_7_a_source_that_changes_once_is_sent_as_it_is_then() {
    for (name, change) in CHANGES {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("changing"), noise(LEN, 5)).unwrap();
        fs::write(from.join("other"), noise(1 << 20, 6)).unwrap();
        let connection = change_once(&from.join("changing"), change);
        let (sent, received) = transfer_over(connection, sender(&from), unsynced(&into)).await.clean();
        for file in ["changing", "other"] {
            let same = fs::read(into.join("f").join(file)).unwrap() == fs::read(from.join(file)).unwrap();
            assert!(same, "{name}: {file}");
        }
        for progress in [sent.progress, received.progress] {
            assert_eq!(progress.bytes_done, progress.bytes_total, "{name}: {progress:?}");
            assert_eq!((progress.files_done, progress.entries_total), (2, 3), "{name}");
        }
        let left = fs::read_dir(into.join(".novacron-partial")).unwrap().count();
        let resumable = fs::metadata(from.join("changing")).unwrap().len() > PIECE_BYTES;
        assert!(left == 1 || !resumable, "{name}: only the lock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_7_what_did_not_change_does_not_travel_again() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::write(&from, noise(LEN, 5)).unwrap();
    let connection = change_once(&from, |file| file.write_all_at(b"x", 0).unwrap());
    let ended = transfer_over(connection, sender(&from), unsynced(&into)).await;
    let again = ended.carried - LEN as u64;
    // The changed piece, and those that were still on their way for the entry that was withdrawn.
    assert!(again <= 8 * PIECE_BYTES, "{again} bytes travelled twice");
    ended.clean();
    assert!(fs::read(into.join("f")).unwrap() == fs::read(&from).unwrap());
}

/// A database takes the names of its own files from them while a copy, made of hard links, is read.
#[tokio::test(flavor = "multi_thread")]
async fn t4_7_a_file_that_is_written_once_may_lose_a_name_and_still_must_not_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let (from, other, into) = (dir.path().join("from"), dir.path().join("other"), dir.path().join("into"));
    fs::write(&from, noise(LEN, 5)).unwrap();
    let reads_again = |written_once: bool| {
        fs::hard_link(&from, &other).unwrap();
        let (connection, other) = (connection(u64::MAX), other.clone());
        connection.2.before_each_chunk(move |carried| {
            if carried > 1 << 20 && other.exists() {
                fs::remove_file(&other).unwrap();
            }
        });
        let (from, into) = (from.clone(), into.join(written_once.to_string()));
        async move {
            let mut config = sender(&from);
            config.written_once = written_once;
            let (sent, _) = transfer_over(connection, config, unsynced(&into)).await.clean();
            assert!(fs::read(into.join("f")).unwrap() == fs::read(&from).unwrap());
            sent.progress.bytes_skipped > 0
        }
    };
    assert!(reads_again(false).await, "without it, a name that goes is a change");
    assert!(!reads_again(true).await);

    let connection = change_once(&from, |file| file.write_all_at(b"x", 0).unwrap());
    let mut config = sender(&from);
    config.written_once = true;
    transfer_over(connection, config, unsynced(&into.join("written"))).await.clean();
    assert!(fs::read(into.join("written/f")).unwrap() == fs::read(&from).unwrap(), "a mixture");
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_7_a_source_that_does_not_stop_changing_fails_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("changing"), noise(9 << 20, 5)).unwrap();
    fs::write(from.join("other"), noise(5 << 20, 6)).unwrap();
    fs::hard_link(from.join("changing"), from.join("link")).unwrap();
    let connection = connection(u64::MAX);
    // Whenever anything is said, so between each announcement and its content.
    let log = File::options().append(true).open(from.join("changing")).unwrap();
    connection.2.before_each_chunk(move |_| {
        std::io::Write::write_all(&mut &log, b"one more\n").unwrap();
    });
    let ended = transfer_over(connection, sender(&from), unsynced(&into)).await;
    let failures = ended.failures();
    assert_eq!(failures.len(), 2, "{failures:?}");
    let kinds: Vec<_> = failures.iter().map(|(_, kind)| *kind).collect();
    assert!(kinds.contains(&FailureKind::SourceChanged) && kinds.contains(&FailureKind::LinkTarget));
    assert!(!into.join("f/changing").exists() && !into.join("f/link").exists());
    assert!(fs::read(into.join("f/other")).unwrap() == fs::read(from.join("other")).unwrap());
    // Both ends say why.
    let [sent, received] = [ended.sent.unwrap(), ended.received.unwrap()];
    let why = |summary: &dwcp_transfer::Summary| {
        let mut all = summary.failures.iter().map(|failed| &failed.failure);
        all.find(|failure| failure.kind == FailureKind::SourceChanged).map(ToString::to_string)
    };
    let said = why(&sent).expect("the sender's failure");
    assert!(said.contains("source changed while it was read") && said.contains("grew from"), "{said}");
    assert_eq!(why(&received), Some(said));
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_7_a_device_gets_the_file_as_it_is_in_the_end_and_an_output_none() {
    let dir = tempfile::tempdir().unwrap();
    let (from, device) = (dir.path().join("from"), dir.path().join("device"));
    for (name, change) in CHANGES {
        fs::write(&from, noise(LEN, 5)).unwrap();
        fs::write(&device, noise(80 << 20, 6)).unwrap();
        let config = ReceiverConfig::new(Destination::Device(device.clone()));
        println!("{name}");
        transfer_over(change_once(&from, change), sender(&from), config).await.clean();
        let content = fs::read(&from).unwrap();
        assert!(fs::read(&device).unwrap()[..content.len()] == content, "{name}");
    }
    // What went into a pipe cannot be taken back.
    fs::write(&from, noise(LEN, 5)).unwrap();
    let config = ReceiverConfig::new(Destination::Output(Box::new(std::io::sink())));
    let connection = change_once(&from, |file| file.write_all_at(b"x", 0).unwrap());
    let ended = transfer_over(connection, sender(&from), config).await;
    assert_eq!(ended.failures(), [("f".into(), FailureKind::SourceChanged)]);
}

#[test]
fn the_bound_is_what_the_documents_say() {
    assert_eq!(SOURCE_READS_MAX, 3);
}
