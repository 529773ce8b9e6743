//! Write-ahead logs are written again, although a family that is written seldom is in each of them.

use consensus_disk::{Batch, Disk as _, Durability, Space};
use consensus_rocks::{Kind, RocksDisk};

const ENTRIES: Space = Space(0);
const STATE: Space = Space(1);
const ENTRY_BYTES: usize = 64 << 10;
/// 40 MiB: of the order of ten logs.
const WRITES: u64 = 640;
/// One that is written, those that wait to be written again, and some whose content is on its way into files.
const LOGS_MAX: usize = 6;

#[test]
fn the_log_does_not_grow_into_new_files() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RocksDisk::open(folder.path(), Kind::Log, 2).unwrap();
    for n in 0..WRITES {
        let mut batch = Batch::default();
        batch.put(ENTRIES, n.to_be_bytes(), vec![n as u8; ENTRY_BYTES]);
        batch.put(STATE, "state", n.to_le_bytes());
        disk.write(batch, Durability::Ordered).unwrap();
    }
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let logs = names.filter(|path| path.extension().is_some_and(|extension| extension == "log")).count();
    assert!(logs <= LOGS_MAX, "{logs} write-ahead logs");
}
