//! Killed at any byte, run again: only what is missing travels, and the result is right (T6).

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::support::*;
use dwcp_transfer::{
    Destination, FailureKind, ReceiverConfig, SenderConfig, Source, TransferError, clean_partials,
};
use proptest::prelude::*;

const PIECE: u64 = dwcp_transfer::limits::PIECE_BYTES;
const STREAMS: u64 = dwcp_transfer::limits::DATA_STREAMS as u64;
/// Manifest, outcomes, record headers, offers.
const OVERHEAD: u64 = 64 << 10;

fn partial(into: &Path, extension: &str) -> PathBuf {
    let mut found = fs::read_dir(into.join(".novacron-partial")).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.extension().is_some_and(|is| is == extension)).expect("a partial file")
}

fn unsynced(into: &Path) -> ReceiverConfig {
    let mut config = into_folder(into);
    config.fsync = false;
    config
}

fn one(from: &Path) -> SenderConfig {
    SenderConfig::new(vec![source(from, "f")])
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_1_a_killed_transfer_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let size = 64 << 20;
    fs::write(&from, noise(size, 1)).unwrap();
    let first = transfer_until(40 << 20, one(&from), into_folder(&into)).await;
    assert!(matches!(first.sent, Err(TransferError::Stream { .. })));
    assert!(first.received.is_err());
    assert!(!into.join("f").exists(), "nothing is visible before it is complete");

    let second = transfer(one(&from), into_folder(&into)).await;
    let again = first.carried + second.carried - size as u64;
    assert!(again <= STREAMS * PIECE + 2 * OVERHEAD, "{again} bytes travelled twice");
    let (sent, _) = second.clean();
    assert_eq!(sent.progress.bytes_moved + sent.progress.bytes_skipped, size as u64);
    assert_eq!(fs::read(into.join("f")).unwrap(), fs::read(&from).unwrap());
    assert_eq!(fs::read_dir(into.join(".novacron-partial")).unwrap().count(), 1, "only the lock");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn t6_3_any_kills_cost_what_was_in_flight(kills in prop::collection::vec(0u64..24 << 20, 1..4), seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        fs::create_dir_all(from.join("small")).unwrap();
        fs::write(from.join("large"), noise(21_000_001, seed)).unwrap();
        fs::write(from.join("second"), noise(9 << 20, seed ^ 1)).unwrap();
        for file in 0..50 {
            fs::write(from.join(format!("small/{file}")), noise(file * 500, seed)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let total = 21_000_001 + (9 << 20) + 50 * 49 / 2 * 500;
        let mut carried = 0;
        for kill in &kills {
            carried += runtime.block_on(transfer_until(*kill, one(&from), unsynced(&into))).carried;
        }
        let last = runtime.block_on(transfer(one(&from), unsynced(&into)));
        carried += last.carried;
        last.clean();
        for file in ["large", "second", "small/7", "small/49"] {
            prop_assert!(fs::read(into.join("f").join(file)).unwrap() == fs::read(from.join(file)).unwrap());
        }
        // What a kill can cost: a piece in flight on each stream, queued small files, and talk.
        let bound = total + (kills.len() as u64 + 1) * (STREAMS * PIECE + (1 << 20) + OVERHEAD);
        prop_assert!(carried <= bound, "{} bytes carried of {} allowed", carried, bound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_2_damage_of_partial_files_costs_time_never_correctness() {
    let content = noise(40 << 20, 3);
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("flip in data", |into| flip(&partial(into, "data"), 1 << 20)),
        ("flip in journal header", |into| flip(&partial(into, "journal"), 3)),
        ("flip in journal record", |into| flip(&partial(into, "journal"), 64 + 20)),
        ("no journal", |into| fs::remove_file(partial(into, "journal")).unwrap()),
        ("no data", |into| fs::remove_file(partial(into, "data")).unwrap()),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        fs::write(&from, &content).unwrap();
        transfer_until(30 << 20, one(&from), unsynced(&into)).await;
        damage(&into);
        transfer(one(&from), unsynced(&into)).await.clean();
        assert!(fs::read(into.join("f")).unwrap() == content, "{name}");
    }
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_1_a_source_changed_between_runs_is_sent_as_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    let mut content = noise(40 << 20, 4);
    fs::write(&from, &content).unwrap();
    transfer_until(30 << 20, one(&from), unsynced(&into)).await;

    // One piece changed to a hole, the end cut off in the middle of another.
    content.truncate(33 << 20);
    content[PIECE as usize..2 * PIECE as usize].fill(0);
    let file = File::options().write(true).open(&from).unwrap();
    file.set_len(33 << 20).unwrap();
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    if let Err(error) = rustix::fs::fallocate(&file, punch, PIECE, PIECE) {
        println!("no holes here ({error}): zeros instead");
        file.write_all_at(&vec![0; PIECE as usize], PIECE).unwrap();
    }
    drop(file);
    let (sent, _) = transfer(one(&from), unsynced(&into)).await.clean();
    assert!(sent.progress.bytes_skipped > 0, "unchanged pieces are not sent again");
    assert!(fs::read(into.join("f")).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_7_a_full_disk_ends_the_transfer_with_a_clear_error_and_keeps_the_partial() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir(&into).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(&into)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("SKIP: cannot mount a small tmpfs (not root?)");
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(into.clone());
    fs::write(&from, noise(60 << 20, 8)).unwrap();
    let ended = transfer(one(&from), into_folder(&into)).await;
    let errors = [ended.sent.unwrap_err().to_string(), ended.received.unwrap_err().to_string()];
    for error in errors {
        assert!(error.contains("No space left") && error.contains(" f"), "{error}");
    }
    assert!(!into.join("f").exists());

    // With room made, the rest follows.
    let remount = std::process::Command::new("mount").args(["-o", "remount,size=100m"]).arg(&into).status();
    assert!(remount.unwrap().success());
    let (sent, _) = transfer(one(&from), into_folder(&into)).await.clean();
    assert!(sent.progress.bytes_skipped >= 3 * PIECE, "{} bytes kept", sent.progress.bytes_skipped);
    assert!(fs::read(into.join("f")).unwrap() == fs::read(&from).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_6_a_new_run_takes_over_from_one_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::write(&from, noise(40 << 20, 9)).unwrap();
    let receiver = Arc::new(dwcp_transfer::Receiver::open(unsynced(&into)).unwrap());
    let serve = |there: Memory| {
        let receiver = receiver.clone();
        tokio::spawn(async move { receiver.serve(&there, "peer", &Default::default()).await })
    };
    // The first sender stops in the middle without its connection ending.
    let (hanging_here, hanging_there, link) = connection(u64::MAX);
    link.hang_after(3 * PIECE);
    let hanging = dwcp_transfer::Sender::new(one(&from)).unwrap();
    let first = serve(hanging_there);
    let progress = hanging.progress();
    let stuck = tokio::spawn(async move { hanging.run(&hanging_here).await });
    while progress.snapshot().bytes_moved < 2 * PIECE {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }

    let (here, there, _) = connection(u64::MAX);
    let second = serve(there);
    let sent = dwcp_transfer::Sender::new(one(&from)).unwrap().run(&here).await.unwrap();
    assert_eq!(sent.failures, []);
    second.await.unwrap().unwrap();
    assert!(fs::read(into.join("f")).unwrap() == fs::read(&from).unwrap());
    assert!(first.await.unwrap().is_err());
    stuck.abort();
    drop(link);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_in_and_go_out() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("into");
    for len in [0, 1, PIECE as usize, 10_000_000] {
        let content = noise(len, len as u64);
        let name = format!("stream-{len}");
        let stream = |content: &[u8]| {
            let reader: Box<dyn Read + Send> = Box::new(io::Cursor::new(content.to_vec()));
            SenderConfig::new(vec![Source::Stream { reader, dest: rel(&name) }])
        };
        let (sent, _) = transfer(stream(&content), into_folder(&into)).await.clean();
        assert_eq!(sent.progress.bytes_moved, len as u64);
        assert!(fs::read(into.join(&name)).unwrap() == content);

        for sender in [stream(&content), SenderConfig::new(vec![source(into.join(&name), "x")])] {
            let output = Output::default();
            let config = ReceiverConfig::new(Destination::Output(Box::new(output.clone())));
            transfer(sender, config).await.clean();
            assert!(*output.0.lock().unwrap() == content, "{len}");
        }
    }
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_receives_only_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (from, device) = (dir.path().join("image"), dir.path().join("device"));
    let mut content = noise(24 << 20, 1);
    content[9 << 20..14 << 20].fill(0);
    // A regular file in place of a device: the same calls, without needing one.
    fs::write(&device, noise(30 << 20, 2)).unwrap();
    let file = File::create(&from).unwrap();
    file.set_len(24 << 20).unwrap();
    file.write_all_at(&content[..9 << 20], 0).unwrap();
    file.write_all_at(&content[14 << 20..], 14 << 20).unwrap();
    drop(file);
    let to_device = || ReceiverConfig::new(Destination::Device(device.clone()));
    transfer(one(&from), to_device()).await.clean();
    assert!(fs::read(&device).unwrap()[..24 << 20] == content[..]);
    assert_eq!(fs::metadata(&device).unwrap().len(), 30 << 20);

    flip(&device, 13 << 20);
    let (sent, _) = transfer(one(&from), to_device()).await.clean();
    assert!(sent.progress.bytes_moved <= PIECE, "{} bytes moved", sent.progress.bytes_moved);
    assert!(fs::read(&device).unwrap()[..24 << 20] == content[..]);

    let small = ReceiverConfig::new(Destination::Device(device.clone()));
    File::options().write(true).open(&device).unwrap().set_len(1 << 20).unwrap();
    let ended = transfer(one(&from), small).await;
    assert_eq!(ended.failures(), [("f".into(), FailureKind::Limit)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partials_can_be_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::write(&from, noise(30 << 20, 1)).unwrap();
    transfer_until(20 << 20, one(&from), unsynced(&into)).await;
    let report = clean_partials(&into).unwrap();
    assert_eq!(report.files, 2);
    assert!(report.bytes >= PIECE);
    let (sent, _) = transfer(one(&from), unsynced(&into)).await.clean();
    assert_eq!(sent.progress.bytes_skipped, 0);
}
