//! The three jobs, and what comes out of them.
//!
//! - *bulk*: 256 KiB blocks one way until the time is over; the receiver's count, divided by the time from the first
//!   write to the arrival of that count. Over QUIC and DWCP, which are measured on long paths, too: the receiver's count
//!   when the time since its first byte is over, divided by that time.
//! - *rtt*: 64 bytes there and back, one outstanding.
//! - *messages*: 64-byte messages one way, counted by the receiver.
//!
//! On a byte stream, the first byte says which job; the end of the client's direction ends it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Bytes of a bulk write, and of the buffer it is read into.
pub const BLOCK: usize = 256 << 10;
/// Bytes of a small message.
pub const MESSAGE: usize = 64;
/// Messages between two looks at the clock.
pub const CLOCK_STRIDE: u64 = 256;

/// Longer round trips count as this long.
const ROUND_TRIP_MAX_NS: u64 = 60_000_000_000;

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Mode {
    /// Blocks one way.
    #[default]
    Bulk = b'b',
    /// Small messages there and back.
    Rtt = b'r',
    /// Small messages one way.
    Messages = b'm',
}

impl Mode {
    /// The job that this byte announces.
    pub fn from_byte(byte: u8) -> Result<Self> {
        [Self::Bulk, Self::Rtt, Self::Messages]
            .into_iter()
            .find(|mode| *mode as u8 == byte)
            .with_context(|| format!("no job is called {byte:#04x}"))
    }
}

/// What a client reports, with the field names of `novacron bench client --json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Length of the measurement.
    pub seconds: f64,
    /// Payload bytes that arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Payload bits per second that arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_second: Option<f64>,
    /// Messages per second that arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// Median round trip in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99th percentile of the round trip in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// Peak resident memory of the client, KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_kib: Option<u64>,
}

impl Report {
    /// After a bulk job.
    pub fn bulk(bytes: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self {
            seconds,
            bytes: Some(bytes),
            bits_per_second: Some(bytes as f64 * 8.0 / seconds),
            ..Self::default()
        }
    }

    /// After a job of one-way messages.
    pub fn messages(count: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self { seconds, messages_per_second: Some(count as f64 / seconds), ..Self::default() }
    }
}

/// Collects round trips until the time is over.
pub struct RoundTrips {
    histogram: Histogram<u64>,
    start: Instant,
    last: Instant,
    time: Duration,
}

impl RoundTrips {
    /// Starts the clock.
    pub fn start(time: Duration) -> Self {
        let now = Instant::now();
        let histogram = Histogram::new_with_bounds(1, ROUND_TRIP_MAX_NS, 3).expect("valid bounds");
        Self { histogram, start: now, last: now, time }
    }

    /// One round trip is over; whether to do another.
    pub fn lap(&mut self) -> bool {
        let now = Instant::now();
        self.histogram.saturating_record((now - self.last).as_nanos() as u64);
        self.last = now;
        now - self.start < self.time
    }

    /// The percentiles.
    pub fn report(&self) -> Report {
        let us = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Report {
            seconds: (self.last - self.start).as_secs_f64(),
            p50_us: Some(us(0.5)),
            p99_us: Some(us(0.99)),
            ..Report::default()
        }
    }
}

/// A block of bulk data, and of messages: static, so that cloning it costs nothing. Zeros: no peer here compresses.
pub fn block() -> Bytes {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    Bytes::from_static(&ZEROS)
}

/// Peak resident memory of a process (`self` or its id) in KiB, from `/proc/PID/status`.
pub fn peak_rss_kib(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM line")?;
    kib.parse().context("VmHWM is not a number")
}
