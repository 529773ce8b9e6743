//! A sender that is told to end early (T6.4): no content is begun after that, nothing is half there, and a later run
//! sends the rest.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::support::*;
use dwcp_transfer::{Sender, SenderConfig, Summary, TransferError, Unsent, limits::UNSENT_KEPT_MAX};

/// Only a hang reaches it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Drain,
    Stop,
}

/// Sends `config` and tells the sender to end once so many bytes have travelled.
async fn ended_after(
    bytes: u64,
    how: How,
    config: SenderConfig,
    into: &Path,
) -> (Summary, Result<Summary, TransferError>) {
    let (here, there, link) = connection(u64::MAX);
    let into = unsynced(into);
    let receiving = tokio::spawn(async move {
        let receiver = dwcp_transfer::Receiver::open(into)?;
        receiver.serve(&there, "peer", &dwcp_transfer::ProgressSource::default()).await
    });
    let sender = Sender::new(config).unwrap();
    let (stopper, told) = (sender.stopper(), AtomicBool::new(false));
    link.before_each_chunk(move |carried| {
        if carried >= bytes && !told.swap(true, Relaxed) {
            match how {
                How::Drain => stopper.drain(),
                How::Stop => stopper.stop(),
            }
        }
    });
    let sent = tokio::time::timeout(PATIENCE, sender.run(&here)).await.expect("the sender hangs");
    drop(here);
    if how == How::Stop {
        link.kill();
    }
    let received = tokio::time::timeout(PATIENCE, receiving).await.expect("the receiver hangs");
    (sent.expect("it ends well"), received.unwrap())
}

fn unsynced(into: &Path) -> dwcp_transfer::ReceiverConfig {
    let mut into = into_folder(into);
    into.fsync = false;
    into
}

/// A later run, to its end.
async fn again(from: &Path, into: &Path) -> Summary {
    transfer(SenderConfig::new(vec![source(from, "t")]), unsynced(into)).await.clean().0
}

/// A tree of this many files of so many bytes.
fn tree(from: &Path, files: usize, len: usize) -> SenderConfig {
    fs::create_dir(from).unwrap();
    for number in 0..files {
        fs::write(from.join(number.to_string()), noise(len, number as u64)).unwrap();
    }
    SenderConfig::new(vec![source(from, "t")])
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_4_what_is_under_way_is_finished_and_nothing_is_begun() {
    const FILES: usize = 30;
    const LEN: usize = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let (sent, received) = ended_after(LEN as u64, How::Drain, tree(&from, FILES, LEN), &into).await;
    let unsent = sent.unsent.expect("not all was sent");
    let there = names(&into.join("t"));
    assert!(!there.is_empty() && there.len() < FILES, "{there:?}");
    assert_eq!(sent.progress.files_done as usize, there.len(), "{:?}", sent.progress);
    // Each file is there as it is, or named as unsent.
    for name in &there {
        assert!(fs::read(into.join("t").join(name)).unwrap() == fs::read(from.join(name)).unwrap(), "{name}");
    }
    let mut all: Vec<_> = there.iter().map(|name| rel(&format!("t/{name}"))).collect();
    all.extend(unsent.paths.iter().cloned());
    all.sort();
    let mut expected: Vec<_> = (0..FILES).map(|number| rel(&format!("t/{number}"))).collect();
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!((unsent.entries as usize, unsent.more), (FILES - there.len(), false));
    // For the receiver this was not all.
    assert!(matches!(received, Err(TransferError::Stream { .. })), "{received:?}");
    assert_eq!(names(&into.join(".novacron-partial")).len(), 1, "only the lock");

    let rest = again(&from, &into).await;
    assert_eq!((rest.progress.files_skipped as usize, rest.unsent), (there.len(), None));
    assert_eq!(names(&into.join("t")).len(), FILES);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_4_a_drain_that_finds_all_begun_ends_as_a_complete_transfer() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let config = tree(&from, 1, 40 << 20);
    let (sent, received) = ended_after(5 << 20, How::Drain, config, &into).await;
    assert_eq!(sent.unsent, None);
    assert!(received.is_ok_and(|summary| summary.progress.files_done == 1));
    assert!(fs::read(into.join("t/0")).unwrap() == noise(40 << 20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_4_one_that_stops_at_once_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let config = tree(&from, 1, 60 << 20);
    let (sent, received) = ended_after(30 << 20, How::Stop, config, &into).await;
    let unsent = sent.unsent.expect("not all was sent");
    assert_eq!((&unsent.paths[..], unsent.entries), (&[rel("t/0")][..], 1));
    assert!(matches!(received, Err(TransferError::Stream { .. })), "{received:?}");
    assert!(names(&into.join("t")).is_empty());
    let rest = again(&from, &into).await;
    assert!(rest.progress.bytes_skipped >= 8 << 20, "{:?}", rest.progress);
    assert!(fs::read(into.join("t/0")).unwrap() == noise(60 << 20, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_4_links_wait_for_a_run_that_sends_all() {
    const LEN: usize = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let config = tree(&from, 20, LEN);
    fs::hard_link(from.join("0"), from.join("link")).unwrap();
    let (sent, _) = ended_after(LEN as u64, How::Drain, config, &into).await;
    let unsent = sent.unsent.expect("not all was sent");
    // Which of the two names is the file and which the link, the folder's order decides.
    let named = |name| unsent.paths.contains(&rel(name));
    assert!(named("t/0") || named("t/link"), "{unsent:?}");
    assert_eq!(unsent.entries as usize, 21 - sent.progress.files_done as usize);
    again(&from, &into).await;
    assert_eq!(names(&into.join("t")).len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_told_before_it_begins_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let sender = Sender::new(tree(&from, 2, 5)).unwrap();
    sender.stopper().drain();
    // Nobody is there to answer.
    let (here, _there, _link) = connection(u64::MAX);
    let sent = tokio::time::timeout(PATIENCE, sender.run(&here)).await.expect("it hangs").unwrap();
    let unsent = sent.unsent.expect("nothing was sent");
    assert_eq!((&unsent.paths[..], unsent.entries, unsent.more), (&[rel("t")][..], 1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_is_bounded_and_what_was_not_looked_at_is_said() {
    /// More than the window.
    const FILES: usize = 5000;
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir(&from).unwrap();
    for number in 0..FILES {
        fs::write(from.join(number.to_string()), b"x").unwrap();
    }
    let mut config = SenderConfig::new(vec![source(&from, "t"), source(&from, "u")]);
    config.data_streams = 1;
    let (sent, _) = ended_after(1 << 15, How::Drain, config, &into).await;
    let unsent: Unsent = sent.unsent.expect("not all was sent");
    assert!(unsent.more, "the second source at least was not looked at");
    assert!(unsent.paths.len() <= UNSENT_KEPT_MAX && unsent.entries >= unsent.paths.len() as u64);
    assert!(unsent.entries > 0);
    assert!(names(&into.join("t")).len() < FILES && !into.join("u").exists());
}

/// Ends it at many different moments: whatever is half done then, both sides come to an end, and a later run completes.
#[tokio::test(flavor = "multi_thread")]
async fn t6_4_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    tree(&from, 12, 1 << 20);
    fs::write(from.join("large"), noise(9 << 20, 77)).unwrap();
    for how in [How::Drain, How::Stop] {
        for step in 0..24 {
            let into = dir.path().join(format!("{how:?}{step}"));
            let config = SenderConfig::new(vec![source(&from, "t")]);
            let (sent, received) = ended_after(step << 20, how, config, &into).await;
            // One that stops at once may not hear any more that it was all.
            let agree = sent.unsent.is_none() == received.is_ok() || how == How::Stop && received.is_ok();
            assert!(agree, "{how:?} after {step} MiB: {:?}, {received:?}", sent.unsent);
            again(&from, &into).await;
            let there = Arc::new(names(&into.join("t")));
            assert_eq!(there.len(), 13, "{how:?} after {step} MiB");
        }
    }
}
