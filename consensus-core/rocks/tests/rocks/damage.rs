//! A log whose write-ahead log is torn or flipped: what nobody was promised may go, what was synced must be missed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use consensus_disk::{Batch, Disk as _, DiskError, Durability, Space};
use consensus_rocks::{Kind, RocksDisk};

const SPACE: Space = Space(0);

/// Writes that were synced, and then one that was not, all of them in the write-ahead log.
fn written(folder: &Path) -> PathBuf {
    let disk = RocksDisk::open(folder, Kind::Log, 1).unwrap();
    let write = |n: u8, durability| {
        let mut batch = Batch::default();
        batch.put(SPACE, [n], vec![n; 5000]);
        disk.write(batch, durability).unwrap();
    };
    (0..20).for_each(|n| write(n, Durability::Synced));
    write(20, Durability::Ordered);
    drop(disk);
    let mut logs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

/// How many writes are there, from the first on.
fn found(folder: &Path) -> Result<u8, DiskError> {
    // Whoever only reads must not find more.
    let read = RocksDisk::open_to_read(folder, Kind::Log, 1).map(drop);
    let disk = RocksDisk::open(folder, Kind::Log, 1);
    assert_eq!(read.is_err(), disk.is_err(), "{read:?}");
    let disk = disk?;
    let count = (0..=20).take_while(|n| disk.get(SPACE, &[*n]).unwrap().is_some()).count() as u8;
    assert!((count..=20).all(|n| disk.get(SPACE, &[n]).unwrap().is_none()), "lost from the end only");
    Ok(count)
}

fn cut(log: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

/// Changes a byte of the value of a write.
fn flip(log: &Path, write: u8) {
    let mut bytes = fs::read(log).unwrap();
    let at = bytes.windows(64).position(|window| *window == [write; 64]).expect("the write");
    bytes[at] ^= 0x40;
    fs::write(log, bytes).unwrap();
}

#[track_caller]
fn is_refused(folder: &Path) {
    let refused = found(folder).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    assert!(refused.to_string().contains(&folder.display().to_string()), "{refused}");
    // RocksDB has removed what was behind the damage; that must not make it right.
    assert!(found(folder).unwrap_err().is_damage(), "a second look finds it as well");
}

#[test]
fn a_torn_write_that_was_not_synced_is_cut() {
    for bytes in [1, 100, 5000] {
        let folder = tempfile::tempdir().unwrap();
        cut(&written(folder.path()), bytes);
        assert_eq!(found(folder.path()).unwrap(), 20, "{bytes} bytes torn off");
    }
}

#[test]
fn a_torn_write_that_was_synced_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    cut(&written(folder.path()), 6000);
    is_refused(folder.path());
}

#[test]
fn a_flipped_bit_in_a_write_that_was_synced_is_found() {
    for write in [0, 10, 19] {
        let folder = tempfile::tempdir().unwrap();
        flip(&written(folder.path()), write);
        is_refused(folder.path());
    }
    let folder = tempfile::tempdir().unwrap();
    flip(&written(folder.path()), 20);
    assert_eq!(found(folder.path()).unwrap(), 20, "nobody was promised the last one");
}

/// As after a power cut, which takes the mark with it.
#[test]
fn without_the_mark_what_follows_tells() {
    for write in [0, 10, 18] {
        let folder = tempfile::tempdir().unwrap();
        let log = written(folder.path());
        fs::remove_file(folder.path().join("synced")).unwrap();
        flip(&log, write);
        is_refused(folder.path());
    }
}

/// The limit of it: damage of the newest records and a mark that is older than they are look like a torn tail.
#[test]
fn without_the_mark_the_end_cannot_tell() {
    let folder = tempfile::tempdir().unwrap();
    let log = written(folder.path());
    fs::remove_file(folder.path().join("synced")).unwrap();
    flip(&log, 20);
    cut(&log, 6000);
    assert_eq!(found(folder.path()).unwrap(), 19);
}

#[test]
fn a_folder_that_lost_its_files_is_not_a_new_one() {
    for lost in ["CURRENT", "log"] {
        let folder = tempfile::tempdir().unwrap();
        let log = written(folder.path());
        fs::remove_file(if lost == "log" { log } else { folder.path().join(lost) }).unwrap();
        is_refused(folder.path());
    }
}

#[test]
fn files_that_are_used_again_say_nothing_of_their_last_life() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RocksDisk::open(folder.path(), Kind::Log, 1).unwrap();
    for round in 0..6_u8 {
        for n in 0..20 {
            let mut batch = Batch::default();
            batch.put(SPACE, [round, n], vec![n; 5000]);
            disk.write(batch, Durability::Synced).unwrap();
        }
        // The file before goes to those that are used again.
        disk.flush().unwrap();
    }
    drop(disk);
    let disk = RocksDisk::open(folder.path(), Kind::Log, 1).unwrap();
    for (round, n) in (0..6).flat_map(|round| (0..20).map(move |n| (round, n))) {
        assert!(disk.get(SPACE, &[round, n]).unwrap().is_some());
    }
}
