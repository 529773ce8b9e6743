//! Ethernet frames that carry UDP: taken apart and built, without I/O. Bytes from the network never panic.
//!
//! Checked is what decides where a payload lies and whose it is: lengths, fragments, the checksum of the IPv4 header. Not
//! checked is the checksum of UDP: virtual devices and offloads leave it unfinished, and nobody tells an AF_XDP socket. Who
//! takes the payload has to authenticate it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

/// VLAN tags of a frame.
pub const VLAN_TAGS_MAX: usize = 2;
/// Extension headers of IPv6 that are skipped, as by the XDP program.
const EXTENSION_HEADERS_MAX: usize = 6;
/// Bytes of a frame that are no IP packet.
pub const LINK_BYTES_MAX: usize = MACS_BYTES + VLAN_TAGS_MAX * TAG_BYTES + 2;
/// Bytes of a frame before the payload of UDP, as [`build`] writes them.
pub const HEADER_BYTES_MAX: usize = LINK_BYTES_MAX + IPV6_BYTES + UDP_BYTES;

const MACS_BYTES: usize = 12;
const TAG_BYTES: usize = 4;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const UDP: u8 = 17;
/// Hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// More fragments, or an offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const DO_NOT_FRAGMENT: u16 = 0x4000;
const HOPS: u8 = 64;

/// How frames of this side reach another's: what is before the IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPath {
    /// Destination, then source.
    macs: [u8; MACS_BYTES],
    tags: [[u8; TAG_BYTES]; VLAN_TAGS_MAX],
    tag_count: u8,
}

impl LinkPath {
    /// A path from one MAC address to another, through no more than [`VLAN_TAGS_MAX`] tags (type and control, outermost
    /// first); `None` for more.
    pub fn new(from: [u8; 6], to: [u8; 6], tags: &[[u8; 4]]) -> Option<Self> {
        let mut path = Self { macs: [0; MACS_BYTES], tags: Default::default(), tag_count: tags.len() as u8 };
        path.macs[..6].copy_from_slice(&to);
        path.macs[6..].copy_from_slice(&from);
        path.tags.get_mut(..tags.len())?.copy_from_slice(tags);
        Some(path)
    }

    /// The same path in the other direction.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.macs.rotate_left(6);
        self
    }

    fn tags(&self) -> &[[u8; TAG_BYTES]] {
        &self.tags[..usize::from(self.tag_count)]
    }
}

/// What is in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// The path that it came.
    pub path: LinkPath,
    /// Where in the frame the payload of UDP lies.
    pub payload: Range<usize>,
}

/// Finds a whole UDP datagram in a frame. `None` if there is none: other protocols, fragments, lengths that contradict each
/// other or the frame, an IPv4 header with a wrong checksum.
pub fn parse(frame: &[u8]) -> Option<Parsed> {
    let macs = *frame.first_chunk::<MACS_BYTES>()?;
    let mut path = LinkPath { macs, tags: Default::default(), tag_count: 0 };
    let mut at = MACS_BYTES;
    let mut protocol = u16_at(frame, at)?;
    while VLAN.contains(&protocol) {
        let tag = path.tags.get_mut(usize::from(path.tag_count))?;
        *tag = *frame.get(at..)?.first_chunk()?;
        path.tag_count += 1;
        at += TAG_BYTES;
        protocol = u16_at(frame, at)?;
    }
    at += 2;
    let packet = frame.get(at..)?;
    let (source, destination, udp) = match protocol {
        IPV4 => parse_ipv4(packet)?,
        IPV6 => parse_ipv6(packet)?,
        _ => return None,
    };
    let header = packet.get(udp.clone())?;
    let length = usize::from(u16_at(header, 4)?);
    if length < UDP_BYTES || length > header.len() {
        return None;
    }
    at += udp.start;
    Some(Parsed {
        source: SocketAddr::new(source, u16_at(header, 0)?),
        destination: SocketAddr::new(destination, u16_at(header, 2)?),
        path,
        payload: at + UDP_BYTES..at + length,
    })
}

/// Source, destination, and where UDP lies in the packet.
fn parse_ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, Range<usize>)> {
    let header = packet.first_chunk::<IPV4_BYTES>()?;
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || header_bytes < IPV4_BYTES || header[9] != UDP {
        return None;
    }
    if u16_at(header, 6)? & FRAGMENT_MASK != 0 || fold(sum(packet.get(..header_bytes)?)) != 0xffff {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into());
    Some((address(12)?, address(16)?, header_bytes..usize::from(u16_at(header, 2)?)))
}

fn parse_ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, Range<usize>)> {
    let header = packet.first_chunk::<IPV6_BYTES>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let end = IPV6_BYTES + usize::from(u16_at(header, 4)?);
    let (mut next, mut at) = (header[6], IPV6_BYTES);
    for _ in 0..EXTENSION_HEADERS_MAX {
        if !EXTENSIONS.contains(&next) {
            break;
        }
        let [following, words] = *packet.get(at..)?.first_chunk::<2>()?;
        next = following;
        at += (usize::from(words) + 1) * 8;
    }
    if next != UDP {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
    let (source, destination) = (address(8)?, address(24)?);
    // IPv4 addresses do not travel so (RFC 4942, 2.2): they would be taken for others'.
    if source.to_ipv4_mapped().is_some() || destination.to_ipv4_mapped().is_some() {
        return None;
    }
    Some((source.into(), destination.into(), at..end))
}

/// How long a packet is, without what is before IP.
pub fn packet_bytes(of_ipv6: bool, payload_bytes: usize) -> usize {
    (if of_ipv6 { IPV6_BYTES } else { IPV4_BYTES }) + UDP_BYTES + payload_bytes
}

/// Writes a frame with this payload, both checksums right, that must not be fragmented. Returns its length; `None` if it
/// has no room, is longer than IP can tell, or is between addresses of two families.
pub fn build(
    frame: &mut [u8],
    path: &LinkPath,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Option<usize> {
    let packet_bytes = packet_bytes(to.is_ipv6(), payload.len());
    let udp_bytes = u16::try_from(UDP_BYTES + payload.len()).ok()?;
    let link_bytes = MACS_BYTES + path.tags().len() * TAG_BYTES + 2;
    let frame_bytes = link_bytes + packet_bytes;
    let (link, packet) = frame.get_mut(..frame_bytes)?.split_at_mut(link_bytes);

    let (macs, behind) = link.split_at_mut(MACS_BYTES);
    macs.copy_from_slice(&path.macs);
    let (tags, protocol) = behind.split_at_mut(path.tags().len() * TAG_BYTES);
    tags.copy_from_slice(path.tags().as_flattened());
    protocol.copy_from_slice(&if to.is_ipv6() { IPV6 } else { IPV4 }.to_be_bytes());

    let (header, udp) = packet.split_at_mut(packet_bytes - usize::from(udp_bytes));
    let addresses = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header[..2].copy_from_slice(&[0x45, 0]);
            header[2..4].copy_from_slice(&u16::try_from(packet_bytes).ok()?.to_be_bytes());
            // No identification: nothing is put together from fragments.
            header[4..6].fill(0);
            header[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
            header[8..12].copy_from_slice(&[HOPS, UDP, 0, 0]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..].copy_from_slice(&to.octets());
            let checksum = !fold(sum(header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            sum(&header[12..])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            header[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
            header[6..8].copy_from_slice(&[UDP, HOPS]);
            header[8..24].copy_from_slice(&from.octets());
            header[24..].copy_from_slice(&to.octets());
            sum(&header[8..])
        }
        _ => return None,
    };
    udp[..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
    udp[6..8].fill(0);
    udp[UDP_BYTES..].copy_from_slice(payload);
    let pseudo_header = u64::from((u16::from(UDP)).to_be()) + u64::from(udp_bytes.to_be());
    // 0 says that there is no checksum.
    let checksum = match !fold(addresses + pseudo_header + sum(udp)) {
        0 => 0xffff,
        checksum => checksum,
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    Some(frame_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The sum of 16-bit words as they lie in memory, to be folded: RFC 1071 allows any byte order until the end.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_ne_bytes(last))
}

/// The ones' complement sum in 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

#[cfg(test)]
mod tests;
