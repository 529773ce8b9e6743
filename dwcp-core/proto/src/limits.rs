//! Every bound of the protocol core, by name. `ARCHITECTURE.md` lists them.

use std::time::Duration;

/// Largest message payload in bytes.
pub const MESSAGE_LEN_MAX: usize = 64 << 10;
/// Bytes of messages (payload and header) that may wait to be sent, per priority.
pub const MESSAGE_QUEUE_BYTES_MAX: usize = 1 << 20;
/// One-way messages up to this size share a frame when they have to wait.
pub const BATCHED_MESSAGE_MAX: usize = 1024;
/// Payload bytes of a frame of batched messages.
pub const MESSAGE_BATCH_BYTES: usize = 16 << 10;
/// Requests without an answer that one side may have.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// How far the newest message of a priority may be ahead of the oldest missing one.
pub const MESSAGE_SEQUENCE_WINDOW: u64 = 1 << 16;
/// Bytes of one stream that may wait to be put on a link.
pub const STREAM_UNSENT_BYTES_MAX: usize = 1 << 20;
/// Bytes of all streams that may wait to be put on a link.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 8 << 20;
/// How many reliable frames the newest may be ahead of the oldest one that is not acknowledged.
pub const FRAMES_IN_FLIGHT_MAX: usize = 1 << 15;
/// Payload bytes of reliable frames that may be sent and not acknowledged, whatever credit the peer gives.
pub const BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Data frames that may wait out of order at a receiver.
pub const FRAMES_OUT_OF_ORDER_MAX: usize = 1 << 16;
/// Streams that may wait at a receiver to be accepted is the peer's `streams_max`; ids stop here.
pub const STREAM_ID_MAX: u32 = u32::MAX - 1;
/// A frame is stuck, and repeated on an idle link, after this many times the acknowledgement time of the fastest link...
pub const REINJECT_AFTER: u32 = 2;
/// ... but no sooner than this.
pub const REINJECT_WAIT_MIN: Duration = Duration::from_millis(100);
/// A batch for one link is closed once it holds this many bytes.
pub const BATCH_BYTES: usize = 64 << 10;
/// Payloads up to this size are copied behind their header instead of being sent by reference.
pub const INLINE_PAYLOAD_MAX: usize = 1024;
/// Data chunks smaller than this are joined when they have to wait for the reader.
pub const JOIN_BELOW: usize = 4096;
/// Payloads of messages below [`JOIN_BELOW`] get a buffer of their own once this many messages wait.
pub const MESSAGES_SHARING_BUFFERS_MAX: usize = 256;
/// Fewer raw bytes than this are never sent with a codec.
pub const CODEC_RAW_LEN_MIN: u32 = 128;
/// By what factor a stream's window grows at once: on a long path each step takes a round trip.
pub const WINDOW_GROWTH: u64 = 4;
/// Smallest window for stream data that a side may offer, in bytes.
pub const WINDOW_MIN: u64 = 4 << 10;
/// Smallest message window that a side may offer, in bytes: the largest message fits into what is left of it
/// when credit is renewed.
pub const MESSAGE_WINDOW_MIN: u64 = 128 << 10;
/// Joined chunks grow up to this size.
pub const JOINED_MAX: usize = 64 << 10;
/// An acknowledgement is due after this many reliable frames on a link...
pub const ACK_FRAMES: u64 = 256;
/// ... or this many bytes ...
pub const ACK_BYTES: u64 = 512 << 10;
/// ... or this much time.
pub const ACK_DELAY: Duration = Duration::from_millis(10);
/// Bytes of text in a CLOSE frame.
pub const CLOSE_TEXT_MAX: usize = 256;
/// Silent keepalive intervals after which a link counts as lost.
pub const KEEPALIVES_LOST_MAX: u32 = 3;
/// Most links of one connection.
pub const LINKS_MAX: usize = 1024;
