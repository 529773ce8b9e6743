//! Each cut loses what it says and nothing else, and healing brings it back.

use std::{collections::BTreeSet, net::UdpSocket, time::Duration};

use chaos::{Cut, MEMBERS, Network};

/// Only what hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 4_000;
/// Behind the members' numbers.
const CLIENTS: usize = MEMBERS;

/// A socket in each member's namespace, and one where the clients are.
fn sockets(network: &Network) -> Vec<UdpSocket> {
    let bind = |address: String| {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let at =
        |n| network.member(n).unwrap().enter(|| bind(format!("{}:{PORT}", network.client_address(n).ip())));
    let mut sockets: Vec<_> = (0..MEMBERS).map(at).collect();
    sockets.push(network.enter_clients(|| bind(format!("192.0.2.1:{PORT}"))));
    sockets
}

/// All pairs of sender and receiver.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    let ends = MEMBERS + 1;
    (0..ends).flat_map(move |from| (0..ends).filter(move |to| *to != from).map(move |to| (from, to)))
}

fn send_all(sockets: &[UdpSocket], healed: bool) {
    for (from, to) in pairs() {
        let address = sockets[to].local_addr().unwrap();
        sockets[from].send_to(&[from as u8, healed.into()], address).unwrap();
    }
}

/// The pairs between which a packet is lost while `cut` is in force. Whoever hears what is sent after healing has heard all
/// that was not lost before.
fn lost(network: &Network, sockets: &[UdpSocket], cut: Option<(usize, Cut)>) -> BTreeSet<(usize, usize)> {
    if let Some((member, cut)) = cut {
        network.cut(member, cut).unwrap();
    }
    send_all(sockets, false);
    if let Some((member, _)) = cut {
        network.heal(member).unwrap();
    }
    send_all(sockets, true);
    let mut lost: BTreeSet<_> = pairs().collect();
    for (to, socket) in sockets.iter().enumerate() {
        let mut awaited = MEMBERS;
        while awaited > 0 {
            let mut packet = [0; 2];
            socket.recv(&mut packet).expect("what is sent after healing arrives");
            match packet {
                [_, 1] => awaited -= 1,
                [from, _] => assert!(lost.remove(&(from.into(), to))),
            }
        }
    }
    lost
}

#[test]
fn each_cut_loses_what_it_says() {
    let network = match Network::bridged() {
        Ok(network) => network,
        Err(error) => {
            eprintln!("SKIP: nothing can be cut off: {error:#}");
            return;
        }
    };
    let sockets = sockets(&network);
    assert_eq!(lost(&network, &sockets, None), BTreeSet::new());
    for member in 0..MEMBERS {
        let others: Vec<_> = (0..MEMBERS).filter(|other| *other != member).collect();
        let from: BTreeSet<_> = others.iter().map(|other| (*other, member)).collect();
        let to: BTreeSet<_> = others.iter().map(|other| (member, *other)).collect();
        let both: BTreeSet<_> = from.union(&to).copied().collect();
        let mut everything = both.clone();
        everything.extend([(CLIENTS, member), (member, CLIENTS)]);
        let cuts = [
            (Cut::FromMembers, from),
            (Cut::ToMembers, to),
            (Cut::Members, both),
            (Cut::Everything, everything),
        ];
        for (cut, expected) in cuts {
            assert_eq!(lost(&network, &sockets, Some((member, cut))), expected, "{cut:?} of member {member}");
        }
    }
}
