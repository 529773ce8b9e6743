//! One side with its application: it does what the seed says, waits only for the events that it was promised, and
//! checks everything that it is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use dwcp_proto::{
    conn::{
        Connection, ConnectionConfig, Event, Incoming, LinkId, MessageSendError, OpenError, Priority, Read,
        RequestId, Reservation, ResponseStatus, SendError, StreamFrame,
    },
    frame::Codec,
    limits::CODEC_RAW_LEN_MIN,
};

use crate::sim::rng::{Rng, content};

#[derive(Default)]
pub(crate) struct Sending {
    pub(crate) total: u64,
    pub(crate) written: u64,
    pending: Vec<Reservation>,
    blocked: bool,
    pub(crate) finished: bool,
    reset_at: Option<u64>,
    /// Reset by this side or stopped by the peer.
    pub(crate) abandoned: bool,
    pub(crate) acknowledged: bool,
}

#[derive(Default)]
pub(crate) struct Receiving {
    pub(crate) at: u64,
    readable: bool,
    stop_at: Option<u64>,
    pub(crate) stopped: bool,
    pub(crate) ended: bool,
    pub(crate) reset: bool,
    patience: u64,
}

pub(crate) struct App {
    pub(crate) side: usize,
    pub(crate) core: Connection,
    pub(crate) sending: BTreeMap<u32, Sending>,
    pub(crate) receiving: BTreeMap<u32, Receiving>,
    /// Streams that the peer stopped before they were accepted here, and that are over for the sender.
    acknowledged_early: BTreeSet<u32>,
    /// Streams with something left to do.
    live: Vec<u32>,
    /// No new work; everything there is gets done, by every reader.
    pub(crate) finishing: bool,
    open_blocked: bool,
    messages_blocked: bool,
    messages_readable: bool,
    next_message: u64,
    pub(crate) messages_sent: BTreeSet<u64>,
    pub(crate) messages_seen: BTreeSet<u64>,
    /// Requests made and not answered, with the number in their payload.
    pub(crate) waiting: BTreeMap<RequestId, u64>,
    pub(crate) answered: u64,
    pub(crate) cancelled: BTreeSet<RequestId>,
    /// Requests of the peer that want an answer.
    pub(crate) to_answer: BTreeMap<RequestId, u64>,
    pub(crate) lost: Vec<LinkId>,
    pub(crate) finished_links: Vec<LinkId>,
    pub(crate) links_wanted: u32,
}

impl App {
    pub(crate) fn new(side: usize, config: ConnectionConfig) -> Self {
        Self {
            side,
            core: Connection::new(config, Duration::ZERO),
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            acknowledged_early: BTreeSet::new(),
            live: Vec::new(),
            finishing: false,
            open_blocked: false,
            messages_blocked: false,
            messages_readable: false,
            next_message: 0,
            messages_sent: BTreeSet::new(),
            messages_seen: BTreeSet::new(),
            waiting: BTreeMap::new(),
            answered: 0,
            cancelled: BTreeSet::new(),
            to_answer: BTreeMap::new(),
            lost: Vec::new(),
            finished_links: Vec::new(),
            links_wanted: 0,
        }
    }

    pub(crate) fn handle_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::StreamIncoming | Event::PeerDraining | Event::AllLinksLost | Event::Closed => {}
                Event::StreamsAvailable => self.open_blocked = false,
                Event::StreamReadable(id) => {
                    // A stream that was not accepted yet is read on acceptance anyway.
                    if let Some(stream) = self.receiving.get_mut(&id) {
                        stream.readable = true;
                    }
                }
                Event::StreamWritable(id) => {
                    if let Some(stream) = self.sending.get_mut(&id) {
                        stream.blocked = false;
                    }
                }
                Event::StreamAcknowledged(id) => {
                    let again = match self.sending.get_mut(&id) {
                        Some(stream) => std::mem::replace(&mut stream.acknowledged, true),
                        None => !self.acknowledged_early.insert(id),
                    };
                    assert!(!again, "acknowledged once");
                }
                Event::StreamStopped(id, code) => {
                    assert_eq!(code, id ^ 0x55, "the code of the STOP");
                    if let Some(stream) = self.sending.get_mut(&id) {
                        stream.abandoned = true;
                    }
                }
                Event::MessagesReadable => self.messages_readable = true,
                Event::MessagesWritable => self.messages_blocked = false,
                Event::Response(id, status, payload) => {
                    let number = self.waiting.remove(&id).expect("one answer for each request");
                    assert_eq!(status, ResponseStatus::Ok);
                    assert_eq!(payload, message(!number));
                    self.answered += 1;
                }
                Event::RequestCancelled(id) => {
                    // Not there any more: the answer and the cancellation crossed in this application.
                    self.to_answer.remove(&id);
                }
                Event::LinkFinished(id) => self.finished_links.push(id),
                Event::LinkLost(id) => self.lost.push(id),
                Event::LinksWanted(count) => self.links_wanted = count,
            }
        }
    }

    /// A slice of the application's time.
    pub(crate) fn act(&mut self, now: Duration, rng: &mut Rng) {
        self.take_messages();
        if self.core.closed().is_some() {
            return;
        }
        if !self.finishing {
            self.start_something(now, rng);
        }
        while let Some(id) = self.core.accept_stream() {
            self.add_stream(id, rng);
        }
        self.handle_events();
        let (sending, receiving) = (&self.sending, &self.receiving);
        self.live.retain(|id| !sending[id].acknowledged || !(receiving[id].ended || receiving[id].stopped));
        for id in self.live.clone() {
            if self.finishing || rng.chance(500) {
                self.write(now, id, rng);
            }
            self.read(now, id, rng);
        }
        self.answer(now, rng);
    }

    fn start_something(&mut self, now: Duration, rng: &mut Rng) {
        if !self.open_blocked && rng.chance(60) {
            match self.core.open_stream() {
                Ok(id) => self.add_stream(id, rng),
                Err(OpenError::Blocked) => self.open_blocked = true,
                Err(OpenError::Draining | OpenError::Closed) => {}
            }
        }
        let burst = if rng.chance(20) { 40 } else { u64::from(rng.chance(200)) };
        for _ in 0..burst {
            self.send_message(now, rng);
        }
        if rng.chance(30)
            && let Some(&id) = self.waiting.keys().nth(rng.below(8) as usize)
        {
            self.core.request_cancel(id);
            self.waiting.remove(&id);
            self.cancelled.insert(id);
        }
    }

    fn add_stream(&mut self, id: u32, rng: &mut Rng) {
        let total = rng.skewed(18) - 1;
        let reset_at = rng.chance(100).then(|| rng.below(total + 1));
        let acknowledged = self.acknowledged_early.remove(&id);
        self.sending.insert(id, Sending { total, reset_at, acknowledged, ..Sending::default() });
        let receiving = Receiving {
            readable: true,
            stop_at: rng.chance(100).then(|| rng.skewed(18) - 1),
            patience: [1000, 300, 20, 0][rng.below(4) as usize],
            ..Receiving::default()
        };
        self.receiving.insert(id, receiving);
        self.live.push(id);
    }

    fn write(&mut self, now: Duration, id: u32, rng: &mut Rng) {
        let stream = self.sending.get_mut(&id).expect("known");
        if stream.reset_at.is_some_and(|at| stream.written >= at) && !stream.abandoned {
            stream.abandoned = true;
            self.core.stream_reset(id, id ^ 0xaa);
        }
        // Compression finishes in any order.
        while !stream.pending.is_empty() && (self.finishing || rng.chance(700)) {
            let index = rng.below(stream.pending.len() as u64) as usize;
            let reservation = stream.pending.swap_remove(index);
            self.core.stream_submit(now, id, encode(id, self.side, reservation, self.core.payload_crc()));
        }
        if stream.abandoned || stream.finished || stream.blocked {
            return;
        }
        for _ in 0..rng.between(1, 6) {
            if stream.written == stream.total {
                break;
            }
            let want = rng.skewed(16).min(stream.total - stream.written) as usize;
            match self.core.stream_reserve(id, want) {
                Ok(reservation) => {
                    assert_eq!(reservation.offset, stream.written);
                    assert!((1..=want).contains(&(reservation.len as usize)));
                    stream.written += u64::from(reservation.len);
                    stream.pending.push(reservation);
                }
                Err(SendError::Blocked) => {
                    stream.blocked = true;
                    return;
                }
                Err(error) => panic!("stream {id}: {error:?}"),
            }
        }
        if stream.written == stream.total && stream.reset_at.is_none() && rng.chance(800) {
            self.core.stream_finish(id).expect("open until now");
            stream.finished = true;
        }
    }

    fn read(&mut self, now: Duration, id: u32, rng: &mut Rng) {
        let stream = self.receiving.get_mut(&id).expect("known");
        if stream.ended || stream.stopped || !stream.readable {
            return;
        }
        if !self.finishing && !rng.chance(stream.patience) {
            return;
        }
        loop {
            if stream.stop_at.is_some_and(|at| stream.at >= at) {
                stream.stopped = true;
                return self.core.stream_stop(id, id ^ 0x55);
            }
            match self.core.stream_read(now, id) {
                Read::Chunk(chunk) => {
                    assert_eq!(chunk.offset, stream.at, "stream {id}: in order");
                    stream.at += u64::from(chunk.raw_len);
                    let expected = wire_payload(id, 1 - self.side, chunk.offset, chunk.raw_len, chunk.codec);
                    assert!(chunk.payload == expected, "stream {id}: wrong content at {}", chunk.offset);
                }
                Read::Blocked => {
                    stream.readable = false;
                    return;
                }
                Read::End => {
                    stream.ended = true;
                    return;
                }
                Read::Reset(code) => {
                    // Its own code, or the answer to this side's STOP.
                    assert_eq!(code, id ^ 0xaa, "stream {id}: code of the RESET");
                    stream.ended = true;
                    stream.reset = true;
                    return;
                }
                Read::Closed => panic!("stream {id} is gone before its end was read"),
            }
        }
    }

    fn send_message(&mut self, now: Duration, rng: &mut Rng) {
        if self.messages_blocked {
            return;
        }
        let priority = Priority::ALL[rng.below(3) as usize];
        let number = self.next_message << 1 | self.side as u64;
        let mut payload = message(number).to_vec();
        if rng.chance(100) {
            payload.resize((rng.skewed(16) as usize + 8).min(self.core.message_len_max()), 7);
        }
        let request = rng.chance(400);
        let result = if request {
            payload.truncate(8);
            self.core.request_send(now, priority, 1000, payload.into()).map(|id| {
                assert_eq!(self.waiting.insert(id, number), None, "request ids are unique");
            })
        } else {
            self.core.message_send(now, priority, payload.into()).map(|()| {
                self.messages_sent.insert(number);
            })
        };
        match result {
            Ok(()) => self.next_message += 1,
            Err(MessageSendError::Blocked) => self.messages_blocked = true,
            Err(MessageSendError::Closed) => assert!(self.core.is_draining()),
            Err(MessageSendError::TooLarge) => panic!("not that large"),
        }
    }

    pub(crate) fn take_messages(&mut self) {
        if !self.messages_readable {
            return;
        }
        let mut batched = Vec::new();
        while self.core.messages_receive_batched(5, |_, payload| batched.push((None, payload))) > 0 {}
        let mut one =
            || self.core.message_receive().map(|Incoming { request, payload, .. }| (request, payload));
        for (request, payload) in batched.into_iter().chain(std::iter::from_fn(&mut one)) {
            let number = u64::from_le_bytes(payload[..8].try_into().expect("at least 8 bytes"));
            assert_eq!(number & 1, 1 - self.side as u64, "from the other side");
            assert!(self.messages_seen.insert(number), "message {number} came twice");
            if let Some(id) = request {
                self.to_answer.insert(id, number);
            }
        }
        self.messages_readable = false;
    }

    fn answer(&mut self, now: Duration, rng: &mut Rng) {
        let ids: Vec<RequestId> = self.to_answer.keys().copied().collect();
        for id in ids {
            if self.finishing || rng.chance(150) {
                let number = self.to_answer.remove(&id).expect("listed");
                self.core.respond(now, id, ResponseStatus::Ok, message(!number)).expect("open");
            }
        }
    }
}

fn message(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// The simulated codec halves, so that a frame of half the length stands for the whole.
fn wire_payload(stream: u32, sender: usize, offset: u64, raw_len: u32, codec: Codec) -> Bytes {
    let len = if codec == Codec::Identity { raw_len } else { raw_len / 2 };
    content(stream, sender, offset, len as usize).into()
}

fn encode(stream: u32, sender: usize, reservation: Reservation, crc: bool) -> StreamFrame {
    let Reservation { offset, len } = reservation;
    let codec = if len >= CODEC_RAW_LEN_MIN && len % 3 == 0 { Codec::Lz4 } else { Codec::Identity };
    let payload = wire_payload(stream, sender, offset, len, codec);
    let payload_crc = crc.then(|| crc32fast::hash(&payload));
    StreamFrame { offset, raw_len: len, codec, payload, payload_crc }
}
