//! Frames, put together layer by layer.
#![allow(dead_code, reason = "each test uses some")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dwcp_proto::datagram::{DatagramHeader, DatagramType};

pub(crate) const PORT: u16 = 8889;
pub(crate) const UDP: u8 = 17;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const VLAN_OUTER: u16 = 0x88a8;
pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const SOURCE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Where frames go.
pub(crate) const DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const DESTINATION6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A datagram as the specification wants it.
pub(crate) fn datagram(flow: u64) -> Vec<u8> {
    datagram_of(&DatagramHeader {
        ty: DatagramType::Probe,
        key_phase: false,
        payload_len: 26,
        flow,
        number: 7,
    })
}

pub(crate) fn datagram_of(header: &DatagramHeader) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    bytes.resize(bytes.len() + usize::from(header.payload_len), 0x5a);
    bytes
}

pub(crate) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(4000u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// With so many words of options and this field of flags and offset.
pub(crate) fn ipv4_with(source: Ipv4Addr, options: u8, fragment: u16, protocol: u8, body: &[u8]) -> Vec<u8> {
    let header = 20 + 4 * usize::from(options);
    let mut bytes = vec![0x45 + options, 0];
    bytes.extend((header as u16 + body.len() as u16).to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(DESTINATION.octets());
    bytes.resize(header, 1);
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// With these extension headers: type, and words of eight bytes behind the first.
pub(crate) fn ipv6_with(source: Ipv6Addr, extensions: &[(u8, u8)], protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    for (at, (_, words)) in extensions.iter().enumerate() {
        let next = extensions.get(at + 1).map_or(protocol, |(ty, _)| *ty);
        rest.extend([next, *words]);
        rest.resize(rest.len() + 6 + 8 * usize::from(*words), 0);
    }
    rest.extend(body);
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend([extensions.first().map_or(protocol, |(ty, _)| *ty), 64]);
    bytes.extend(source.octets());
    bytes.extend(DESTINATION6.octets());
    bytes.extend(rest);
    bytes
}

pub(crate) fn ethernet(tags: &[u16], protocol: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 100]);
    }
    bytes.extend(protocol.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A plain frame with this behind the UDP header.
pub(crate) fn frame(source: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => ethernet(&[], IPV4, &ipv4_with(source, 0, 0, UDP, &udp(port, payload))),
        IpAddr::V6(source) => ethernet(&[], IPV6, &ipv6_with(source, &[], UDP, &udp(port, payload))),
    }
}
