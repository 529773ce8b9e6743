//! A sequence of operations on two connected peers, or on one whose peer sends anything: no panic, invariants after
//! every step, and honest peers never refuse each other.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use dwcp_proto::{
    CloseCode, Located,
    conn::{
        Connection, ConnectionConfig, Event, LinkId, Priority, RequestId, Reservation, ResponseStatus, Role,
        Segment, StreamFrame, TxBatch,
    },
    frame::{Codec, Decoded, FrameHeader, FrameType, HEADER_LEN},
    hello::Capabilities,
    parse,
};

const OPS_MAX: usize = 400;
/// Links and streams are picked among so many numbers, so that operations meet.
const LINKS: u32 = 4;
const STREAMS: u32 = 8;

struct World {
    now: Duration,
    ends: [Connection; 2],
    /// The second end is played by the input.
    hostile: bool,
    /// (sender, link, bytes) on their way, in order.
    wire: Vec<(usize, u32, Vec<u8>)>,
    next_link: u32,
    reservations: Vec<(usize, u32, Reservation)>,
    requests: Vec<(usize, RequestId)>,
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // An input that ends early ends the sequence.
    let _ = World::new(&mut input).and_then(|mut world| world.play(&mut input));
}

impl World {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let shift: u8 = input.arbitrary()?;
        let capabilities = Capabilities {
            node_id: "fuzz".into(),
            region: String::new(),
            codecs: 0b11,
            dictionaries: Vec::new(),
            links_max: 4,
            frame_bytes_max: 4096,
            connection_window: 4096 << (shift & 3),
            stream_window: 4096 << (shift >> 2 & 3),
            message_window: 128 << 10,
            streams_max: u32::from(shift >> 5),
            payload_crc: false,
            resume_timeout_ms: 0,
        };
        let ends = [Role::Client, Role::Server].map(|role| {
            let config = ConnectionConfig {
                role,
                local: capabilities.clone(),
                peer: capabilities.clone(),
                keepalive_interval: Duration::from_secs(5),
                idle_timeout: None,
                resume_timeout: Duration::from_secs(30),
                links_authenticated: false,
            };
            Connection::new(config, Duration::ZERO)
        });
        let mut world = Self {
            now: Duration::ZERO,
            ends,
            hostile: shift & 0x10 != 0,
            wire: Vec::new(),
            next_link: 0,
            reservations: Vec::new(),
            requests: Vec::new(),
        };
        world.add_link();
        Ok(world)
    }

    fn play(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        for _ in 0..OPS_MAX {
            if input.is_empty() {
                break;
            }
            self.step(input)?;
            for end in &mut self.ends {
                while let Some(event) = end.poll_event() {
                    if let Event::Closed = event {
                        assert!(end.closed().is_some());
                    }
                }
                end.assert_invariants();
            }
        }
        Ok(())
    }

    fn add_link(&mut self) {
        for end in &mut self.ends {
            let added = end.link_added(self.now, LinkId(self.next_link));
            assert!(added || end.closed().is_some());
        }
        self.next_link += 1;
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let op: u8 = input.arbitrary()?;
        let side = if self.hostile { 0 } else { usize::from(op >> 7) };
        let link = |input: &mut Unstructured<'_>, next: u32| {
            Ok::<_, arbitrary::Error>(LinkId(next.saturating_sub(input.int_in_range(1..=LINKS)?)))
        };
        let stream = |input: &mut Unstructured<'_>| input.int_in_range(1..=STREAMS);
        let now = self.now;
        let end = &mut self.ends[side];
        match op & 0x1f {
            0 => drop(end.open_stream()),
            1 | 2 => {
                let id = stream(input)?;
                if let Ok(room) = end.stream_reserve(id, usize::from(input.arbitrary::<u16>()?) % 5000 + 1) {
                    self.reservations.push((side, id, room));
                }
            }
            3 | 4 => self.submit(input)?,
            5 => drop(end.stream_finish(stream(input)?)),
            6 => end.stream_reset(stream(input)?, input.arbitrary()?),
            7 => end.stream_stop(stream(input)?, input.arbitrary()?),
            8 | 9 => drop(end.stream_read(now, stream(input)?)),
            10 => drop(end.accept_stream()),
            11 => {
                let priority = *input.choose(&Priority::ALL)?;
                let len = usize::from(input.arbitrary::<u16>()?) % 4200;
                let _ = end.message_send(now, priority, vec![1; len].into());
            }
            12 => {
                let priority = *input.choose(&Priority::ALL)?;
                if let Ok(id) = end.request_send(now, priority, 0, Bytes::from_static(b"?")) {
                    self.requests.push((side, id));
                }
            }
            13 => {
                if let Some(&(side, id)) = self.requests.get(input.arbitrary::<u8>()? as usize) {
                    self.ends[side].request_cancel(id);
                }
            }
            14 => {
                if let Some(&(side, id)) = self.requests.get(input.arbitrary::<u8>()? as usize) {
                    let _ =
                        self.ends[1 - side].respond(now, id, ResponseStatus::Ok, Bytes::from_static(b"!"));
                }
            }
            15 => {
                end.set_frame_len(input.arbitrary()?);
                end.messages_receive_batched(input.arbitrary::<u8>()?.into(), |_, _| {});
                let request = end.message_receive().and_then(|message| message.request);
                if let (Some(id), true) = (request, input.arbitrary()?) {
                    let _ = end.respond(now, id, ResponseStatus::Error, Bytes::new());
                }
            }
            16 => self.add_link(),
            17 => {
                let id = link(input, self.next_link)?;
                end.link_lost(now, id);
                self.wire.retain(|&(_, on, _)| on != id.0);
            }
            18 => drop(end.retire_link(link(input, self.next_link)?)),
            19 => end.want_links(input.arbitrary()?),
            20 => self.now += Duration::from_millis(u64::from(input.arbitrary::<u16>()?)),
            21 => {
                end.handle_timeout(now);
                assert!(end.poll_timeout().is_none_or(|at| at > now), "a timer stays due");
            }
            22 => end.drain(),
            23 if op & 0x60 == 0x60 => end.close(CloseCode(input.arbitrary()?), "fuzz"),
            _ if self.hostile => self.hostile_frame(input)?,
            24..=27 => {
                let id = link(input, self.next_link)?;
                self.transmit(side, id);
            }
            _ => {
                let id = link(input, self.next_link)?;
                self.deliver(side, id);
            }
        }
        if self.hostile {
            self.transmit(0, LinkId(self.next_link - 1));
            self.wire.clear();
        }
        Ok(())
    }

    fn submit(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.reservations.is_empty() {
            return Ok(());
        }
        let index = input.choose_index(self.reservations.len())?;
        let (side, id, room) = self.reservations.swap_remove(index);
        let shorter = room.len >= 512 && input.arbitrary()?;
        let (codec, len) = if shorter { (Codec::Zstd, 9) } else { (Codec::Identity, room.len as usize) };
        let payload = Bytes::from(vec![2; len]);
        let frame = StreamFrame { offset: room.offset, raw_len: room.len, codec, payload, payload_crc: None };
        self.ends[side].stream_submit(self.now, id, frame);
        Ok(())
    }

    fn transmit(&mut self, side: usize, link: LinkId) {
        let mut batch = TxBatch::default();
        let wanted = self.ends[side].wants_transmit_on(link);
        let filled = self.ends[side].poll_transmit(self.now, link, &mut batch);
        assert!(wanted || !filled, "frames that nobody wanted to send");
        assert!(filled || !self.ends[side].wants_transmit_on(link), "a link is wanted for nothing");
        let mut bytes = Vec::new();
        for segment in &batch.segments {
            match segment {
                Segment::Inline(range) => bytes.extend_from_slice(&batch.inline[range.clone()]),
                Segment::Payload(payload) => bytes.extend_from_slice(payload),
            }
        }
        if filled {
            self.wire.push((side, link.0, bytes));
        }
    }

    /// The oldest batch that a side has put onto a link arrives.
    fn deliver(&mut self, sender: usize, link: LinkId) {
        let oldest = self.wire.iter().position(|&(side, on, _)| side == sender && on == link.0);
        let Some((_, _, bytes)) = oldest.map(|index| self.wire.remove(index)) else { return };
        let mut frames: Vec<Located> = Vec::new();
        let parsed = parse(&bytes, 4096, &mut frames).expect("own frames parse");
        assert_eq!(parsed.consumed, bytes.len(), "batches are whole frames");
        for Located { header, payload } in frames {
            let payload = Bytes::copy_from_slice(&bytes[payload]);
            let result = self.ends[1 - sender].handle_frame(self.now, link, &header, payload);
            assert_eq!(result, Ok(()), "honest peers understand each other: {header:?}");
        }
    }

    /// Any frame that the header check lets through, with fields that are likely to matter.
    fn hostile_frame(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let ty = *input.choose(&FrameType::ALL)?;
        let near: bool = input.arbitrary()?;
        let stream = if near { u32::from(input.arbitrary::<u8>()?) % 16 } else { input.arbitrary()? };
        let offset = match input.arbitrary::<u8>()? {
            255 => u64::MAX - u64::from(input.arbitrary::<u8>()?),
            254 => input.arbitrary()?,
            small => u64::from(small) << (input.arbitrary::<u8>()? % 10),
        };
        let len =
            if near { u32::from(input.arbitrary::<u8>()?) % 20 } else { input.arbitrary::<u32>()? % 4097 };
        let flags: u8 = input.arbitrary()?;
        let raw_len = if flags & 0x06 == 0 { len } else { len.max(512).saturating_add(u32::from(flags)) };
        let header = FrameHeader { stream, offset, wire_len: len, raw_len, ..FrameHeader::new(ty) };
        let mut bytes: [u8; HEADER_LEN] = header.encode();
        bytes[3] = flags;
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        let Ok(Decoded::Frame(header)) = FrameHeader::decode(&bytes, 4096) else { return Ok(()) };
        let link = LinkId(self.next_link - 1);
        let payload = Bytes::from(vec![3; len as usize]);
        if let Err(error) = self.ends[0].handle_frame(self.now, link, &header, payload) {
            self.ends[0].fail(error);
        }
        Ok(())
    }
}
