//! Packets as a TUN device with offloads hands them over: a virtio-net header, then one IP packet that may stand for
//! many wire segments ("super-packet").
//!
//! Owns: how many wire segments a frame stands for, what each weighs, and cutting a run of segments out of it as a
//! frame of its own. Pure: bytes in, bytes out. It does not decide which segments live (`link`) and does no I/O.
//!
//! Carrying super-packets whole is what makes the emulator cheap: 44 segments cost one read and one write. Only where
//! a segment is lost or held back is a packet cut, and the parts stay super-packets.
//!
//! Sources: virtio 1.2, 5.1.6 (`struct virtio_net_hdr`); Linux `include/linux/virtio_net.h`,
//! `net/ipv4/tcp_offload.c`, `net/ipv4/udp_offload.c`.

use std::ops::Range;

/// Length of `struct virtio_net_hdr` in front of each packet.
pub const VNET_HEADER_LEN: usize = 10;
/// The longest frame a TUN device gives: header and a 64 KiB packet.
pub const FRAME_LEN_MAX: usize = VNET_HEADER_LEN + 65_536;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Why a frame from the device makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than its own headers say.
    Truncated,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// A segmentation type that was never offered to the kernel, or one that contradicts the IP version.
    GsoType(u8),
    /// A super-packet without a segment size.
    NoSegmentSize,
}

/// One frame: an IP packet with its virtio-net header.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    is_ipv4: bool,
    ip_header_len: usize,
    /// `None`: an ordinary packet.
    gso: Option<Gso>,
}

#[derive(Debug, Clone, Copy)]
struct Gso {
    protocol: u8,
    /// IP and transport header, without the virtio-net header.
    headers_len: usize,
    /// Payload bytes of every segment but the last.
    segment_len: usize,
}

impl<'a> Frame<'a> {
    /// Reads the headers of a frame.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (vnet, ip) = bytes.split_at_checked(VNET_HEADER_LEN).ok_or(FrameError::Truncated)?;
        let (is_ipv4, ip_header_len) = match ip.first().ok_or(FrameError::Truncated)? >> 4 {
            4 => (true, usize::from(ip[0] & 0x0f) * 4),
            6 => (false, IPV6_HEADER_LEN),
            _ => return Err(FrameError::NotIp),
        };
        if ip.len() < ip_header_len || (is_ipv4 && ip_header_len < 20) {
            return Err(FrameError::Truncated);
        }
        let gso = Self::parse_gso(vnet, ip, is_ipv4, ip_header_len)?;
        Ok(Self { bytes, is_ipv4, ip_header_len, gso })
    }

    fn parse_gso(vnet: &[u8], ip: &[u8], is_ipv4: bool, ip_len: usize) -> Result<Option<Gso>, FrameError> {
        let protocol = match vnet[1] & !GSO_ECN {
            GSO_NONE => return Ok(None),
            GSO_TCPV4 if is_ipv4 => PROTOCOL_TCP,
            GSO_TCPV6 if !is_ipv4 => PROTOCOL_TCP,
            GSO_UDP_L4 => PROTOCOL_UDP,
            _ => return Err(FrameError::GsoType(vnet[1])),
        };
        let segment_len = usize::from(u16::from_le_bytes([vnet[4], vnet[5]]));
        // The transport header starts where the checksum does; behind IPv6 extension headers that is not at 40.
        let transport = usize::from(u16::from_le_bytes([vnet[6], vnet[7]]));
        let transport_len = match protocol {
            PROTOCOL_TCP => usize::from(ip.get(transport + 12).ok_or(FrameError::Truncated)? >> 4) * 4,
            _ => UDP_HEADER_LEN,
        };
        let headers_len = transport + transport_len;
        let transport_min = if protocol == PROTOCOL_TCP { 20 } else { UDP_HEADER_LEN };
        if transport < ip_len || transport_len < transport_min || headers_len >= ip.len() {
            return Err(FrameError::Truncated);
        }
        if segment_len == 0 {
            return Err(FrameError::NoSegmentSize);
        }
        Ok(Some(Gso { protocol, headers_len, segment_len }))
    }

    /// How many wire segments the frame stands for; at least one.
    pub fn segments(&self) -> usize {
        self.gso.map_or(1, |gso| (self.ip().len() - gso.headers_len).div_ceil(gso.segment_len))
    }

    /// What segment `index` weighs on the wire without its IP header: transport header and payload.
    pub fn segment_bytes(&self, index: usize) -> u64 {
        let bytes = match self.gso {
            None => self.ip().len() - self.ip_header_len,
            Some(gso) => {
                gso.headers_len - self.ip_header_len + self.payload_range(gso, index..index + 1).len()
            }
        };
        bytes as u64
    }

    /// Writes the frame that stands for `segments` of this one into `out`, replacing what was there.
    pub fn write_piece(&self, segments: Range<usize>, out: &mut Vec<u8>) {
        let count = self.segments();
        assert!(segments.start < segments.end && segments.end <= count, "a piece of segments that exist");
        out.clear();
        let Some(gso) = self.gso.filter(|_| segments.len() < count) else {
            out.extend_from_slice(self.bytes);
            return;
        };
        let payload = self.payload_range(gso, segments.clone());
        out.extend_from_slice(&self.bytes[..VNET_HEADER_LEN + gso.headers_len]);
        out.extend_from_slice(&self.ip()[gso.headers_len..][payload.clone()]);
        let (vnet, ip) = out.split_at_mut(VNET_HEADER_LEN);
        if segments.len() == 1 {
            vnet[1] = GSO_NONE;
            vnet[4..6].fill(0);
        }
        self.fix_ip_header(ip, segments.start);
        let transport = usize::from(u16::from_le_bytes([vnet[6], vnet[7]]));
        match gso.protocol {
            PROTOCOL_TCP => {
                let header = &mut ip[transport..];
                let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                header[4..8].copy_from_slice(&sequence.wrapping_add(payload.start as u32).to_be_bytes());
                if segments.end < count {
                    header[13] &= !(TCP_FIN | TCP_PSH);
                }
                if segments.start > 0 {
                    header[13] &= !TCP_CWR;
                }
            }
            _ => {
                let length = (ip.len() - transport) as u16;
                ip[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
            }
        }
        self.fix_transport_checksum(ip, transport, gso.protocol);
    }

    fn ip(&self) -> &'a [u8] {
        &self.bytes[VNET_HEADER_LEN..]
    }

    /// Where the payload of `segments` is, counted from the first payload byte.
    fn payload_range(&self, gso: Gso, segments: Range<usize>) -> Range<usize> {
        let payload_len = self.ip().len() - gso.headers_len;
        segments.start * gso.segment_len..(segments.end * gso.segment_len).min(payload_len)
    }

    /// Length, and for IPv4 the identification (one per wire segment, as the kernel counts) and header checksum.
    fn fix_ip_header(&self, ip: &mut [u8], first_segment: usize) {
        let len = ip.len();
        if !self.is_ipv4 {
            ip[4..6].copy_from_slice(&((len - IPV6_HEADER_LEN) as u16).to_be_bytes());
            return;
        }
        ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(first_segment as u16);
        ip[4..6].copy_from_slice(&identification.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = !fold(sum(&ip[..self.ip_header_len]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    /// With `CHECKSUM_PARTIAL` (always so for super-packets) the field holds the pseudo-header's sum, which contains
    /// the transport length and has to follow it.
    fn fix_transport_checksum(&self, ip: &mut [u8], transport: usize, protocol: u8) {
        let addresses = if self.is_ipv4 { 12..20 } else { 8..40 };
        let pseudo = sum(&ip[addresses]) + u64::from(protocol) + (ip.len() - transport) as u64;
        let at = transport + if protocol == PROTOCOL_TCP { 16 } else { 6 };
        ip[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
    }
}

/// Sum of big-endian 16-bit words (RFC 1071), unfolded.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>() + last
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
#[path = "gso_tests.rs"]
mod tests;
