//! Write-ahead logs that are read while they are written: what has rotted is found, and nothing else is.

use std::{
    fs::{self, OpenOptions},
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use consensus_disk::{Batch, Disk as _, DiskError, Durability, Space};
use consensus_rocks::{Kind, Place, RocksDisk};

const SPACE: Space = Space(0);

fn write(disk: &RocksDisk, n: u8, bytes: usize, durability: Durability) {
    let mut batch = Batch::default();
    batch.put(SPACE, [n], vec![n; bytes]);
    disk.write(batch, durability).unwrap();
}

/// Reads everything once, in slices; gives back how many bytes.
fn scrub(disk: &RocksDisk, slice_bytes: usize) -> Result<usize, DiskError> {
    let (mut place, mut bytes) = (Place::default(), 0);
    loop {
        let slice = disk.read_slice(&mut place, slice_bytes, |_, _, _| ControlFlow::Continue(()))?;
        bytes += slice.bytes;
        if slice.last {
            assert_eq!(place, Place::default());
            return Ok(bytes);
        }
    }
}

fn newest_wal(folder: &Path) -> PathBuf {
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

/// Where the value of a write is.
fn place_of(log: &Path, n: u8) -> u64 {
    let bytes = fs::read(log).unwrap();
    bytes.windows(64).position(|window| *window == [n; 64]).expect("the write") as u64
}

/// The file is changed in place: the writer goes on with it.
fn flip(log: &Path, at: u64, bits: u8) {
    let file = OpenOptions::new().read(true).write(true).open(log).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bits], at).unwrap();
}

#[track_caller]
fn is_found(disk: &RocksDisk, folder: &Path) {
    let found = scrub(disk, 1 << 20).unwrap_err();
    assert!(found.is_damage() && found.to_string().contains(&folder.display().to_string()), "{found}");
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RocksDisk::open(folder.path(), Kind::Log, 1).unwrap();
    (100..120).for_each(|n| write(&disk, n, 5000, Durability::Synced));
    write(&disk, 120, 5000, Durability::Ordered);
    assert!(scrub(&disk, 1 << 20).unwrap() > 2 * 100_000, "the tables, and then the file");
    let log = newest_wal(folder.path());
    for n in [100, 101, 106, 118, 119] {
        let value = place_of(&log, n);
        // Checksum, length, type, number of the file and the head of the batch come before the value, and the write before.
        for at in (value.saturating_sub(60)..value + 2).chain([value + 4000]) {
            flip(&log, at, 0x10);
            is_found(&disk, folder.path());
            flip(&log, at, 0x10);
        }
        scrub(&disk, 40_000).unwrap();
    }
    flip(&log, place_of(&log, 120), 0x10);
    scrub(&disk, 1 << 20).expect("nobody was promised the last one");
    write(&disk, 121, 10, Durability::Synced);
    is_found(&disk, folder.path());
}

/// A write of several blocks, whichever of its parts and of their heads it is.
#[test]
fn each_part_of_a_long_write_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RocksDisk::open(folder.path(), Kind::Log, 1).unwrap();
    write(&disk, 1, 10, Durability::Synced);
    write(&disk, 2, 200_000, Durability::Synced);
    scrub(&disk, 1 << 20).unwrap();
    let log = newest_wal(folder.path());
    for block in 1..6 {
        for at in (0..12).map(|byte| block * (32 << 10) + byte) {
            flip(&log, at, 0x10);
            is_found(&disk, folder.path());
            flip(&log, at, 0x10);
        }
    }
    scrub(&disk, 1 << 20).unwrap();
}

#[test]
fn a_file_that_is_not_in_force_accuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RocksDisk::open(folder.path(), Kind::Log, 1).unwrap();
    (0..10).for_each(|n| write(&disk, n, 5000, Durability::Synced));
    let log = newest_wal(folder.path());
    let at = place_of(&log, 5);
    flip(&log, at, 1);
    is_found(&disk, folder.path());
    disk.flush().unwrap();
    scrub(&disk, 1 << 20).expect("what was in it is in a table");
    (10..20).for_each(|n| write(&disk, n, 5000, Durability::Synced));
    scrub(&disk, 1 << 20).unwrap();
    let log = newest_wal(folder.path());
    flip(&log, place_of(&log, 15), 1);
    is_found(&disk, folder.path());
}

#[test]
fn a_log_that_is_being_written_and_whose_files_are_used_again_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RocksDisk::open(folder.path(), Kind::Log, 1).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let scrubs = scope.spawn(|| {
            let mut scrubs = 0;
            while !done.load(Relaxed) {
                scrub(&disk, [1, 40_000, 1 << 20][scrubs % 3]).expect("nothing is wrong");
                scrubs += 1;
            }
            scrubs
        });
        for n in 0..4000_u32 {
            let durability = if n % 3 == 0 { Durability::Synced } else { Durability::Ordered };
            write(&disk, n as u8, (n as usize * 7919) % 20_000, durability);
            if n % 97 == 0 {
                // The file before goes to those that are used again.
                disk.flush().unwrap();
            }
        }
        done.store(true, Relaxed);
        let scrubs = scrubs.join().unwrap();
        println!("{scrubs} times");
        assert!(scrubs > 10, "{scrubs} times is not much");
    });
}
