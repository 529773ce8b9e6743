//! Goes through a tree from its first key to its last, holding one leaf and the branches above it.
//!
//! Ends on any input: a page is entered once, so each step either gives an element or uses up pages of the file. What the
//! elements mean is the reader's.

use std::io::{Read, Seek, SeekFrom};

use crate::{
    PageFault, ReadError,
    layout::{HEADER_BYTES, Header, META_PAGES},
    limits::{DEPTH_MAX, RUN_BYTES_MAX},
    page::Page,
};

/// The pages of a file.
pub(crate) struct Source<R> {
    inner: R,
    pub(crate) page_bytes: usize,
    /// Number of pages; the file has been found long enough for them.
    pub(crate) high_water: u64,
}

impl<R: Read + Seek> Source<R> {
    pub(crate) fn new(inner: R, page_bytes: usize, high_water: u64) -> Self {
        Self { inner, page_bytes, high_water }
    }

    fn page(&mut self, number: u64, entered: &mut Entered) -> Result<Page, ReadError> {
        let fault = |fault| ReadError::Page { page: number, fault };
        if number < META_PAGES || number >= self.high_water {
            return Err(fault(PageFault::OutsideFile));
        }
        let offset = number * self.page_bytes as u64;
        let mut bytes = vec![0; self.page_bytes];
        read_at(&mut self.inner, offset, &mut bytes)?;
        let header = Header::decode(&bytes[..HEADER_BYTES]);
        if header.page != number {
            return Err(fault(PageFault::Number { found: header.page }));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.high_water - number {
            return Err(fault(PageFault::OutsideFile));
        }
        if pages > (RUN_BYTES_MAX / self.page_bytes) as u64 {
            return Err(fault(PageFault::RunTooLong { overflow: header.overflow }));
        }
        if !entered.enter(number, pages) {
            return Err(fault(PageFault::ReachedTwice));
        }
        if pages > 1 {
            bytes.resize(pages as usize * self.page_bytes, 0);
            read_at(&mut self.inner, offset + self.page_bytes as u64, &mut bytes[self.page_bytes..])?;
        }
        Page::parse(bytes).map_err(fault)
    }
}

/// Fills `bytes` from there.
pub(crate) fn read_at(
    source: &mut (impl Read + Seek),
    offset: u64,
    bytes: &mut [u8],
) -> Result<(), ReadError> {
    let failed = |action| move |source| ReadError::Io { action, offset, source };
    source.seek(SeekFrom::Start(offset)).map_err(failed("seek"))?;
    source.read_exact(bytes).map_err(failed("read"))
}

/// Which pages were entered: a bit for each.
struct Entered(Vec<u64>);

impl Entered {
    fn new(high_water: u64) -> Self {
        Self(vec![0; high_water.div_ceil(64) as usize])
    }

    /// Whether none of them was before.
    fn enter(&mut self, first: u64, pages: u64) -> bool {
        (first..first + pages).all(|page| {
            let (word, bit) = (&mut self.0[(page / 64) as usize], 1 << (page % 64));
            let fresh = *word & bit == 0;
            *word |= bit;
            fresh
        })
    }
}

/// A branch, and which of its children comes next.
struct Level {
    page: Page,
    next: usize,
}

/// See the module. It is at an element after each [`advance`](Self::advance) that gave true.
pub(crate) struct Cursor {
    entered: Entered,
    branches: Vec<Level>,
    leaf: Page,
    /// The element after the one it is at.
    next: usize,
}

impl Cursor {
    /// Before the first element of the tree whose root is that page.
    pub(crate) fn new(source: &mut Source<impl Read + Seek>, root: u64) -> Result<Self, ReadError> {
        let mut entered = Entered::new(source.high_water);
        let mut branches = Vec::new();
        let leaf = descend(source, root, &mut entered, &mut branches)?;
        Ok(Self { entered, branches, leaf, next: 0 })
    }

    /// Before the first element of a page that is not in a place of its own.
    pub(crate) fn inline(page: &[u8]) -> Result<Self, ReadError> {
        let fault = |fault| ReadError::Page { page: 0, fault };
        let leaf = Page::parse(page.to_vec()).map_err(fault)?;
        if !leaf.is_leaf() {
            return Err(fault(PageFault::Kind { found: crate::layout::BRANCH }));
        }
        if leaf.number() != 0 {
            return Err(fault(PageFault::Number { found: leaf.number() }));
        }
        Ok(Self { entered: Entered(Vec::new()), branches: Vec::new(), leaf, next: 0 })
    }

    /// To the next element; false: there is none.
    pub(crate) fn advance(&mut self, source: &mut Source<impl Read + Seek>) -> Result<bool, ReadError> {
        if self.next == self.leaf.count() {
            let Some(leaf) = self.next_leaf(source)? else { return Ok(false) };
            let last = self.leaf.count().checked_sub(1).map(|last| self.leaf.key(last));
            if last.is_some_and(|last| leaf.key(0) <= last) {
                return Err(ReadError::Page { page: leaf.number(), fault: PageFault::Order { element: 0 } });
            }
            self.leaf = leaf;
            self.next = 0;
        }
        self.next += 1;
        Ok(true)
    }

    /// The leaf and the element in it where it is.
    pub(crate) fn at(&self) -> (&Page, usize) {
        (&self.leaf, self.next - 1)
    }

    fn next_leaf(&mut self, source: &mut Source<impl Read + Seek>) -> Result<Option<Page>, ReadError> {
        while let Some(level) = self.branches.last_mut() {
            if level.next == level.page.count() {
                self.branches.pop();
                continue;
            }
            let child = level.page.child(level.next);
            level.next += 1;
            return descend(source, child, &mut self.entered, &mut self.branches).map(Some);
        }
        Ok(None)
    }
}

/// The first leaf at or below a page; the branches on the way there are added.
fn descend(
    source: &mut Source<impl Read + Seek>,
    mut number: u64,
    entered: &mut Entered,
    branches: &mut Vec<Level>,
) -> Result<Page, ReadError> {
    loop {
        let page = source.page(number, entered)?;
        let fault = |fault| Err(ReadError::Page { page: number, fault });
        let may_be_empty = page.is_leaf() && branches.is_empty();
        if page.count() == 0 && !may_be_empty {
            return fault(PageFault::Empty);
        }
        if page.is_leaf() {
            return Ok(page);
        }
        if branches.len() == DEPTH_MAX {
            return fault(PageFault::TooDeep);
        }
        number = page.child(0);
        branches.push(Level { page, next: 1 });
    }
}
