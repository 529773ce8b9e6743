//! Every bound of a transfer, in one place.

/// Content is hashed, journaled and scheduled in pieces of this many bytes.
pub const PIECE_BYTES: u64 = 4 << 20;
/// Piece size of files larger than [`PIECE_BYTES_LARGE_ABOVE`].
pub const PIECE_BYTES_LARGE: u64 = 16 << 20;
/// Files above this size use large pieces.
pub const PIECE_BYTES_LARGE_ABOVE: u64 = 1 << 40;
/// Most pieces of one file.
pub const PIECES_MAX: u64 = 1 << 22;
/// Largest file: [`PIECES_MAX`] large pieces, 64 TiB.
pub const FILE_BYTES_MAX: u64 = PIECES_MAX * PIECE_BYTES_LARGE;
/// Piece digests a receiving session holds for all its unfinished files together.
pub const DIGESTS_HELD_MAX: u64 = 1 << 23;
/// Most data extents of one piece.
pub const EXTENTS_MAX: usize = 4096;

/// Longest path in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest path component in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most components of a path.
pub const DEPTH_MAX: usize = 128;
/// Longest symbolic link target in bytes.
pub const LINK_TARGET_BYTES_MAX: usize = 4095;
/// Most extended attributes of an entry.
pub const XATTRS_MAX: usize = 64;
/// Longest value of an extended attribute in bytes.
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// All names and values of an entry's extended attributes together, in bytes.
pub const XATTR_BYTES_MAX: usize = 128 << 10;

/// Most entries of a manifest batch.
pub const BATCH_ENTRIES_MAX: usize = 512;
/// A sender closes a batch once it holds this many bytes.
pub const BATCH_BYTES_TARGET: usize = 128 << 10;
/// Largest control message in bytes.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;
/// Entries sent whose outcome is not known yet.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4096;
/// Piece digests in one `Have` message.
pub const HAVE_PIECES_MAX: usize = 4096;
/// Hard-linked inodes remembered while a tree is walked; further links are sent as files.
pub const HARD_LINKS_MAX: usize = 1 << 20;

/// Directories that a sender that looks through a tree has open at once; those above are opened again when it comes back.
pub const DIRECTORIES_OPEN_MAX: usize = 16;
/// Times a sender reads a file that changes meanwhile, before it has failed.
pub const SOURCE_READS_MAX: u32 = 3;

/// Data streams a sender opens.
pub const DATA_STREAMS: usize = 4;
/// Data streams a receiver accepts.
pub const DATA_STREAMS_MAX: usize = 16;
/// Small files are packed into writes of about this size.
pub const PACK_BYTES: usize = 256 << 10;
/// Chunks that wait between a data stream and its writer.
pub const CHUNKS_QUEUED_MAX: usize = 16;
/// Piece buffers kept for reuse.
pub const BUFFERS_KEPT_MAX: usize = 16;
/// Finished files that wait for, or share, one commit.
pub const COMMIT_GROUP_MAX: usize = 128;
/// A partial file is flushed each time this many bytes were written to it.
pub const FLUSH_BYTES: u64 = 256 << 20;
/// A data stream has content written back to a disk that others use each time it has written this many bytes, and waits.
pub const WRITE_BACK_BYTES: u64 = 1 << 20;
/// Partial files of one session that are re-read at once.
pub const REHASHES_MAX: usize = 2;
/// Resumed files of one session that are open at once; more are sent from their beginning.
pub const OFFERS_OPEN_MAX: usize = 64;
/// Failures kept with their path in a summary; more are counted.
pub const FAILURES_KEPT_MAX: usize = 1000;
/// Paths kept of what a sender that was told to end has not sent; more are counted.
pub const UNSENT_KEPT_MAX: usize = 1000;
/// Automatic cleaning removes partial files untouched for this many seconds...
pub const PARTIAL_AGE_SECONDS_MAX: i64 = 30 * 24 * 3600;
/// ... at a time when a process looked which began at least this many seconds before the one that cleans.
pub const PARTIAL_LOOK_SECONDS_MIN: i64 = 24 * 3600;
/// Entries looked at by one cleaning of a partial area.
pub const CLEAN_ENTRIES_MAX: usize = 1 << 20;
/// How long a new run waits for an older one to let go of a partial file, in milliseconds.
pub const LOCK_WAIT_MS: u64 = 10_000;

/// Contents below this size are sent in full: finding out what of them is there costs as much.
pub const DELTA_BYTES_MIN: u64 = 64 << 10;
/// Baselines of one session that are open at once; further contents are sent in full.
pub const BASELINES_OPEN_MAX: usize = 128;
/// Chunks of one baseline whose ids are told to a sender.
pub const CHUNKS_MAX: usize = 1 << 22;
/// Chunks of all baselines that a sender holds at once.
pub const CHUNKS_HELD_MAX: usize = 1 << 23;
/// Bytes of chunk ids in one control message, at most.
pub const CHUNKS_BYTES_MAX: usize = 512 << 10;

/// Allocated bytes that a store of baselines keeps, unless told otherwise.
pub const STORE_BYTES_MAX: u64 = 64 << 30;
/// How long a store keeps what nobody uses, unless told otherwise.
pub const BASELINE_TTL: std::time::Duration = std::time::Duration::from_mins(15);
/// Versions of one thing that a store keeps, unless told otherwise.
pub const BASELINE_VERSIONS_MAX: usize = 10;
/// Files of a store that are looked at.
pub const STORE_ENTRIES_MAX: usize = 1 << 20;
/// Longest name of a thing in a store, in bytes.
pub const LABEL_BYTES_MAX: usize = 4096;
/// Contents that a sender keeps of one transfer.
pub const SENT_KEPT_MAX: usize = 256;
/// Files of a receiving session that are complete and open until they have been kept.
pub const KEPT_LATER_MAX: usize = 64;
