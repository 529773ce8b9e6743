//! Of a content that the receiver has in an older version only what differs travels; and whatever is wrong with that version,
//! what arrives is right.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
};

use crate::support::{pair::*, *};

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
