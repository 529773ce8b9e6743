//! Chooses an encoding for each frame. Pure: measurements and times are arguments.
//!
//! Compression trades processor time for wire bytes, so there is one number to control: the *price* of a wire byte in
//! nanoseconds of worker time. A frame gets the encoding with the least `time + price * wire bytes`, from measured
//! averages for its class of content. With W workers and a wire of R bytes/s the price is at least W/R (where a
//! second of all workers is worth a second of the wire). It rises while the wire is the bottleneck and falls while
//! the workers are. On a fast wire, moving the bytes itself takes the processors, and the ceiling comes down to W/R.
//!
//! Deliberately not here: threads and queues (`pool`), and what makes a wire the bottleneck (the driver knows).

use std::time::Duration;

use super::{
    codec::Encoding,
    probe::{Content, Probe},
};
use crate::config::{CompressionAlgorithm, CompressionConfig, CompressionLevel};

/// Encodings that are chosen from, the cheapest first. Levels between these pay for their cost nowhere.
const CANDIDATES: [Encoding; 8] = [
    Encoding::Identity,
    Encoding::Lz4,
    Encoding::Zstd(1),
    Encoding::Zstd(3),
    Encoding::Zstd(5),
    Encoding::Zstd(7),
    Encoding::Zstd(9),
    Encoding::Zstd(12),
];

/// What is believed before anything is measured: (ns per raw byte, wire bytes per raw byte) for each class and
/// candidate but identity. Source: `cargo run --release -p dwcp-core --example compression` on a 2-core x86-64 guest.
const PRIORS: [[(f32, f32); 7]; 5] = [
    // Uniform
    [(0.4, 0.02), (0.5, 0.01), (0.6, 0.01), (1.2, 0.01), (2.0, 0.01), (3.0, 0.01), (10.0, 0.01)],
    // Redundant
    [(1.6, 0.29), (2.0, 0.223), (2.6, 0.21), (5.6, 0.209), (8.2, 0.204), (13.2, 0.202), (43.0, 0.201)],
    // Structured
    [(3.4, 0.54), (4.1, 0.353), (5.6, 0.342), (12.5, 0.322), (18.5, 0.320), (30.7, 0.314), (99.0, 0.308)],
    // Dense
    [(2.6, 0.73), (3.5, 0.645), (5.6, 0.571), (11.0, 0.571), (15.0, 0.56), (23.0, 0.555), (55.0, 0.55)],
    // Incompressible
    [(0.15, 1.0), (0.2, 1.0), (0.25, 1.0), (0.45, 1.0), (0.45, 1.0), (0.45, 1.0), (2.8, 1.0)],
];

/// Handing a frame to a worker and back, ns.
const HANDOFF_NS: f32 = 10_000.0;
/// Decoding at the peer for each class, ns per raw byte: it may be this machine, or slower than this one.
const DECODE_NS: [f32; 5] = [0.3, 0.7, 0.9, 0.9, 0.5];
/// Moving a byte through the sockets takes about this much processor time on both sides together, ns.
const WIRE_BYTE_CPU_NS: f64 = 1.0;
/// Price before the wire has been the bottleneck once: only what is all but free is compressed.
const PRICE_INITIAL: f32 = 1.0;
/// And for what would have to wait for the wire; but not for more bytes than these, because on a fast wire it is the
/// compression that takes the time, and hides how fast the wire is.
const PRICE_INITIAL_BACKLOG: f32 = 16.0;
const BACKLOG_COMPRESSED_MAX: usize = 4 << 20;
/// A wire that was not the bottleneck for this many bytes is not a slow one: nothing waits to learn more of it.
const AWAITS_WIRE_MAX: usize = 64 << 20;
/// The price rises at most this far above W/R: beyond it, ratio gains are too small to matter.
const PRICE_CEILING: f64 = 20.0;
/// Change of the price for each tick, and upwards until the workers have been the bottleneck once.
const PRICE_STEP: f32 = 1.25;
const PRICE_STEP_AT_FIRST: f32 = 2.0;
/// With this share of frames finding the wire idle, the workers are the bottleneck.
const STARVED_SHARE: f32 = 0.05;
/// An idle wire is given a frame as it is if encoding takes more than this share of sending it, per worker.
const IDLE_WIRE_SHARE: f32 = 0.25;
/// One frame in this many of a class tries a neighbour of the best encoding.
const EXPLORE_EVERY: u32 = 64;
/// A neighbour that should cost more than this many times the best is not tried.
const EXPLORE_COST_MAX: f32 = 2.0;
/// A neighbour that was seen to leave more than this share of the bytes is tried this many times less often.
const NO_GAIN: f32 = 0.98;
const EXPLORE_NO_GAIN: u32 = 16;
/// After this many frames in a row that were best sent as they are the next one is not probed, after twice as many two,
/// and so on up to `PROBES_SKIPPED_MAX`: on a fast wire the probe itself is what costs. One in 13, a prime: streams that
/// take turns get their probes in turn.
const PROBE_SKIP_STEP: u32 = 8;
const PROBES_SKIPPED_MAX: u32 = 12;
/// Frames shorter than this say little about speed and ratio.
const LEARN_LEN_MIN: usize = 16 << 10;
/// Shorter frames are sent as they are.
const LEN_MIN: usize = dwcp_proto::limits::CODEC_RAW_LEN_MIN as usize;
/// A frame on which a hand-over costs nothing to speak of.
const LEN_LARGE: usize = 256 << 10;

/// How busy the wire is when a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The pool has no room, and nothing is ready for the sockets.
    Idle,
    Busy,
    /// More is ready for the sockets than a slow wire takes soon.
    Backlog,
}

/// What happened since the last tick.
#[derive(Clone, Copy, Debug)]
pub struct Feedback {
    /// Time since the last tick.
    pub elapsed: Duration,
    /// Bytes that sockets accepted in that time.
    pub wire_bytes: u64,
    /// Frames were ready while no socket took any, most of that time.
    pub network_limited: bool,
}

/// The controller of one connection's outgoing frames.
#[derive(Debug)]
pub struct CompressionController {
    candidates: Vec<Candidate>,
    adaptive: bool,
    workers: f64,
    /// Worker nanoseconds that a wire byte is worth.
    price: f32,
    /// Bytes per second, while the wire was the bottleneck.
    wire_rate: Option<f64>,
    classes: [Class; 5],
    /// Classes that occurred since the last tick, and ever.
    seen: [bool; 5],
    known: [bool; 5],
    bottleneck: Bottleneck,
    workers_were_bottleneck: bool,
    /// Payload bytes that were compressed because they had to wait for a wire of unknown rate.
    backlog_compressed: usize,
    /// Payload bytes that an encoding was chosen for.
    chosen_bytes: usize,
    frames: u32,
    frames_starved: u32,
    /// Frames in a row that were probed and best sent as they are, and those not probed since the last of them.
    identity_run: u32,
    probes_skipped: u32,
}

/// What the price was last changed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bottleneck {
    NoneYet,
    Wire,
    Workers,
}

#[derive(Debug)]
struct Candidate {
    encoding: Encoding,
    /// Row of `PRIORS`, for the encodings that have one.
    prior: Option<usize>,
}

/// What was measured for a class of content.
#[derive(Debug, Clone)]
struct Class {
    /// Measured over believed time, and wire bytes, over all encodings.
    factor: Average2,
    /// For each candidate: ns and wire bytes for each raw byte.
    measured: Vec<Average2>,
    frames: u32,
}

/// Moving average of two values: exact over the first samples, then with a weight of 1/32.
#[derive(Debug, Clone, Copy)]
struct Average2 {
    values: (f32, f32),
    samples: u32,
}

impl Average2 {
    const UNKNOWN: Self = Self { values: (1.0, 1.0), samples: 0 };

    fn add(&mut self, a: f32, b: f32) {
        self.samples = (self.samples + 1).min(32);
        let weight = 1.0 / self.samples as f32;
        self.values.0 += weight * (a - self.values.0);
        self.values.1 += weight * (b - self.values.1);
    }
}

impl CompressionController {
    /// A controller for these settings. `zstd` and `lz4` say what the peer decodes; `workers` is the pool's size.
    pub fn new(config: CompressionConfig, zstd: bool, lz4: bool, workers: usize) -> Self {
        let may = |encoding: &Encoding| match (config.algorithm, encoding) {
            (_, Encoding::Identity) => true,
            (CompressionAlgorithm::None, _) => false,
            (_, Encoding::Lz4) => lz4,
            (CompressionAlgorithm::Lz4, Encoding::Zstd(_)) => false,
            (CompressionAlgorithm::Zstd, Encoding::Zstd(_)) => zstd,
        };
        let fixed = match (config.algorithm, config.level) {
            (CompressionAlgorithm::Zstd, CompressionLevel::Fixed(level)) if zstd => {
                Some(Encoding::Zstd(level))
            }
            _ => None,
        };
        let mut candidates: Vec<Candidate> = CANDIDATES
            .into_iter()
            .enumerate()
            .filter(|(_, encoding)| may(encoding))
            .map(|(at, encoding)| Candidate { encoding, prior: at.checked_sub(1) })
            .collect();
        if let Some(encoding) = fixed {
            candidates = vec![Candidate { encoding, prior: None }];
        }
        let class = Class {
            factor: Average2::UNKNOWN,
            measured: vec![Average2::UNKNOWN; candidates.len()],
            frames: 0,
        };
        Self {
            adaptive: candidates.len() > 1,
            candidates,
            workers: workers.max(1) as f64,
            price: PRICE_INITIAL,
            wire_rate: None,
            classes: std::array::from_fn(|_| class.clone()),
            seen: [false; 5],
            known: [false; 5],
            bottleneck: Bottleneck::NoneYet,
            workers_were_bottleneck: false,
            backlog_compressed: 0,
            chosen_bytes: 0,
            frames: 0,
            frames_starved: 0,
            identity_run: 0,
            probes_skipped: 0,
        }
    }

    /// Looks at a payload, if that is worth it. Not every frame of a long run that is sent as it is is looked at; how many of
    /// what follows the run are missed is at most an eighth of it, and `PROBES_SKIPPED_MAX`.
    pub fn probe(&mut self, payload: &[u8]) -> Option<Probe> {
        let skip_max = (self.identity_run / PROBE_SKIP_STEP).min(PROBES_SKIPPED_MAX);
        if !self.adaptive || self.probes_skipped < skip_max {
            self.probes_skipped = self.probes_skipped.wrapping_add(1);
            return None;
        }
        self.probes_skipped = 0;
        Some(Probe::of(payload))
    }

    /// The encoding for a frame of `raw_len` bytes that looks like this; `None`: it was not looked at, and goes as it is,
    /// like those before it. For an idle wire a frame may go as it is: the workers are as busy as they
    /// can be, and the wire would wait. A caller that waits for room in the pool asks again when the wire falls idle
    /// meanwhile.
    pub fn choose(&mut self, probe: Option<&Probe>, raw_len: usize, wire: Wire) -> Encoding {
        if !self.adaptive {
            return self.candidates[0].encoding;
        }
        self.frames += 1;
        self.chosen_bytes = self.chosen_bytes.saturating_add(raw_len);
        self.frames_starved += u32::from(wire == Wire::Idle);
        if raw_len < LEN_MIN {
            return Encoding::Identity;
        }
        let Some(content) = probe.map(Probe::content) else {
            return Encoding::Identity;
        };
        self.seen[content as usize] = true;
        self.known[content as usize] = true;
        let waits =
            wire == Wire::Backlog && self.awaits_wire() && self.backlog_compressed < BACKLOG_COMPRESSED_MAX;
        let best = self.best(content, raw_len, if waits { PRICE_INITIAL_BACKLOG } else { self.price });
        if waits && self.candidates[best].encoding != Encoding::Identity {
            self.backlog_compressed += raw_len;
        }
        if wire == Wire::Idle && self.idle_wire_counts(content, best) {
            return Encoding::Identity;
        }
        self.identity_run = match self.candidates[best].encoding {
            Encoding::Identity => self.identity_run.saturating_add(1),
            _ => 0,
        };
        let frames = self.classes[content as usize].frames;
        self.classes[content as usize].frames = frames.wrapping_add(1);
        let other = if frames % EXPLORE_EVERY == EXPLORE_EVERY - 1 {
            self.neighbour(content, best, raw_len, frames / EXPLORE_EVERY)
        } else {
            None
        };
        self.candidates[other.unwrap_or(best)].encoding
    }

    /// What to try instead of the best encoding in the n-th round, if that is worth it.
    fn neighbour(&self, content: Content, best: usize, raw_len: usize, round: u32) -> Option<usize> {
        let up = round.is_multiple_of(2) || best <= 1;
        let neighbour = if up { best + 1 } else { best - 1 };
        if neighbour >= self.candidates.len() {
            return None;
        }
        let cost = |at: usize| self.cost(content, at, raw_len, self.price);
        let measured = self.classes[content as usize].measured[neighbour];
        let gains = measured.samples == 0 || measured.values.1 < NO_GAIN;
        let turn = gains || round % EXPLORE_NO_GAIN == EXPLORE_NO_GAIN - 1;
        (turn && cost(neighbour) < EXPLORE_COST_MAX * cost(best)).then_some(neighbour)
    }

    /// Whether a frame as it is would be through the wire in a time that matters beside that of encoding it. If not,
    /// it would only keep encoded ones waiting.
    fn idle_wire_counts(&self, content: Content, best: usize) -> bool {
        let (Some((ns, _)), Some((floor, _))) = (self.expect(content, best), self.price_range()) else {
            return true;
        };
        ns > IDLE_WIRE_SHARE * floor
    }

    /// The candidate with the least cost at this price.
    fn best(&self, content: Content, raw_len: usize, price: f32) -> usize {
        let cost = |at: usize| self.cost(content, at, raw_len, price);
        (0..self.candidates.len()).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).expect("identity at least")
    }

    /// Expected time plus priced wire bytes for each raw byte.
    fn cost(&self, content: Content, at: usize, raw_len: usize, price: f32) -> f32 {
        match self.expect(content, at) {
            None => price,
            Some((ns, wire)) => HANDOFF_NS / raw_len as f32 + ns + DECODE_NS[content as usize] + price * wire,
        }
    }

    /// Whether some class that occurs is compressed at one price and not at the other.
    fn stops_compressing(&self, from: f32, to: f32) -> bool {
        let identity = |content, price| self.candidates[self.best(content, LEN_LARGE, price)].prior.is_none();
        Content::ALL
            .into_iter()
            .any(|content| self.seen[content as usize] && !identity(content, from) && identity(content, to))
    }

    /// Expected ns and wire bytes for each raw byte; `None` for identity.
    fn expect(&self, content: Content, at: usize) -> Option<(f32, f32)> {
        let prior = PRIORS[content as usize][self.candidates[at].prior?];
        let class = &self.classes[content as usize];
        let measured = class.measured[at];
        if measured.samples > 0 {
            return Some(measured.values);
        }
        let (ns, wire) = class.factor.values;
        Some((prior.0 * ns, (prior.1 * wire).min(1.0)))
    }

    /// A frame went through the pool: `wire_len` is `raw_len` if it did not shrink, `took` the worker's time.
    pub fn on_frame_compressed(
        &mut self,
        probe: &Probe,
        encoding: Encoding,
        raw_len: usize,
        wire_len: usize,
        took: Duration,
    ) {
        let Some(at) = self.candidates.iter().position(|candidate| candidate.encoding == encoding) else {
            return;
        };
        let (Some(prior), true) = (self.candidates[at].prior, raw_len >= LEARN_LEN_MIN) else {
            return;
        };
        let (believed_ns, believed_wire) = PRIORS[probe.content() as usize][prior];
        let class = &mut self.classes[probe.content() as usize];
        let ns = took.as_nanos() as f32 / raw_len as f32;
        let wire = wire_len as f32 / raw_len as f32;
        class.measured[at].add(ns, wire);
        class.factor.add(ns / believed_ns, wire / believed_wire);
    }

    /// Whether nothing is known of the wire yet: it would be worth a tick soon.
    pub fn awaits_wire(&self) -> bool {
        self.adaptive && self.wire_rate.is_none() && self.chosen_bytes < AWAITS_WIRE_MAX
    }

    /// To be called every 50 to 250 ms while data is sent; more often while it [awaits](Self::awaits_wire) the wire.
    pub fn on_tick(&mut self, feedback: Feedback) {
        let cheaper = self.price / PRICE_STEP;
        // Busy workers beside a wire filled up with frames as they are: that is the optimum, not a fault.
        let hold = self.stops_compressing(self.price, cheaper);
        self.seen = [false; 5];
        let starved = self.frames_starved as f32 > STARVED_SHARE * self.frames as f32;
        (self.frames, self.frames_starved) = (0, 0);
        let seconds = feedback.elapsed.as_secs_f64();
        if !self.adaptive || seconds <= 0.0 {
            return;
        }
        let rate = feedback.wire_bytes as f64 / seconds;
        match &mut self.wire_rate {
            // What has been carried can be carried, whatever was the bottleneck.
            Some(known) if rate > *known => *known = rate,
            Some(known) if feedback.network_limited => {
                // Nothing at all: a stall more likely than a slower wire.
                let weight = if feedback.wire_bytes == 0 { 0.2 } else { 0.5 };
                *known += weight * (rate - *known);
            }
            None if feedback.network_limited && rate > 0.0 => self.wire_rate = Some(rate),
            _ => {}
        }
        let Some((floor, ceiling)) = self.price_range() else {
            return;
        };
        if feedback.network_limited {
            self.price *= if self.workers_were_bottleneck { PRICE_STEP } else { PRICE_STEP_AT_FIRST };
            self.bottleneck = Bottleneck::Wire;
        } else if starved && !hold {
            self.price = cheaper;
            self.bottleneck = Bottleneck::Workers;
            self.workers_were_bottleneck = true;
        }
        self.price = self.price.clamp(floor, ceiling);
    }

    fn price_range(&self) -> Option<(f32, f32)> {
        let rate = self.wire_rate.filter(|rate| *rate > 0.0)?;
        let floor = self.workers * 1e9 / rate;
        // Share of the workers' processors that moving the bytes takes by itself.
        let share = rate * WIRE_BYTE_CPU_NS / 1e9 / self.workers;
        let ceiling = floor * (0.6 / share).clamp(1.0, PRICE_CEILING);
        Some((floor as f32, ceiling as f32))
    }

    /// The encoding that a large frame of this class would get now.
    pub fn current(&self, content: Content) -> Encoding {
        self.candidates[self.best(content, LEN_LARGE, self.price)].encoding
    }

    /// Which content is encoded how, and why, for people.
    pub fn decision(&self) -> String {
        if !self.adaptive {
            return match self.candidates[0].encoding {
                Encoding::Identity => "none: the peer decodes nothing else".to_owned(),
                fixed => format!("{fixed}: set"),
            };
        }
        let known = Content::ALL.into_iter().filter(|content| self.known[*content as usize]);
        let chosen: Vec<_> =
            known.map(|content| format!("{} for {content} data", self.current(content))).collect();
        if chosen.is_empty() {
            return "nothing was sent yet".to_owned();
        }
        let why = match (self.bottleneck, self.wire_rate) {
            (Bottleneck::Wire, Some(rate)) => {
                format!("the wire is the bottleneck at {:.1} Mbit/s", rate * 8.0 / 1e6)
            }
            (Bottleneck::Wire, None) => "the wire is the bottleneck".to_owned(),
            (Bottleneck::Workers, _) => "the wire waited for the processors".to_owned(),
            (Bottleneck::NoneYet, _) => "neither wire nor processors were the bottleneck yet".to_owned(),
        };
        let price = self.price;
        format!("{}: {why}; a wire byte is worth {price:.1} ns of a processor", chosen.join(", "))
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
