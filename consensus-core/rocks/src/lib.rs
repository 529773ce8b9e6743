//! The disk seam on RocksDB: a space is a column family.
//!
//! Two kinds, because what is asked of them differs. The *log* has a write-ahead log that is synced with every write that
//! says so. The *data* has none: each of its entries is in the log already, so it would only be written twice. All its column
//! families are flushed together, so a crash leaves it at some earlier applied index, from which the log brings it on;
//! the log must not be compacted beyond what was [flushed](RocksDisk::flush).
//!
//! A disk that is damaged is refused: RocksDB checks what it reads, except that it takes the end of a write-ahead log where
//! a record is not whole. What was synced there is known from elsewhere (`synced.rs`). Not here: what to do about it.

mod home;
mod read;
mod synced;
mod wal;

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use consensus_disk::{Batch, Disk, DiskError, Durability, Op, Order, Space};
pub use home::Home;
pub use read::{Place, Slice};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, ErrorKind, LruCacheOptions, Options, ReadOptions, WriteBatch, WriteOptions,
    checkpoint::Checkpoint,
};

use crate::synced::Mark;

/// What a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Short-lived entries, synced as they are written.
    Log,
    /// The state machine.
    Data,
}

/// Memory for writes of one column family, before they go to a file.
const LOG_WRITE_BUFFER_BYTES: usize = 4 << 20;
const DATA_WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Of all column families of a disk together.
const LOG_WRITE_BUFFERS_BYTES: usize = 8 << 20;
const DATA_WRITE_BUFFERS_BYTES: usize = 16 << 20;
/// Blocks of files that are kept in memory.
const LOG_CACHE_BYTES: usize = 2 << 20;
const DATA_CACHE_BYTES: usize = 8 << 20;
/// Parts of a file's index that are read, and kept in memory, on their own.
const INDEX_BLOCK_BYTES: usize = 4 << 10;
/// Files that RocksDB keeps open, of each disk.
const OPEN_FILES_MAX: i32 = 256;
/// Write-ahead logs that are kept to be written again: their blocks are there, so a sync has no metadata to write.
const RECYCLED_LOGS: usize = 2;
/// Files are handed to the disk in pieces of this, not at their end, where all at once would be in the way of a log's sync.
const BYTES_PER_SYNC: u64 = 256 << 10;
const WAL_BYTES_MAX: u64 = 64 << 20;

/// Of so many keys in a row so many are deleted: what a scan has to step over is not left until there are more files.
const DELETED_WINDOW: usize = 1024;
const DELETED_MAX: usize = 896;
/// So many deleted keys in a row that a scan meets in memory are written to a file, which is then compacted.
const DELETED_IN_MEMORY_MAX: usize = 4096;

/// A disk in one folder.
pub struct RocksDisk {
    db: DB,
    kind: Kind,
    names: Vec<String>,
    syncs: bool,
    /// Of a log that is open to be written: what is synced.
    synced: Option<(Mark, AtomicU64)>,
    /// After the database: it is dropped when that is closed.
    discarded: Discarded,
}

/// Removes the folder at the end, if it is of no use any more.
struct Discarded {
    path: PathBuf,
    yes: AtomicBool,
}

impl Drop for Discarded {
    fn drop(&mut self) {
        if *self.yes.get_mut()
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a disk that was replaced cannot be removed");
        }
    }
}

fn name(space: u8) -> String {
    format!("space{space}")
}

fn settings(kind: Kind, spaces: u8) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(2);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    // Otherwise a family that is written seldom, as the log's hard state, keeps one write-ahead log after the other alive, and
    // none is there to be used again.
    options.set_atomic_flush(true);
    match kind {
        Kind::Log => {
            options.set_recycle_log_file_num(RECYCLED_LOGS);
            options.set_max_total_wal_size(WAL_BYTES_MAX);
            options.set_db_write_buffer_size(LOG_WRITE_BUFFERS_BYTES);
        }
        Kind::Data => options.set_db_write_buffer_size(DATA_WRITE_BUFFERS_BYTES),
    }
    let (cache_bytes, buffer_bytes) = match kind {
        Kind::Log => (LOG_CACHE_BYTES, LOG_WRITE_BUFFER_BYTES),
        Kind::Data => (DATA_CACHE_BYTES, DATA_WRITE_BUFFER_BYTES),
    };
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(cache_bytes);
    // Of many parts, each would be smaller than what is read at once.
    cache.set_num_shard_bits(0);
    let cache = Cache::new_lru_cache_opts(&cache);
    let family = |name: String| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        table.set_cache_index_and_filter_blocks(true);
        // The index of a file in one block is a hundredth of the file: it pushes itself out of the cache, so that each read
        // of a key would decompress all of it again.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_metadata_block_size(INDEX_BLOCK_BYTES);
        table.set_pin_top_level_index_and_filter(true);
        let mut family = Options::default();
        if kind == Kind::Data {
            family = steps_over_little(family);
        }
        family.set_block_based_table_factory(&table);
        family.set_write_buffer_size(buffer_bytes);
        // Entries of the log are gone before it would pay.
        family.set_compression_type(match kind {
            Kind::Log => DBCompressionType::None,
            Kind::Data => DBCompressionType::Lz4,
        });
        ColumnFamilyDescriptor::new(name, family)
    };
    // RocksDB insists on a family called default.
    let families = std::iter::once("default".to_owned()).chain((0..spaces).map(name)).map(family).collect();
    (options, families)
}

/// Keys that are deleted stay until files are compacted for some reason; scans get slow by then.
fn steps_over_little(mut family: Options) -> Options {
    family.add_compact_on_deletion_collector_factory(DELETED_WINDOW, DELETED_MAX, 0.0);
    // The binding has no function for it.
    let in_memory = format!("memtable_op_scan_flush_trigger={DELETED_IN_MEMORY_MAX}");
    family.get_options_from_string(in_memory).expect("the version of RocksDB that is linked has it")
}

impl RocksDisk {
    /// Whether there is a disk in the folder, or what is left of one.
    pub fn is_there(path: &Path) -> Result<bool, DiskError> {
        let found = has_files(path).map_err(|error| not_readable(path, &error))?;
        Ok(found || path.join("CURRENT").exists())
    }

    /// Opens the folder, or makes it. Only one process can have it open.
    pub fn open(path: &Path, kind: Kind, spaces: u8) -> Result<Self, DiskError> {
        let (options, families) = settings(kind, spaces);
        let claimed = claimed(path, kind)?;
        let mark = match kind {
            Kind::Log => Some(mark(path, claimed).map_err(|error| not_readable(path, &error))?),
            Kind::Data => None,
        };
        let db =
            DB::open_cf_descriptors(&options, path, families).map_err(|error| not_opened(path, &error))?;
        // What RocksDB has read from a write-ahead log is in files by now, and synced.
        let synced = complete(path, &db, claimed)?;
        let mut disk = Self::new(db, path, kind, spaces);
        disk.synced = mark.map(|mark| (mark, AtomicU64::new(synced)));
        Ok(disk)
    }

    /// Opens a folder to read what is in it, and changes nothing. Nobody may write to it meanwhile.
    pub fn open_to_read(path: &Path, kind: Kind, spaces: u8) -> Result<Self, DiskError> {
        let (options, families) = settings(kind, spaces);
        let claimed = claimed(path, kind)?;
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false);
        let db = db.map_err(|error| not_opened(path, &error))?;
        complete(path, &db, claimed)?;
        Ok(Self::new(db, path, kind, spaces))
    }

    fn new(db: DB, path: &Path, kind: Kind, spaces: u8) -> Self {
        let names = (0..spaces).map(name).collect();
        Self {
            db,
            kind,
            names,
            syncs: true,
            synced: None,
            discarded: Discarded { path: path.to_owned(), yes: AtomicBool::new(false) },
        }
    }

    /// From now on no write is synced, whatever it asks for: a power cut loses the last ones.
    pub fn without_sync(self) -> Self {
        Self { syncs: false, ..self }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.db.path()
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        let name = self.names.get(usize::from(space.0)).expect("a space that the disk was opened with");
        self.db.cf_handle(name).expect("every space has its family")
    }

    /// When it returns, a crash cannot take what was written before.
    pub fn flush(&self) -> Result<(), DiskError> {
        let families: Vec<_> = (0..self.names.len()).map(|space| self.family(Space(space as u8))).collect();
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families, &options).map_err(|error| failed("flush", &error))
    }

    /// Writes a copy of what is there now, which can be opened as a disk, to a folder that is not there yet. Files are shared with
    /// this disk if it is on the same file system.
    pub fn copy_to(&self, folder: &Path) -> Result<(), DiskError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| failed("checkpoint", &error))?;
        checkpoint.create_checkpoint(folder).map_err(|error| failed("checkpoint", &error))
    }

    /// Another disk has taken its place: its folder is removed when nobody uses it any more.
    pub fn discard(&self) {
        self.discarded.yes.store(true, Relaxed);
        self.db.cancel_all_background_work(false);
    }

    fn sum(&self, property: &str) -> u64 {
        let of = |name: &String| self.db.property_int_value_cf(self.db.cf_handle(name)?, property).ok()?;
        self.names.iter().filter_map(of).sum()
    }

    /// Bytes that it takes: files, and what is yet to be written to them.
    pub fn bytes(&self) -> u64 {
        self.sum("rocksdb.total-sst-files-size") + self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// Bytes that would be left if everything that was replaced or deleted were gone, about.
    pub fn bytes_in_use(&self) -> u64 {
        self.sum("rocksdb.estimate-live-data-size") + self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// Gives back the room of what was replaced or deleted.
    pub fn compact(&self) -> Result<(), DiskError> {
        self.flush()?;
        for space in 0..self.names.len() {
            self.db.compact_range_cf(self.family(Space(space as u8)), None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }
}

/// The sequence number up to which writes were synced, as far as anything in the folder tells; 0: nothing does.
fn claimed(path: &Path, kind: Kind) -> Result<u64, DiskError> {
    let look = || {
        if !path.join("CURRENT").exists() && has_files(path)? {
            let text = "there are files of a database, and no file CURRENT that says which are in force";
            return Ok(Err(damaged("open", path, text)));
        }
        if kind == Kind::Data || !path.exists() {
            return Ok(Ok(0));
        }
        Ok(Ok(synced::read(path)?.max(wal::synced_before(path)?)))
    };
    look().map_err(|error: io::Error| not_readable(path, &error))?
}

/// Whether RocksDB has kept anything here.
fn has_files(path: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sst" || extension == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The mark, with what is claimed in it for good: RocksDB removes records that are behind a bad one, and their witness.
fn mark(path: &Path, claimed: u64) -> io::Result<Mark> {
    std::fs::create_dir_all(path)?;
    let known = synced::read(path)?;
    let mark = Mark::open(path)?;
    if claimed > known {
        mark.set_for_good(claimed)?;
    }
    Ok(mark)
}

/// The last sequence number, if nothing that was synced is missing.
fn complete(path: &Path, db: &DB, claimed: u64) -> Result<u64, DiskError> {
    let found = db.latest_sequence_number();
    if found < claimed {
        let text = format!("writes {} to {claimed} were synced and are not there any more", found + 1);
        return Err(damaged("open", path, text));
    }
    Ok(found)
}

fn damaged(call: &'static str, path: &Path, text: impl std::fmt::Display) -> DiskError {
    DiskError::Corrupt { call, text: format!("{}: {text}", path.display()) }
}

/// A file that is there for sure, and cannot be read.
fn not_readable(path: &Path, error: &io::Error) -> DiskError {
    match error.raw_os_error() {
        Some(EIO) => damaged("open", path, error),
        _ => DiskError::Io { call: "open", text: format!("{}: {error}", path.display()) },
    }
}

/// RocksDB opens what it has written, so that it does not is damage, if it is not for another reason.
fn not_opened(path: &Path, error: &rocksdb::Error) -> DiskError {
    let text = error.to_string();
    let for_another_reason = ["lock", "Permission denied", "Too many open files", "Cannot allocate memory"];
    match failed("open", error) {
        DiskError::Io { .. } if !for_another_reason.iter().any(|reason| text.contains(reason)) => {
            damaged("open", path, text)
        }
        DiskError::Corrupt { .. } => damaged("open", path, text),
        other => other,
    }
}

/// The system could not read what is there.
const EIO: i32 = 5;

impl std::fmt::Debug for RocksDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksDisk")
            .field("path", &self.db.path())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

fn failed(call: &'static str, error: &rocksdb::Error) -> DiskError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => DiskError::Corrupt { call, text },
        // A sector that is lost.
        ErrorKind::IOError if matches!(call, "get" | "iterate") && text.contains("Input/output error") => {
            DiskError::Corrupt { call, text }
        }
        ErrorKind::IOError if text.contains("No space left on device") => DiskError::NoSpace { call, text },
        // Of a database that is open: one of its files is gone.
        ErrorKind::IOError if call != "open" && text.contains("No such file or directory") => {
            DiskError::Corrupt { call, text }
        }
        _ => DiskError::Io { call, text },
    }
}

impl Disk for RocksDisk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        let found = self.db.get_pinned_cf(self.family(space), key).map_err(|error| failed("get", &error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), DiskError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(space), options);
        match order {
            Order::Ascending => iterator.seek(from),
            Order::Descending => iterator.seek_to_last(),
        }
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            match order {
                Order::Ascending => iterator.next(),
                Order::Descending => iterator.prev(),
            }
        }
        iterator.status().map_err(|error| failed("iterate", &error))
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), DiskError> {
        let mut writes = WriteBatch::default();
        if let Some((_, synced)) = &self.synced {
            writes.put_log_data(wal::witness(synced.load(Relaxed)));
        }
        for op in batch.ops() {
            match op {
                Op::Put { space, key, value } => writes.put_cf(self.family(*space), key, value),
                Op::Delete { space, key } => writes.delete_cf(self.family(*space), key),
                Op::DeleteRange { space, from, to } => writes.delete_range_cf(self.family(*space), from, to),
            }
        }
        let mut options = WriteOptions::default();
        match self.kind {
            Kind::Log => options.set_sync(self.syncs && durability == Durability::Synced),
            Kind::Data => options.disable_wal(true),
        }
        self.db.write_opt(writes, &options).map_err(|error| failed("write", &error))?;
        if let Some((mark, synced)) = &self.synced
            && self.syncs
            && durability == Durability::Synced
        {
            // There is one writer, so the last number is that of this write.
            let sequence = self.db.latest_sequence_number();
            synced.store(sequence, Relaxed);
            mark.set(sequence)
                .map_err(|error| DiskError::Io { call: "write", text: format!("the mark: {error}") })?;
        }
        if self.kind == Kind::Data && durability == Durability::Synced {
            self.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space(1);

    fn put(disk: &RocksDisk, key: &str, durability: Durability) {
        let mut batch = Batch::default();
        batch.put(SPACE, key, "value");
        disk.write(batch, durability).unwrap();
    }

    fn keys(disk: &RocksDisk, order: Order, to: Option<&[u8]>) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        disk.scan(SPACE, b"b", to, order, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        keys
    }

    #[test]
    fn scans_keep_to_their_range_order_and_space() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Log, Kind::Data] {
            let disk = RocksDisk::open(&folder.path().join(format!("{kind:?}")), kind, 2).unwrap();
            ["d", "a", "c", "b"].iter().for_each(|key| put(&disk, key, Durability::Ordered));
            assert_eq!(keys(&disk, Order::Ascending, Some(b"d")), [b"b", b"c"]);
            assert_eq!(keys(&disk, Order::Descending, Some(b"d")), [b"c", b"b"]);
            assert_eq!(keys(&disk, Order::Ascending, None), [b"b", b"c", b"d"]);
            assert_eq!(disk.get(Space(0), b"a").unwrap(), None);
            let mut batch = Batch::default();
            batch.delete_range(SPACE, "b", "d");
            batch.delete(SPACE, "a");
            disk.write(batch, Durability::Synced).unwrap();
            assert_eq!(keys(&disk, Order::Ascending, None), [b"d"]);
        }
    }

    #[test]
    fn what_was_synced_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Log, Kind::Data] {
            let path = folder.path().join(format!("{kind:?}"));
            put(&RocksDisk::open(&path, kind, 2).unwrap(), "a", Durability::Synced);
            let disk = RocksDisk::open(&path, kind, 2).unwrap();
            assert_eq!(disk.get(SPACE, b"a").unwrap().as_deref(), Some(&b"value"[..]));
        }
    }

    #[test]
    fn a_folder_is_open_once() {
        let folder = tempfile::tempdir().unwrap();
        let _disk = RocksDisk::open(folder.path(), Kind::Log, 2).unwrap();
        let again = RocksDisk::open(folder.path(), Kind::Log, 2).unwrap_err();
        assert!(again.to_string().contains("lock"), "{again}");
    }
}
