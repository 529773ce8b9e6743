//! Links whose frames go over RDMA: who may have them, how both ends agree, and the socket that carries the frames.
//!
//! Such a link begins as any other, with TCP, TLS and HELLO. If the peer's address is in a trust zone ([`TrustZone`]) of both
//! sides and both have a port, the HELLOs carry what each has to know of the other's queue pair, and from then on frames
//! go over it. TCP stays open beside it, silent: its end is the link's end. Whatever fails ends the link, and what was on
//! its way goes out again on the next one, which is TCP for [`REST`]; then RDMA is tried again.
//!
//! It deliberately has no encryption: verbs have none. TLS says who the peer is and hides the keys of the memory, but
//! whoever can send packets in the network of the RDMA ports can read and change what the link carries. That is why there
//! are no zones unless configured.

mod offer;
mod socket;
mod zone;

use std::time::Duration;

pub(crate) use offer::{Answer, Offer, answer, conclude};
pub(crate) use socket::RdmaSocket;
pub use zone::{TrustZone, TrustZoneError};

/// Links over RDMA of one connection: the newest, and one whose loss was not noticed yet. Each has 6 MiB of memory that is
/// not swapped.
pub(crate) const LINKS_MAX: usize = 2;

/// How long after the loss of an RDMA link a connection goes without.
const REST: Duration = Duration::from_secs(5);

/// How a connection stands with RDMA.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// Both sides offered it on the first link.
    pub(crate) agreed: bool,
    /// Time of the connection before which it is not tried again.
    rests_until: Duration,
}

impl Course {
    pub(crate) fn new(agreed: bool) -> Self {
        Self { agreed, rests_until: Duration::ZERO }
    }

    /// A link over RDMA was lost, or could not be made.
    pub(crate) fn failed(&mut self, now: Duration) {
        self.rests_until = now + REST;
    }

    /// When a link over RDMA may be tried; `None`: never.
    pub(crate) fn due_at(&self) -> Option<Duration> {
        self.agreed.then_some(self.rests_until)
    }
}

/// Counts a link that goes over TCP although its peer is in a zone.
pub(crate) fn count_fallback(reason: &'static str) {
    metrics::counter!("dwcp_rdma_fallbacks_total", "reason" => reason).increment(1);
}
