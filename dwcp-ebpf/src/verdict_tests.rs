//! The program in the kernel, run on single frames (`BPF_PROG_TEST_RUN`): each verdict, each length, and any bytes. The
//! kernel takes no frame shorter than an Ethernet header for this. Needs root, but no interface.

#[path = "../tests/support/frame.rs"]
mod frame;

use std::{net::IpAddr, thread::sleep, time::Duration};

use dwcp_proto::datagram::{DatagramHeader, DatagramType, HEADER_LEN, NUMBER_END, PAYLOAD_LEN_MAX};
use libbpf_rs::{MapCore, MapFlags, MapType, ProgramInput, ProgramMut};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use self::frame::*;
use crate::{
    addresses, capabilities,
    config::{Config, Failure, Limit, Mode},
    program::{self, Maps},
    stats::{Action, Count, add_count},
};

const DROP: u32 = 1;
const PASS: u32 = 2;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const OPTIONS: u8 = 60;

fn run(program: &ProgramMut<'_>, frame: &[u8]) -> u32 {
    let input = ProgramInput { data_in: Some(frame), ..Default::default() };
    program.test_run(input).expect("the kernel runs the program").return_value
}

/// Loads the program for a test as for a driver, with maps of its own.
fn with_program(config: &Config, test: impl FnOnce(&ProgramMut<'_>, &Maps)) {
    with_program_in(Mode::Native, config, test);
}

fn with_program_in(mode: Mode, config: &Config, test: impl FnOnce(&ProgramMut<'_>, &Maps)) {
    if let Err(why) = capabilities::check() {
        println!("SKIP: {why}");
        return;
    }
    let loaded = program::load(
        config,
        mode,
        |_| Ok(()),
        |program, maps| {
            test(program, maps);
            Ok(())
        },
    );
    loaded.expect("the kernel takes the program");
}

/// Of a guard at the addresses to which frames go.
fn here() -> Config {
    Config { addresses: vec![DESTINATION.into(), DESTINATION6.into()], ..Config::default() }
}

fn unlimited() -> Config {
    Config { limit: None, ..here() }
}

fn v4(source: IpAddr) -> std::net::Ipv4Addr {
    match source {
        IpAddr::V4(source) => source,
        IpAddr::V6(_) => panic!("{source} is not IPv4"),
    }
}

fn v6(source: IpAddr) -> std::net::Ipv6Addr {
    match source {
        IpAddr::V6(source) => source,
        IpAddr::V4(_) => panic!("{source} is not IPv6"),
    }
}

fn count(maps: &Maps, action: Action) -> Count {
    let mut count = Count::default();
    let key = u32::from(action as u8).to_ne_bytes();
    for share in maps.totals.lookup_percpu(&key, MapFlags::ANY).expect("a lookup").expect("an action") {
        add_count(&share, &mut count).expect("a count");
    }
    count
}

/// Every way in which a UDP datagram may be wrapped so that it is found.
fn wrappings(udp: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let ip4 = |options| ipv4_with(v4(SOURCE), options, 0, UDP, udp);
    let ip6 = |extensions: &[(u8, u8)]| ipv6_with(v6(SOURCE6), extensions, UDP, udp);
    vec![
        ("IPv4", ethernet(&[], IPV4, &ip4(0))),
        ("IPv4, all options", ethernet(&[], IPV4, &ip4(10))),
        ("IPv4, do not fragment", ethernet(&[], IPV4, &ipv4_with(v4(SOURCE), 0, 0x4000, UDP, udp))),
        ("IPv4, VLAN", ethernet(&[VLAN], IPV4, &ip4(0))),
        ("IPv4, two VLANs, options", ethernet(&[VLAN_OUTER, VLAN], IPV4, &ip4(3))),
        ("IPv6", ethernet(&[], IPV6, &ip6(&[]))),
        ("IPv6, VLAN", ethernet(&[VLAN], IPV6, &ip6(&[]))),
        ("IPv6, three extensions", ethernet(&[], IPV6, &ip6(&[(HOP_BY_HOP, 0), (ROUTING, 2), (OPTIONS, 1)]))),
        ("IPv6, six extensions", ethernet(&[VLAN_OUTER, VLAN], IPV6, &ip6(&[(OPTIONS, 3); 6]))),
    ]
}

#[test]
fn datagrams_pass_and_malformed_ones_are_dropped_in_every_wrapping() {
    with_program(&unlimited(), |program, maps| {
        let (good, bad) = (udp(PORT, &datagram(1)), udp(PORT, &[0; 50]));
        for ((name, good), (_, bad)) in wrappings(&good).into_iter().zip(wrappings(&bad)) {
            assert_eq!(run(program, &good), PASS, "{name}");
            assert_eq!(run(program, &bad), DROP, "{name}");
        }
        let number = wrappings(&good).len() as u64;
        assert_eq!(count(maps, Action::Passed).packets, number);
        let bytes: usize = wrappings(&bad).iter().map(|(_, frame)| frame.len()).sum();
        assert_eq!(count(maps, Action::Malformed), Count { packets: number, bytes: bytes as u64 });
    });
}

// DATAGRAM-3.1: others may have the same port at another address, here or behind this node.
#[test]
fn what_goes_to_another_address_is_untouched() {
    for (mine, other, source) in [
        (DESTINATION.into(), DESTINATION6.into(), SOURCE),
        (DESTINATION6.into(), DESTINATION.into(), SOURCE6),
    ] {
        let bad = frame(source, PORT, &[0; 50]);
        let config = |address: IpAddr| Config { addresses: vec![address], ..unlimited() };
        with_program(&config(other), |program, maps| {
            assert_eq!(run(program, &bad), PASS, "{source}");
            assert_eq!(count(maps, Action::Malformed), Count::default());
            addresses::set(&maps.addresses, &[other, mine]).expect("set");
            assert_eq!(run(program, &bad), DROP, "{source}");
            addresses::set(&maps.addresses, &[other]).expect("set");
            assert_eq!(run(program, &bad), PASS, "{source}");
        });
        with_program(&config(mine), |program, _| assert_eq!(run(program, &bad), DROP, "{source}"));
        // As many as there can be: they lie beside each other, and each is found.
        let many = (0..crate::ADDRESSES_MAX as u32 - 1).map(|n| IpAddr::from((n << 6 | 7).to_be_bytes()));
        let many: Vec<_> = many.chain([mine]).collect();
        with_program(&Config { addresses: many.clone(), ..unlimited() }, |program, maps| {
            assert_eq!(run(program, &bad), DROP, "{source}");
            addresses::set(&maps.addresses, &many[..many.len() - 1]).expect("set");
            assert_eq!(run(program, &bad), PASS, "{source}");
        });
    }
}

// DATAGRAM-3.1: and it is not even counted.
#[test]
fn what_is_not_for_the_port_is_untouched() {
    let bad = udp(PORT, &[0; 50]);
    let ip4 = |fragment, protocol| ethernet(&[], IPV4, &ipv4_with(v4(SOURCE), 0, fragment, protocol, &bad));
    let ip6 = |extensions: &[(u8, u8)]| ethernet(&[], IPV6, &ipv6_with(v6(SOURCE6), extensions, UDP, &bad));
    let whole = ipv4_with(v4(SOURCE), 0, 0, UDP, &bad);
    let with_first = |byte| [&[byte], &whole[1..]].concat();
    let untouched = [
        ("another port", frame(SOURCE, PORT + 1, &[0; 50])),
        ("another port, IPv6", frame(SOURCE6, PORT + 1, &[0; 50])),
        ("TCP", ip4(0, 6)),
        ("ICMP", ip4(0, 1)),
        ("a first fragment", ip4(0x2000, UDP)),
        ("a last fragment", ip4(0x0001, UDP)),
        ("a fragment in the middle", ip4(0x2010, UDP)),
        ("an IPv6 fragment", ip6(&[(FRAGMENT, 0)])),
        ("an IPv6 fragment behind options", ip6(&[(OPTIONS, 0), (FRAGMENT, 0)])),
        ("IPv6, authenticated", ip6(&[(AUTHENTICATION, 0)])),
        ("IPv6, seven extensions", ip6(&[(OPTIONS, 0); 7])),
        ("three VLANs", ethernet(&[VLAN_OUTER, VLAN, VLAN], IPV4, &whole)),
        ("ARP", ethernet(&[], 0x0806, &whole)),
        ("IPv4 that says it is 6", ethernet(&[], IPV4, &with_first(0x65))),
        ("IPv4 with a short header", ethernet(&[], IPV4, &with_first(0x44))),
        ("IPv6 that is IPv4", ethernet(&[], IPV6, &whole)),
        ("nothing behind Ethernet", ethernet(&[], IPV4, &[])),
    ];
    with_program(&unlimited(), |program, maps| {
        for (name, frame) in untouched {
            assert_eq!(run(program, &frame), PASS, "{name}");
        }
        for action in Action::ALL {
            assert_eq!(count(maps, action), Count::default(), "{action:?}");
        }
    });
}

#[test]
fn frames_cut_at_each_length_pass_until_the_port_is_known_and_are_dropped_from_there_on() {
    with_program(&unlimited(), |program, _| {
        let udp = udp(PORT, &datagram(1));
        for (name, frame) in wrappings(&udp) {
            let behind_udp_header = frame.len() - udp.len() + 8;
            for length in 14..=frame.len() {
                let verdict = run(program, &frame[..length]);
                let cut = (behind_udp_header..frame.len()).contains(&length);
                assert_eq!(
                    verdict,
                    if cut { DROP } else { PASS },
                    "{name}, {length} of {} bytes",
                    frame.len()
                );
            }
            // Short packets are padded to the smallest frame.
            assert_eq!(run(program, &[&frame[..], &[0; 9]].concat()), PASS, "{name}, padded");
        }
    });
}

#[test]
fn lengths_that_contradict_each_other_are_dropped() {
    let changed = |at: usize, by: i16| {
        let mut frame = frame(SOURCE, PORT, &datagram(1));
        let field = u16::from_be_bytes([frame[at], frame[at + 1]]).wrapping_add_signed(by);
        frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
        frame
    };
    with_program(&unlimited(), |program, _| {
        let (ip, udp) = (14 + 2, 14 + 20 + 4);
        for by in [-58, -51, -1, 1, 1000] {
            assert_eq!(run(program, &changed(udp, by)), DROP, "UDP length {by:+}");
        }
        for by in [-78, -50, -1] {
            assert_eq!(run(program, &changed(ip, by)), DROP, "IPv4 length {by:+}");
        }
        assert_eq!(run(program, &changed(ip, 0)), PASS);
        assert_eq!(run(program, &frame(SOURCE, PORT, &[])), DROP, "no payload");
    });
}

#[test]
fn behind_the_driver_joined_datagrams_pass_to_the_kernel() {
    with_program_in(Mode::Generic, &unlimited(), |program, _| {
        let (whole, second) = (datagram(1), datagram(2));
        let joined = |end: usize| [&whole[..], &whole, &second[..end]].concat();
        assert_eq!(run(program, &frame(SOURCE, PORT, &joined(second.len()))), PASS);
        assert_eq!(run(program, &frame(SOURCE6, PORT, &joined(1))), PASS);
        for end in 0..whole.len() {
            assert_eq!(run(program, &frame(SOURCE, PORT, &whole[..end])), DROP, "cut after {end}");
        }
        let mut without_tag = joined(second.len());
        without_tag[4] = 15;
        assert_eq!(run(program, &frame(SOURCE, PORT, &without_tag)), DROP, "15 bytes of payload");
    });
    with_program(&unlimited(), |program, _| {
        let joined = [datagram(1), datagram(1)].concat();
        assert_eq!(run(program, &frame(SOURCE, PORT, &joined)), DROP, "no driver joins them");
    });
}

// DATAGRAM-2.2 to DATAGRAM-2.7: what the protocol core decodes passes, and nothing else.
#[test]
fn the_program_and_the_protocol_core_agree_on_headers() {
    let field = prop_oneof![Just(0u64), Just(1), Just(NUMBER_END - 1), Just(NUMBER_END), any::<u64>()];
    let header = (1u8..=4, any::<bool>(), 0u16..200, field.clone(), field);
    let change =
        prop::option::of((0..HEADER_LEN, prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()]));
    with_program(&unlimited(), |program, _| {
        let mut runner = TestRunner::new(ProptestConfig { cases: 4000, ..ProptestConfig::default() });
        let result = runner.run(&(header, change), |((ty, key_phase, payload_len, flow, number), change)| {
            let ty = DatagramType::from_wire(ty).expect("a known type");
            let mut bytes = datagram_of(&DatagramHeader { ty, key_phase, payload_len, flow, number });
            if let Some((at, value)) = change {
                bytes[at] = value;
            }
            let expected = DatagramHeader::decode(&bytes);
            let verdict = run(program, &frame(SOURCE, PORT, &bytes));
            prop_assert_eq!(verdict == PASS, expected.is_ok(), "{:?}", expected);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
        // Frames of one page and more are seen up to their whole length.
        for (payload_len, verdict) in [(3000, PASS), (PAYLOAD_LEN_MAX, PASS), (PAYLOAD_LEN_MAX + 1, DROP)] {
            let payload_len = payload_len as u16;
            let ty = DatagramType::Optional(0x80);
            let header = DatagramHeader { ty, key_phase: true, payload_len, flow: 1, number: 0 };
            let mut bytes = datagram_of(&header);
            assert_eq!(DatagramHeader::decode(&bytes).is_ok(), verdict == PASS, "{payload_len}");
            assert_eq!(run(program, &frame(SOURCE6, PORT, &bytes)), verdict, "{payload_len}");
            bytes.pop();
            assert_eq!(run(program, &frame(SOURCE6, PORT, &bytes)), DROP, "{payload_len}, one byte less");
        }
    });
}

/// Where UDP begins in a frame, and the bytes that the IP header gives it: written without a look at the program.
fn find_udp(frame: &[u8]) -> Option<(usize, usize)> {
    let u16_at = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let tag = |at: usize| [VLAN, VLAN_OUTER].contains(&u16_at(at).unwrap_or(0));
    let at = 12 + if tag(12) { if tag(16) { 8 } else { 4 } } else { 0 };
    let ip = at + 2;
    match (u16_at(at)?, frame.get(ip)? >> 4) {
        (IPV4, 4) => {
            frame.get(ip + 19)?;
            let header = 4 * usize::from(frame[ip] & 15);
            let plain = header >= 20 && u16_at(ip + 6)? & 0x3fff == 0 && frame[ip + 9] == UDP;
            plain.then_some((ip + header, usize::from(u16_at(ip + 2)?).saturating_sub(header)))
        }
        (IPV6, 6) => {
            frame.get(ip + 39)?;
            let (mut next, mut at) = (frame[ip + 6], ip + 40);
            for _ in 0..6 {
                if [HOP_BY_HOP, ROUTING, OPTIONS].contains(&next) {
                    next = *frame.get(at)?;
                    at += 8 + 8 * usize::from(*frame.get(at + 1)?);
                }
            }
            let room = (ip + 40 + usize::from(u16_at(ip + 4)?)).saturating_sub(at);
            (next == UDP).then_some((at, room))
        }
        _ => None,
    }
}

/// Whether a frame that has an IP header is for an address of the guard.
fn is_here(frame: &[u8]) -> bool {
    let tags = [12, 16].into_iter().take_while(|&at| {
        let ty = u16::from_be_bytes([frame[at], frame[at + 1]]);
        [VLAN, VLAN_OUTER].contains(&ty)
    });
    let ip = 14 + 4 * tags.count();
    match frame[ip] >> 4 {
        4 => frame[ip + 16..ip + 20] == DESTINATION.octets(),
        _ => frame[ip + 24..ip + 40] == DESTINATION6.octets(),
    }
}

/// Whether a frame is to be dropped: UDP to address and port, and no datagram in it.
fn is_malformed(frame: &[u8]) -> bool {
    let Some((at, room)) = find_udp(frame) else { return false };
    let Some(header) = frame.get(at..at + 8) else { return false };
    let (port, length) =
        (u16::from_be_bytes([header[2], header[3]]), u16::from_be_bytes([header[4], header[5]]));
    let length = usize::from(length);
    let payload = frame.get(at + 8..at + length.max(8)).filter(|_| (8..=room).contains(&length));
    port == PORT && is_here(frame) && payload.is_none_or(|payload| DatagramHeader::decode(payload).is_err())
}

// DATAGRAM-1.2 and DATAGRAM-3.1
#[test]
fn any_bytes_are_dropped_only_if_they_are_udp_to_the_port_and_malformed() {
    let port = prop_oneof![Just(PORT), any::<u16>()];
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let built = (any::<Index>(), port, any::<bool>(), changes, any::<Index>()).prop_map(
        |(which, port, good, changes, length)| {
            let payload = if good { datagram(1) } else { vec![0x5a; 60] };
            let mut frame = which.get(&wrappings(&udp(port, &payload))).1.clone();
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            // A quarter of them is cut.
            let length = length.index(frame.len() * 4).max(14);
            frame.truncate(length);
            frame
        },
    );
    let frames = prop_oneof![8 => built, 1 => prop::collection::vec(any::<u8>(), 14..200)];
    with_program(&unlimited(), |program, _| {
        let mut runner = TestRunner::new(ProptestConfig { cases: 20_000, ..ProptestConfig::default() });
        let result = runner.run(&frames, |frame| {
            let expected = if is_malformed(&frame) { DROP } else { PASS };
            prop_assert_eq!(run(program, &frame), expected);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
        let malformed = wrappings(&udp(PORT, &[0; 60]));
        assert!(malformed.iter().all(|(_, frame)| is_malformed(frame)), "the reference sees them all");
    });
}

#[test]
fn prefixes_deny_and_allow_and_deny_wins() {
    let prefixes =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect::<Vec<_>>();
    let verdict = |program: &ProgramMut<'_>, source: &str| {
        run(program, &frame(source.parse().expect("an address"), PORT, &datagram(1)))
    };
    let deny = prefixes(&["10.1.0.0/16", "10.2.3.4/32", "2001:db8:bad::/48"]);
    with_program(&Config { deny: deny.clone(), ..unlimited() }, |program, maps| {
        for source in ["10.1.0.0", "10.1.255.255", "10.2.3.4", "2001:db8:bad::1", "2001:db8:bad:ffff::1"] {
            assert_eq!(verdict(program, source), DROP, "{source}");
        }
        for source in ["10.0.255.255", "10.2.0.0", "10.2.3.5", "::1", "2001:db8:bae::1", "::a01:1"] {
            assert_eq!(verdict(program, source), PASS, "{source}");
        }
        assert_eq!(count(maps, Action::Denied).packets, 5);
        let elsewhere = frame("10.1.0.1".parse().expect("an address"), PORT + 1, &datagram(1));
        assert_eq!(run(program, &elsewhere), PASS, "a denied source may talk to other ports");
    });
    let allow = prefixes(&["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"]);
    with_program(&Config { allow, deny, ..unlimited() }, |program, maps| {
        for source in ["10.0.0.1", "10.2.3.5", "2001:db8::1"] {
            assert_eq!(verdict(program, source), PASS, "{source}");
        }
        // Though a longer prefix allows 10.1.2.3.
        for source in ["10.1.2.3", "10.2.3.4", "2001:db8:bad::1"] {
            assert_eq!(verdict(program, source), DROP, "{source}");
        }
        assert_eq!(count(maps, Action::Denied).packets, 3);
        for source in ["11.0.0.1", "2001:db9::1"] {
            assert_eq!(verdict(program, source), DROP, "{source}");
        }
        assert_eq!(count(maps, Action::NotAllowed).packets, 2);
    });
    with_program(&Config { deny: prefixes(&["0.0.0.0/0"]), ..unlimited() }, |program, _| {
        assert_eq!(verdict(program, "203.0.113.1"), DROP);
        assert_eq!(verdict(program, "2001:db8::1"), PASS, "all of IPv4 is not all");
    });
}

#[test]
fn a_source_may_burst_and_then_has_its_rate_and_others_have_theirs() {
    let limit = Some(Limit { datagrams_per_second: 1, burst: 5 });
    with_program(&Config { limit, ..here() }, |program, maps| {
        let send = |source, times| {
            let frame = frame(source, PORT, &datagram(1));
            (0..times).filter(|_| run(program, &frame) == PASS).count()
        };
        let malformed = frame(SOURCE, PORT, &[0; 60]);
        (0..10).for_each(|_| assert_eq!(run(program, &malformed), DROP));
        assert_eq!(send(SOURCE, 9), 5, "what is malformed took no tokens");
        assert_eq!(send(SOURCE6, 9), 5, "another source has its own bucket");
        sleep(Duration::from_millis(2100));
        assert_eq!(send(SOURCE, 9), 2, "two seconds, two tokens");
        assert_eq!(count(maps, Action::Limited).packets, 4 + 4 + 7);
        assert_eq!(count(maps, Action::Passed).packets, 5 + 5 + 2);
    });
}

#[test]
fn a_known_flow_has_a_bucket_of_its_own_which_a_flood_from_its_source_does_not_empty() {
    let limit = Some(Limit { datagrams_per_second: 1, burst: 5 });
    with_program(&Config { limit, ..here() }, |program, maps| {
        for known in [9_u64, 9 << 32] {
            maps.flows.update(&known.to_ne_bytes(), &[1], MapFlags::ANY).expect("an entry");
        }
        let send = |source, flow, times| {
            let frame = frame(source, PORT, &datagram(flow));
            (0..times).filter(|_| run(program, &frame) == PASS).count()
        };
        assert_eq!(send(SOURCE, 1, 9), 5, "with the peer's address, and no flow of its");
        assert_eq!(send(SOURCE, 9, 3), 3, "the peer's own");
        assert_eq!(send(SOURCE6, 9, 9), 2, "the flow's bucket, wherever it comes from");
        assert_eq!(send(SOURCE, 9 << 32, 9), 5, "another flow");
        assert_eq!(send(SOURCE6, 2, 9), 5, "and the source still has its own");
        assert_eq!(count(maps, Action::Limited).packets, 4 + 7 + 4 + 4);
    });
}

#[test]
fn where_the_limit_cannot_be_told_the_configuration_decides() {
    if let Err(why) = capabilities::check() {
        println!("SKIP: {why}");
        return;
    }
    for (failure, verdict) in [(Failure::Open, PASS), (Failure::Closed, DROP)] {
        let config = Config { failure, ..here() };
        // A map that is full says so, where the real one forgets the oldest.
        let full = |open: &mut program::OpenGuardSkel<'_>| {
            open.maps.buckets.set_type(MapType::Hash)?;
            open.maps.buckets.set_max_entries(1)
        };
        let loaded = program::load(&config, Mode::Native, full, |program, maps| {
            assert_eq!(run(program, &frame(SOURCE, PORT, &datagram(1))), PASS, "there is room for one");
            assert_eq!(run(program, &frame(SOURCE6, PORT, &datagram(1))), verdict, "{failure:?}");
            assert_eq!(count(maps, Action::Unmetered).packets, 1);
            Ok(())
        });
        loaded.expect("the kernel takes the program");
    }
}

#[test]
fn a_known_flow_without_a_socket_passes() {
    with_program(&unlimited(), |program, maps| {
        maps.flows.update(&9u64.to_ne_bytes(), &[1], MapFlags::ANY).expect("an entry");
        assert_eq!(run(program, &frame(SOURCE, PORT, &datagram(9))), PASS);
        assert_eq!(count(maps, Action::Passed).packets, 1);
        assert_eq!(count(maps, Action::Steered).packets, 0);
    });
}
