//! Makes the pages of a tree from sorted elements as they come.
//!
//! One page of each level is in memory. A full one goes to the file and its first key to the level above, so that a tree of
//! any size takes a page for each of its levels, and the largest element. The file is written from front to back.

use std::io::{BufWriter, Seek, Write};

use crate::{
    WriteError,
    layout::{BRANCH, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF},
    limits::{FILE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES},
};

/// What pages are appended to.
pub(crate) struct Output<W: Write> {
    pub(crate) inner: BufWriter<W>,
    pub(crate) page_bytes: usize,
    /// The page that is written next.
    pub(crate) next: u64,
    /// A page is missing or there in part: a file without it would not be what was put.
    failed: bool,
}

impl<W: Write + Seek> Output<W> {
    pub(crate) fn new(inner: W, page_bytes: usize) -> Self {
        Self { inner: BufWriter::with_capacity(WRITE_BYTES, inner), page_bytes, next: 0, failed: false }
    }

    /// Appends whole pages.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::FailedEarlier);
        }
        self.failed = true;
        let next = self.next + (bytes.len() / self.page_bytes) as u64;
        if next * self.page_bytes as u64 > FILE_BYTES_MAX {
            return Err(WriteError::FileTooLong);
        }
        self.inner.write_all(bytes).map_err(|source| WriteError::Io { action: "write", source })?;
        self.failed = false;
        self.next = next;
        Ok(())
    }
}

/// A page in the making.
struct Node {
    kind: u16,
    elements: Vec<Element>,
    /// Keys and values, one behind the other.
    data: Vec<u8>,
}

struct Element {
    key_len: usize,
    value_len: usize,
    /// Of a leaf's element.
    flags: u32,
    /// Of a branch's.
    child: u64,
}

impl Node {
    fn new(kind: u16) -> Self {
        Self { kind, elements: Vec::new(), data: Vec::new() }
    }

    /// Bytes of the page, if that much data more is in it.
    fn bytes_with(&self, data: usize) -> usize {
        HEADER_BYTES + (self.elements.len() + 1) * ELEMENT_BYTES + self.data.len() + data
    }

    fn first_key(&self) -> &[u8] {
        &self.data[..self.elements.first().map_or(0, |element| element.key_len)]
    }

    /// Takes the last of a branch's elements out of it.
    fn split_last(&mut self) -> (Vec<u8>, u64) {
        let element = self.elements.pop().expect("a full branch has elements");
        let key = self.data.split_off(self.data.len() - element.key_len);
        (key, element.child)
    }

    /// Appends it as a run of pages and is empty again. Gives the first page's number.
    fn write<W: Write + Seek>(&mut self, output: &mut Output<W>) -> Result<u64, WriteError> {
        let bytes = HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len();
        let pages = bytes.div_ceil(output.page_bytes);
        let mut run = Vec::with_capacity(pages * output.page_bytes);
        let page = output.next;
        // Elements of one page are far below 2^16, pages of one element far below 2^32.
        let header =
            Header { page, kind: self.kind, count: self.elements.len() as u16, overflow: (pages - 1) as u32 };
        header.encode(&mut run);
        self.encode_elements(&mut run);
        run.extend_from_slice(&self.data);
        run.resize(pages * output.page_bytes, 0);
        output.append(&run)?;
        self.elements.clear();
        self.data.clear();
        Ok(page)
    }

    /// Positions count from the element itself to its key.
    fn encode_elements(&self, out: &mut Vec<u8>) {
        let mut position = self.elements.len() * ELEMENT_BYTES;
        for element in &self.elements {
            let (key_len, value_len) = (element.key_len as u32, element.value_len as u32);
            if self.kind == LEAF {
                for number in [element.flags, position as u32, key_len, value_len] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            } else {
                for number in [position as u32, key_len] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(&element.child.to_le_bytes());
            }
            position += element.key_len + element.value_len;
            position -= ELEMENT_BYTES;
        }
    }
}

/// A tree in the making.
pub(crate) struct Tree {
    /// Flags of its leaves' elements.
    flags: u32,
    leaf: Node,
    /// From the one above the leaves upwards.
    branches: Vec<Node>,
    last_key: Vec<u8>,
}

impl Tree {
    pub(crate) fn new(flags: u32) -> Self {
        Self { flags, leaf: Node::new(LEAF), branches: Vec::new(), last_key: Vec::new() }
    }

    /// Keys ascend.
    pub(crate) fn push<W: Write + Seek>(
        &mut self,
        output: &mut Output<W>,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), WriteError> {
        self.check(key, value)?;
        let fits = self.leaf.bytes_with(key.len() + value.len()) <= output.page_bytes;
        if !fits && !self.leaf.elements.is_empty() {
            self.write_leaf(output)?;
        }
        self.leaf.data.extend_from_slice(key);
        self.leaf.data.extend_from_slice(value);
        self.leaf.elements.push(Element {
            key_len: key.len(),
            value_len: value.len(),
            flags: self.flags,
            child: 0,
        });
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// That this may come next.
    pub(crate) fn check(&self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(WriteError::KeyLength { bytes: key.len() });
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(WriteError::ValueTooLong { bytes: value.len() });
        }
        // Keys are not empty, so the first is greater than no key.
        if key <= self.last_key.as_slice() {
            return Err(WriteError::Order { key: key.to_vec(), after: self.last_key.clone() });
        }
        Ok(())
    }

    /// Writes what is left. Gives the root's page.
    pub(crate) fn finish<W: Write + Seek>(mut self, output: &mut Output<W>) -> Result<u64, WriteError> {
        if self.branches.is_empty() {
            return self.leaf.write(output);
        }
        self.write_leaf(output)?;
        let mut level = 0;
        loop {
            let key = self.branches[level].first_key().to_vec();
            let page = self.branches[level].write(output)?;
            level += 1;
            if level == self.branches.len() {
                return Ok(page);
            }
            self.add_child(output, level, key, page)?;
        }
    }

    fn write_leaf<W: Write + Seek>(&mut self, output: &mut Output<W>) -> Result<(), WriteError> {
        let key = self.leaf.first_key().to_vec();
        let page = self.leaf.write(output)?;
        self.add_child(output, 0, key, page)
    }

    /// Adds a page to a level of branches, each full one of which is written and becomes a child of the next.
    fn add_child<W: Write + Seek>(
        &mut self,
        output: &mut Output<W>,
        level: usize,
        key: Vec<u8>,
        child: u64,
    ) -> Result<(), WriteError> {
        if level == self.branches.len() {
            self.branches.push(Node::new(BRANCH));
        }
        let node = &mut self.branches[level];
        let written = write_full_branch(node, key.len(), output)?;
        node.data.extend_from_slice(&key);
        node.elements.push(Element { key_len: key.len(), value_len: 0, flags: 0, child });
        match written {
            None => Ok(()),
            Some((key, page)) => self.add_child(output, level + 1, key, page),
        }
    }
}

/// Writes a branch if one more key does not fit, and gives its first key and page. Its last child stays for the next one:
/// no branch has a single child, as in bbolt, and two always fit, however long their keys are.
fn write_full_branch<W: Write + Seek>(
    node: &mut Node,
    key_len: usize,
    output: &mut Output<W>,
) -> Result<Option<(Vec<u8>, u64)>, WriteError> {
    if node.elements.len() < 3 || node.bytes_with(key_len) <= output.page_bytes {
        return Ok(None);
    }
    let (last_key, last_child) = node.split_last();
    let first_key = node.first_key().to_vec();
    let page = node.write(output)?;
    node.elements.push(Element { key_len: last_key.len(), value_len: 0, flags: 0, child: last_child });
    node.data = last_key;
    Ok(Some((first_key, page)))
}
