//! Two protocol cores and the bytes between them, in memory.

use std::time::Duration;

use bytes::Bytes;
use dwcp_proto::{
    Located, Rest,
    conn::{Connection, ConnectionConfig, LinkId, Role, Segment, TxBatch},
    frame::{Codec, FrameHeader},
    hello::Capabilities,
    parse,
};

const LINK: LinkId = LinkId(0);
const FRAME_MAX: u32 = 256 << 10;

/// A client and a server with one link.
pub(crate) fn connected() -> (Connection, Connection) {
    let capabilities = Capabilities {
        node_id: "bench".to_owned(),
        region: String::new(),
        codecs: Capabilities::codec_bit(Codec::Identity),
        dictionaries: Vec::new(),
        links_max: 1,
        frame_bytes_max: FRAME_MAX,
        connection_window: 64 << 20,
        stream_window: 64 << 20,
        message_window: 1 << 20,
        streams_max: 16,
        payload_crc: false,
        resume_timeout_ms: 0,
    };
    let side = |role| {
        let config = ConnectionConfig {
            role,
            local: capabilities.clone(),
            peer: capabilities.clone(),
            keepalive_interval: Duration::from_secs(5),
            idle_timeout: None,
            resume_timeout: Duration::ZERO,
            links_authenticated: true,
        };
        let mut connection = Connection::new(config, Duration::ZERO);
        assert!(connection.link_added(Duration::ZERO, LINK), "the first link is welcome");
        connection
    };
    (side(Role::Client), side(Role::Server))
}

/// One direction. Small frames go through one buffer, as through a socket; large payloads are handed over.
#[derive(Default)]
pub(crate) struct Wire {
    batch: TxBatch,
    frames: Vec<Located>,
}

impl Wire {
    /// Carries everything that `from` has to say.
    pub(crate) fn carry(&mut self, now: Duration, from: &mut Connection, to: &mut Connection) {
        loop {
            self.batch.clear();
            if !from.poll_transmit(now, LINK, &mut self.batch) {
                break;
            }
            let inline = Bytes::copy_from_slice(&self.batch.inline);
            let mut pending = None;
            for segment in &self.batch.segments {
                match segment {
                    Segment::Inline(range) => {
                        pending = deliver(now, inline.slice(range.clone()), &mut self.frames, to);
                    }
                    Segment::Payload(payload) => {
                        let header = pending.take().expect("a payload follows its header");
                        to.handle_frame(now, LINK, &header, payload.clone()).expect("a valid frame");
                    }
                }
            }
        }
        while from.poll_event().is_some() {}
        while to.poll_event().is_some() {}
    }
}

/// Delivers the frames in `bytes`; returns the last header if its payload is not among them.
fn deliver(
    now: Duration,
    bytes: Bytes,
    frames: &mut Vec<Located>,
    to: &mut Connection,
) -> Option<FrameHeader> {
    frames.clear();
    let parsed = parse(&bytes, FRAME_MAX, frames).expect("valid frames");
    for frame in frames {
        let payload = bytes.slice(frame.payload.clone());
        to.handle_frame(now, LINK, &frame.header, payload).expect("a valid frame");
    }
    match parsed.rest {
        Rest::Payload(header) => Some(header),
        _ => None,
    }
}
