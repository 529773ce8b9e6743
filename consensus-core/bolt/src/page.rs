//! A leaf or branch page that was read: all its elements are checked once, before any of them is used.
//!
//! Where it comes from, and whether its keys go with those of other pages, is not known here.

use std::ops::Range;

use crate::{
    PageFault,
    layout::{BRANCH, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF, u32_at, u64_at},
};

/// A page and its overflow.
#[derive(Debug)]
pub(crate) struct Page {
    header: Header,
    bytes: Vec<u8>,
}

impl Page {
    /// `bytes` are the whole run, or an inline page.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, PageFault> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(PageFault::OutsideFile);
        };
        let page = Self { header: Header::decode(head), bytes };
        if page.header.kind != LEAF && page.header.kind != BRANCH {
            return Err(PageFault::Kind { found: page.header.kind });
        }
        page.check_elements()?;
        Ok(page)
    }

    /// Data that overlaps would let a small page claim to be a large one.
    fn check_elements(&self) -> Result<(), PageFault> {
        let mut end = HEADER_BYTES + self.count() * ELEMENT_BYTES;
        if end > self.bytes.len() {
            return Err(PageFault::Bounds { element: 0 });
        }
        for element in 0..self.count() {
            let (key, value) = self.ranges(element);
            if key.start < end || value.end > self.bytes.len() {
                return Err(PageFault::Bounds { element });
            }
            end = value.end;
            if element > 0 && self.key(element) <= self.key(element - 1) {
                return Err(PageFault::Order { element });
            }
        }
        Ok(())
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.header.kind == LEAF
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.page
    }

    /// How many elements it has; the arguments of the functions below are less.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.header.count)
    }

    pub(crate) fn key(&self, element: usize) -> &[u8] {
        &self.bytes[self.ranges(element).0]
    }

    pub(crate) fn value(&self, element: usize) -> &[u8] {
        &self.bytes[self.ranges(element).1]
    }

    /// Flags of a leaf's element.
    pub(crate) fn flags(&self, element: usize) -> u32 {
        u32_at(&self.bytes, element_at(element))
    }

    /// The page below a branch's element.
    pub(crate) fn child(&self, element: usize) -> u64 {
        u64_at(&self.bytes, element_at(element) + 8)
    }

    /// Where key and value are. Positions count from the element; a branch's has no value.
    fn ranges(&self, element: usize) -> (Range<usize>, Range<usize>) {
        let at = element_at(element);
        let number = |offset: usize| u32_at(&self.bytes, at + offset) as usize;
        let (position, key_len, value_len) =
            if self.is_leaf() { (number(4), number(8), number(12)) } else { (number(0), number(4), 0) };
        let start = at.saturating_add(position);
        let middle = start.saturating_add(key_len);
        (start..middle, middle..middle.saturating_add(value_len))
    }
}

fn element_at(element: usize) -> usize {
    HEADER_BYTES + element * ELEMENT_BYTES
}
