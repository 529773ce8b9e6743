//! Bounds of a member.

/// Largest payload of one request in bytes. A message with one entry of it stays far below
/// [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX).
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Requests are put together into one entry up to this many bytes.
pub const ENTRY_BATCH_BYTES: usize = 128 << 10;
/// Requests in one entry.
pub const ENTRY_REQUESTS_MAX: usize = 4096;
/// Entries of one append message, in bytes; one entry may be longer.
pub const APPEND_BYTES: u64 = 512 << 10;
/// Append messages on their way to one member.
pub const APPENDS_IN_FLIGHT: usize = 256;
/// Bytes of entries that a leader has appended and not committed; more are refused.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of committed entries handed out at a time.
pub const COMMITTED_BYTES: u64 = 4 << 20;
/// Recent entries kept in memory, in bytes. Older ones are read from the disk, for members that are behind.
pub const CACHE_BYTES: usize = 4 << 20;
/// Times that a member campaigns because of one lost leader, without waiting for the election timeout.
pub const HINTED_CAMPAIGNS_MAX: u32 = 4;
/// Election timeouts for which a removed member waits for others to know that it is: up to two until a leader that has lost its
/// quorum notices, and up to two until another one leads.
pub const LEAVE_ELECTIONS_MAX: u64 = 4;
/// Largest term of a message or a log: one above it would not be far from the end of the numbers, where no election can go on,
/// and no honest member ever gets there.
pub const TERM_MAX: u64 = 1 << 62;
/// Largest index of a log, for the same reason.
pub const INDEX_MAX: u64 = 1 << 62;
/// Bytes of the log that are kept for members that are behind, at most about.
pub const LOG_BYTES_MAX: u64 = 2 << 30;
