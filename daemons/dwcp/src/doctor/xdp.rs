//! Whether XDP programs can be loaded, which ones there are, and in which mode one would run on uplinks. Nothing is attached: the
//! mode goes by what drivers are known to do.

use dwcp_ebpf::{Error, Holder, Present};
use dwcp_node::probe::Interface;
use novacron_control::schema::{Ability, Capability};

use super::capability;
use crate::guard::mode;

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

/// Of an interface that no guard of an agent is told of: an uplink, or one that has a program that should not be there.
pub(super) fn unguarded(
    interface: &Interface,
    support: &Result<(), Error>,
    present: &Result<Option<Present>, Error>,
) -> Option<Capability> {
    let name = format!("XDP on {}", interface.name);
    let uplink = interface.up && interface.uplink;
    match (support, present) {
        (_, Ok(Some(present))) if is_ours(present) => {
            let by = match &present.holder {
                Holder::Pin(folder) => format!("pinned in {}", folder.display()),
                _ => present.to_string(),
            };
            let detail = format!("{}, a guard that no agent tells of, {by}", present.mode);
            Some(capability(&name, Ability::Degraded, detail))
        }
        _ if !uplink => None,
        (Err(error), _) => Some(capability(&name, Ability::No, error.to_string())),
        (_, Ok(Some(present))) => {
            let detail =
                format!("another program is attached, {present}, {}: a guard is refused", present.mode);
            Some(capability(&name, Ability::No, detail))
        }
        (Ok(()), Err(error)) => Some(capability(&name, Ability::Unknown, error.to_string())),
        (Ok(()), Ok(None)) => Some(free(&name, interface)),
    }
}

/// The program's name is asked for where it may be.
fn is_ours(present: &Present) -> bool {
    matches!(present.holder, Holder::Pin(_)) || present.name.as_deref() == Some("dwcp_guard")
}

fn free(name: &str, interface: &Interface) -> Capability {
    let driver = interface.driver.as_deref().unwrap_or("no driver");
    let unused = "it is not among xdp.interfaces";
    match (mode::of(interface), runs_natively(interface)) {
        (Some(mode), _) => capability(
            name,
            Ability::Yes,
            format!("{driver} is better off in {mode} mode, untried: {unused}"),
        ),
        (None, true) => {
            capability(name, Ability::Yes, format!("{driver} knows native mode, untried: {unused}"))
        }
        (None, false) => capability(
            name,
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
        let of = |driver| unguarded(&uplink(driver), &Ok(()), &Ok(None)).expect("it is told");
        assert_eq!((of(Some("virtio_net")).state, of(Some("veth")).state), (Ability::Yes, Ability::Yes));
        assert!(of(Some("veth")).detail.contains("generic"));
        assert_eq!((of(Some("r8169")).state, of(None).state), (Ability::Degraded, Ability::Degraded));
        assert!(of(Some("r8169")).detail.contains("generic"));
    }

    #[test]
    fn what_is_in_the_way_is_told_before_what_the_driver_could() {
        let told =
            |support, present| unguarded(&uplink(Some("virtio_net")), &support, &present).expect("told");
        let without = told(Err(Error::KernelWithoutXdp), Ok(None));
        assert!(without.state == Ability::No && without.detail.contains("this kernel"), "{without:?}");
        let program = |name: &str, holder| {
            Some(Present { id: 7, mode: dwcp_ebpf::Mode::Native, name: Some(name.to_owned()), holder })
        };
        let foreign = told(Ok(()), Ok(program("filter", Holder::Interface)));
        assert!(foreign.state == Ability::No && foreign.detail.contains("filter"), "{foreign:?}");
        let inner = Interface { uplink: false, ..uplink(Some("veth")) };
        assert_eq!(unguarded(&inner, &Ok(()), &Ok(program("filter", Holder::Interface))), None);
        let left = unguarded(&inner, &Ok(()), &Ok(program("dwcp_guard", Holder::Unknown))).expect("told");
        assert!(left.detail.contains("no agent tells of"), "{left:?}");
    }
}
