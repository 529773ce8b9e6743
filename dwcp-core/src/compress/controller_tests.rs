//! The controller in a modelled sender: workers, a bounded queue and a wire, in virtual time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use super::*;

fn wire_state(idle: bool) -> Wire {
    if idle { Wire::Idle } else { Wire::Busy }
}

const FRAME: usize = 256 << 10;
const TICK: f64 = 0.05;
/// Frames that may be ready for the wire.
const READY_MAX: usize = 8;

/// What truly happens to frames of a class: costs and ratios in `PRIORS` times these factors.
#[derive(Clone, Copy, Debug)]
struct Truth {
    slowness: f64,
    wire: f64,
    workers: usize,
    /// Bytes per second.
    rate: f64,
}

fn probe_of(content: Content) -> Probe {
    let (entropy_bits, repeats) = match content {
        Content::Uniform => (0.0, 1.0),
        Content::Redundant => (2.0, 0.6),
        Content::Structured => (4.5, 0.2),
        Content::Dense => (6.5, 0.05),
        Content::Incompressible => (8.0, 0.0),
    };
    let probe = Probe { entropy_bits, repeats };
    assert_eq!(probe.content(), content);
    probe
}

/// Payload bytes per second over `seconds` after a second to settle.
fn run(truth: Truth, contents: &[Content], controller: &mut CompressionController, seconds: f64) -> f64 {
    let mut now = 0.0f64;
    let mut free = vec![0.0f64; truth.workers];
    // (completion in ns, wire bytes), and completion times on the wire.
    let mut jobs: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut ready: VecDeque<f64> = VecDeque::new();
    let (mut wire_free, mut payload, mut wire_bytes, mut blocked, mut tick) = (0.0f64, 0.0, 0.0, 0.0, 0.0);
    let wire_idle_at = std::cell::Cell::new(0.0f64);
    let (mut from, mut since) = (None, 0.0);
    for frame in 0.. {
        if now > 1.0 && from.is_none() {
            from = Some(payload);
            since = now;
        }
        if now > 1.0 + seconds {
            break;
        }
        if now - tick >= TICK {
            controller.on_tick(Feedback {
                elapsed: Duration::from_secs_f64(now - tick),
                wire_bytes: wire_bytes as u64,
                network_limited: blocked > (now - tick) / 2.0,
            });
            (tick, wire_bytes, blocked) = (now, 0.0, 0.0);
        }
        let mut put = |at: f64, len: usize, ready: &mut VecDeque<f64>| {
            wire_free = wire_free.max(at) + len as f64 / truth.rate;
            ready.push_back(wire_free);
            payload += FRAME as f64;
            wire_bytes += len as f64;
        };
        let mut settle = |now: &mut f64, jobs: &mut BinaryHeap<Reverse<(u64, usize)>>| {
            while jobs.peek().is_some_and(|Reverse((at, _))| *at as f64 / 1e9 <= *now) {
                let Reverse((at, len)) = jobs.pop().unwrap();
                put(at as f64 / 1e9, len, &mut ready);
            }
            while ready.front().is_some_and(|sent| *sent <= *now) {
                ready.pop_front();
            }
            while ready.len() > READY_MAX {
                let sent = ready.pop_front().unwrap();
                blocked += sent - *now;
                *now = sent;
            }
            wire_idle_at.set(ready.back().copied().unwrap_or(0.0));
            ready.is_empty()
        };
        let content = contents[(frame / 16) % contents.len()];
        let probe = probe_of(content);
        let encoding = loop {
            let nothing_ready = settle(&mut now, &mut jobs);
            let room = jobs.len() < 3 * truth.workers;
            let encoding = controller.choose(Some(&probe), FRAME, wire_state(!room && nothing_ready));
            if room || encoding == Encoding::Identity {
                break encoding;
            }
            // Waits for room, or until the wire falls idle.
            let done = jobs.peek().unwrap().0.0 as f64 / 1e9 + 1e-9;
            now = if nothing_ready { done } else { done.min(wire_idle_at.get().max(now + 1e-9)) };
        };
        let Some(at) = CANDIDATES.iter().position(|e| *e == encoding).and_then(|at| at.checked_sub(1)) else {
            jobs.push(Reverse(((now * 1e9) as u64, FRAME)));
            now += 10e-6;
            continue;
        };
        let (ns, wire) = PRIORS[content as usize][at];
        let took = f64::from(ns) * truth.slowness * FRAME as f64 / 1e9;
        let len = ((f64::from(wire) * truth.wire).min(1.0) * FRAME as f64) as usize;
        let worker = (0..free.len()).min_by(|&a, &b| free[a].total_cmp(&free[b])).unwrap();
        free[worker] = free[worker].max(now) + took;
        jobs.push(Reverse(((free[worker] * 1e9) as u64, len)));
        controller.on_frame_compressed(&probe, encoding, FRAME, len, Duration::from_secs_f64(took));
        now += 10e-6;
    }
    (payload - from.expect("ran longer than a second")) / (now - since)
}

fn controller(level: CompressionLevel, workers: usize) -> CompressionController {
    let config = CompressionConfig { algorithm: CompressionAlgorithm::Zstd, level };
    CompressionController::new(config, true, true, workers)
}

fn mixes() -> [(&'static str, Vec<Content>); 5] {
    use Content::*;
    [
        ("zeros", vec![Uniform]),
        ("text", vec![Structured]),
        ("vm", vec![Uniform, Redundant, Redundant, Structured, Redundant, Dense]),
        ("half random", vec![Incompressible, Structured]),
        ("random", vec![Incompressible]),
    ]
}

#[test]
fn no_slower_than_the_best_fixed_level() {
    for (name, contents) in mixes() {
        for rate in [12.5e6, 125e6, 1.25e9] {
            for (slowness, wire, workers) in [(1.0, 1.0, 2), (0.5, 1.0, 8), (2.5, 1.3, 2), (1.5, 0.7, 1)] {
                let truth = Truth { slowness, wire, workers, rate };
                let fixed = [1, 3, 5, 7, 9, 12].map(|level| {
                    run(truth, &contents, &mut controller(CompressionLevel::Fixed(level), workers), 4.0)
                });
                let mut none = CompressionController::new(CompressionConfig::NONE, true, true, workers);
                let none = run(truth, &contents, &mut none, 4.0);
                let best = fixed.into_iter().fold(none, f64::max);
                let mut auto = controller(CompressionLevel::Auto, workers);
                let carried = run(truth, &contents, &mut auto, 4.0);
                let least = if name == "random" { 0.97 * none } else { 0.93 * best };
                assert!(
                    carried >= least,
                    "{name}, {truth:?}: {:.0} of {:.0} MB/s, none {:.0}, price {:.1}",
                    carried / 1e6,
                    best / 1e6,
                    none / 1e6,
                    auto.price
                );
            }
        }
    }
}

/// Workers that are too slow for the wire do what they can, and the rest of the wire is filled.
#[test]
fn slow_workers_and_a_full_wire_together_beat_either() {
    let text = [Content::Structured];
    for slowness in [2.5, 4.0] {
        let truth = Truth { slowness, wire: 1.0, workers: 2, rate: 125e6 };
        let fixed = run(truth, &text, &mut controller(CompressionLevel::Fixed(1), 2), 4.0);
        let auto = run(truth, &text, &mut controller(CompressionLevel::Auto, 2), 4.0);
        assert!(auto > 1.15 * fixed.max(truth.rate), "{:.0}, {:.0} MB/s", auto / 1e6, fixed / 1e6);
    }
}

#[test]
fn vm_pages_travel_at_three_times_a_slow_link() {
    let truth = Truth { slowness: 1.0, wire: 1.0, workers: 2, rate: 12.5e6 };
    let carried = run(truth, &mixes()[2].1, &mut controller(CompressionLevel::Auto, 2), 4.0);
    assert!(carried > 3.0 * truth.rate, "{:.0} MB/s", carried / 1e6);
}

#[test]
fn another_link_rate_is_followed() {
    let text = [Content::Structured];
    let mut auto = controller(CompressionLevel::Auto, 2);
    for rate in [12.5e6, 2e9, 12.5e6] {
        let truth = Truth { slowness: 1.0, wire: 1.0, workers: 2, rate };
        let carried = run(truth, &text, &mut auto, 4.0);
        let least = if rate > 1e9 { 0.9 * rate } else { 2.6 * rate };
        assert!(carried > least, "at {rate}: {:.0} MB/s, price {}", carried / 1e6, auto.price);
    }
}

#[test]
fn before_anything_is_known_only_the_free_is_compressed() {
    let mut auto = controller(CompressionLevel::Auto, 2);
    assert_eq!(auto.choose(Some(&probe_of(Content::Structured)), FRAME, Wire::Busy), Encoding::Identity);
    assert_eq!(auto.choose(Some(&probe_of(Content::Incompressible)), FRAME, Wire::Busy), Encoding::Identity);
}

#[test]
fn settings_and_the_peer_bound_the_choice() {
    use CompressionAlgorithm::{Lz4, None, Zstd};
    use CompressionLevel::{Auto, Fixed};
    let slow = Feedback { elapsed: Duration::from_millis(50), wire_bytes: 100_000, network_limited: true };
    for (algorithm, level, zstd, lz4, expected) in [
        (None, Auto, true, true, "none"),
        (None, Fixed(3), true, true, "none"),
        (Lz4, Auto, true, true, "lz4"),
        (Lz4, Fixed(9), true, true, "lz4"),
        (Lz4, Auto, true, false, "none"),
        (Zstd, Fixed(19), true, true, "zstd 19"),
        (Zstd, Fixed(19), false, false, "none"),
        (Zstd, Auto, false, false, "none"),
        (Zstd, Auto, false, true, "lz4"),
    ] {
        let mut controller = CompressionController::new(CompressionConfig { algorithm, level }, zstd, lz4, 2);
        controller.on_tick(slow);
        let chosen = controller.choose(Some(&probe_of(Content::Structured)), FRAME, Wire::Busy);
        assert_eq!(chosen.to_string(), expected, "{algorithm:?} {level:?} zstd {zstd} lz4 {lz4}");
    }
}

#[test]
fn the_decision_tells_which_bottleneck_it_is_for() {
    let config = CompressionConfig { algorithm: CompressionAlgorithm::Zstd, level: CompressionLevel::Auto };
    let mut controller = CompressionController::new(config, true, true, 2);
    assert_eq!(controller.decision(), "nothing was sent yet");
    let (wire, workers) = ("the wire is the bottleneck at 8.0 Mbit/s", "the wire waited for the processors");
    for (network_limited, words) in [(true, wire), (false, workers), (true, wire)] {
        // Without room in the pool every frame finds the wire idle.
        controller.choose(Some(&probe_of(Content::Structured)), FRAME, wire_state(!network_limited));
        let elapsed = Duration::from_millis(100);
        controller.on_tick(Feedback { elapsed, wire_bytes: 100_000, network_limited });
        let (encoding, decision) = (controller.current(Content::Structured), controller.decision());
        assert!(decision.starts_with(&format!("{encoding} for structured data: {words}")), "{decision}");
    }
    let fixed = CompressionConfig { level: CompressionLevel::Fixed(3), ..config };
    assert_eq!(CompressionController::new(fixed, true, true, 2).decision(), "zstd 3: set");
    let refused = CompressionController::new(config, false, false, 2);
    assert_eq!(refused.decision(), "none: the peer decodes nothing else");
}

/// Probes cost time on a fast wire; what follows a long run must not pay for it.
#[test]
fn long_runs_sent_as_they_are_are_sampled_and_their_end_is_found() {
    use crate::sample_data::SampleData;

    let text = SampleData::Text.generate(1, FRAME);
    // Text is sent as it is while nothing shows that the wire is slow.
    for (data, run) in [SampleData::Random, SampleData::Text]
        .into_iter()
        .flat_map(|data| [1, 8, 64, 1000].map(|run| (data, run)))
    {
        let payload = data.generate(1, FRAME);
        let mut controller = CompressionController::new(CompressionConfig::default(), true, true, 2);
        let mut looked_at = 0;
        for _ in 0..run {
            let probe = controller.probe(&payload);
            looked_at += u32::from(probe.is_some());
            controller.choose(probe.as_ref(), FRAME, Wire::Busy);
        }
        assert!(
            if run <= PROBE_SKIP_STEP { looked_at == run } else { looked_at < run },
            "{looked_at} of {run}"
        );
        controller.on_tick(Feedback {
            elapsed: Duration::from_millis(100),
            wire_bytes: 1_250_000,
            network_limited: true,
        });
        let chosen: Vec<_> = (0..100)
            .map(|_| {
                let probe = controller.probe(&text);
                controller.choose(probe.as_ref(), FRAME, Wire::Busy)
            })
            .collect();
        let missed = chosen.iter().take_while(|&&encoding| encoding == Encoding::Identity).count();
        assert!(missed <= (run / PROBE_SKIP_STEP).min(PROBES_SKIPPED_MAX) as usize, "{missed} after {run}");
        assert!(!chosen[missed..].contains(&Encoding::Identity), "after {run}: {chosen:?}");
    }
}

#[test]
fn before_the_wire_is_known_what_has_to_wait_is_compressed() {
    let mut auto = controller(CompressionLevel::Auto, 2);
    let (structured, random) = (probe_of(Content::Structured), probe_of(Content::Incompressible));
    assert_eq!(auto.choose(Some(&structured), FRAME, Wire::Busy), Encoding::Identity);
    for _ in 0..50 {
        assert_eq!(auto.choose(Some(&random), FRAME, Wire::Backlog), Encoding::Identity);
    }
    for _ in 0..BACKLOG_COMPRESSED_MAX / FRAME {
        assert_ne!(auto.choose(Some(&structured), FRAME, Wire::Backlog), Encoding::Identity);
    }
    assert_eq!(auto.choose(Some(&structured), FRAME, Wire::Backlog), Encoding::Identity, "not for ever");
    assert!(auto.awaits_wire());
    auto.on_tick(Feedback {
        elapsed: Duration::from_millis(10),
        wire_bytes: 40 << 20,
        network_limited: true,
    });
    assert!(!auto.awaits_wire());
}

#[test]
fn on_a_slow_wire_the_price_is_at_its_ceiling_after_six_ticks() {
    let mut auto = controller(CompressionLevel::Auto, 2);
    for _ in 0..6 {
        auto.on_tick(Feedback {
            elapsed: Duration::from_millis(100),
            wire_bytes: 1_250_000,
            network_limited: true,
        });
    }
    let (_, ceiling) = auto.price_range().unwrap();
    assert_eq!(auto.price, ceiling);
}

#[test]
fn a_stall_is_not_taken_for_a_slow_wire_at_once() {
    let mut auto = controller(CompressionLevel::Auto, 2);
    for wire_bytes in [12_500_000, 12_500_000, 0, 0, 0] {
        auto.on_tick(Feedback { elapsed: Duration::from_millis(100), wire_bytes, network_limited: true });
    }
    assert!(auto.wire_rate.unwrap() > 0.5 * 125e6, "{:?}", auto.wire_rate);
}
