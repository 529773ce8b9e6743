//! Batches of QEMU's stream (MIGRATE-4).

use std::io;

use dwcp_delta::xor;
use zstd::stream::raw::{CParameter, Encoder as Zstd, InBuffer, Operation as _, OutBuffer};

use super::{
    BATCH_BYTES, HEAD_BYTES, WINDOW_BITS, batch_hash, kind,
    pages::{Contents, Pages, Place, hash},
    parse::{PAGE_BYTES, Page, Parser, Piece, flag},
};

/// A difference of more than this part of a page is none.
const DIFFERENCE_DIVISOR: usize = 2;
/// What zstd is given room for at once.
const OUT_BYTES: usize = 64 << 10;

/// Makes batches of a stream, in its order.
pub struct Encoder {
    parser: Parser,
    pages: Pages,
    names: Vec<Vec<u8>>,
    last: Place,
    zstd: Zstd<'static>,
    /// Columns of the batch that is being made, and what it stands for.
    head: Vec<u8>,
    data: Vec<u8>,
    plain: Vec<u8>,
    counts: Counts,
}

/// What pages became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nothing but zeros.
    pub zero: u64,
    /// Sent whole.
    pub full: u64,
    /// Sent as differences.
    pub delta: u64,
}

impl Encoder {
    /// With room for so many bytes of pages, at a level of zstd.
    pub fn new(pages_bytes: u64, level: i32) -> io::Result<Self> {
        let mut zstd = Zstd::new(level)?;
        zstd.set_parameter(CParameter::WindowLog(WINDOW_BITS))?;
        zstd.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        Ok(Self {
            parser: Parser::default(),
            pages: Pages::new((pages_bytes / PAGE_BYTES as u64) as usize),
            names: Vec::new(),
            last: Place { block: 0, page: 0 },
            zstd,
            head: Vec::new(),
            data: Vec::new(),
            plain: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// What pages became so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes what it can of the stream's next bytes: `None` when there are too few, else how many. At the end of the stream
    /// (`ended`) it takes all. To be called until it takes none, or the batch [is full](Self::is_full).
    pub fn take(&mut self, bytes: &[u8], ended: bool) -> Option<usize> {
        // Opaque bytes come in any length.
        let bytes = &bytes[..bytes.len().min(BATCH_BYTES)];
        let (piece, len) = self.parser.next(bytes, ended)?;
        match piece {
            Piece::Raw(raw) => self.raw(raw),
            Piece::Page(page) => match self.place(page.block) {
                Some(block) => self.page(Place { block, page: page.number }, &page),
                None => self.raw(&bytes[..len]),
            },
        }
        self.plain.extend_from_slice(&bytes[..len]);
        Some(len)
    }

    /// Whether the batch should be ended.
    pub fn is_full(&self) -> bool {
        self.plain.len() >= BATCH_BYTES
    }

    /// The batch so far, with its head; `None` if it would be empty.
    pub fn batch(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.plain.is_empty() {
            return Ok(None);
        }
        let mut out = vec![0; HEAD_BYTES];
        for column in [&self.head, &self.data] {
            compress(&mut self.zstd, column, &mut out)?;
        }
        flush(&mut self.zstd, &mut out)?;
        let lengths = [out.len() - HEAD_BYTES, self.head.len(), self.data.len()];
        for (at, len) in lengths.into_iter().enumerate() {
            out[4 * at..4 * (at + 1)].copy_from_slice(&(len as u32).to_le_bytes());
        }
        out[12..HEAD_BYTES].copy_from_slice(&batch_hash(&self.plain));
        self.head.clear();
        self.data.clear();
        self.plain.clear();
        Ok(Some(out))
    }

    /// A page as it was sent last, for an end that cannot use a difference from it.
    pub fn page_sent(&self, place: Place) -> Option<&[u8; PAGE_BYTES]> {
        self.pages.get(place)
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.head.push(kind::RAW);
        self.head.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.data.extend_from_slice(bytes);
    }

    /// The number of the block of a record; `None` if it has none, or there are too many.
    fn place(&mut self, name: Option<&[u8]>) -> Option<u16> {
        match name {
            None => (!self.names.is_empty()).then_some(self.last.block),
            Some(name) => super::block_number(&mut self.names, name),
        }
    }

    fn page(&mut self, place: Place, page: &Page<'_>) {
        let is_next = place.block == self.last.block && Some(place.page) == self.last.page.checked_add(1);
        self.last = place;
        let mut tag = if page.block.is_none() { kind::CONTINUES } else { 0 };
        if is_next {
            tag |= kind::NEXT;
        }
        let at = self.head.len();
        self.head.push(tag);
        if let Some(name) = page.block {
            self.head.push(name.len() as u8);
            self.head.extend_from_slice(name);
        }
        if !is_next {
            self.head.extend_from_slice(&place.page.to_le_bytes());
        }
        self.head[at] |= match page.contents {
            None => {
                self.counts.zero += 1;
                kind::ZERO
            }
            Some(contents) if self.difference(place, contents) => {
                self.counts.delta += 1;
                kind::DELTA
            }
            Some(contents) => {
                self.counts.full += 1;
                self.data.extend_from_slice(contents);
                kind::FULL
            }
        };
        if let Some(contents) = page.contents {
            self.pages.put(place, contents);
        }
    }

    /// Says a page as a difference from the same one as it was sent last: names that, and appends the difference.
    fn difference(&mut self, place: Place, contents: &Contents) -> bool {
        let Some(old) = self.pages.get(place) else { return false };
        let begin = self.data.len();
        if !xor::encode(old, contents, PAGE_BYTES / DIFFERENCE_DIVISOR, &mut self.data) {
            return false;
        }
        self.head.extend_from_slice(&hash(old));
        self.head.extend_from_slice(&((self.data.len() - begin) as u16).to_le_bytes());
        true
    }
}

/// The first eight bytes of a record.
pub(super) fn record(page: u64, is_zero: bool, continues: bool) -> [u8; 8] {
    let flags = if is_zero { flag::ZERO } else { flag::PAGE } | if continues { flag::CONTINUE } else { 0 };
    (page.wrapping_mul(PAGE_BYTES as u64) | flags).to_be_bytes()
}

fn compress(zstd: &mut Zstd<'_>, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut input = InBuffer::around(bytes);
    while input.pos() < bytes.len() {
        with_room(out, |room| zstd.run(&mut input, room))?;
    }
    Ok(())
}

fn flush(zstd: &mut Zstd<'_>, out: &mut Vec<u8>) -> io::Result<()> {
    while with_room(out, |room| zstd.flush(room))? > 0 {}
    Ok(())
}

fn with_room(
    out: &mut Vec<u8>,
    work: impl FnOnce(&mut OutBuffer<'_, [u8]>) -> io::Result<usize>,
) -> io::Result<usize> {
    let begin = out.len();
    out.resize(begin + OUT_BYTES, 0);
    let mut room = OutBuffer::around(&mut out[begin..]);
    let worked = work(&mut room);
    let written = room.pos();
    out.truncate(begin + written);
    worked
}
