//! Pages as they were last sent: both ends keep the same ones, because both do the same with them. Pure.

use std::collections::{HashMap, VecDeque};

use super::parse::PAGE_BYTES;

/// A page of the guest: number of its block in order of appearance, and of the page in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Of the block.
    pub block: u16,
    /// Of the page.
    pub page: u64,
}

pub(crate) type Contents = [u8; PAGE_BYTES];

/// Bytes of a hash that names a page.
pub(crate) const HASH_BYTES: usize = 8;

/// Names contents.
pub(crate) fn hash(contents: &Contents) -> [u8; HASH_BYTES] {
    *blake3::hash(contents).as_bytes().first_chunk().expect("a hash is longer")
}

/// At most a number of pages; the one that came first goes first.
pub(crate) struct Pages {
    room: usize,
    pages: HashMap<Place, Box<Contents>>,
    order: VecDeque<Place>,
}

impl Pages {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, pages: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Contents> {
        self.pages.get(&place).map(|page| &**page)
    }

    pub(crate) fn put(&mut self, place: Place, contents: &Contents) {
        if let Some(page) = self.pages.get_mut(&place) {
            **page = *contents;
            return;
        }
        if self.room == 0 {
            return;
        }
        let mut page = None;
        while self.pages.len() >= self.room {
            let oldest = self.order.pop_front().expect("each page is in the order");
            page = self.pages.remove(&oldest);
        }
        let mut page = page.unwrap_or_else(|| Box::new([0; PAGE_BYTES]));
        *page = *contents;
        self.pages.insert(place, page);
        self.order.push_back(place);
    }
}
