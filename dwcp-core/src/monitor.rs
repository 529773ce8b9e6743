//! Samples the kernel's view of each link, feeds the controllers, does what they say, and publishes metrics.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dwcp_proto::conn::Role;
use dwcp_sys::{congestion, options, tcp_info};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    adapt::{
        Action, Change, CongestionControl, LONG_RTT, Limit, LinkController, LinkControllerConfig, LinkSample,
        PathSample,
    },
    link::Link,
    metrics::ConnectionMetrics,
    shared::Shared,
    socket_options,
    stats::LinkStats,
};

/// Time between samples while data flows, and while none does.
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVAL_IDLE: Duration = Duration::from_millis(500);
/// While frames wait for a wire of which nothing is known, so many looks at it for so long each come between the samples:
/// encodings are chosen by it, and a slow wire takes long for what was sent as it is meanwhile.
const INTERVAL_AT_FIRST: Duration = Duration::from_millis(10);
const LOOKS_AT_FIRST: u32 = 50;
/// Samples without traffic after which the longer interval is taken.
const IDLE_AFTER: u32 = 20;
/// Samples in which the network does not limit a server after which it asks the client for no more than its minimum.
const WISH_KEPT: u32 = 5;
/// A queue on the path that outlasts any delay of the writer's (the kernel may have the processor elsewhere for as long).
const QUEUE_LASTS: Duration = Duration::from_millis(1);
/// Frames are not made shorter than this.
const FRAME_LEN_MIN: u32 = 64 << 10;
/// What a frame takes on one link until it is too long for whatever waits behind it.
const FRAME_LASTS: Duration = Duration::from_millis(1);

struct Monitor {
    shared: Arc<Shared>,
    controller: LinkController,
    metrics: ConnectionMetrics,
    at: Duration,
    wire_sent: u64,
    payload_sent: u64,
    shrinks: Shrinks,
    wire_received: u64,
    quiet: u32,
    /// Left of [`LOOKS_AT_FIRST`].
    looks: u32,
    /// When encodings were last adapted, and what had been sent by then.
    encodings: (Duration, u64),
    /// Samples in a row in which something other than the network limited this side.
    unlimited: u32,
}

/// Runs until the connection has ended.
pub(crate) async fn run(shared: Arc<Shared>) {
    let available = match &shared.config.congestion_control {
        Some(_) => Vec::new(), // see `pinned`
        None => {
            let offered = congestion::available();
            let first = shared.lock().congestion_control.unwrap_or(CongestionControl::Bbr);
            let other = match first {
                CongestionControl::Bbr => CongestionControl::Cubic,
                CongestionControl::Cubic => CongestionControl::Bbr,
            };
            [first, other].into_iter().filter(|cc| offered.iter().any(|name| name == cc.name())).collect()
        }
    };
    let pinned = shared.config.congestion_control.as_deref().and_then(CongestionControl::named);
    let streams = shared.config.streams;
    let mut monitor = Monitor {
        controller: LinkController::new(LinkControllerConfig { streams, available, pinned }),
        metrics: ConnectionMetrics::new(&shared),
        at: shared.now(),
        wire_sent: 0,
        payload_sent: 0,
        shrinks: Shrinks::default(),
        wire_received: 0,
        quiet: 0,
        looks: LOOKS_AT_FIRST,
        encodings: (shared.now(), 0),
        unlimited: 0,
        shared,
    };
    while !monitor.shared.is_closed() {
        monitor.tick();
        let interval = if monitor.quiet >= IDLE_AFTER { INTERVAL_IDLE } else { INTERVAL };
        let closed = Arc::clone(&monitor.shared);
        tokio::select! {
            () = monitor.pause(Instant::now() + interval) => {}
            () = closed.wait_closed() => {}
        }
    }
    monitor.shared.wait_links_closed().await;
    let retransmits = monitor.shared.lock().retransmits();
    monitor.metrics.publish(&monitor.shared, &[], retransmits); // what moved since the last tick
}

impl Monitor {
    fn tick(&mut self) {
        let now = self.shared.now();
        let links = self.shared.lock().links.clone();
        let samples: Vec<_> = links.iter().filter_map(|link| Some((link, sample(link)?))).collect();
        let stats: Vec<_> = samples.iter().map(|(link, info)| link_stats(link, info)).collect();
        let limit = self.limit(&links);
        if limit == Limit::Network {
            samples.iter().for_each(|(link, info)| limit_unsent(link, info));
        }
        let (sent, received) = self.shared.wire_bytes();
        let payload = self.shared.bytes_sent.load(Ordering::Relaxed);
        let moved = sent + received > self.wire_sent + self.wire_received;
        self.quiet = if moved { 0 } else { self.quiet.saturating_add(1) };
        self.adapt_encodings(now, sent, limit);
        if let Some(rtt) = samples.iter().map(|(_, info)| info.rtt_us).filter(|&rtt| rtt > 0).min() {
            self.shared.lock().core.set_rtt(Duration::from_micros(rtt.into()));
        }
        self.shrinks.count(sent - self.wire_sent, payload - self.payload_sent);
        let elapsed = now - self.at;
        links.iter().for_each(|link| link.measure_carried(elapsed));
        {
            let mut state = self.shared.lock();
            let len_max = state.core.frame_bytes_max();
            let link_rate = (sent - self.wire_sent) as f64 / elapsed.as_secs_f64() / links.len() as f64;
            let rtt_min = samples.iter().map(|(_, info)| rtt_min(info)).min().unwrap_or_default();
            let matters = limit == Limit::Network && rtt_min < LONG_RTT && !self.shrinks.is_compressed();
            state.core.set_frame_len(if matters { frame_len(len_max, link_rate) } else { len_max });
        }
        let active: Vec<LinkSample> = {
            let state = self.shared.lock();
            let active: Vec<_> = state.core.active_links().collect();
            let is_active = |link: &Link| active.contains(&link.id);
            samples
                .iter()
                .filter(|(link, _)| is_active(link))
                .map(|(link, info)| path_sample(link, info))
                .collect()
        };
        // The controllers are about TCP's ways with a path.
        let actions = match self.shared.lock().has_rdma() {
            true => Vec::new(),
            false => self.controller.on_sample(&PathSample { now, limit, links: &active }),
        };
        for action in actions {
            self.act(&links, action);
        }
        self.shared.lock().set_pacing_ceiling(self.controller.pacing_ceiling());
        self.unlimited = if limit == Limit::Network { 0 } else { self.unlimited.saturating_add(1) };
        self.shared.want_links(self.links_wish());
        let retransmits = {
            let mut state = self.shared.lock();
            state.link_stats = stats.clone();
            state.retransmits()
        };
        self.metrics.publish(&self.shared, &stats, retransmits);
        (self.at, self.wire_sent, self.wire_received) = (now, sent, received);
        self.payload_sent = payload;
    }

    /// Waits for the next sample, and looks at a wire of which nothing is known meanwhile.
    async fn pause(&mut self, until: Instant) {
        let shared = Arc::clone(&self.shared);
        while let (Some(compressor), true) = (&shared.compressor, self.looks > 0) {
            tokio::select! {
                () = compressor.backlog() => {}
                () = sleep_until(until) => return,
            }
            self.looks -= 1;
            self.encodings = (shared.now(), shared.wire_bytes().0);
            sleep(INTERVAL_AT_FIRST).await;
            let links = shared.lock().links.clone();
            let limit = self.limit(&links);
            self.adapt_encodings(shared.now(), shared.wire_bytes().0, limit);
        }
        sleep_until(until).await;
    }

    fn adapt_encodings(&mut self, now: Duration, wire_sent: u64, limit: Limit) {
        let (at, before) = std::mem::replace(&mut self.encodings, (now, wire_sent));
        if let Some(compressor) = &self.shared.compressor {
            compressor.on_tick(now - at, wire_sent - before, limit == Limit::Network);
        }
    }

    /// What held the sender back since the last tick or look: did writing mostly end with a full socket, or with nothing
    /// left?
    fn limit(&self, links: &[Arc<Link>]) -> Limit {
        let mut full = 0;
        let mut drained = 0;
        for link in links {
            full += link.ended_full.swap(0, Ordering::Relaxed);
            drained += link.ended_drained.swap(0, Ordering::Relaxed);
        }
        let state = self.shared.lock();
        if full >= drained && state.core.unsent_bytes() > 0 {
            Limit::Network
        } else if state.core.is_credit_limited() {
            Limit::Credit
        } else {
            Limit::Application
        }
    }

    /// How many links this side would like. A client cannot retire a link that the server wants: a server whose own
    /// sending has no use for many leaves it to the client, whose links they are, too.
    fn links_wish(&self) -> u16 {
        match self.shared.role {
            _ if self.shared.lock().has_rdma() => self.shared.config.streams.min,
            Role::Server if self.unlimited >= WISH_KEPT => self.shared.config.streams.min,
            Role::Server | Role::Client => self.controller.links_target(),
        }
    }

    fn act(&mut self, links: &[Arc<Link>], action: Action) {
        let Action { change, reason } = action;
        let peer = self.shared.peer.node_id.as_str();
        tracing::info!(peer, ?change, reason, "links");
        self.metrics.decided(&change);
        match change {
            Change::AddLinks(_) => {} // the target says how many
            Change::RetireLink(id) => self.shared.retire_link(id),
            Change::SetCongestionControl(wanted) => {
                for link in links {
                    let in_force = congestion::set(link.socket.tcp(), wanted.name());
                    if !in_force.as_ref().is_ok_and(|in_force| in_force == wanted.name()) {
                        tracing::warn!(peer, link = link.id.0, ?in_force, "congestion control not changed");
                        socket_options::count_fallback(wanted.name());
                        self.controller.on_congestion_control_refused(wanted);
                        return;
                    }
                }
                let mut state = self.shared.lock();
                state.congestion_control = Some(wanted);
                state.congestion_control_decision = reason;
                return;
            }
        }
        self.shared.lock().last_decision = reason;
    }
}

/// Frame bytes sent for payload bytes accepted, over about ten samples.
#[derive(Debug, Default)]
struct Shrinks {
    wire: f64,
    payload: f64,
}

impl Shrinks {
    fn count(&mut self, wire: u64, payload: u64) {
        self.wire += wire as f64 - 0.1 * self.wire;
        self.payload += payload as f64 - 0.1 * self.payload;
    }

    fn is_compressed(&self) -> bool {
        self.wire < 0.75 * self.payload
    }
}

/// How long frames of at most `len_max` should be on links of this rate, bytes per second. What is urgent waits for the
/// rest of a frame, on a slow link for long: shorter ones, half as long or on a very slow link a quarter, cost little
/// there. Not where frames are compressed: they are short on the link anyway, and compress the better the longer they
/// are. Nor beside a long round trip, where it makes no difference.
fn frame_len(len_max: u32, link_rate: f64) -> u32 {
    let lasts = |len: u32| f64::from(len) > link_rate * FRAME_LASTS.as_secs_f64();
    let len = match len_max {
        len if !lasts(len) => len,
        len if lasts(len / 8) => len / 4,
        len => len / 2,
    };
    len.max(FRAME_LEN_MIN.min(len_max))
}

pub(crate) fn sample(link: &Link) -> Option<tcp_info::TcpInfo> {
    tcp_info::sample(link.socket.tcp()).ok()
}

fn micros(value: u32) -> Duration {
    Duration::from_micros(value.into())
}

fn rtt_min(info: &tcp_info::TcpInfo) -> Duration {
    micros(info.rtt_min_us.unwrap_or(info.rtt_us))
}

/// A link whose writer waits although nothing is left in the kernel is starved, unless what is under way already queues
/// somewhere for so long that the writer comes in time.
fn limit_unsent(link: &Link, info: &tcp_info::TcpInfo) {
    let rtt_min = rtt_min(info);
    // Over a long path the round trip also varies by itself.
    let queues = rtt_min < LONG_RTT && micros(info.rtt_us).saturating_sub(rtt_min) > QUEUE_LASTS;
    let starved = info.notsent_bytes == 0 && link.is_blocked() && !queues;
    if let Some(bytes) = link.unsent_limit.on_sample(starved, rtt_min)
        && let Err(error) = options::set_notsent_lowat(link.socket.tcp(), bytes)
    {
        tracing::debug!(link = link.id.0, %error, "TCP_NOTSENT_LOWAT is not available");
    }
}

fn path_sample(link: &Link, info: &tcp_info::TcpInfo) -> LinkSample {
    LinkSample {
        id: link.id.0,
        rtt: micros(info.rtt_us),
        rtt_min: rtt_min(info),
        delivered_bytes: u64::from(info.delivered) * u64::from(info.snd_mss),
        bytes_sent: info.bytes_sent,
        bytes_lost: info.bytes_lost(),
        sndbuf_limited: Duration::from_micros(info.sndbuf_limited_us),
        rwnd_limited: Duration::from_micros(info.rwnd_limited_us),
    }
}

fn link_stats(link: &Link, info: &tcp_info::TcpInfo) -> LinkStats {
    let bbr = tcp_info::cc_info(link.socket.tcp());
    LinkStats {
        id: link.id.0,
        congestion_control: congestion::get(link.socket.tcp()).unwrap_or_default(),
        rtt: micros(info.rtt_us),
        rtt_min: rtt_min(info),
        delivery_rate: info.delivery_rate,
        bbr_bandwidth: bbr.map(|bbr| bbr.bandwidth),
        // The kernel begins with ~0.
        bbr_rtt_min: bbr.filter(|bbr| bbr.min_rtt_us != u32::MAX).map(|bbr| micros(bbr.min_rtt_us)),
        path_mtu: Some(info.path_mtu).filter(|&mtu| mtu > 0),
        retransmits: info.retransmits_total.into(),
        loss_ratio: info.loss_ratio(),
        wire_bytes_sent: link.wire_sent.load(Ordering::Relaxed),
        wire_bytes_received: link.wire_received.load(Ordering::Relaxed),
        zerocopy: link.zerocopy(),
        transport: if link.socket.rdma().is_some() { "rdma" } else { "tcp" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_shorter_where_they_would_take_long_and_are_not_short() {
        const KIB: u32 = 1 << 10;
        for (len_max, mbit, expected) in [
            (256 * KIB, 100.0, 64 * KIB),
            (256 * KIB, 300.0, 128 * KIB),
            (256 * KIB, 1000.0, 128 * KIB),
            (256 * KIB, 10_000.0, 256 * KIB),
            (4096 * KIB, 10_000.0, 2048 * KIB),
            (64 * KIB, 100.0, 64 * KIB),
            (256 * KIB, 0.0, 64 * KIB),
            (4096 * KIB, 100.0, 1024 * KIB),
            (100 * KIB, 100.0, 64 * KIB),
            (16 * KIB, 100.0, 16 * KIB),
        ] {
            assert_eq!(frame_len(len_max, mbit * 1e6 / 8.0), expected, "{len_max} bytes at {mbit} Mbit/s");
        }
    }

    /// Payload counts when it is accepted, a frame at a time, and its frame when it is written: at 8 Mbit/s samples apart.
    #[test]
    fn a_slow_link_does_not_look_compressed() {
        let mut shrinks = Shrinks::default();
        let mut ahead = 0;
        for sample in 0..1000 {
            let payload = if ahead < 200_000 { 131_072 } else { 0 };
            ahead = ahead + payload - 100_000_u64.min(ahead + payload);
            shrinks.count(100_000, payload);
            assert!(sample < 10 || !shrinks.is_compressed(), "sample {sample}: {shrinks:?}");
        }
        (0..50).for_each(|_| shrinks.count(100_000, 300_000));
        assert!(shrinks.is_compressed());
    }
}
