//! What the program counts and tells, out of the bytes of its maps. The numbers are those of `bpf/wire.h`.

use std::net::IpAddr;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Action {
    /// It went to the kernel's own UDP.
    Passed = 0,
    /// It went to an AF_XDP socket.
    Steered = 1,
    /// Dropped: its header is wrong.
    Malformed = 2,
    /// Dropped: its source is denied.
    Denied = 3,
    /// Dropped: some sources are allowed, and its is not one of them.
    NotAllowed = 4,
    /// Dropped: its source sends too much.
    Limited = 5,
    /// Nobody could say whether its source sends too much; `Config::failure` says what became of it.
    Unmetered = 6,
}

impl Action {
    /// Every action, in the order of the program's numbers.
    pub const ALL: [Self; 7] = [
        Self::Passed,
        Self::Steered,
        Self::Malformed,
        Self::Denied,
        Self::NotAllowed,
        Self::Limited,
        Self::Unmetered,
    ];

    /// The label of `dwcp_xdp_packets_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Steered => "steered",
            Self::Malformed => "malformed",
            Self::Denied => "denied",
            Self::NotAllowed => "not_allowed",
            Self::Limited => "limited",
            Self::Unmetered => "unmetered",
        }
    }
}

/// Datagrams and the bytes of their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Datagrams.
    pub packets: u64,
    /// Bytes, with all headers.
    pub bytes: u64,
}

/// Counts by action, of all processors, since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals(pub(crate) [Count; Action::ALL.len()]);

impl Totals {
    /// Of one action.
    pub fn of(&self, action: Action) -> Count {
        self.0[action as usize]
    }

    /// All together.
    pub fn packets(&self) -> u64 {
        self.0.iter().map(|count| count.packets).sum()
    }
}

/// Counts of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The source.
    pub address: IpAddr,
    pub(crate) packets: [u64; Action::ALL.len()],
}

impl Peer {
    /// Datagrams of one action.
    pub fn of(&self, action: Action) -> u64 {
        self.packets[action as usize]
    }

    /// Datagrams by action, in the order of [`Action::ALL`].
    pub fn by_action(&self) -> [u64; Action::ALL.len()] {
        self.packets
    }
}

/// A drop that was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who sent it, as the datagram says.
    pub source: IpAddr,
    /// Its UDP port.
    pub source_port: u16,
    /// Why it was dropped.
    pub action: Action,
    /// Bytes of the frame.
    pub bytes: u32,
    /// When, by CLOCK_MONOTONIC.
    pub time_ns: u64,
}

#[cfg(any(xdp, test))]
mod decode {
    use std::net::Ipv6Addr;

    use super::*;

    /// Of `struct event`.
    pub(crate) const EVENT_BYTES: usize = 32;

    pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    }

    /// Adds a processor's share. `None` if the value is not what the program writes.
    pub(crate) fn add_count(bytes: &[u8], to: &mut Count) -> Option<()> {
        to.packets += u64_at(bytes, 0)?;
        to.bytes += u64_at(bytes, 8)?;
        Some(())
    }

    /// The key of an address (`struct address`).
    pub(crate) fn key(address: IpAddr) -> [u8; 16] {
        match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        }
    }

    /// The address of a key.
    fn address(key: &[u8]) -> Option<IpAddr> {
        let bytes: [u8; 16] = key.get(..16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).to_canonical())
    }

    pub(crate) fn event(bytes: &[u8]) -> Option<Event> {
        if bytes.len() != EVENT_BYTES {
            return None;
        }
        Some(Event {
            source: address(bytes)?,
            time_ns: u64_at(bytes, 16)?,
            bytes: u32::from_ne_bytes(bytes[24..28].try_into().ok()?),
            source_port: u16::from_ne_bytes(bytes[28..30].try_into().ok()?),
            action: *Action::ALL.get(usize::from(bytes[30]))?,
        })
    }
}
#[cfg(xdp)]
pub(crate) use decode::{add_count, event, key, u64_at};

#[cfg(test)]
mod tests {
    use super::{decode::*, *};

    #[test]
    fn values_of_the_program_are_read_and_others_are_not() {
        let mut bytes = [0; EVENT_BYTES];
        bytes[10..12].fill(0xff);
        bytes[12..16].copy_from_slice(&[192, 0, 2, 7]);
        bytes[16..24].copy_from_slice(&5u64.to_ne_bytes());
        bytes[24..28].copy_from_slice(&90u32.to_ne_bytes());
        bytes[28..30].copy_from_slice(&4000u16.to_ne_bytes());
        bytes[30] = Action::Limited as u8;
        let read = event(&bytes).expect("an event");
        let source = "192.0.2.7".parse().expect("an address");
        assert_eq!(read, Event { source, source_port: 4000, action: Action::Limited, bytes: 90, time_ns: 5 });
        bytes[30] = 7;
        assert_eq!(event(&bytes), None);
        assert_eq!(event(&bytes[..31]), None);
        assert_eq!(add_count(&[0; 15], &mut Count::default()), None);
        assert_eq!(key(source)[10..], [0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(key("2001:db8::1".parse().expect("an address"))[..4], [0x20, 0x01, 0x0d, 0xb8]);
    }

    #[test]
    fn actions_stand_at_their_numbers() {
        for (number, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, number);
        }
    }
}
