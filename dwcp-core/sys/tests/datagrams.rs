//! Datagrams over UDP sockets on loopback: the bodies that AF_XDP has to pass, too.

#[path = "support/exchange.rs"]
mod exchange;

use dwcp_sys::datagram::{DatagramSocket, UdpDatagrams};

use self::exchange::End;

/// What IPv4 can tell; loopback carries it.
const LONGEST: usize = 65_507;

fn bind(ip: &str) -> Option<UdpDatagrams> {
    let bound = UdpDatagrams::bind((ip.parse::<std::net::IpAddr>().expect("an address"), 0).into());
    if let Err(why) = &bound {
        assert!(ip.contains(':'), "{why}");
        println!("SKIP: no IPv6 here ({why})");
    }
    bound.ok()
}

fn with_ends(ip: &str, test: impl FnOnce(End<'_>, End<'_>)) {
    let (Some(near), Some(far)) = (bind(ip), bind(ip)) else { return };
    let [near, far] = [&near, &far].map(|socket| End { socket, address: socket.local_addr() });
    test(near, far);
}

#[test]
fn bursts_arrive_once_and_in_order() {
    with_ends("127.0.0.1", |near, far| exchange::bursts(near, far, 1400));
    with_ends("::1", |near, far| exchange::bursts(near, far, 1400));
}

#[test]
fn what_nobody_fetches_is_dropped_whole() {
    with_ends("127.0.0.1", |near, far| {
        exchange::overflow(far, near, 1400, 200);
    });
}

#[test]
fn long_datagrams_arrive_whole_and_longer_ones_are_refused() {
    with_ends("127.0.0.1", |near, far| exchange::every_length(near, far, LONGEST));
}
