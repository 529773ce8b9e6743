//! What a client prints.

use std::fmt;

use anyhow::Result;
use dwcp_core::LinkStats;
use serde::Serialize;

use super::Mode;

/// The figures of one run. Field names are the JSON's.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) mode: Mode,
    /// From the first byte sent to the receiver's count.
    pub(super) seconds: f64,
    /// Stream payload that arrived.
    pub(super) bytes: u64,
    /// A signal ended it before the time asked for.
    pub(super) ended_early: bool,
    /// Stream payload that arrived within the time asked for, counted from its first byte, over that time. If it ended
    /// early: all that arrived, over `seconds`.
    pub(super) bits_per_second: f64,
    /// What `bytes` took on the wire, frame headers included, TLS and TCP not.
    pub(super) wire_bytes: u64,
    /// Stream payload over wire bytes.
    pub(super) ratio: Option<f64>,
    /// Messages and requests that arrived.
    pub(super) messages: u64,
    pub(super) messages_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) p99_us: Option<f64>,
    /// TCP segments sent again by the sender, on the links alive at the end.
    pub(super) retransmits: u64,
    pub(super) cpu_seconds_client: f64,
    pub(super) cpu_seconds_server: f64,
    /// Peak resident memory of this process.
    pub(super) peak_rss_kib: u64,
    /// Why the controller last changed something.
    pub(super) decision: String,
    pub(super) congestion_control_decision: String,
    /// The links when the time was over.
    pub(super) links: Vec<LinkReport>,
    pub(super) intervals: Vec<Interval>,
}

/// One link.
#[derive(Debug, Serialize)]
pub(super) struct LinkReport {
    id: u32,
    congestion_control: String,
    rtt_ms: f64,
    rtt_min_ms: f64,
    delivery_bits_per_second: f64,
    retransmits: u64,
    loss_ratio: f64,
    zerocopy: &'static str,
}

/// What the sender handed over (or, reversed, the receiver got) between two moments.
#[derive(Debug, Serialize)]
pub(super) struct Interval {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) bits_per_second: f64,
    pub(super) links: usize,
    /// Of the first link.
    pub(super) congestion_control: Option<String>,
}

impl LinkReport {
    pub(super) fn new(link: &LinkStats) -> Self {
        Self {
            id: link.id,
            congestion_control: link.congestion_control.clone(),
            rtt_ms: link.rtt.as_secs_f64() * 1e3,
            rtt_min_ms: link.rtt_min.as_secs_f64() * 1e3,
            delivery_bits_per_second: link.delivery_rate as f64 * 8.0,
            retransmits: link.retransmits,
            loss_ratio: link.loss_ratio,
            zerocopy: link.zerocopy,
        }
    }
}

impl Report {
    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!("{self}");
        Ok(())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.2}-{:<7.2} s  {:>14}  {} links",
            self.start,
            self.end,
            rate(self.bits_per_second),
            self.links
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ended_early {
            writeln!(f, "ended early, by a signal")?;
        }
        if self.bytes > 0 {
            writeln!(
                f,
                "received {} bytes in {:.2} s: {}, {} bytes on the wire, ratio {:.2}, {} segments sent again",
                self.bytes,
                self.seconds,
                rate(self.bits_per_second),
                self.wire_bytes,
                self.ratio.unwrap_or(1.0),
                self.retransmits
            )?;
        }
        if self.mode == Mode::Messages {
            writeln!(f, "received {} messages: {:.0} per second", self.messages, self.messages_per_second)?;
        }
        if let (Some(p50), Some(p99)) = (self.p50_us, self.p99_us) {
            writeln!(f, "{} round trips: p50 {p50:.1} us, p99 {p99:.1} us", self.messages)?;
        }
        for link in &self.links {
            writeln!(
                f,
                "link {}: {}, rtt {:.2} ms (min {:.2}), delivers {}, loss {:.2} %",
                link.id,
                link.congestion_control,
                link.rtt_ms,
                link.rtt_min_ms,
                rate(link.delivery_bits_per_second),
                link.loss_ratio * 100.0
            )?;
        }
        if !self.decision.is_empty() {
            writeln!(f, "controller: {}", self.decision)?;
        }
        write!(f, "cpu {:.2} s here, {:.2} s at the server", self.cpu_seconds_client, self.cpu_seconds_server)
    }
}

/// A rate with its unit.
pub(crate) fn rate(bits_per_second: f64) -> String {
    match bits_per_second {
        r if r >= 1e9 => format!("{:.2} Gbit/s", r / 1e9),
        r if r >= 1e6 => format!("{:.1} Mbit/s", r / 1e6),
        r => format!("{:.1} kbit/s", r / 1e3),
    }
}
