use super::*;

fn interface(mtu: usize) -> Interface {
    Interface { name: "eth0".into(), index: 2, mtu }
}

#[test]
fn chunks_hold_the_interfaces_packets_or_the_error_says_what_would_fit() {
    assert_eq!(chunk_bytes(&interface(1500)).unwrap(), 2048);
    assert_eq!(chunk_bytes(&interface(1770)).unwrap(), 2048);
    assert_eq!(chunk_bytes(&interface(1771)).unwrap(), 4096);
    assert_eq!(chunk_bytes(&interface(3818)).unwrap(), 4096);
    let error = chunk_bytes(&interface(9000)).unwrap_err();
    assert!(matches!(error, XdpError::Mtu { mtu: 9000, most: 3818, .. }));
    assert!(error.to_string().contains("ip link set dev eth0 mtu 3818"), "{error}");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let local = "192.0.2.2:8889".parse().unwrap();
    let error = XdpDatagrams::open("there-is-no-such-interface", 0, local).unwrap_err();
    assert!(error.to_string().contains("there-is-no-such-interface"), "{error}");
}
