//! What this node can do and what not, and why: for `novacron node doctor`. Looks; changes nothing.

mod sockets;
mod xdp;

use std::path::Path;

use dwcp_node::probe::{self, Finding, Interface};
use dwcp_sys::rdma::Port;

use novacron_control::schema::{Ability, Capability, Guarded};

/// Looks at this machine; it blocks. `guarded`: what an agent knows of its guards, which are its own to tell of. `pins`: where
/// guards are pinned.
pub fn examine(guarded: &[Guarded], pins: &Path) -> Vec<Capability> {
    let report = probe::probe();
    let mut found = vec![capability("kernel", Ability::Yes, report.kernel.clone())];
    found.extend(report.findings().into_iter().map(|(name, finding)| of(name, finding)));
    found.extend([sockets::zero_copy(), sockets::af_xdp(), rdma()]);
    found.extend(guarded.iter().map(guard));
    match &report.interfaces {
        Ok(interfaces) => {
            let untold = |of: &&Interface| guarded.iter().all(|guard| guard.interface != of.name);
            let support = dwcp_ebpf::support();
            let programs = interfaces.iter().filter(untold).filter_map(|interface| {
                let present = dwcp_ebpf::present(&interface.name, pins);
                xdp::unguarded(interface, &support, &present)
            });
            found.extend(programs);
            found.extend(interfaces.iter().filter(|interface| interface.up).map(interface));
        }
        Err(error) => found.push(capability("interfaces", Ability::No, error.clone())),
    }
    found
}

fn capability(name: &str, state: Ability, detail: impl Into<String>) -> Capability {
    Capability { name: name.to_owned(), state, detail: detail.into() }
}

fn of(name: &str, finding: &Finding) -> Capability {
    match finding {
        Finding::Yes { detail } => capability(name, Ability::Yes, detail.clone()),
        Finding::No { reason } => capability(name, Ability::No, reason.clone()),
        Finding::Unknown { reason } => capability(name, Ability::Unknown, reason.clone()),
    }
}

fn rdma() -> Capability {
    match Port::all() {
        Ok(ports) if ports.is_empty() => {
            capability("RDMA", Ability::No, "no device has a port that is up and has an address")
        }
        Ok(ports) => {
            let ports: Vec<_> = ports
                .iter()
                .map(|port| format!("{} port {} at {}", port.device, port.number, port.gid))
                .collect();
            capability("RDMA", Ability::Yes, ports.join(", "))
        }
        Err(error) => capability("RDMA", Ability::No, error.to_string()),
    }
}

fn guard(guarded: &Guarded) -> Capability {
    let name = format!("XDP on {}", guarded.interface);
    let reason = guarded.reason.clone().unwrap_or_default();
    match guarded.mode.as_deref() {
        Some(mode) if reason.is_empty() => capability(&name, Ability::Yes, mode),
        Some(mode) => capability(&name, Ability::Degraded, format!("{mode}; {reason}")),
        None => capability(&name, Ability::No, reason),
    }
}

fn interface(interface: &Interface) -> Capability {
    let driver = interface.driver.as_deref().unwrap_or("no driver");
    let (mtu, mtu_max) = (interface.mtu, interface.mtu_max);
    let queues = format!("{} queues in, {} out", interface.rx_queues, interface.tx_queues);
    capability(
        &format!("interface {}", interface.name),
        Ability::Yes,
        format!("{driver}, MTU {mtu} of at most {mtu_max}, {queues}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_sends_without_copies_and_of_sockets_past_the_kernel() {
        let found = examine(&[], &dwcp_ebpf::Config::default().root);
        for name in ["zero-copy sends", "AF_XDP", "RDMA", "kernel"] {
            let told: Vec<_> = found.iter().filter(|found| found.name == name).collect();
            assert!(matches!(&told[..], [one] if !one.detail.is_empty()), "{name}: {told:?}");
        }
    }
}
