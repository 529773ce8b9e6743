//! Of a content that the receiver has in an older version only what differs travels; and whatever is wrong with that version,
//! what arrives is right.

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use dwcp_transfer::{BaselineStore, DeltaConfig, ReceiverConfig, SenderConfig, StoreConfig, Summary};
use support::*;

const MIB: usize = 1 << 20;

/// A sender, a receiver, and what each keeps.
struct Pair {
    dir: tempfile::TempDir,
    /// Whether each side has a store.
    stores: (bool, bool),
}

impl Pair {
    fn new(sender: bool, receiver: bool) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), stores: (sender, receiver) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, side: &str) -> Arc<BaselineStore> {
        let mut config = StoreConfig::new(self.path(side));
        config.fsync = false;
        Arc::new(BaselineStore::open(config).unwrap())
    }

    fn sender(&self) -> SenderConfig {
        let mut config = SenderConfig::new(vec![source(self.path("image"), "image")]);
        config.delta = Some(DeltaConfig::new(self.stores.0.then(|| self.store("sent"))));
        config
    }

    fn receiver(&self) -> ReceiverConfig {
        let mut config = into_folder(&self.path("into"));
        (config.overwrite, config.fsync) = (true, false);
        config.delta = Some(DeltaConfig::new(self.stores.1.then(|| self.store("received"))));
        config
    }

    /// Sends a version; what arrives is the same. Gives what it took.
    async fn send(&self, content: &[u8]) -> (Summary, Summary, u64) {
        fs::write(self.path("image"), content).unwrap();
        let ended = transfer(self.sender(), self.receiver()).await;
        let carried = ended.carried;
        let (sent, received) = ended.clean();
        assert!(fs::read(self.path("into/image")).unwrap() == content, "what arrived is another content");
        (sent, received, carried)
    }

    /// Files of a store, by folder.
    fn stored(&self, side: &str, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(side).join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Two versions: blocks changed in place, and bytes inserted.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let old = noise(20 * MIB, 1);
    let mut new = old.clone();
    for at in [5_000, 9 * MIB, 19 * MIB] {
        new[at..at + 100].copy_from_slice(&noise(100, at as u64));
    }
    new.splice(13 * MIB..13 * MIB, noise(777, 2));
    (old, new)
}

/// T7.3: without a store of its own a sender goes by chunks, against the receiver's store or the file to be replaced.
#[tokio::test(flavor = "multi_thread")]
async fn t7_3_only_changed_chunks_travel() {
    let (old, new) = versions();
    for in_store in [true, false] {
        let pair = Pair::new(false, in_store);
        let (_, _, full) = pair.send(&old).await;
        assert!(full > old.len() as u64);
        let (sent, received, carried) = pair.send(&new).await;
        assert!(carried < 400_000, "{carried} bytes carried");
        assert!(sent.progress.bytes_from_baselines > 19 * MIB as u64);
        assert_eq!(sent.progress.bytes_moved, received.progress.bytes_moved);
        assert_eq!(sent.progress.bytes_done, sent.progress.bytes_total);
        assert_eq!(received.progress.bytes_done, received.progress.bytes_total);
        assert_eq!(received.progress.deltas_refused, 0);
    }
}

/// T7.3, T7.7, DELTA-6.1: with a store at both sides no chunks are told, and changed blocks are patches.
#[tokio::test(flavor = "multi_thread")]
async fn t7_7_what_was_sent_and_received_is_kept_and_compared_with() {
    let (old, new) = versions();
    let pair = Pair::new(true, true);
    pair.send(&old).await;
    let (sent, _, carried) = pair.send(&new).await;
    assert!(carried < 40_000, "{carried} bytes carried");
    assert_eq!(sent.progress.deltas_refused, 0);
    for side in ["sent", "received"] {
        assert_eq!(pair.store(side).list().unwrap().versions.len(), 2, "{side}");
    }
    // Another time, and nothing else.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    fs::write(pair.path("image"), &new).unwrap();
    File::options().write(true).open(pair.path("image")).unwrap().set_modified(later).unwrap();
    let ended = transfer(pair.sender(), pair.receiver()).await;
    assert!(ended.carried < 3_000, "{} bytes carried", ended.carried);
    ended.clean();
    assert_eq!(
        pair.store("received").list().unwrap().versions.len(),
        2,
        "the same content is no new version"
    );
}

/// A tree has contents of one piece, too, and some that are too small to ask about.
#[tokio::test(flavor = "multi_thread")]
async fn t7_3_contents_of_one_piece() {
    for both in [true, false] {
        let pair = Pair::new(both, true);
        let old = noise(300_000, 1);
        pair.send(&old).await;
        let mut new = old.clone();
        new.splice(1000..1000, noise(10, 2));
        let (_, _, carried) = pair.send(&new).await;
        assert!(carried < 40_000, "{carried} bytes carried");
        let (_, _, carried) = pair.send(&noise(60_000, 3)).await;
        assert!(carried > 60_000);
    }
}

/// DELTA-5.1: a disk is cut in blocks; holes stay holes.
#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_disk_with_some_blocks_changed() {
    let pair = Pair::new(false, true);
    let mut disk = vec![0; 40 * MIB];
    disk[510..512].copy_from_slice(b"\x55\xaa");
    for at in [MIB, 17 * MIB, 33 * MIB] {
        disk[at..at + MIB].copy_from_slice(&noise(MIB, at as u64));
    }
    pair.send(&disk).await;
    disk[MIB + 4096..MIB + 8192].copy_from_slice(&noise(4096, 5));
    disk[17 * MIB..17 * MIB + 65536].fill(0);
    let (_, _, carried) = pair.send(&disk).await;
    assert!(carried < 20_000, "{carried} bytes carried");
    let (found, stored) =
        (fs::metadata(pair.path("into/image")).unwrap(), pair.stored("received", "contents"));
    assert!(found.blocks() * 512 < 6 * MIB as u64, "{} bytes allocated", found.blocks() * 512);
    assert!(stored.iter().all(|path| fs::metadata(path).unwrap().blocks() * 512 < 41 * MIB as u64));
}

/// What can become of a file of a store.
fn damage(path: &Path, how: usize) {
    let file = File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    match how {
        0 => file.write_all_at(b"damaged", len / 2).unwrap(),
        1 => file.set_len(len / 2).unwrap(),
        2 => file.set_len(0).unwrap(),
        3 => fs::remove_file(path).unwrap(),
        _ => {
            // Of the same length, and nothing of it right: a wrong baseline.
            file.write_all_at(&noise(len as usize, 99), 0).unwrap();
        }
    }
}

/// T7.5, DELTA-1.1, DELTA-6.3, DELTA-6.5: wrong, missing, corrupt, evicted, half-written baselines, records and chunk lists give
/// right bytes and no error.
#[tokio::test(flavor = "multi_thread")]
async fn t7_5_damaged_stores_cost_bytes_and_nothing_else() {
    let (old, new) = versions();
    for (sender_has_one, side) in [(false, "received"), (true, "received"), (true, "sent")] {
        for folder in ["contents", "versions", "cuts"] {
            for how in 0..5 {
                let pair = Pair::new(sender_has_one, true);
                pair.send(&old).await;
                if folder == "cuts" {
                    // There is a list once it was asked for.
                    let mut again = old.clone();
                    again[0] ^= 1;
                    pair.send(&again).await;
                }
                pair.stored(side, folder).iter().for_each(|path| damage(path, how));
                pair.send(&new).await;
                let report = pair.store(side).verify().unwrap();
                assert!(report.damaged <= 2, "{side} {folder} {how}: {report:?}");
                assert_eq!(pair.store(side).verify().unwrap().damaged, 0, "what is damaged is removed");
                // And the next time all is as it should be.
                let mut next = new.clone();
                next[7 * MIB] ^= 1;
                let (_, _, carried) = pair.send(&next).await;
                assert!(carried < 600_000, "{side} {folder} {how}: {carried} bytes");
            }
        }
    }
}

/// T7.1: a peer that does not know of it is sent everything, and nothing is said that it would not understand.
#[tokio::test(flavor = "multi_thread")]
async fn t7_1_without_an_agreement_everything_travels() {
    let (old, new) = versions();
    for old_sender in [true, false] {
        let pair = Pair::new(true, true);
        pair.send(&old).await;
        fs::write(pair.path("image"), &new).unwrap();
        let (mut sender, mut receiver) = (pair.sender(), pair.receiver());
        if old_sender {
            sender.delta = None
        } else {
            receiver.delta = None
        }
        let ended = transfer(sender, receiver).await;
        assert!(ended.carried > new.len() as u64);
        ended.clean();
        assert!(fs::read(pair.path("into/image")).unwrap() == new);
    }
}

/// An interrupted transfer of a second version goes on with what it has, and with the baseline.
#[tokio::test(flavor = "multi_thread")]
async fn t7_3_an_interruption_loses_neither_pieces_nor_the_baseline() {
    let (old, mut new) = versions();
    // Much that is new, so that there is something to interrupt.
    new[..8 * MIB].copy_from_slice(&noise(8 * MIB, 7));
    for both in [true, false] {
        let pair = Pair::new(both, true);
        pair.send(&old).await;
        fs::write(pair.path("image"), &new).unwrap();
        let ended = transfer_until(6 * MIB as u64, pair.sender(), pair.receiver()).await;
        assert!(ended.sent.is_err());
        assert!(fs::read(pair.path("into/image")).unwrap() == old);
        let ended = transfer(pair.sender(), pair.receiver()).await;
        assert!(ended.carried < 9 * MIB as u64, "{} bytes carried", ended.carried);
        ended.clean();
        assert!(fs::read(pair.path("into/image")).unwrap() == new);
    }
}
