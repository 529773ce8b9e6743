//! Where what is in a page, and in a bucket's value. Numbers are little-endian: bbolt takes those of the machine, and
//! machines with the other order are refused by the magic number.
//!
//! Source: page.go, db.go and bucket.go of bbolt 1.3. Nothing is judged here but what a checksum or a magic number tells.

use crate::{
    MetaFault,
    limits::{PAGE_BYTES_MAX, PAGE_BYTES_MIN},
};

/// Before the content of each page.
pub(crate) const HEADER_BYTES: usize = 16;
/// An element of a leaf or branch; its key and value lie behind all elements.
pub(crate) const ELEMENT_BYTES: usize = 16;
/// A bucket's value: page of its root and a counter, before an inline page.
pub(crate) const BUCKET_BYTES: usize = 16;
/// The content of a meta page.
pub(crate) const META_BYTES: usize = 64;
/// The part of it that its checksum covers.
const META_CHECKED_BYTES: usize = META_BYTES - 8;

pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;

/// Flags of a leaf's element that is a pair, or a bucket.
pub(crate) const PAIR_ELEMENT: u32 = 0;
pub(crate) const BUCKET_ELEMENT: u32 = 1;

/// The pages before all others.
pub(crate) const META_PAGES: u64 = 2;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// The beginning of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) page: u64,
    pub(crate) kind: u16,
    /// Elements.
    pub(crate) count: u16,
    /// Pages that follow and belong to this one.
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.page.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.overflow.to_le_bytes());
    }

    /// `bytes` has at least [`HEADER_BYTES`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self {
            page: u64_at(bytes, 0),
            kind: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }
}

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_bytes: usize,
    /// Page of the root tree.
    pub(crate) root: u64,
    /// Page of the list of free pages.
    pub(crate) freelist: u64,
    /// Number of pages.
    pub(crate) high_water: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    /// The content of a meta page.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for number in [MAGIC, VERSION, self.page_bytes as u32, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let root_sequence = 0;
        for number in [self.root, root_sequence, self.freelist, self.high_water, self.transaction] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = fnv_1a(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8; META_BYTES]) -> Result<Self, MetaFault> {
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(MetaFault::Magic { found: magic });
        }
        let version = u32_at(bytes, 4);
        if version != VERSION {
            return Err(MetaFault::Version { found: version });
        }
        if u64_at(bytes, META_CHECKED_BYTES) != fnv_1a(&bytes[..META_CHECKED_BYTES]) {
            return Err(MetaFault::Checksum);
        }
        let page_bytes = u32_at(bytes, 8);
        if !is_page_size(page_bytes as usize) {
            return Err(MetaFault::PageBytes { found: page_bytes });
        }
        Ok(Self {
            page_bytes: page_bytes as usize,
            root: u64_at(bytes, 16),
            freelist: u64_at(bytes, 32),
            high_water: u64_at(bytes, 40),
            transaction: u64_at(bytes, 48),
        })
    }
}

pub(crate) fn is_page_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&bytes)
}

/// The value of a bucket's element in the root.
pub(crate) fn encode_bucket(root: u64) -> [u8; BUCKET_BYTES] {
    let mut out = [0; BUCKET_BYTES];
    out[..8].copy_from_slice(&root.to_le_bytes());
    out
}

/// FNV-1a with 64 bits (draft-eastlake-fnv).
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_has_its_published_values() {
        assert_eq!(fnv_1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv_1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv_1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_meta_page_is_what_was_written_or_says_what_is_wrong() {
        let meta = Meta { page_bytes: 4096, root: 7, freelist: 8, high_water: 9, transaction: 1 };
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        let bytes: [u8; META_BYTES] = bytes.try_into().unwrap();
        assert_eq!(Meta::decode(&bytes), Ok(meta));
        for at in 0..META_BYTES {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            let expected = match at {
                0..4 => matches!(Meta::decode(&changed), Err(MetaFault::Magic { .. })),
                4..8 => matches!(Meta::decode(&changed), Err(MetaFault::Version { .. })),
                _ => Meta::decode(&changed) == Err(MetaFault::Checksum),
            };
            assert!(expected, "byte {at}");
        }
        for page_bytes in [0, 512, 4095, 128 << 10] {
            let mut bytes = Vec::new();
            Meta { page_bytes, ..meta }.encode(&mut bytes);
            let found = page_bytes as u32;
            assert_eq!(Meta::decode(&bytes.try_into().unwrap()), Err(MetaFault::PageBytes { found }));
        }
    }
}
