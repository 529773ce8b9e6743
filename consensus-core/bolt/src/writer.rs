//! Writes a file, bucket by bucket, in memory that does not grow with it.
//!
//! Trees are written as their pairs come, meta pages last: they are the first pages and name the root. So the file can be
//! sought in, and is streamed once it is finished. Until then it is none: where the meta pages will be are zeros.

use std::io::{Seek, SeekFrom, Write};

use crate::{
    WriteError,
    layout::{
        BUCKET_ELEMENT, FREELIST, Header, META, META_PAGES, Meta, PAIR_ELEMENT, encode_bucket, is_page_size,
    },
    limits::{BUCKETS_MAX, PAGE_BYTES},
    tree::{Output, Tree},
};

/// A file in the making.
pub struct Writer<W: Write> {
    output: Output<W>,
    root: Tree,
    buckets: usize,
    open: Option<Bucket>,
}

/// The bucket that pairs are put into.
struct Bucket {
    name: Vec<u8>,
    tree: Tree,
}

impl<W: Write + Seek> Writer<W> {
    /// `file` is empty.
    pub fn new(file: W) -> Result<Self, WriteError> {
        Self::with_page_bytes(file, PAGE_BYTES)
    }

    /// With pages of another size than [`PAGE_BYTES`]: a power of two between
    /// [`PAGE_BYTES_MIN`](crate::limits::PAGE_BYTES_MIN) and [`PAGE_BYTES_MAX`](crate::limits::PAGE_BYTES_MAX).
    pub fn with_page_bytes(file: W, page_bytes: usize) -> Result<Self, WriteError> {
        assert!(is_page_size(page_bytes), "a page cannot have {page_bytes} bytes");
        let mut output = Output::new(file, page_bytes);
        output.append(&vec![0; META_PAGES as usize * page_bytes])?;
        Ok(Self { output, root: Tree::new(BUCKET_ELEMENT), buckets: 0, open: None })
    }

    /// Pairs go into this bucket from now on. Names ascend.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.close_bucket()?;
        // Now, not when it is closed and its pages are written.
        self.root.check(name, &[])?;
        if self.buckets == BUCKETS_MAX {
            return Err(WriteError::TooManyBuckets);
        }
        self.buckets += 1;
        self.open = Some(Bucket { name: name.to_vec(), tree: Tree::new(PAIR_ELEMENT) });
        Ok(())
    }

    /// Adds a pair to the bucket, which must have been named before. Keys ascend.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let bucket = self.open.as_mut().expect("a bucket comes before its pairs");
        bucket.tree.push(&mut self.output, key, value)
    }

    /// Writes what is left, then the meta pages. Gives the file back, at its end; it is not synced.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.close_bucket()?;
        let Self { mut output, root, .. } = self;
        let root = root.finish(&mut output)?;
        let freelist = output.next;
        output.append(&page(
            output.page_bytes,
            Header { page: freelist, kind: FREELIST, count: 0, overflow: 0 },
            &[],
        ))?;
        let meta =
            Meta { page_bytes: output.page_bytes, root, freelist, high_water: output.next, transaction: 0 };
        write_metas(output, meta)
    }

    fn close_bucket(&mut self) -> Result<(), WriteError> {
        let Some(Bucket { name, tree }) = self.open.take() else { return Ok(()) };
        let root = tree.finish(&mut self.output)?;
        self.root.push(&mut self.output, &name, &encode_bucket(root))
    }
}

/// Two copies, as of two transactions: the one that a reader finds newer is in page 1.
fn write_metas<W: Write + Seek>(output: Output<W>, meta: Meta) -> Result<W, WriteError> {
    let page_bytes = meta.page_bytes;
    let failed = |action| move |source| WriteError::Io { action, source };
    let mut file = output.inner.into_inner().map_err(|error| failed("write")(error.into_error()))?;
    file.seek(SeekFrom::Start(0)).map_err(failed("seek"))?;
    for transaction in 0..META_PAGES {
        let mut content = Vec::new();
        Meta { transaction, ..meta }.encode(&mut content);
        let header = Header { page: transaction, kind: META, count: 0, overflow: 0 };
        file.write_all(&page(page_bytes, header, &content)).map_err(failed("write"))?;
    }
    file.flush().map_err(failed("flush"))?;
    file.seek(SeekFrom::End(0)).map_err(failed("seek"))?;
    Ok(file)
}

fn page(page_bytes: usize, header: Header, content: &[u8]) -> Vec<u8> {
    let mut page = Vec::with_capacity(page_bytes);
    header.encode(&mut page);
    page.extend_from_slice(content);
    page.resize(page_bytes, 0);
    page
}
