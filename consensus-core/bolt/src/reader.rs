//! Reads a file that nobody vouches for, bucket by bucket.
//!
//! Checked before anything is used: the meta pages' checksums, the file's length, each page's number, kind, length, that it
//! is reached once, and that keys and values lie apart and in order. Pages have no checksums of their own, so a changed
//! value is not found here: a snapshot's digest finds it ([`etcd::trailer`](crate::etcd::trailer)). The list of free pages
//! is not read; nothing that is free is.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
};

use crate::{
    MetaFault, PageFault, ReadError,
    cursor::{Cursor, Source, read_at},
    layout::{BUCKET_BYTES, BUCKET_ELEMENT, HEADER_BYTES, META_BYTES, Meta, PAIR_ELEMENT, u64_at},
    limits::{BUCKETS_MAX, FILE_BYTES_MAX, PAGE_BYTES_MAX, PAGE_BYTES_MIN},
    page::Page,
};

/// A file's buckets.
pub struct Reader<R> {
    source: Source<R>,
    buckets: BTreeMap<Vec<u8>, Root>,
}

/// Where a bucket's tree begins.
enum Root {
    Page(u64),
    /// The bucket is this page.
    Inline(Vec<u8>),
}

impl<R: Read + Seek> Reader<R> {
    /// Reads meta pages and names of buckets. What follows the last page, as a digest does, is ignored.
    pub fn open(mut source: R) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io { action: "seek", offset: 0, source };
        let found = source.seek(SeekFrom::End(0)).map_err(failed)?;
        let meta = newest_meta(&mut source, found)?;
        let expected = meta.high_water.checked_mul(meta.page_bytes as u64);
        let Some(expected) = expected.filter(|bytes| *bytes <= FILE_BYTES_MAX) else {
            return Err(ReadError::FileTooLong { pages: meta.high_water });
        };
        if found < expected {
            return Err(ReadError::Truncated { expected, found });
        }
        let mut source = Source::new(source, meta.page_bytes, meta.high_water);
        let buckets = buckets(&mut source, meta.root)?;
        Ok(Self { source, buckets })
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> u64 {
        self.source.high_water * self.source.page_bytes as u64
    }

    /// Names of buckets, in order.
    pub fn buckets(&self) -> impl Iterator<Item = &[u8]> {
        self.buckets.keys().map(Vec::as_slice)
    }

    /// The pairs of a bucket from the first on; `None`: there is no such bucket.
    pub fn pairs(&mut self, bucket: &[u8]) -> Result<Option<Pairs<'_, R>>, ReadError> {
        let cursor = match self.buckets.get(bucket) {
            None => return Ok(None),
            Some(Root::Page(root)) => Cursor::new(&mut self.source, *root)?,
            Some(Root::Inline(page)) => Cursor::inline(page)?,
        };
        Ok(Some(Pairs { source: &mut self.source, cursor }))
    }
}

/// The pairs of a bucket, in order of their keys.
pub struct Pairs<'a, R> {
    source: &'a mut Source<R>,
    cursor: Cursor,
}

impl<R: Read + Seek> Pairs<'_, R> {
    /// Key and value of the next one. They are in the page that was read last: whoever keeps them copies them.
    // Not an iterator: what it gives lives until the next call only.
    #[expect(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>, ReadError> {
        if !self.cursor.advance(self.source)? {
            return Ok(None);
        }
        let (page, element) = self.cursor.at();
        expect_flags(page, element, PAIR_ELEMENT)?;
        Ok(Some((page.key(element), page.value(element))))
    }
}

/// Of two copies the one of the newer transaction: the other may be half written.
fn newest_meta(source: &mut (impl Read + Seek), file_bytes: u64) -> Result<Meta, ReadError> {
    let first = meta_at(source, 0, file_bytes)?;
    let second = match first {
        Ok(first) => second_meta(source, first.page_bytes, file_bytes)?,
        Err(_) => any_second_meta(source, file_bytes)?,
    };
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(if second.transaction > first.transaction { second } else { first }),
        (Ok(meta), Err(_)) | (Err(_), Ok(meta)) => Ok(meta),
        (Err(first), Err(second)) => Err(ReadError::Meta { first, second }),
    }
}

/// Where it is depends on the size of a page, which only the first copy could have told.
fn any_second_meta(
    source: &mut (impl Read + Seek),
    file_bytes: u64,
) -> Result<Result<Meta, MetaFault>, ReadError> {
    let mut page_bytes = PAGE_BYTES_MIN;
    loop {
        let meta = second_meta(source, page_bytes, file_bytes)?;
        if meta.is_ok() || page_bytes == PAGE_BYTES_MAX {
            return Ok(meta);
        }
        page_bytes *= 2;
    }
}

fn second_meta(
    source: &mut (impl Read + Seek),
    page_bytes: usize,
    file_bytes: u64,
) -> Result<Result<Meta, MetaFault>, ReadError> {
    let meta = meta_at(source, page_bytes as u64, file_bytes)?;
    Ok(meta.and_then(|meta| match meta.page_bytes {
        found if found == page_bytes => Ok(meta),
        found => Err(MetaFault::PageBytes { found: found as u32 }),
    }))
}

/// The copy in the page that begins there. The outer error is the source's.
fn meta_at(
    source: &mut (impl Read + Seek),
    page_offset: u64,
    file_bytes: u64,
) -> Result<Result<Meta, MetaFault>, ReadError> {
    let offset = page_offset + HEADER_BYTES as u64;
    if file_bytes < offset + META_BYTES as u64 {
        return Ok(Err(MetaFault::Missing));
    }
    let mut bytes = [0; META_BYTES];
    read_at(source, offset, &mut bytes)?;
    Ok(Meta::decode(&bytes))
}

/// What the root tree holds.
fn buckets<R: Read + Seek>(source: &mut Source<R>, root: u64) -> Result<BTreeMap<Vec<u8>, Root>, ReadError> {
    let mut cursor = Cursor::new(source, root)?;
    let mut buckets = BTreeMap::new();
    while cursor.advance(source)? {
        if buckets.len() == BUCKETS_MAX {
            return Err(ReadError::TooManyBuckets);
        }
        let (page, element) = cursor.at();
        expect_flags(page, element, BUCKET_ELEMENT)?;
        let Some(root) = bucket_root(page.value(element), source.page_bytes) else {
            return Err(ReadError::Page { page: page.number(), fault: PageFault::Bucket { element } });
        };
        buckets.insert(page.key(element).to_vec(), root);
    }
    Ok(buckets)
}

/// `None`: this is no bucket.
fn bucket_root(value: &[u8], page_bytes: usize) -> Option<Root> {
    let (head, inline) = value.split_at_checked(BUCKET_BYTES)?;
    match u64_at(head, 0) {
        // bbolt keeps a bucket inline up to a quarter of a page.
        0 => (inline.len() <= page_bytes).then(|| Root::Inline(inline.to_vec())),
        root => inline.is_empty().then_some(Root::Page(root)),
    }
}

fn expect_flags(page: &Page, element: usize, expected: u32) -> Result<(), ReadError> {
    match page.flags(element) {
        found if found == expected => Ok(()),
        found => {
            Err(ReadError::Page { page: page.number(), fault: PageFault::ElementFlags { element, found } })
        }
    }
}
