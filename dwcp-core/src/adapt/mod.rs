//! How many links a connection uses, and with which congestion control, decided by what the kernel measures
//! (`TCP_INFO`): what arrives at the peer, and where in the queue losses happen.
//!
//! Pure: samples and times come in through [`LinkController::on_sample`], actions go out. Opening, retiring and
//! configuring sockets is the driver's; so is a connection that has lost all of its links.

pub(crate) mod ceiling;
mod controller;
mod evidence;
mod goodput;
#[cfg(test)]
mod path_model;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use controller::{LinkController, LinkControllerConfig};

use crate::config::StreamsConfig;

/// Below this round-trip time a path is short: CPU, not the network, is what more links and pacing cost.
const SHORT_RTT: Duration = Duration::from_millis(2);

/// From this round-trip time on a path is long: slow start and single flows leave it empty.
pub(crate) const LONG_RTT: Duration = Duration::from_millis(10);
/// Links that a long path gets at first: slow start ends sooner, and two to four BBR links carry a fifth more than one
/// at 1 % loss.
const STARTUP_LINKS: u16 = 4;
/// And from this round-trip time on: each doubling of the links saves slow start one.
const VERY_LONG_RTT: Duration = Duration::from_millis(40);
const STARTUP_LINKS_VERY_LONG: u16 = 8;

/// A TCP congestion control that the controller knows how to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CongestionControl {
    /// Paces by measured bandwidth; random loss does not slow it down. `tcp_bbr.c`.
    Bbr,
    /// Slows down at each loss; fills a drop-tail queue without losing much. `tcp_cubic.c`, RFC 9438.
    Cubic,
}

/// Links that a connection begins with: on a long path (10 ms) so many that slow start is shorter, and that random
/// loss does less harm. They are made before there is anything to send, because making them takes round trips.
pub fn links_at_first(streams: StreamsConfig, rtt_min: Duration) -> u16 {
    let links = match rtt_min {
        rtt if rtt < LONG_RTT => return streams.initial,
        rtt if rtt < VERY_LONG_RTT => STARTUP_LINKS,
        _ => STARTUP_LINKS_VERY_LONG,
    };
    streams.initial.max(links.min(streams.max))
}

impl CongestionControl {
    /// Where a connection begins, from the smallest round-trip time of its first link, if that is known. BBR pays on
    /// long paths; on short ones (2 ms) its pacing timers cost a fifth of the throughput of one machine.
    pub fn first(rtt_min: Option<Duration>) -> Self {
        match rtt_min {
            Some(rtt) if rtt < SHORT_RTT => Self::Cubic,
            _ => Self::Bbr,
        }
    }

    /// The one with this name, if it is one of these.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Bbr, Self::Cubic].into_iter().find(|known| known.name() == name)
    }

    /// The kernel's name, as in `TCP_CONGESTION`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
        }
    }
}

/// What held the sender back since the last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// There was not always something to send (the application, its disk, the compressor).
    Application,
    /// The peer gave no credit: its reader is the bottleneck.
    Credit,
    /// Sockets took no more.
    Network,
}

/// A sample of the whole path: when a link has come up, and every 100 to 250 ms.
#[derive(Clone, Debug)]
pub struct PathSample<'a> {
    /// Time since any fixed moment; never goes back.
    pub now: Duration,
    /// What held the sender back.
    pub limit: Limit,
    /// The links that are open and not retiring.
    pub links: &'a [LinkSample],
}

/// What `TCP_INFO` says of one link. Counters are since the socket was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkSample {
    /// Number of the link in its connection.
    pub id: u32,
    /// `tcpi_rtt`.
    pub rtt: Duration,
    /// `tcpi_min_rtt`.
    pub rtt_min: Duration,
    /// `tcpi_delivered * tcpi_snd_mss`: what arrived, selectively acknowledged segments included. `tcpi_bytes_acked`
    /// would stand still during each recovery and then jump.
    pub delivered_bytes: u64,
    /// `tcpi_bytes_sent`.
    pub bytes_sent: u64,
    /// Bytes found to be lost so far: `tcpi_bytes_retrans + (tcpi_lost - tcpi_retrans) * tcpi_snd_mss`, that is what
    /// was sent again and what is about to be.
    pub bytes_lost: u64,
    /// `tcpi_sndbuf_limited`.
    pub sndbuf_limited: Duration,
    /// `tcpi_rwnd_limited`.
    pub rwnd_limited: Duration,
}

/// Something for the driver to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// What.
    pub change: Change,
    /// Why, in one line for people: for the log, the metric and `novacron status`.
    pub reason: String,
}

/// What the driver should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Open this many more links, with the congestion control of [`LinkController::congestion_control`].
    AddLinks(u16),
    /// Put no more frames on this link, and close it once everything on it is acknowledged.
    RetireLink(u32),
    /// Set the congestion control of every open link.
    SetCongestionControl(CongestionControl),
}
