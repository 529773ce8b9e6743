//! Bounds.

/// Regions that are, or ever were, members: what a version vector can name.
pub const REGIONS_MAX: usize = 256;
/// A key below the prefix, in bytes.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// A field of a map, or an element of a set, in bytes.
pub const FIELD_BYTES_MAX: usize = 64 << 10;
/// A value, in bytes.
pub const VALUE_BYTES_MAX: usize = 2 << 20;
/// A value of an [`OrMap`](crate::Kind::OrMap), in bytes: what all regions have put into a field at the same time stays side by
/// side in its cell, and a cell has to fit into a message.
pub const OR_MAP_VALUE_BYTES_MAX: usize = 12 << 10;
/// An item beyond which local changes of its maps and sets are refused, in bytes. Merges of what several regions have added at
/// the same time may go past it: an item has no bound, and is sent in parts.
pub const ITEM_BYTES_MAX: usize = 1 << 20;
/// What a region tells of itself to the others, in bytes.
pub const INFO_BYTES_MAX: usize = 4 << 10;
/// Cells of an item in one message. Those of a stored item are bounded by its bytes.
pub const CELLS_MAX: usize = 1 << 17;
/// Items of one message.
pub const ITEMS_MAX: usize = 4096;
/// A message is closed at this size in bytes; its last item may go past it, by as much again or by one cell.
pub const BATCH_BYTES: usize = 256 << 10;
/// Parts of an item that one comparison sends.
pub const PARTS_MAX: usize = 8;
/// Largest message, in bytes: as much as one request of a Raft log.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Deltas on their way to a peer that it has not acknowledged.
pub const DELTAS_IN_FLIGHT_MAX: usize = 8;
/// Deltas of peers that are proposed and not applied; more are dropped, and sent again.
pub const MERGES_MAX: usize = 16;
/// For an acknowledgement, at least, in milliseconds, and four round trips. Then the peer is only asked how far it is.
pub const RESEND_MS_MIN: u64 = 2_000;
/// And at most: a round trip may have been measured by an answer that came late.
pub const RESEND_MS_MAX: u64 = 10_000;
/// Intervals without a word of a neighbour in a tree, after which detours are tried.
pub const SILENT_INTERVALS: u64 = 3;
/// Items that are looked at for tombstones in an interval.
pub const SWEEP_ITEMS: usize = 4096;
/// Keys whose tombstones are collected by one entry of the log.
pub const COLLECT_KEYS_MAX: usize = 1024;
/// Nodes of the tree in one message.
pub const NODES_MAX: usize = 16;
/// Leaves of the tree in one message.
pub const LEAVES_MAX: usize = 16;
/// Items of a leaf in one message; what is beyond is not compared.
pub const LEAF_ITEMS_MAX: usize = 1024;
/// Items that one comparison asks for.
pub const WANTED_MAX: usize = 1024;
/// Times that a source of a snapshot may leave a question without an answer, before another one is asked.
pub const SNAPSHOT_TRIES: u32 = 3;
/// Moments of the past at which it is remembered how far the region was.
pub const MARKS_MAX: usize = 128;
/// Counters, times and terms are far below the largest number.
pub const COUNTER_MAX: u64 = 1 << 62;

/// The longest cell: a field of a map into which all regions have put the longest value at the same time.
const CELL_BYTES_MAX: usize = FIELD_BYTES_MAX + REGIONS_MAX * (OR_MAP_VALUE_BYTES_MAX + 64);
/// Two vectors, two places in a snapshot, a key and what the log adds.
const HEADER_BYTES_MAX: usize = 2 * 16 * REGIONS_MAX + 3 * (KEY_BYTES_MAX + FIELD_BYTES_MAX) + (16 << 10);
// Whatever an item has become, each message about it can be sent, and be an entry of the log.
const _: () = assert!(BATCH_BYTES + CELL_BYTES_MAX + HEADER_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(BATCH_BYTES + VALUE_BYTES_MAX + HEADER_BYTES_MAX <= MESSAGE_BYTES_MAX);
