//! The controller over modelled paths, in virtual time. A failure prints its seed.

use std::time::Duration;

use super::{
    Action, Change, CongestionControl, Limit, LinkController, LinkControllerConfig, PathSample,
    path_model::{Network, Path},
};
use crate::config::StreamsConfig;

use CongestionControl::{Bbr, Cubic};

const MBIT: f64 = 1e6 / 8.0;
const SEEDS: std::ops::Range<u64> = 0..8;

fn scenarios() -> Vec<(&'static str, Path)> {
    vec![
        ("80 ms 0.1 %", Path::wan(80.0, 0.1, 300.0)),
        ("200 ms 0.5 %", Path::wan(200.0, 0.5, 300.0)),
        ("150 ms 0.2 %", Path::wan(150.0, 0.2, 300.0)),
        ("300 ms 1 %", Path::wan(300.0, 1.0, 200.0)),
        ("50 ms 5 %", Path::wan(50.0, 5.0, 300.0)),
        ("30 ms 0.1 %", Path::wan(30.0, 0.1, 400.0)),
        ("100 ms drop-tail", Path::wan(100.0, 0.0, 300.0)),
        ("loopback", Path::loopback()),
    ]
}

fn adaptive() -> LinkControllerConfig {
    LinkControllerConfig { streams: StreamsConfig::default(), available: vec![Bbr, Cubic], pinned: None }
}

/// A controller on a network, ticking every 150 ms or so.
struct Run {
    network: Network,
    controller: LinkController,
    decisions: Vec<(f64, Action)>,
}

impl Run {
    fn new(path: Path, seed: u64, mut config: LinkControllerConfig) -> Self {
        let first = CongestionControl::first(Some(Duration::from_secs_f64(path.rtt)));
        config.available.sort_by_key(|&cc| cc != first);
        let links = config.streams.initial;
        let controller = LinkController::new(config);
        let cc = controller.congestion_control().unwrap_or(Cubic);
        Self { network: Network::new(path, seed, cc, links), controller, decisions: Vec::new() }
    }

    fn run(&mut self, seconds: f64) -> f64 {
        self.run_limited(seconds, f64::INFINITY, Limit::Network)
    }

    /// Runs, and returns the goodput in Mbit/s.
    fn run_limited(&mut self, seconds: f64, demand: f64, limit: Limit) -> f64 {
        let (start, acked) = (self.network.now, self.network.delivered());
        while self.network.now < start + seconds {
            self.network.run(0.15, demand);
            let links = self.network.links();
            let now = Duration::from_secs_f64(self.network.now);
            let sample = PathSample { now, limit, links: &links };
            for action in self.controller.on_sample(&sample) {
                let cc = self.controller.congestion_control().unwrap_or(Cubic);
                self.network.apply(&action, cc);
                self.decisions.push((self.network.now, action));
            }
            self.network.pacing = self.controller.pacing_ceiling().map_or(f64::INFINITY, |rate| rate as f64);
        }
        (self.network.delivered() - acked) / (self.network.now - start) / MBIT
    }

    fn log(&self) -> String {
        self.decisions
            .iter()
            .map(|(at, action)| format!("{at:8.2} {:?}: {}\n", action.change, action.reason))
            .collect()
    }
}

fn fixed(path: Path, seed: u64, cc: CongestionControl, links: u16, seconds: f64) -> f64 {
    let mut network = Network::new(path, seed, cc, links);
    network.run(seconds, f64::INFINITY);
    network.delivered() / seconds / MBIT
}

/// The model against a real kernel: 100 ms, 1 Gbit/s (see `path_model`).
#[test]
fn the_model_reproduces_what_was_measured() {
    let lossy = Path::wan(100.0, 1.0, 1000.0);
    let clean = Path::wan(100.0, 0.0, 1000.0);
    for (path, cc, links, least, most) in [
        (lossy, Cubic, 1, 1.0, 3.0),
        (lossy, Cubic, 16, 16.0, 35.0),
        (lossy, Bbr, 1, 570.0, 780.0),
        (lossy, Bbr, 2, 690.0, 825.0),
        (lossy, Bbr, 4, 690.0, 830.0),
        (lossy, Bbr, 16, 330.0, 690.0),
        (clean, Cubic, 1, 850.0, 980.0),
        (clean, Bbr, 1, 560.0, 750.0),
        (Path::loopback(), Cubic, 1, 26_000.0, 30_000.0),
        (Path::loopback(), Bbr, 1, 16_000.0, 19_000.0),
    ] {
        for seed in SEEDS {
            let mbit = fixed(path, seed, cc, links, 30.0);
            assert!(
                (least..=most).contains(&mbit),
                "{cc:?} x{links}, seed {seed}: {mbit:.1} Mbit/s, {path:?}"
            );
        }
    }
}

#[test]
fn thirty_seconds_are_no_slower_than_the_best_fixed_choice() {
    for (name, path) in scenarios() {
        for seed in SEEDS {
            let choices = [(Bbr, 1), (Bbr, 2), (Bbr, 4), (Cubic, 1), (Cubic, 16)];
            let best =
                choices.map(|(cc, links)| fixed(path, seed, cc, links, 30.0)).into_iter().fold(0.0, f64::max);
            let mut run = Run::new(path, seed, adaptive());
            let mbit = run.run(30.0);
            println!("{name}, seed {seed}: {mbit:.0} of {best:.0} Mbit/s\n{}", run.log());
            assert!(mbit >= 0.95 * best, "{name}, seed {seed}: {mbit:.0} of {best:.0} Mbit/s\n{}", run.log());
        }
    }
}

#[test]
fn converges_and_stays() {
    for (name, path) in scenarios() {
        for seed in SEEDS {
            let mut run = Run::new(path, seed, adaptive());
            run.run(5.0);
            let expected = if path.loss > 0.0 { Bbr } else { Cubic };
            assert_eq!(
                run.controller.congestion_control(),
                Some(expected),
                "{name}, seed {seed}\n{}",
                run.log()
            );
            run.run(595.0);
            assert_eq!(
                run.controller.congestion_control(),
                Some(expected),
                "{name}, seed {seed}\n{}",
                run.log()
            );
            let after = |from: f64| run.decisions.iter().filter(|(at, _)| *at > from).count();
            println!(
                "{name}, seed {seed}: {} changes, {} after 300 s\n{}",
                after(5.0),
                after(300.0),
                run.log()
            );
            assert!(after(5.0) <= 24, "{name}, seed {seed}: {} changes\n{}", after(5.0), run.log());
            assert!(after(300.0) <= 6, "{name}, seed {seed}: {} late changes\n{}", after(300.0), run.log());
        }
    }
}

#[test]
fn loss_that_appears_and_goes_is_followed() {
    for seed in SEEDS {
        let mut run = Run::new(Path::wan(100.0, 0.0, 300.0), seed, adaptive());
        run.run(30.0);
        assert_eq!(run.controller.congestion_control(), Some(Cubic), "seed {seed}\n{}", run.log());
        run.network.path.loss = 0.005;
        run.run(10.0);
        assert_eq!(run.controller.congestion_control(), Some(Bbr), "seed {seed}\n{}", run.log());
        let lossy = run.run(20.0);
        assert!(lossy > 200.0, "seed {seed}: {lossy:.0} Mbit/s with loss\n{}", run.log());
        run.network.path.loss = 0.0;
        run.run(240.0);
        assert_eq!(run.controller.congestion_control(), Some(Cubic), "seed {seed}\n{}", run.log());
    }
}

#[test]
fn a_change_of_rate_is_followed() {
    for seed in SEEDS {
        for (loss, share) in [(0.0, 0.9), (0.5, 0.7)] {
            let mut run = Run::new(Path::wan(80.0, loss, 400.0), seed, adaptive());
            run.run(60.0);
            for mbit in [50.0, 400.0] {
                run.network.path.rate = mbit * MBIT;
                run.network.path.queue_max = run.network.path.rate * run.network.path.rtt;
                // CUBIC needs most of this time to grow into eight times the rate.
                run.run(30.0);
                let carried = run.run(30.0);
                assert!(carried > share * mbit, "seed {seed}: {carried:.0} of {mbit} Mbit/s\n{}", run.log());
            }
        }
    }
}

#[test]
fn nothing_is_tried_while_the_application_or_the_peer_is_the_limit() {
    for limit in [Limit::Application, Limit::Credit] {
        for (name, path) in scenarios() {
            let mut run = Run::new(path, 1, adaptive());
            run.run_limited(120.0, 5.0 * MBIT, limit);
            // Links of a long path are made before there is anything to send.
            let at_once =
                |(at, action): &(f64, Action)| *at < 1.0 && matches!(action.change, Change::AddLinks(_));
            assert!(run.decisions.iter().all(at_once), "{name}, {limit:?}: {}", run.log());
            assert!(run.decisions.len() <= 1, "{name}, {limit:?}: {}", run.log());
        }
    }
}

#[test]
fn bounds_hold_and_a_named_congestion_control_stays() {
    for (name, path) in scenarios() {
        for (min, initial, max) in [(1, 1, 1), (3, 3, 3), (2, 3, 5)] {
            let streams = StreamsConfig { min, initial, max };
            let mut run =
                Run::new(path, 2, LinkControllerConfig { streams, available: Vec::new(), pinned: None });
            for _ in 0..300 {
                run.run(1.0);
                let target = run.controller.links_target();
                assert!((min..=max).contains(&target), "{name}: {target} links\n{}", run.log());
            }
            let switched =
                run.decisions.iter().any(|(_, a)| matches!(a.change, Change::SetCongestionControl(_)));
            assert!(!switched, "{name}\n{}", run.log());
        }
    }
}

/// CUBIC by name, on a lossy path: only more links help, and they do.
#[test]
fn links_grow_while_they_pay() {
    for seed in SEEDS {
        let config = LinkControllerConfig {
            streams: StreamsConfig::default(),
            available: Vec::new(),
            pinned: Some(Cubic),
        };
        let mut run = Run::new(Path::wan(100.0, 0.5, 300.0), seed, config);
        run.run(120.0);
        assert!(run.controller.links_target() >= 12, "seed {seed}\n{}", run.log());
    }
}

#[test]
fn send_buffers_that_are_too_small_are_made_up_for_at_once() {
    for seed in SEEDS {
        let mut path = Path::wan(300.0, 0.1, 400.0);
        path.sndbuf = 2e6;
        let mut run = Run::new(path, seed, adaptive());
        run.run(8.0);
        assert!(run.controller.links_target() >= 8, "seed {seed}\n{}", run.log());
        let mbit = run.run(22.0);
        assert!(mbit > 220.0, "seed {seed}: {mbit:.0} Mbit/s\n{}", run.log());
    }
}

/// Two links that cannot carry the same (two ways, or a policer for each flow) keep what they can carry.
#[test]
fn uneven_links_are_not_held_to_even_shares() {
    for seed in SEEDS {
        let mut path = Path::wan(80.0, 0.1, 1000.0);
        path.flow_max = [150.0 * MBIT, 250.0 * MBIT];
        let streams = StreamsConfig { min: 2, initial: 2, max: 2 };
        let pinned = LinkControllerConfig { streams, available: Vec::new(), pinned: Some(Bbr) };
        let mut run = Run { network: Network::new(path, seed, Bbr, 2), ..Run::new(path, seed, pinned) };
        run.run(20.0);
        assert!(run.network.pacing.is_finite(), "seed {seed}");
        let carried = run.run(100.0);
        assert!(carried > 0.93 * 0.95 * 400.0, "seed {seed}: {carried:.0} Mbit/s");
    }
}

#[test]
fn a_lost_link_is_replaced_even_when_idle() {
    let mut run = Run::new(Path::wan(80.0, 0.1, 300.0), 1, adaptive());
    run.run(8.0);
    run.network.kill_link();
    run.run_limited(5.0, 0.0, Limit::Application);
    assert_eq!(run.network.links().len(), usize::from(run.controller.links_target()), "{}", run.log());
}

/// A peer that takes no more links is not asked for ever.
#[test]
fn links_that_never_come_up_are_given_up() {
    let mut controller = LinkController::new(adaptive());
    let mut network = Network::new(Path::wan(80.0, 0.1, 300.0), 1, Bbr, 2);
    let mut asked = Vec::new();
    for _ in 0..4000 {
        network.run(0.15, f64::INFINITY);
        let links = network.links();
        let now = Duration::from_secs_f64(network.now);
        let sample = PathSample { now, limit: Limit::Network, links: &links };
        asked.extend(controller.on_sample(&sample).into_iter().map(|action| (network.now, action)));
    }
    assert_eq!(network.links().len(), 2);
    let late = asked.iter().filter(|(at, _)| *at > 300.0).count();
    assert!(late <= 8, "{asked:#?}");
}

#[test]
fn long_paths_begin_with_more_links() {
    let streams = StreamsConfig { min: 1, max: 16, initial: 2 };
    let at = |streams, ms| super::links_at_first(streams, Duration::from_millis(ms));
    assert_eq!([9, 10, 39, 40].map(|ms| at(streams, ms)), [2, 4, 4, 8]);
    assert_eq!(at(StreamsConfig { max: 6, ..streams }, 40), 6);
    assert_eq!(at(StreamsConfig { initial: 12, ..streams }, 40), 12);
}
