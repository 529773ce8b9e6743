//! In which mode XDP programs would run on uplinks. Nothing is attached: it goes by what drivers are known to do.

use dwcp_node::probe::Interface;
use novacron_control::schema::{Ability, Capability};

use super::capability;

/// Drivers, and kinds of virtual interfaces, that are known to run XDP programs themselves, as of Linux 6.12. There may be
/// more: those are said to be in generic mode, until an attachment shows.
const NATIVE: &[&str] = &[
    "am65-cpsw-nuss",
    "atlantic",
    "bnxt_en",
    "bond",
    "cpsw",
    "ena",
    "fec",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_core",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "qede",
    "sfc",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
];

/// Of an uplink that no guard of an agent is told of.
pub(super) fn unguarded(interface: &Interface) -> Capability {
    let name = format!("XDP on {}", interface.name);
    let driver = interface.driver.as_deref().unwrap_or("no driver");
    let unused = "it is not among xdp.interfaces";
    match runs_natively(interface) {
        true => capability(&name, Ability::Yes, format!("{driver} knows native mode, untried: {unused}")),
        false => capability(
            &name,
            Ability::Degraded,
            format!("{driver} is not known to have native mode, so generic mode: {unused}"),
        ),
    }
}

fn runs_natively(interface: &Interface) -> bool {
    interface.driver.as_deref().is_some_and(|driver| NATIVE.contains(&driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(driver: Option<&str>) -> Interface {
        Interface {
            name: "eth0".to_owned(),
            uplink: true,
            up: true,
            mtu: 1500,
            mtu_max: 9000,
            driver: driver.map(str::to_owned),
            rx_queues: 1,
            tx_queues: 1,
        }
    }

    #[test]
    fn the_mode_goes_by_the_driver() {
        let of = |driver| unguarded(&uplink(driver));
        assert_eq!((of(Some("virtio_net")).state, of(Some("veth")).state), (Ability::Yes, Ability::Yes));
        assert_eq!((of(Some("r8169")).state, of(None).state), (Ability::Degraded, Ability::Degraded));
        assert!(of(Some("r8169")).detail.contains("generic"));
    }
}
