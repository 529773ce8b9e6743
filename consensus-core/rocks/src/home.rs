//! A folder with one data disk in it, which can be replaced by a copy of another member's.
//!
//! Each disk is in a subfolder of its own, by number; the largest is the one in force. A copy takes its place with one
//! rename, so that a crash leaves the old one or the new one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use consensus_disk::DiskError;

use crate::{Kind, RocksDisk};

/// Where the data disk of a state machine is.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    spaces: u8,
    number: u64,
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DiskError::NoSpace { call, text: format!("{path}: {error}") }
        }
        _ => DiskError::Io { call, text: format!("{path}: {error}") },
    }
}

impl Home {
    /// Opens the disk in force, or makes the first, and removes what others were left.
    pub fn open(path: &Path, spaces: u8) -> Result<(Self, RocksDisk), DiskError> {
        fs::create_dir_all(path).map_err(failed("mkdir", path))?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(path).map_err(failed("readdir", path))? {
            let entry = entry.map_err(failed("readdir", path))?;
            numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        let number = numbers.iter().copied().max().unwrap_or(1);
        let home = Self { path: path.to_owned(), spaces, number };
        // Opened first: the lock on it says that nobody else is at work here.
        let disk = RocksDisk::open(&home.folder(number), Kind::Data, spaces)?;
        for old in numbers.into_iter().filter(|old| *old < number) {
            let old = home.folder(old);
            fs::remove_dir_all(&old).map_err(failed("rmdir", &old))?;
        }
        Ok((home, disk))
    }

    fn folder(&self, number: u64) -> PathBuf {
        self.path.join(number.to_string())
    }

    /// Puts a [copy](RocksDisk::copy_to) in the place of the disk in force, and opens it. The copy must be on the disk for
    /// good, and on the same file system. The disk before goes on for whoever still has it, and should be
    /// [discarded](RocksDisk::discard).
    pub fn replace(&mut self, copy: &Path) -> Result<RocksDisk, DiskError> {
        let next = self.folder(self.number + 1);
        fs::rename(copy, &next).map_err(failed("rename", copy))?;
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("fsync", &self.path))?;
        self.number += 1;
        RocksDisk::open(&next, Kind::Data, self.spaces)
    }
}

#[cfg(test)]
mod tests {
    use consensus_disk::{Batch, Disk as _, Durability, Space};

    use super::*;

    fn put(disk: &RocksDisk, value: &str) {
        let mut batch = Batch::default();
        batch.put(Space(0), "key", value);
        disk.write(batch, Durability::Ordered).unwrap();
    }

    fn value(disk: &RocksDisk) -> String {
        String::from_utf8(disk.get(Space(0), b"key").unwrap().unwrap().into()).unwrap()
    }

    #[test]
    fn a_copy_takes_the_place_of_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let copy = folder.path().join("copy");
        let (mut home, disk) = Home::open(&ours, 1).unwrap();
        put(&disk, "ours");
        {
            let (_, other) = Home::open(&theirs, 1).unwrap();
            put(&other, "theirs");
            other.copy_to(&copy).unwrap();
            put(&other, "later");
        }
        let replaced = home.replace(&copy).unwrap();
        assert_eq!((value(&disk), value(&replaced)), ("ours".to_owned(), "theirs".to_owned()));
        disk.discard();
        drop((disk, replaced));
        let left: Vec<_> = fs::read_dir(&ours).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["2"]);
        assert_eq!(value(&Home::open(&ours, 1).unwrap().1), "theirs");
    }

    #[test]
    fn a_crash_before_the_old_disk_is_removed_leaves_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        for (number, text) in [("1", "old"), ("2", "new")] {
            let disk = RocksDisk::open(&folder.path().join(number), Kind::Data, 1).unwrap();
            put(&disk, text);
            disk.flush().unwrap();
        }
        assert_eq!(value(&Home::open(folder.path(), 1).unwrap().1), "new");
        assert!(!folder.path().join("1").exists());
    }
}
