//! The options of a link's socket. What the kernel does not offer is reported and left.

use std::{sync::atomic::Ordering, time::Duration};

use dwcp_proto::limits::BATCH_BYTES;
use dwcp_sys::{SocketError, congestion, options, tcp_info};
use tokio::net::TcpStream;

use crate::{TransportConfig, adapt::CongestionControl, link::Link};

/// What may wait unsent in the kernel of a link, where nothing overtakes it: half a millisecond at the link's rate, for a
/// thread to be woken in, within these bounds. Less than a batch would spare a control message little: batches are
/// written whole.
const NOTSENT_LOWAT_MIN: u32 = BATCH_BYTES as u32;
const NOTSENT_LOWAT_MAX: u32 = 256 << 10;
const NOTSENT_TIME: Duration = Duration::from_micros(500);

/// Sets what may wait unsent in the kernel of a link that sends so many bytes in a time.
pub(crate) fn limit_unsent(link: &Link, bytes: u64, time: Duration) {
    let lowat = notsent_lowat(bytes, time);
    if link.notsent_lowat.swap(lowat, Ordering::Relaxed) != lowat
        && let Err(error) = options::set_notsent_lowat(link.socket.tcp(), lowat)
    {
        tracing::debug!(link = link.id.0, %error, "TCP_NOTSENT_LOWAT is not available");
    }
}

/// In steps of the least value, so that it changes seldom.
fn notsent_lowat(bytes: u64, time: Duration) -> u32 {
    let bytes = bytes as f64 * (NOTSENT_TIME.as_secs_f64() / time.as_secs_f64().max(1e-3));
    let steps = (bytes / f64::from(NOTSENT_LOWAT_MIN)) as u32;
    (steps * NOTSENT_LOWAT_MIN).clamp(NOTSENT_LOWAT_MIN, NOTSENT_LOWAT_MAX)
}

/// The smallest round-trip time that the kernel saw; `None` if it does not say.
pub(crate) fn rtt_min(tcp: &TcpStream) -> Option<Duration> {
    let us = tcp_info::sample(tcp).ok()?.rtt_min_us?;
    Some(Duration::from_micros(us.into()))
}

/// Sets the options of a new link; `chosen` is the controller's congestion control.
pub(crate) fn configure(tcp: &TcpStream, config: &TransportConfig, chosen: CongestionControl) {
    let report = |what: &str, result: Result<(), SocketError>| {
        if let Err(error) = result {
            tracing::warn!(%error, "{what} is not available on this link");
        }
    };
    report("TCP_NODELAY", options::set_nodelay(tcp, true));
    report("TCP_NOTSENT_LOWAT", options::set_notsent_lowat(tcp, NOTSENT_LOWAT_MIN));
    let silence = config.keepalive_interval * dwcp_proto::limits::KEEPALIVES_LOST_MAX;
    report("TCP_USER_TIMEOUT", options::set_user_timeout(tcp, silence));
    let wanted = config.congestion_control.as_deref().unwrap_or(chosen.name());
    match congestion::set(tcp, wanted) {
        Ok(in_force) if in_force == wanted => {}
        Ok(in_force) => {
            tracing::warn!(wanted, in_force, "the kernel chose another congestion control");
            count_fallback(wanted);
        }
        Err(error) => {
            tracing::warn!(%error, wanted, "congestion control is not available: the kernel's default is in force");
            count_fallback(wanted);
        }
    }
}

/// Counts a congestion control that was wanted and is not in force.
pub(crate) fn count_fallback(wanted: &str) {
    metrics::counter!("dwcp_congestion_control_fallbacks_total", "wanted" => wanted.to_owned()).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_unsent_follows_the_rate_within_its_bounds() {
        let at_gbit =
            |rate: f64| notsent_lowat((rate * 125e6 / 10.0) as u64, Duration::from_millis(100)) >> 10;
        assert_eq!([0.0, 0.1, 1.0, 2.0].map(at_gbit), [64, 64, 64, 64]);
        assert_eq!([2.5, 3.5, 5.0, 40.0, 4000.0].map(at_gbit), [128, 192, 256, 256, 256]);
        assert_eq!(notsent_lowat(u64::MAX, Duration::ZERO), NOTSENT_LOWAT_MAX);
    }
}
