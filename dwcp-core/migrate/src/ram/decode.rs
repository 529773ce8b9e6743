//! Batches back into QEMU's stream (MIGRATE-4).

use dwcp_delta::xor;
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation as _, OutBuffer};

use super::{
    BATCH_BYTES_MAX, BATCH_HASH_BYTES, HEAD_BYTES, WINDOW_BITS, batch_hash, block_number,
    encode::record,
    kind,
    pages::{Contents, HASH_BYTES, Pages, Place, hash},
    parse::PAGE_BYTES,
};

/// Why a batch is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than its fields need.
    #[error("a batch of memory is cut off")]
    Truncated,
    /// A field that contradicts others, or is not in its domain.
    #[error("a batch of memory has an invalid {0}")]
    Invalid(&'static str),
    /// What it stands for is not what was sent.
    #[error("a batch of memory does not have the contents that were sent")]
    OtherContents,
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length of what follows, in bytes.
    pub len: usize,
    head: usize,
    data: usize,
    hash: [u8; BATCH_HASH_BYTES],
}

impl Head {
    /// Reads and checks one.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, DecodeError> {
        let length = |at: usize| {
            u32::from_le_bytes(*bytes[4 * at..].first_chunk().expect("it is in the head")) as usize
        };
        let hash = *bytes[12..].first_chunk().expect("it is in the head");
        let head = Self { len: length(0), head: length(1), data: length(2), hash };
        let columns = head.head.saturating_add(head.data);
        // What does not compress gets longer by little.
        if columns > 2 * BATCH_BYTES_MAX || head.len > columns + columns / 16 + 1024 {
            return Err(DecodeError::Invalid("length"));
        }
        Ok(head)
    }
}

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of it.
    Done,
    /// There is a difference from a page that is not here: it is needed as the sender has it now
    /// ([`Decoder::provide`]).
    Needs(Place),
}

/// Takes batches, in their order.
pub struct Decoder {
    pub(super) pages: Pages,
    names: Vec<Vec<u8>>,
    last: Place,
    zstd: Zstd<'static>,
    columns: Vec<u8>,
    batch: Option<Batch>,
    plain: Vec<u8>,
}

/// The batch that is being taken.
struct Batch {
    head: usize,
    head_end: usize,
    data: usize,
    hash: [u8; BATCH_HASH_BYTES],
    /// A record whose difference cannot be used, and what stands for it.
    needed: Option<Difference>,
    /// Later contents stand for some: the hash says nothing any more.
    repaired: bool,
}

#[derive(Clone, Copy)]
struct Difference {
    place: Place,
    continues: bool,
}

impl Decoder {
    /// With as much room as the sender has.
    pub fn new(pages_bytes: u64) -> std::io::Result<Self> {
        let mut zstd = Zstd::new()?;
        zstd.set_parameter(DParameter::WindowLogMax(WINDOW_BITS))?;
        Ok(Self {
            pages: Pages::new((pages_bytes / PAGE_BYTES as u64) as usize),
            names: Vec::new(),
            last: Place { block: 0, page: 0 },
            zstd,
            columns: Vec::new(),
            batch: None,
            plain: Vec::new(),
        })
    }

    /// The next batch; [`step`](Self::step) goes through it.
    pub fn begin(&mut self, head: &Head, body: &[u8]) -> Result<(), DecodeError> {
        self.columns.resize(head.head + head.data, 0);
        self.plain.clear();
        let mut input = InBuffer::around(body);
        let mut out = OutBuffer::around(&mut self.columns[..]);
        loop {
            let before = (input.pos(), out.pos());
            self.zstd.run(&mut input, &mut out).map_err(|_| DecodeError::Invalid("compression"))?;
            if (input.pos(), out.pos()) == before {
                break;
            }
        }
        if input.pos() < body.len() || out.pos() < head.head + head.data {
            return Err(DecodeError::Invalid("compression"));
        }
        let (head_end, hash) = (head.head, head.hash);
        self.batch = Some(Batch { head: 0, head_end, data: head_end, hash, needed: None, repaired: false });
        Ok(())
    }

    /// Goes on; after [`Step::Done`] the batch's part of the stream is in [`plain`](Self::plain).
    pub fn step(&mut self) -> Result<Step, DecodeError> {
        let mut batch = self.batch.take().expect("a batch was begun");
        assert!(batch.needed.is_none(), "what is needed comes first");
        while batch.head < batch.head_end {
            if let Some(difference) = self.operation(&mut batch)? {
                batch.needed = Some(difference);
                self.batch = Some(batch);
                return Ok(Step::Needs(difference.place));
            }
            if self.plain.len() > BATCH_BYTES_MAX {
                return Err(DecodeError::Invalid("length"));
            }
        }
        if batch.data != self.columns.len() {
            return Err(DecodeError::Invalid("length"));
        }
        if !batch.repaired && batch_hash(&self.plain) != batch.hash {
            return Err(DecodeError::OtherContents);
        }
        Ok(Step::Done)
    }

    /// Gives the page that [`Step::Needs`] asked for.
    pub fn provide(&mut self, contents: &[u8; PAGE_BYTES]) {
        let batch = self.batch.as_mut().expect("a batch was begun");
        let needed = batch.needed.take().expect("something is needed");
        batch.repaired = true;
        self.full(needed.place, needed.continues, contents);
    }

    /// What the last batch stands for.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    fn operation(&mut self, batch: &mut Batch) -> Result<Option<Difference>, DecodeError> {
        let columns = std::mem::take(&mut self.columns);
        let done = self.one(batch, &columns);
        self.columns = columns;
        done
    }

    fn one(&mut self, batch: &mut Batch, columns: &[u8]) -> Result<Option<Difference>, DecodeError> {
        let mut head = &columns[batch.head..batch.head_end];
        let mut data = &columns[batch.data..];
        let [tag] = *take(&mut head)?;
        let mut needed = None;
        if tag & kind::MASK == kind::RAW {
            let len = u32::from_le_bytes(*take(&mut head)?) as usize;
            self.plain.extend_from_slice(take_slice(&mut data, len)?);
        } else {
            let continues = tag & kind::CONTINUES != 0;
            let place = self.place(tag, continues, &mut head)?;
            match tag & kind::MASK {
                kind::ZERO => {
                    self.begin_record(place, true, continues);
                    self.plain.push(0);
                }
                kind::FULL => self.full(place, continues, take(&mut data)?),
                _ => {
                    let base: [u8; HASH_BYTES] = *take(&mut head)?;
                    let len = usize::from(u16::from_le_bytes(*take(&mut head)?));
                    let difference = take_slice(&mut data, len)?;
                    match self.pages.get(place).filter(|page| hash(page) == base) {
                        Some(page) => {
                            let mut contents = *page;
                            xor::decode(difference, &mut contents)
                                .map_err(|_| DecodeError::Invalid("difference"))?;
                            self.full(place, continues, &contents);
                        }
                        None => needed = Some(Difference { place, continues }),
                    }
                }
            }
        }
        batch.head = batch.head_end - head.len();
        batch.data = columns.len() - data.len();
        Ok(needed)
    }

    fn place(&mut self, tag: u8, continues: bool, head: &mut &[u8]) -> Result<Place, DecodeError> {
        let mut block = self.last.block;
        if !continues {
            let [len] = *take(head)?;
            let name = take_slice(head, usize::from(len))?;
            block = block_number(&mut self.names, name).ok_or(DecodeError::Invalid("block"))?;
        } else if self.names.is_empty() {
            return Err(DecodeError::Invalid("block"));
        }
        let page = match tag & kind::NEXT {
            0 => u64::from_le_bytes(*take(head)?),
            _ => self.last.page.checked_add(1).ok_or(DecodeError::Invalid("page"))?,
        };
        self.last = Place { block, page };
        Ok(self.last)
    }

    fn begin_record(&mut self, place: Place, is_zero: bool, continues: bool) {
        self.plain.extend_from_slice(&record(place.page, is_zero, continues));
        if !continues {
            let name = &self.names[usize::from(place.block)];
            self.plain.push(name.len() as u8);
            self.plain.extend_from_slice(name);
        }
    }

    fn full(&mut self, place: Place, continues: bool, contents: &Contents) {
        self.begin_record(place, false, continues);
        self.plain.extend_from_slice(contents);
        self.pages.put(place, contents);
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], DecodeError> {
    let (head, tail) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(head)
}
