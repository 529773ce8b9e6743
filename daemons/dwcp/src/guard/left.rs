//! Guards that an earlier process has left at interfaces which the settings no longer name.

use std::path::Path;

use dwcp_ebpf::Error;
use novacron_control::schema::Guarded;

/// Takes them away; those that stay, and why. What another process guards, or another network namespace has, is not ours.
pub(super) fn take_away(pins: &Path, wanted: &[String]) -> Vec<Guarded> {
    let unwanted = dwcp_ebpf::pinned(pins).into_iter().filter(|interface| !wanted.contains(interface));
    unwanted.filter_map(|interface| stays(pins, interface)).collect()
}

fn stays(pins: &Path, interface: String) -> Option<Guarded> {
    let reason = match dwcp_ebpf::take_away(pins, &interface) {
        Ok(()) => {
            tracing::info!(
                interface,
                "its guard in XDP is taken off: it is not among xdp.interfaces any more"
            );
            return None;
        }
        Err(error @ (Error::InUse { .. } | Error::OtherNamespace { .. })) => {
            tracing::debug!(interface, %error, "a guard in XDP that is not this agent's");
            return None;
        }
        Err(error) => format!("a guard of an earlier process stays: {error}"),
    };
    tracing::warn!(interface, reason, "XDP");
    Some(Guarded { interface, mode: None, reason: Some(reason), packets: Default::default(), sent: 0 })
}
