//! A path and TCP flows over it, as a fluid in small steps, for the tests of the controller. Owns no judgement: only
//! what a kernel would report.
//!
//! CUBIC follows RFC 9438 with its Reno-friendly region and HyStart; BBR follows version 1 (gains, filters, probe for
//! the round-trip time). What a fluid cannot show, BBR's losses to itself as flows are added, is a table of measured
//! efficiencies. The first test holds the model against what was measured on a real kernel.

use std::{collections::VecDeque, time::Duration};

use super::{Action, Change, CongestionControl, LinkSample, ceiling::HEADROOM};

const MSS: f64 = 1448.0;
const STEP: f64 = 0.005;

/// SplitMix64.
pub(super) struct Rng(pub u64);

impl Rng {
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 20.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut n) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            n += 1.0;
        }
        n
    }
}

/// A bottleneck with a drop-tail queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Bytes per second.
    pub rate: f64,
    /// Seconds without queue.
    pub rtt: f64,
    /// Probability for each segment.
    pub loss: f64,
    /// Bytes.
    pub queue_max: f64,
    /// Send buffer of a socket, bytes.
    pub sndbuf: f64,
    /// Of flows with even and odd numbers, bytes per second.
    pub flow_max: [f64; 2],
    /// The processors are the limit, as on loopback: CUBIC 28, BBR 17.5 Gbit/s, a tenth less for each more link.
    pub local: bool,
}

impl Path {
    /// A path of the lab: milliseconds, per cent, Mbit/s, with a queue of one bandwidth-delay product.
    pub(super) fn wan(rtt_ms: f64, loss_percent: f64, mbit: f64) -> Self {
        let (rate, rtt) = (mbit * 1e6 / 8.0, rtt_ms / 1e3);
        Self {
            rate,
            rtt,
            loss: loss_percent / 100.0,
            queue_max: rate * rtt,
            sndbuf: f64::INFINITY,
            flow_max: [f64::INFINITY; 2],
            local: false,
        }
    }

    pub(super) fn loopback() -> Self {
        Self { local: true, ..Self::wan(0.03, 0.0, 28_000.0) }
    }
}

/// Measured in the lab at 200 and 300 ms, with 4 and 8 flows.
const BBR_EFFICIENCY_BELOW_CEILING: f64 = 0.95;

/// Total efficiency of n BBR flows: 1, 2, 4, 16 measured, 8 as 4 in the lab, linear between.
fn bbr_efficiency(flows: usize, lossy: bool) -> f64 {
    let points = [(1.0, 0.70), (2.0, 0.80), (4.0, 0.78), (8.0, 0.78), (16.0, 0.52), (256.0, 0.3)];
    let n = flows.max(1) as f64;
    let next = points.iter().position(|(at, _)| *at >= n).unwrap_or(points.len() - 1).max(1);
    let ((a, ya), (b, yb)) = (points[next - 1], points[next]);
    let efficiency = ya + (yb - ya) * ((n - a) / (b - a)).clamp(0.0, 1.0);
    if lossy { efficiency } else { 0.9 * efficiency }
}

#[derive(Debug)]
struct Flow {
    id: u32,
    cc: CongestionControl,
    opened: f64,
    cwnd: f64,
    ssthresh: f64,
    // CUBIC
    w_max: f64,
    epoch: f64,
    reno: f64,
    recovery_until: f64,
    // BBR
    startup: bool,
    bandwidth: VecDeque<(f64, f64)>,
    full_bandwidth: f64,
    full_rounds: u32,
    round_end: f64,
    phase: f64,
    // counters
    sent: f64,
    delivered: f64,
    lost: f64,
    delivery_rate: f64,
    sndbuf_limited: f64,
}

impl Flow {
    fn new(id: u32, cc: CongestionControl, opened: f64, phase: f64) -> Self {
        Self {
            id,
            cc,
            opened,
            cwnd: 10.0 * MSS,
            ssthresh: f64::INFINITY,
            w_max: 0.0,
            epoch: 0.0,
            reno: 0.0,
            recovery_until: 0.0,
            startup: true,
            bandwidth: VecDeque::new(),
            full_bandwidth: 0.0,
            full_rounds: 0,
            round_end: 0.0,
            phase,
            sent: 0.0,
            delivered: 0.0,
            lost: 0.0,
            delivery_rate: 0.0,
            sndbuf_limited: 0.0,
        }
    }

    fn switch(&mut self, cc: CongestionControl, now: f64) {
        if self.cc == cc {
            return;
        }
        self.cc = cc;
        self.startup = true;
        self.full_bandwidth = 0.0;
        self.full_rounds = 0;
        self.bandwidth.clear();
        (self.ssthresh, self.w_max, self.epoch, self.reno) = (self.cwnd, self.cwnd, now, self.cwnd);
    }

    fn bandwidth(&self) -> f64 {
        self.bandwidth.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    /// Bytes per second that it sends now.
    fn rate(&mut self, now: f64, path: &Path, rtt: f64) -> f64 {
        if now < self.opened {
            return 0.0;
        }
        let window = match self.cc {
            CongestionControl::Cubic => self.cwnd,
            CongestionControl::Bbr => self.bbr_window(now, path, rtt),
        };
        if window > 0.98 * path.sndbuf {
            self.sndbuf_limited += STEP;
        }
        self.cwnd = window;
        window.min(path.sndbuf) / rtt
    }

    fn bbr_window(&mut self, now: f64, path: &Path, rtt: f64) -> f64 {
        let bandwidth = self.bandwidth();
        if self.startup {
            let grown = self.cwnd * 2f64.powf(STEP / rtt);
            // Without a sample yet, the window is only what it was.
            return if bandwidth > 0.0 {
                grown.min((3.0 * bandwidth * path.rtt).max(20.0 * MSS))
            } else {
                grown
            };
        }
        // The probe for the round-trip time: 200 ms in ten seconds.
        if (now + self.phase) % 10.0 < 0.2 {
            return 4.0 * MSS;
        }
        let gain = match ((now / path.rtt + 8.0 * self.phase) % 8.0) as u32 {
            0 => 1.25,
            1 => 0.75,
            _ => 1.0,
        };
        (gain * bandwidth * rtt).min(2.0 * bandwidth * path.rtt).max(4.0 * MSS)
    }

    fn on_step(&mut self, now: f64, path: &Path, rtt: f64, delivered: f64, lost: f64) {
        self.delivery_rate += (delivered / STEP - self.delivery_rate) * (STEP / rtt).min(1.0);
        match self.cc {
            CongestionControl::Cubic => self.cubic(now, path, rtt, lost),
            CongestionControl::Bbr => self.bbr(now, rtt),
        }
    }

    fn bbr(&mut self, now: f64, rtt: f64) {
        if now < self.round_end {
            return;
        }
        self.round_end = now + rtt;
        self.bandwidth.push_back((now, self.delivery_rate));
        while self.bandwidth.front().is_some_and(|(at, _)| *at < now - 10.0 * rtt) {
            self.bandwidth.pop_front();
        }
        let bandwidth = self.bandwidth();
        if bandwidth > 1.25 * self.full_bandwidth {
            (self.full_bandwidth, self.full_rounds) = (bandwidth, 0);
        } else {
            self.full_rounds += 1;
            if self.full_rounds >= 3 {
                self.startup = false;
            }
        }
    }

    fn cubic(&mut self, now: f64, path: &Path, rtt: f64, lost: f64) {
        if lost > 0.0 && now >= self.recovery_until {
            self.w_max = self.cwnd;
            self.cwnd = (0.7 * self.cwnd).max(2.0 * MSS);
            (self.ssthresh, self.epoch, self.reno) = (self.cwnd, now, self.cwnd);
            self.recovery_until = now + rtt;
            return;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd *= 2f64.powf(STEP / rtt);
            // HyStart: the queue has begun to fill.
            if rtt > 1.125 * path.rtt + 0.004 {
                (self.ssthresh, self.w_max, self.epoch, self.reno) = (self.cwnd, self.cwnd, now, self.cwnd);
            }
            return;
        }
        let k = ((self.w_max - self.ssthresh).max(0.0) / MSS / 0.4).cbrt();
        let cubic = 0.4 * (now - self.epoch - k).powi(3) * MSS + self.w_max;
        self.reno += 0.53 * MSS * STEP / rtt;
        // No faster than half as much again in a round trip.
        let goal = cubic.max(self.reno).min(self.cwnd * (1.0 + 0.5 * STEP / rtt));
        self.cwnd = goal.max(self.cwnd);
    }
}

/// Flows over a path, with a clock.
pub(super) struct Network {
    pub path: Path,
    pub now: f64,
    rng: Rng,
    queue: f64,
    flows: Vec<Flow>,
    next_id: u32,
    delivered: f64,
    /// Of all flows together.
    pub pacing: f64,
}

impl Network {
    pub(super) fn new(path: Path, seed: u64, cc: CongestionControl, links: u16) -> Self {
        let mut network = Self {
            path,
            now: 0.0,
            rng: Rng(seed),
            queue: 0.0,
            flows: Vec::new(),
            next_id: 0,
            delivered: 0.0,
            pacing: f64::INFINITY,
        };
        network.open(links, cc, 0.0);
        network
    }

    fn open(&mut self, links: u16, cc: CongestionControl, after: f64) {
        for _ in 0..links {
            let phase = self.rng.uniform();
            self.flows.push(Flow::new(self.next_id, cc, self.now + after, phase));
            self.next_id += 1;
        }
    }

    /// What the driver does with an action.
    pub(super) fn apply(&mut self, action: &Action, cc: CongestionControl) {
        match action.change {
            // TCP and DWCP handshakes take two round trips.
            Change::AddLinks(n) => self.open(n, cc, 2.0 * self.path.rtt),
            Change::RetireLink(id) => {
                let before = self.flows.len();
                self.flows.retain(|flow| flow.id != id);
                assert_eq!(self.flows.len(), before - 1, "retired link {id} does not exist");
            }
            Change::SetCongestionControl(cc) => {
                let now = self.now;
                self.flows.iter_mut().for_each(|flow| flow.switch(cc, now));
            }
        }
    }

    pub(super) fn kill_link(&mut self) {
        self.flows.pop();
    }

    /// Bytes that arrived over all links so far.
    pub(super) fn delivered(&self) -> f64 {
        self.delivered
    }

    fn rtt(&self) -> f64 {
        self.path.rtt + self.queue / self.path.rate
    }

    /// Runs for this many seconds; `demand` bounds what the application gives, bytes per second.
    pub(super) fn run(&mut self, seconds: f64, demand: f64) {
        let end = self.now + seconds;
        while self.now < end - 1e-9 {
            self.now += STEP;
            if self.path.local { self.step_local(demand) } else { self.step(demand) }
        }
    }

    fn step_local(&mut self, demand: f64) {
        let open = self.flows.len().max(1) as f64;
        let bbr = self.flows.iter().any(|flow| flow.cc == CongestionControl::Bbr);
        let limit = if bbr { 17.5e9 / 8.0 } else { 28e9 / 8.0 } * 0.9f64.powf(open - 1.0);
        let rate = (limit * (1.0 + 0.1 * self.rng.normal())).clamp(0.0, demand);
        self.delivered += rate * STEP;
        for flow in &mut self.flows {
            flow.sent += rate * STEP / open;
            flow.delivered += rate * STEP / open;
            flow.delivery_rate = rate / open;
        }
    }

    fn step(&mut self, demand: f64) {
        let (now, path, rtt) = (self.now, self.path, self.rtt());
        let mut rates: Vec<f64> = self.flows.iter_mut().map(|flow| flow.rate(now, &path, rtt)).collect();
        let total: f64 = rates.iter().sum();
        if total > demand {
            rates.iter_mut().for_each(|rate| *rate *= demand / total);
        }
        let even = self.pacing / rates.len().max(1) as f64;
        for (flow, rate) in self.flows.iter().zip(&mut rates) {
            let share = even.max(HEADROOM * flow.delivery_rate);
            *rate = rate.min(share).min(path.flow_max[flow.id as usize % 2]);
        }
        let bbr =
            self.flows.iter().filter(|flow| flow.cc == CongestionControl::Bbr && now >= flow.opened).count();
        let efficiency = match bbr {
            0 => 1.0,
            // Flows that together are not allowed much more than the path has do not lose to each other.
            _ if self.pacing < 1.2 * path.rate => BBR_EFFICIENCY_BELOW_CEILING,
            _ => bbr_efficiency(bbr, path.loss > 0.0),
        };
        let offered: f64 = rates.iter().sum::<f64>() * STEP;
        let room = path.rate * STEP + path.queue_max - self.queue;
        let overflow = ((offered - room) / offered.max(1.0)).max(0.0);
        let accepted = offered * (1.0 - overflow);
        let out = (self.queue + accepted).min(path.rate * STEP);
        self.queue = (self.queue + accepted - out).max(0.0);
        for (flow, rate) in self.flows.iter_mut().zip(rates) {
            let bytes = rate * STEP;
            let random = self.rng.poisson(bytes / MSS * path.loss) * MSS;
            let mut lost = random + bytes * overflow;
            // Less than a segment is lost now and then.
            if lost > 0.0 && lost < MSS {
                lost = if self.rng.uniform() < lost / MSS { MSS } else { 0.0 };
            }
            let delivered = if offered > 0.0 { out * bytes / offered } else { 0.0 };
            flow.sent += bytes;
            flow.lost += lost;
            flow.on_step(now, &path, rtt, delivered, lost);
            let arrived = (delivered - random).max(0.0) * efficiency;
            flow.delivered += arrived;
            self.delivered += arrived;
        }
    }

    /// What the kernel would report of each link.
    pub(super) fn links(&mut self) -> Vec<LinkSample> {
        let (now, rtt) = (self.now, self.rtt());
        let seconds = Duration::from_secs_f64;
        let base = seconds(self.path.rtt);
        let jitter = if self.path.local { 0.0003 } else { 0.0005 };
        let rng = &mut self.rng;
        let open = self.flows.iter().filter(|flow| now >= flow.opened);
        open.map(|flow| LinkSample {
            id: flow.id,
            rtt: seconds(rtt + jitter * rng.uniform()),
            rtt_min: base,
            delivered_bytes: flow.delivered as u64,
            bytes_sent: flow.sent as u64,
            bytes_lost: flow.lost as u64,
            sndbuf_limited: seconds(flow.sndbuf_limited),
            rwnd_limited: Duration::ZERO,
        })
        .collect()
    }
}
