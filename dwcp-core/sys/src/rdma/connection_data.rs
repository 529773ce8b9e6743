//! What an end has to know of the other, and its encoding: 44 bytes, all integers little endian.

use super::{
    Gid, Mtu, RdmaError,
    credit::SLOTS,
    queue_pair::{RemoteWindow, Target},
};

/// Length of the encoding in bytes.
pub const CONNECTION_DATA_LEN: usize = 44;
/// Version of the stream's protocol.
const VERSION: u8 = 1;
/// Largest queue pair and packet numbers.
const U24_MAX: u32 = (1 << 24) - 1;
/// Smallest window that is of use.
const WINDOW_MIN: u32 = 64 << 10;

/// Where an end of a stream is and what it takes. Whoever knows it can write into that end's window: it goes to the peer
/// only, over a link that is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionData {
    pub(crate) gid: Gid,
    pub(crate) queue_pair: u32,
    pub(crate) psn: u32,
    pub(crate) mtu: Mtu,
    pub(crate) window: RemoteWindow,
}

impl ConnectionData {
    /// The bytes for the peer: version, MTU code, slots, queue pair number, first packet number, GID, and the window's
    /// address, key and length.
    pub fn encode(&self) -> [u8; CONNECTION_DATA_LEN] {
        let mut out = [0; CONNECTION_DATA_LEN];
        out[0] = VERSION;
        out[1] = self.mtu.code();
        out[2..4].copy_from_slice(&(SLOTS as u16).to_le_bytes());
        out[4..8].copy_from_slice(&self.queue_pair.to_le_bytes());
        out[8..12].copy_from_slice(&self.psn.to_le_bytes());
        out[12..28].copy_from_slice(&self.gid.0);
        out[28..36].copy_from_slice(&self.window.address.to_le_bytes());
        out[36..40].copy_from_slice(&self.window.rkey.to_le_bytes());
        out[40..44].copy_from_slice(&self.window.len.to_le_bytes());
        out
    }

    /// Of the peer's bytes.
    ///
    /// # Errors
    /// They are of another version, or out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, RdmaError> {
        let wrong = |what| RdmaError::Incompatible { what };
        let bytes: &[u8; CONNECTION_DATA_LEN] = bytes.try_into().map_err(|_| wrong("their length"))?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[0] != VERSION {
            return Err(wrong("their version"));
        }
        if u32::from(u16::from_le_bytes([bytes[2], bytes[3]])) != SLOTS {
            return Err(wrong("the number of slots"));
        }
        let data = Self {
            gid: Gid(bytes[12..28].try_into().expect("sixteen bytes")),
            queue_pair: u32_at(4),
            psn: u32_at(8),
            mtu: Mtu::from_code(bytes[1]).ok_or(wrong("the MTU"))?,
            window: RemoteWindow {
                address: u64::from_le_bytes(bytes[28..36].try_into().expect("eight bytes")),
                rkey: u32_at(36),
                len: u32_at(40),
            },
        };
        if data.queue_pair > U24_MAX || data.psn > U24_MAX || data.gid == Gid::default() {
            return Err(wrong("a number or the address"));
        }
        let end = data.window.address.checked_add(data.window.len.into());
        if data.window.len < WINDOW_MIN || end.is_none() {
            return Err(wrong("the window"));
        }
        Ok(data)
    }

    /// Where packets for that end go.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    pub(crate) fn target(&self) -> Target {
        Target { gid: self.gid, queue_pair: self.queue_pair, psn: self.psn, mtu: self.mtu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> ConnectionData {
        ConnectionData {
            gid: Gid([7; 16]),
            queue_pair: 0x12_3456,
            psn: U24_MAX,
            mtu: Mtu::from_code(5).unwrap(),
            window: RemoteWindow { address: 0x7f00_1234_5000, rkey: 0xdead_beef, len: 4 << 20 },
        }
    }

    #[test]
    fn decoding_gives_what_was_encoded() {
        assert_eq!(ConnectionData::decode(&data().encode()).unwrap(), data());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let right = data().encode();
        let bad: [(usize, &[u8]); 8] = [
            (0, &[2]),
            (1, &[0]),
            (1, &[6]),
            (2, &[1, 0]),
            (4, &[0, 0, 0, 1]),
            (8, &[0, 0, 0, 1]),
            (12, &[0; 16]),
            (28, &[0xff; 8]),
        ];
        for (at, bytes) in bad {
            let mut wrong = right;
            wrong[at..at + bytes.len()].copy_from_slice(bytes);
            assert!(matches!(ConnectionData::decode(&wrong), Err(RdmaError::Incompatible { .. })), "{at}");
        }
        let mut small = right;
        small[40..44].copy_from_slice(&100_u32.to_le_bytes());
        assert!(ConnectionData::decode(&small).is_err());
        assert!(ConnectionData::decode(&right[1..]).is_err() && ConnectionData::decode(&[]).is_err());
    }
}
