//! A link: two in-order byte pipes with delay, rate, stall and death, and what each end knows of it.

use std::{collections::VecDeque, time::Duration};

use dwcp_proto::{Located, Rest, frame::FrameHeader, parse};

use crate::sim::rng::Rng;

/// Bytes that a socket takes before it blocks.
const SOCKET_BYTES: usize = 96 << 10;

#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) delay: Duration,
    pub(crate) bytes_per_ms: u64,
    pub(crate) stalled_until: Duration,
    busy_until: Duration,
    in_flight: VecDeque<(Duration, Vec<u8>)>,
    queued: usize,
    /// Bytes of the front of `in_flight` that were read.
    taken: usize,
    /// Nothing arrives any more, and nobody is told.
    pub(crate) dead: bool,
    /// The sender closed; seen by the receiver after everything else.
    pub(crate) eof_at: Option<Duration>,
    received: Vec<u8>,
    /// Bytes of `received` that were cut into frames.
    cut: usize,
    skip: usize,
}

impl Pipe {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self { delay: rng.millis(0, 40), bytes_per_ms: rng.between(20, 4000), ..Self::default() }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queued < SOCKET_BYTES
    }

    pub(crate) fn write(&mut self, now: Duration, bytes: Vec<u8>) {
        self.queued += bytes.len();
        self.busy_until =
            self.busy_until.max(now) + Duration::from_micros(bytes.len() as u64 * 1000 / self.bytes_per_ms);
        self.in_flight.push_back((self.busy_until + self.delay, bytes));
    }

    pub(crate) fn kill(&mut self) {
        self.dead = true;
        self.in_flight.clear();
        self.taken = 0;
    }

    pub(crate) fn close(&mut self, now: Duration) {
        self.eof_at.get_or_insert(now + self.delay);
    }

    /// Frames that are complete by now. Bytes come in pieces that know nothing of frames.
    pub(crate) fn read(
        &mut self,
        now: Duration,
        rng: &mut Rng,
        payload_max: u32,
    ) -> Vec<(FrameHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        if self.dead || now < self.stalled_until {
            return frames;
        }
        while let Some((at, bytes)) = self.in_flight.front()
            && *at <= now
        {
            let piece = (rng.skewed(17) as usize).min(bytes.len() - self.taken);
            self.received.extend_from_slice(&bytes[self.taken..self.taken + piece]);
            self.taken += piece;
            self.queued -= piece;
            if self.taken == bytes.len() {
                self.in_flight.pop_front();
                self.taken = 0;
            }
            self.cut(payload_max, &mut frames);
        }
        frames
    }

    fn cut(&mut self, payload_max: u32, frames: &mut Vec<(FrameHeader, Vec<u8>)>) {
        let skipped = self.skip.min(self.received.len() - self.cut);
        self.cut += skipped;
        self.skip -= skipped;
        let bytes = &self.received[self.cut..];
        let mut located: Vec<Located> = Vec::new();
        let parsed = parse(bytes, payload_max, &mut located).expect("own frames parse");
        for frame in located {
            let payload = bytes[frame.payload].to_vec();
            frame.header.check_payload(&payload).expect("own checksums match");
            frames.push((frame.header, payload));
        }
        if let Rest::Skip(len) = parsed.rest {
            self.skip = len;
        }
        self.cut += parsed.consumed;
        if self.cut == self.received.len() {
            self.received.clear();
            self.cut = 0;
        }
    }

    pub(crate) fn at_eof(&self, now: Duration) -> bool {
        !self.dead
            && now >= self.stalled_until
            && self.in_flight.is_empty()
            && self.eof_at.is_some_and(|at| at <= now)
    }
}

/// Pipes are named by their sender.
pub(crate) struct Wire {
    pub(crate) pipes: [Pipe; 2],
    /// When each end has its socket (the server has it first).
    pub(crate) up_at: [Duration; 2],
    pub(crate) added: [bool; 2],
    pub(crate) closed: [bool; 2],
    /// When an end will be told that the link is dead.
    pub(crate) notice_at: [Option<Duration>; 2],
}

impl Wire {
    pub(crate) fn new(now: Duration, rng: &mut Rng) -> Self {
        let pipes = [Pipe::new(rng), Pipe::new(rng)];
        let server_up = now + pipes[0].delay;
        let client_up = server_up + pipes[1].delay;
        Self {
            up_at: [client_up, server_up],
            pipes,
            added: [false; 2],
            closed: [false; 2],
            notice_at: [None; 2],
        }
    }

    pub(crate) fn kill(&mut self) {
        self.pipes.iter_mut().for_each(Pipe::kill);
    }
}
