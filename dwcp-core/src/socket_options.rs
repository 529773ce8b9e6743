//! The options of a link's socket. What the kernel does not offer is reported and left.

use std::time::Duration;

use dwcp_sys::{SocketError, congestion, options, tcp_info};
use tokio::net::TcpStream;

use crate::{TransportConfig, adapt::CongestionControl, unsent};

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
    report(
        "TCP_NOTSENT_LOWAT",
        options::set_notsent_lowat(tcp, unsent::min(rtt_min(tcp).unwrap_or_default())),
    );
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
