//! Scenarios: what link to emulate.
//!
//! Owns: the description of a link in the units people use, its checks, the seven standing scenarios, and its
//! translation for the link model. Nothing here runs anything.

use crate::Nanos;
use crate::link::LinkConfig;
use crate::random::SplitMix64;
use crate::rate::RateSchedule;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// A link, the same in both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What it is called in tables.
    pub name: String,
    /// Rate in Mbit/s of IP payload (transport header and data; IP headers ride free, as with a negative overhead in
    /// `tc`). A full 1500-byte TCP segment carries 1448 of 1480 such bytes: goodput reaches 97.8 % of the rate.
    pub rate_mbit: f64,
    /// Propagation there and back, in milliseconds.
    pub rtt_ms: f64,
    /// Probability that a wire segment is lost, each way, 0.0..1.0.
    pub loss: f64,
    /// Drop-tail queue in front of the rate; `None` is one bandwidth-delay product.
    pub queue_bytes: Option<u64>,
    /// Extra one-way delay wanders between 0 and this, without reordering.
    pub jitter_ms: f64,
    /// Probability that a segment is held back by `reorder_delay_ms`, 0.0..1.0.
    pub reorder: f64,
    /// See `reorder`.
    pub reorder_delay_ms: f64,
    /// Rates from moments after the start on.
    pub rate_changes: Vec<RateChange>,
    /// Spans after the start in which nothing passes.
    pub outages: Vec<Outage>,
    /// Seed of loss, jitter and reordering.
    pub seed: u64,
}

/// From `at_s` seconds after the start on, the rate is `rate_mbit`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "described above")]
pub struct RateChange {
    pub at_s: f64,
    pub rate_mbit: f64,
}

/// From `from_s` to `to_s` seconds after the start nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "described above")]
pub struct Outage {
    pub from_s: f64,
    pub to_s: f64,
}

/// (name, rate Mbit/s, round trip ms, loss each way). Rates are what two processors that also run both endpoints carry
/// without loss at that delay with room to spare. Queues are one bandwidth-delay product everywhere: the classic rule
/// for a bottleneck's buffer, and on the lossy links more than a loss-limited sender ever fills.
const STANDING: [(&str, f64, f64, f64); 7] = [
    ("rtt80-loss0.1", 400.0, 80.0, 0.001),
    ("rtt200-loss0.5", 300.0, 200.0, 0.005),
    ("rtt150-loss0.2", 300.0, 150.0, 0.002),
    ("rtt300-loss1", 200.0, 300.0, 0.01),
    ("rtt50-loss5", 300.0, 50.0, 0.05),
    ("rtt30-loss0.1", 400.0, 30.0, 0.001),
    ("rtt100-droptail", 400.0, 100.0, 0.0),
];

impl Scenario {
    /// A link with a rate and a round trip, and a queue of one bandwidth-delay product; nothing is lost but by it.
    pub fn clean(name: &str, rate_mbit: f64, rtt_ms: f64) -> Self {
        Self {
            name: name.into(),
            rate_mbit,
            rtt_ms,
            loss: 0.0,
            queue_bytes: None,
            jitter_ms: 0.0,
            reorder: 0.0,
            reorder_delay_ms: 5.0,
            rate_changes: vec![],
            outages: vec![],
            seed: 1,
        }
    }

    /// The seven standing scenarios.
    pub fn standing() -> Vec<Self> {
        let scenario = |(name, rate, rtt, loss)| Self { loss, ..Self::clean(name, rate, rtt) };
        STANDING.into_iter().map(scenario).collect()
    }

    /// The standing scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::standing().into_iter().find(|scenario| scenario.name == name)
    }

    /// Where a scenario of that name stands among the seven; those that are none of them come after them.
    pub fn standing_place(name: &str) -> usize {
        STANDING.iter().position(|(standing, ..)| *standing == name).unwrap_or(STANDING.len())
    }

    /// Size of the queue.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.unwrap_or((self.rate_mbit * 1e6 * self.rtt_ms / 1e3 / 8.0) as u64)
    }

    /// Refuses what no link can be.
    pub fn check(&self) -> Result<()> {
        let rates = || std::iter::once(self.rate_mbit).chain(self.rate_changes.iter().map(|c| c.rate_mbit));
        ensure!(rates().all(|r| (0.01..=100_000.0).contains(&r)), "a rate must be 0.01..=100000 Mbit/s");
        ensure!((0.0..=10_000.0).contains(&self.rtt_ms), "the round trip must be 0..=10000 ms");
        ensure!((0.0..=1_000.0).contains(&self.jitter_ms), "the jitter must be 0..=1000 ms");
        ensure!((0.0..=1_000.0).contains(&self.reorder_delay_ms), "the reorder delay must be 0..=1000 ms");
        ensure!((0.0..1.0).contains(&self.loss), "the loss must be at least 0 and less than 100 %");
        ensure!((0.0..1.0).contains(&self.reorder), "reordering must be at least 0 and less than 100 %");
        ensure!(self.queue_bytes() >= 1500, "the queue must hold a packet (1500 bytes)");
        let changes = &self.rate_changes;
        ensure!(
            changes.iter().all(|c| c.at_s > 0.0) && changes.is_sorted_by(|a, b| a.at_s < b.at_s),
            "rate changes must be in order of time, after 0"
        );
        ensure!(
            self.outages.iter().all(|o| 0.0 <= o.from_s && o.from_s < o.to_s),
            "an outage must end after it begins"
        );
        Ok(())
    }

    /// The two directions for the link model, from A to B first. They differ in their seed only.
    pub fn directions(&self) -> Result<[LinkConfig; 2]> {
        self.check()?;
        let bits = |mbit: f64| (mbit * 1e6) as u64;
        let changes: Vec<_> =
            self.rate_changes.iter().map(|c| (seconds(c.at_s), bits(c.rate_mbit))).collect();
        let mut seeds = SplitMix64::new(self.seed, 0);
        Ok([(); 2].map(|()| LinkConfig {
            rate: RateSchedule::new(bits(self.rate_mbit), &changes),
            delay: seconds(self.rtt_ms / 2e3),
            jitter: seconds(self.jitter_ms / 1e3),
            loss: self.loss,
            queue_bytes: self.queue_bytes(),
            reorder: self.reorder,
            reorder_delay: seconds(self.reorder_delay_ms / 1e3),
            outages: self.outages.iter().map(|o| seconds(o.from_s)..seconds(o.to_s)).collect(),
            seed: seeds.next_u64(),
        }))
    }
}

fn seconds(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standing_scenarios_are_the_agreed_ones() {
        let all = Scenario::standing();
        let path: Vec<(f64, f64)> = all.iter().map(|s| (s.rtt_ms, s.loss)).collect();
        let agreed = [
            (80.0, 0.001),
            (200.0, 0.005),
            (150.0, 0.002),
            (300.0, 0.01),
            (50.0, 0.05),
            (30.0, 0.001),
            (100.0, 0.0),
        ];
        assert_eq!(path, agreed);
        for scenario in all {
            assert!((200.0..=400.0).contains(&scenario.rate_mbit));
            let [ab, ba] = scenario.directions().unwrap();
            assert_eq!(2 * ab.delay, seconds(scenario.rtt_ms / 1e3));
            assert_ne!(ab.seed, ba.seed, "losses of the two directions are independent");
            assert_eq!(Scenario::named(&scenario.name), Some(scenario));
        }
        assert_eq!(Scenario::standing_place("rtt80-loss0.1"), 0);
        assert_eq!(Scenario::standing_place("another"), 7);
        let droptail = Scenario::named("rtt100-droptail").unwrap();
        assert_eq!(droptail.queue_bytes(), 5_000_000);
    }

    #[test]
    fn impossible_links_are_refused() {
        let bad = |change: &dyn Fn(&mut Scenario)| {
            let mut scenario = Scenario::clean("x", 100.0, 50.0);
            change(&mut scenario);
            assert!(scenario.check().is_err(), "{scenario:?}");
        };
        bad(&|s| s.rate_mbit = 0.0);
        bad(&|s| s.rate_mbit = f64::NAN);
        bad(&|s| s.rtt_ms = -1.0);
        bad(&|s| s.loss = 1.0);
        bad(&|s| s.reorder = 1.5);
        bad(&|s| s.queue_bytes = Some(100));
        bad(&|s| s.jitter_ms = f64::INFINITY);
        bad(&|s| s.rate_changes = vec![RateChange { at_s: 0.0, rate_mbit: 1.0 }]);
        bad(&|s| s.rate_changes = vec![RateChange { at_s: 1.0, rate_mbit: 0.0 }]);
        bad(&|s| s.outages = vec![Outage { from_s: 2.0, to_s: 2.0 }]);
    }
}
