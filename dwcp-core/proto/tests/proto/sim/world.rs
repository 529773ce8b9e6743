//! Two sides, the links between them and a clock that only this file moves.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use bytes::Bytes;
use dwcp_proto::{
    CloseCode,
    conn::{Closed, ConnectionConfig, LinkId, Role, Segment, TxBatch},
    frame::{Codec, FrameHeader, FrameType},
    hello::Capabilities,
};

use crate::sim::{app::App, rng::Rng, wire::Wire};

/// A drain that takes longer than this hangs.
const FINISH_MAX: Duration = Duration::from_secs(120);
const LINKS_MAX: usize = 6;

/// A bug planted between the links and the receiver. The simulation has to notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Planted {
    Nothing,
    /// Two neighbouring frames of a stream change places in the stream.
    WrongOrder,
    /// A reliable frame vanishes.
    LostFrame,
    /// A message arrives twice under different numbers.
    DoubledMessage,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) trace: u64,
    pub(crate) frames: u64,
    pub(crate) links: u32,
    pub(crate) links_lost: u64,
    pub(crate) all_links_lost: u64,
    pub(crate) stream_bytes: u64,
    pub(crate) messages: u64,
    pub(crate) answers: u64,
    pub(crate) cancellations: u64,
    pub(crate) virtual_time: Duration,
}

pub(crate) struct World {
    rng: Rng,
    now: Duration,
    apps: [App; 2],
    wires: BTreeMap<u32, Wire>,
    next_link: u32,
    links_target: usize,
    chaos_per_thousand: u64,
    planted: Planted,
    trace: DefaultHasher,
    print: bool,
    frames: u64,
    links_lost: u64,
    all_links_lost: u64,
}

fn capabilities(rng: &mut Rng, node: &str) -> Capabilities {
    Capabilities {
        node_id: node.to_owned(),
        region: String::new(),
        codecs: 0b111,
        dictionaries: Vec::new(),
        links_max: LINKS_MAX as u16,
        frame_bytes_max: 4096 << rng.below(4),
        connection_window: 4096 << rng.below(7),
        stream_window: 4096 << rng.below(4),
        message_window: 128 << 10,
        streams_max: rng.between(1, 16) as u32,
        payload_crc: rng.chance(300),
        resume_timeout_ms: 30_000,
    }
}

impl World {
    pub(crate) fn new(seed: u64, planted: Planted, print: bool) -> Self {
        let mut rng = Rng::new(seed);
        let sides = [capabilities(&mut rng, "client"), capabilities(&mut rng, "server")];
        let links_authenticated = rng.chance(300);
        let apps = [Role::Client, Role::Server].map(|role| {
            let side = role as usize;
            let config = ConnectionConfig {
                role,
                local: sides[side].clone(),
                peer: sides[1 - side].clone(),
                keepalive_interval: Duration::from_millis(200),
                idle_timeout: None,
                resume_timeout: Duration::from_secs(30),
                links_authenticated,
            };
            App::new(side, config)
        });
        let links_target = rng.between(1, 4) as usize;
        let chaos_per_thousand = [0, 5, 30][rng.below(3) as usize];
        Self {
            rng,
            now: Duration::ZERO,
            apps,
            wires: BTreeMap::new(),
            next_link: 0,
            links_target,
            chaos_per_thousand,
            planted,
            trace: DefaultHasher::new(),
            print,
            frames: 0,
            links_lost: 0,
            all_links_lost: 0,
        }
    }

    /// Runs the seed to its end. Panics where a promise is broken.
    pub(crate) fn run(mut self) -> Summary {
        let work_until = self.rng.millis(50, 600);
        while self.now < work_until {
            self.step();
        }
        // Drain in the midst of everything, from one side or from both.
        let who = self.rng.below(3);
        for side in 0..2 {
            if who == side || who == 2 {
                self.apps[side as usize].core.drain();
            }
        }
        let calm_at = self.now + self.rng.millis(0, 300);
        self.apps.iter_mut().for_each(|app| app.finishing = true);
        let limit = self.now + FINISH_MAX;
        while self.apps.iter().any(|app| app.core.closed().is_none()) {
            if self.now > calm_at {
                self.chaos_per_thousand = 0;
            }
            self.step();
            assert!(self.now < limit, "the drain hangs");
        }
        self.check_end();
        Summary {
            trace: self.trace.finish(),
            frames: self.frames,
            links: self.next_link,
            links_lost: self.links_lost,
            all_links_lost: self.all_links_lost,
            stream_bytes: self.apps.iter().flat_map(|app| app.receiving.values()).map(|r| r.at).sum(),
            messages: self.apps.iter().map(|app| app.messages_seen.len() as u64).sum(),
            answers: self.apps.iter().map(|app| app.answered).sum(),
            cancellations: self.apps.iter().map(|app| app.cancelled.len() as u64).sum(),
            virtual_time: self.now,
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(self.rng.between(100, 2000));
        if self.rng.chance(self.chaos_per_thousand) {
            self.chaos();
        }
        self.connect();
        for side in 0..2 {
            self.receive(side);
            self.time_passes(side);
            self.apps[side].act(self.now, &mut self.rng);
            self.settle_links(side);
            self.transmit(side);
            self.settle_links(side);
        }
        self.wires.retain(|_, wire| wire.closed != [true; 2]);
        if self.rng.chance(100) {
            self.apps.iter().for_each(|app| app.core.assert_invariants());
        }
    }

    /// The client keeps its links, and every end takes its socket when it is there.
    fn connect(&mut self) {
        let wanted = self.links_target.max(self.apps[0].links_wanted as usize).min(LINKS_MAX);
        let client_open = self.wires.values().filter(|wire| !wire.closed[0]).count();
        let idle = self.apps[0].core.closed().is_some();
        if !idle && client_open < wanted && (client_open == 0 || self.rng.chance(30)) {
            self.wires.insert(self.next_link, Wire::new(self.now, &mut self.rng));
            self.next_link += 1;
        }
        for (&id, wire) in &mut self.wires {
            for side in 0..2 {
                if wire.added[side] || wire.closed[side] || wire.up_at[side] > self.now {
                    continue;
                }
                let refused = side == 0 && (!wire.added[1] || wire.pipes[1].dead);
                if refused || !self.apps[side].core.link_added(self.now, LinkId(id)) {
                    wire.closed[side] = true;
                    wire.pipes[side].close(self.now);
                    let [client, server] = &mut self.apps;
                    if side == 1
                        && server.core.closed().is_some()
                        && client.core.active_links().next().is_none()
                    {
                        client.core.give_up(); // UNKNOWN_CONNECTION
                    }
                } else {
                    wire.added[side] = true;
                }
            }
        }
    }

    fn receive(&mut self, side: usize) {
        let payload_max = self.apps[side].core.frame_bytes_max();
        let ids: Vec<u32> = self.wires.keys().copied().collect();
        for id in ids {
            let wire = self.wires.get_mut(&id).expect("listed");
            if !wire.added[side] || wire.closed[side] {
                continue;
            }
            let mut frames = wire.pipes[1 - side].read(self.now, &mut self.rng, payload_max);
            let told = wire.notice_at[side].is_some_and(|at| at <= self.now);
            let lost = told || wire.pipes[1 - side].at_eof(self.now);
            self.plant(&mut frames);
            for (header, payload) in frames {
                self.frame(side, id, &header, payload);
            }
            if lost {
                self.drop_link(side, id);
            }
        }
    }

    fn frame(&mut self, side: usize, link: u32, header: &FrameHeader, payload: Vec<u8>) {
        self.frames += 1;
        (self.now, side, link, header.encode()).hash(&mut self.trace);
        if self.print {
            println!(
                "{:>9.3} ms  link {link} -> {side}  {:?} {:?} stream {} offset {} len {}/{}",
                self.now.as_secs_f64() * 1e3,
                header.ty,
                header.flags,
                header.stream,
                header.offset,
                header.wire_len,
                header.raw_len
            );
        }
        let app = &mut self.apps[side];
        if let Err(error) = app.core.handle_frame(self.now, LinkId(link), header, Bytes::from(payload)) {
            panic!("side {side} refuses a frame of its peer: {error}");
        }
        app.handle_events();
    }

    fn time_passes(&mut self, side: usize) {
        let core = &mut self.apps[side].core;
        if core.poll_timeout().is_some_and(|at| at <= self.now) {
            core.handle_timeout(self.now);
            let next = core.poll_timeout();
            assert!(next.is_none_or(|at| at > self.now), "a timer stays due: {next:?}");
        }
    }

    /// Does with the sockets what the events said.
    fn settle_links(&mut self, side: usize) {
        let app = &mut self.apps[side];
        app.handle_events();
        for LinkId(id) in std::mem::take(&mut app.finished_links) {
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.closed[side] = true;
                wire.pipes[side].close(self.now);
            }
        }
        for LinkId(id) in std::mem::take(&mut app.lost) {
            self.links_lost += 1;
            self.close_socket(side, id);
        }
        if self.apps[side].core.closed().is_some() && !self.apps[side].core.wants_transmit() {
            for wire in self.wires.values_mut().filter(|wire| !wire.closed[side]) {
                wire.closed[side] = true;
                wire.pipes[side].close(self.now);
            }
        }
    }

    /// The driver of a side sees that the link is dead.
    fn drop_link(&mut self, side: usize, id: u32) {
        self.links_lost += 1;
        let core = &mut self.apps[side].core;
        let was_last = core.active_links().eq([LinkId(id)]);
        core.link_lost(self.now, LinkId(id));
        self.all_links_lost += u64::from(was_last);
        self.close_socket(side, id);
        self.settle_links(side);
    }

    fn close_socket(&mut self, side: usize, id: u32) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.closed[side] = true;
        if self.rng.chance(500) {
            wire.pipes[1 - side].kill();
        }
        wire.pipes[side].close(self.now);
    }

    fn transmit(&mut self, side: usize) {
        let mut batch = TxBatch::default();
        for (&id, wire) in &mut self.wires {
            if !wire.added[side] || wire.closed[side] {
                continue;
            }
            let core = &mut self.apps[side].core;
            while wire.pipes[side].has_room() {
                let wanted = core.wants_transmit_on(LinkId(id));
                assert!(!wanted || core.wants_transmit(), "what wants a link wants to transmit");
                batch.clear();
                if !core.poll_transmit(self.now, LinkId(id), &mut batch) {
                    assert!(!core.wants_transmit_on(LinkId(id)), "side {side} wants link {id} for nothing");
                    break;
                }
                assert!(wanted, "side {side} did not want link {id} and uses it");
                wire.pipes[side].write(self.now, flatten(&batch));
            }
        }
    }

    fn chaos(&mut self) {
        let ids: Vec<u32> = self.wires.keys().copied().collect();
        let now = self.now;
        let pick = |rng: &mut Rng| (!ids.is_empty()).then(|| ids[rng.below(ids.len() as u64) as usize]);
        match self.rng.below(10) {
            0 => {
                // Everything dies at once.
                for wire in self.wires.values_mut() {
                    wire.kill();
                    wire.notice_at =
                        [0; 2].map(|_| self.rng.chance(700).then(|| now + self.rng.millis(0, 100)));
                }
            }
            1..=3 => {
                if let Some(wire) = pick(&mut self.rng).and_then(|id| self.wires.get_mut(&id)) {
                    wire.kill();
                    // Who is not told has to find out by its keepalive.
                    wire.notice_at =
                        [0; 2].map(|_| self.rng.chance(600).then(|| now + self.rng.millis(0, 200)));
                }
            }
            4 | 5 => {
                if let Some(wire) = pick(&mut self.rng).and_then(|id| self.wires.get_mut(&id)) {
                    let side = self.rng.below(2) as usize;
                    wire.pipes[side].stalled_until = now + self.rng.millis(10, 1500);
                }
            }
            6 => {
                if let Some(wire) = pick(&mut self.rng).and_then(|id| self.wires.get_mut(&id)) {
                    wire.pipes[self.rng.below(2) as usize].bytes_per_ms = self.rng.between(5, 5000);
                }
            }
            7 | 8 => {
                if let Some(id) = pick(&mut self.rng) {
                    let side = self.rng.below(2) as usize;
                    self.apps[side].core.retire_link(LinkId(id));
                }
            }
            _ => {
                self.links_target = self.rng.between(1, 5) as usize;
                self.apps[1].core.want_links(self.links_target as u32);
            }
        }
    }

    fn plant(&mut self, frames: &mut Vec<(FrameHeader, Vec<u8>)>) {
        match self.planted {
            Planted::Nothing => {}
            Planted::WrongOrder => {
                for at in 1..frames.len() {
                    let (first, second) = frames.split_at_mut(at);
                    let (a, b) = (&mut first[at - 1], &mut second[0]);
                    let same = a.0.ty == FrameType::Data
                        && b.0.ty == FrameType::Data
                        && a.0.stream == b.0.stream
                        && a.0.flags.codec() == Some(Codec::Identity)
                        && a.0.flags == b.0.flags
                        && a.1.len() == b.1.len();
                    if same {
                        std::mem::swap(&mut a.1, &mut b.1);
                    }
                }
            }
            Planted::LostFrame => {
                let before = frames.len();
                let mut lost = false;
                frames.retain(|(header, _)| {
                    let lose = !lost && header.ty.is_reliable();
                    lost |= lose;
                    !lose
                });
                if frames.len() < before {
                    self.planted = Planted::Nothing;
                }
            }
            Planted::DoubledMessage => {
                if let Some(at) = frames.iter().position(|(header, _)| header.ty == FrameType::Message) {
                    let mut doubled = frames[at].clone();
                    doubled.0.offset += 1000;
                    frames.push(doubled);
                    self.planted = Planted::Nothing;
                }
            }
        }
    }

    fn check_end(&mut self) {
        for side in 0..2 {
            let app = &mut self.apps[side];
            app.handle_events();
            app.take_messages();
            let graceful = matches!(
                app.core.closed(),
                Some(Closed::Local(CloseCode::NONE, _) | Closed::Peer(CloseCode::NONE, _))
            );
            assert!(graceful, "side {side} ends with {:?}", app.core.closed());
            assert_eq!(app.core.queued(), 0, "side {side} still holds something");
            app.core.assert_invariants();
            assert!(app.waiting.is_empty(), "side {side} waits for {} answers", app.waiting.len());
            assert!(app.to_answer.is_empty(), "side {side} owes answers");
        }
        for side in 0..2 {
            let (sender, receiver) = (&self.apps[side], &self.apps[1 - side]);
            assert!(
                sender.messages_sent.is_subset(&receiver.messages_seen),
                "messages of side {side} were lost: {:?}",
                sender.messages_sent.difference(&receiver.messages_seen)
            );
            for id in receiver.receiving.keys() {
                // Only a stream that its opener gave up can end before the other application takes it.
                let given_up = receiver.sending[id].abandoned;
                assert!(sender.sending.contains_key(id) || given_up, "stream {id} was never accepted");
            }
            for (id, sent) in &sender.sending {
                assert!(sent.acknowledged, "stream {id} of side {side} was never acknowledged");
                let Some(got) = receiver.receiving.get(id) else {
                    assert!(sent.abandoned, "stream {id} of side {side} was never accepted");
                    continue;
                };
                assert!(got.ended || got.stopped, "stream {id} of side {side} has not ended");
                if got.ended && !got.reset {
                    assert!(sent.finished, "stream {id} of side {side} ended by itself");
                    assert_eq!(got.at, sent.total, "stream {id} of side {side} is complete");
                }
                assert!(!got.reset || sent.abandoned, "stream {id} of side {side} was reset by itself");
            }
        }
    }
}

pub(crate) fn flatten(batch: &TxBatch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.len);
    for segment in &batch.segments {
        match segment {
            Segment::Inline(range) => bytes.extend_from_slice(&batch.inline[range.clone()]),
            Segment::Payload(payload) => bytes.extend_from_slice(payload),
        }
    }
    assert_eq!(bytes.len(), batch.len, "a batch knows its length");
    bytes
}
