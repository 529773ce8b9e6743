//! What is found agrees with what works.

use dwcp_node::{
    probe::{self, Finding},
    vxlan, wireguard,
};

mod support;

#[test]
fn what_is_found_is_what_works() {
    let Some(namespace) = support::namespace() else { return };
    namespace
        .ip(&["link add u0 type veth peer name u1", "addr add 10.77.0.1/24 dev u0", "link set u0 up"])
        .expect("up");
    namespace.ip(&["link set u1 up", "route add default via 10.77.0.2"]).expect("a default route");
    namespace.enter(|| {
        let report = probe::probe();
        println!("kernel {}", report.kernel);
        for (name, finding) in report.findings() {
            println!("{name}: {finding}");
        }
        let interfaces = report.interfaces.expect("they are told");
        let uplink: Vec<_> = interfaces.iter().filter(|interface| interface.uplink).collect();
        assert_eq!(uplink.len(), 1, "{interfaces:?}");
        assert_eq!(
            (uplink[0].name.as_str(), uplink[0].mtu, uplink[0].driver.as_deref()),
            ("u0", 1500, Some("veth"))
        );
        assert!(uplink[0].up && uplink[0].mtu_max > 9000 && uplink[0].tx_queues > 0, "{uplink:?}");
        assert!(interfaces.iter().all(|interface| interface.name != "dwcp-probe"), "nothing is left");

        let config = vxlan::Config::new("10.77.0.1".parse().expect("an address"), 1500);
        assert_eq!(report.vxlan.is_yes(), vxlan::reconcile(&config).is_ok());
        let key = wireguard::PrivateKey::generate().expect("randomness");
        let config = wireguard::Config::new(1420);
        for (finding, implementation) in [
            (&report.wireguard_kernel, wireguard::Implementation::Kernel),
            (&report.wireguard_user_space, wireguard::Implementation::UserSpace),
        ] {
            let opened = wireguard::Interface::open_with(implementation, &config, &key);
            assert_eq!(finding.is_yes(), opened.is_ok(), "{finding}; {:?}", opened.err());
            if let Ok(interface) = opened {
                interface.remove().expect("removed");
            }
        }
        assert!(!matches!(report.fq, Finding::Unknown { .. }), "{}", report.fq);
    });
}
