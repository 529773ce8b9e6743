//! Two connections side by side whose frames are shown as lines: the protocol tests read as transcripts.
#![allow(dead_code)] // each test binary uses its part

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use bytes::Bytes;
use dwcp_proto::{
    ProtocolError,
    conn::{Connection, ConnectionConfig, Event, LinkId, Read, Role, Segment, StreamFrame, TxBatch},
    frame::{Codec, FrameHeader, FrameType},
    hello::Capabilities,
    parse,
};

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;
pub(crate) const NOW: Duration = Duration::from_secs(1);

pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        node_id: "node".into(),
        region: String::new(),
        codecs: 0b111,
        dictionaries: Vec::new(),
        links_max: 8,
        frame_bytes_max: 64 << 10,
        connection_window: 1 << 20,
        stream_window: 256 << 10,
        message_window: 128 << 10,
        streams_max: 100,
        payload_crc: false,
        resume_timeout_ms: 30_000,
    }
}

pub(crate) fn config(role: Role, capabilities: &Capabilities) -> ConnectionConfig {
    ConnectionConfig {
        role,
        local: capabilities.clone(),
        peer: capabilities.clone(),
        keepalive_interval: Duration::from_secs(5),
        idle_timeout: None,
        resume_timeout: Duration::from_secs(30),
        links_authenticated: false,
    }
}

/// A server with link 0 and no peer: for frames that no peer of ours would send.
pub(crate) fn lone(capabilities: &Capabilities) -> Connection {
    let mut connection = Connection::new(config(Role::Server, capabilities), NOW);
    assert!(connection.link_added(NOW, LinkId(0)));
    connection
}

pub(crate) fn give(
    connection: &mut Connection,
    header: FrameHeader,
    payload: &[u8],
) -> Result<(), ProtocolError> {
    let len = payload.len() as u32;
    let raw_len = if header.raw_len == 0 { len } else { header.raw_len };
    let header = FrameHeader { wire_len: len, raw_len, ..header };
    let result = connection.handle_frame(NOW, LinkId(0), &header, Bytes::copy_from_slice(payload));
    match &result {
        Ok(()) => connection.assert_invariants(),
        Err(error) => {
            connection.fail(error.clone());
            connection.assert_invariants();
        }
    }
    result
}

pub(crate) fn data(stream: u32, offset: u64) -> FrameHeader {
    FrameHeader { stream, offset, ..FrameHeader::new(FrameType::Data) }
}

pub(crate) fn of(ty: FrameType, stream: u32, offset: u64) -> FrameHeader {
    FrameHeader { stream, offset, ..FrameHeader::new(ty) }
}

pub(crate) fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// Everything that can be read now, or why nothing can.
pub(crate) fn read_all(connection: &mut Connection, stream: u32) -> (Vec<u8>, Read) {
    let mut bytes = Vec::new();
    loop {
        match connection.stream_read(NOW, stream) {
            Read::Chunk(chunk) => bytes.extend_from_slice(&chunk.payload),
            other => return (bytes, other),
        }
    }
}

pub(crate) fn write(connection: &mut Connection, stream: u32, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = connection.stream_reserve(stream, rest.len()).expect("there is room");
        let (now, later) = rest.split_at(room.len as usize);
        rest = later;
        let frame = StreamFrame {
            offset: room.offset,
            raw_len: room.len,
            codec: Codec::Identity,
            payload: Bytes::copy_from_slice(now),
            payload_crc: connection.payload_crc().then(|| crc32fast::hash(now)),
        };
        connection.stream_submit(NOW, stream, frame);
    }
}

/// The frames that a link would carry now, through their wire form.
pub(crate) fn frames(connection: &mut Connection, link: u32) -> Vec<(FrameHeader, Bytes)> {
    let mut batch = TxBatch::default();
    let mut out = Vec::new();
    loop {
        batch.clear();
        if !connection.poll_transmit(NOW, LinkId(link), &mut batch) {
            return out;
        }
        let mut bytes = Vec::new();
        for segment in &batch.segments {
            match segment {
                Segment::Inline(range) => bytes.extend_from_slice(&batch.inline[range.clone()]),
                Segment::Payload(payload) => bytes.extend_from_slice(payload),
            }
        }
        assert_eq!(bytes.len(), batch.len);
        let mut located = Vec::new();
        let parsed = parse(&bytes, connection.frame_bytes_max(), &mut located).expect("own frames parse");
        assert_eq!(parsed.consumed, bytes.len());
        let payload = |frame: &dwcp_proto::Located| Bytes::copy_from_slice(&bytes[frame.payload.clone()]);
        out.extend(located.iter().map(|frame| (frame.header, payload(frame))));
    }
}

/// A client, a server, and what is on its way between them.
pub(crate) struct Pair {
    pub(crate) ends: [Connection; 2],
    pub(crate) on_wire: BTreeMap<(u32, usize), Vec<(FrameHeader, Bytes)>>,
    links: Vec<u32>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(&capabilities())
    }

    pub(crate) fn with(capabilities: &Capabilities) -> Self {
        let ends = [Role::Client, Role::Server].map(|role| Connection::new(config(role, capabilities), NOW));
        let mut pair = Self { ends, on_wire: BTreeMap::new(), links: Vec::new() };
        pair.add_link(0);
        pair
    }

    pub(crate) fn add_link(&mut self, link: u32) {
        for end in &mut self.ends {
            assert!(end.link_added(NOW, LinkId(link)));
        }
        self.links.push(link);
    }

    /// Both ends lose a link with what is on it.
    pub(crate) fn lose_link(&mut self, link: u32) {
        self.links.retain(|&other| other != link);
        for side in [CLIENT, SERVER] {
            self.ends[side].link_lost(NOW, LinkId(link));
            self.on_wire.remove(&(link, side));
        }
    }

    /// One end puts what it has onto a link. Returns a line for each frame.
    pub(crate) fn send(&mut self, side: usize, link: u32) -> String {
        let mut lines = String::new();
        for (header, payload) in frames(&mut self.ends[side], link) {
            writeln!(lines, "{}", line(side, link, &header)).expect("a string");
            self.on_wire.entry((link, side)).or_default().push((header, payload));
        }
        self.ends[side].assert_invariants();
        lines
    }

    /// What one end has put onto a link arrives.
    pub(crate) fn deliver(&mut self, side: usize, link: u32) {
        for (header, payload) in self.on_wire.remove(&(link, side)).unwrap_or_default() {
            let other = &mut self.ends[1 - side];
            other.handle_frame(NOW, LinkId(link), &header, payload).expect("own frames are right");
            other.assert_invariants();
        }
    }

    /// Sends and delivers until both are silent.
    pub(crate) fn exchange(&mut self) -> String {
        let mut lines = String::new();
        loop {
            let before = lines.len();
            for link in self.links.clone() {
                for side in [CLIENT, SERVER] {
                    lines += &self.send(side, link);
                    self.deliver(side, link);
                }
            }
            if lines.len() == before {
                return lines;
            }
        }
    }

    /// Lets the acknowledgements become due, and exchanges them.
    pub(crate) fn exchange_acks(&mut self) -> String {
        for end in &mut self.ends {
            end.handle_timeout(NOW + Duration::from_millis(20));
        }
        self.exchange()
    }

    pub(crate) fn events(&mut self, side: usize) -> Vec<Event> {
        events(&mut self.ends[side])
    }
}

fn line(side: usize, link: u32, header: &FrameHeader) -> String {
    let who = ["C", "S"][side];
    let mut line = format!("{who} {link} {:?}", header.ty);
    let flags = header.flags;
    for (name, value) in [("stream", u64::from(header.stream)), ("offset", header.offset)] {
        if value != 0 {
            write!(line, " {name}={value}").expect("a string");
        }
    }
    if header.raw_len != 0 {
        write!(line, " len={}", header.raw_len).expect("a string");
    }
    if flags.priority() != 0 {
        write!(line, " priority={}", flags.priority()).expect("a string");
    }
    if flags.fin() {
        line += " FIN";
    }
    line
}

/// Compares a transcript with the expected one, whatever its indentation.
#[track_caller]
pub(crate) fn assert_lines(found: &str, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}
