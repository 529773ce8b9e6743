//! Finds the pages in what QEMU's `migrate` writes (`migration/ram.c`, stream version 3). Pure.
//!
//! Only as far as pages are concerned: what is in front of the memory's section, what follows it, and everything from a byte on
//! that is not understood, is passed on as it is.

/// A page of a guest, in bytes; x86's.
pub const PAGE_BYTES: usize = 4096;
/// The memory's section begins within so many bytes, or is not looked for.
const SEARCH_BYTES_MAX: usize = 4096;
/// Blocks of memory that a guest may have.
pub(crate) const BLOCKS_MAX: usize = 256;

mod section {
    pub(super) const START: u8 = 1;
    pub(super) const PART: u8 = 2;
    pub(super) const END: u8 = 3;
    pub(super) const FOOTER: u8 = 0x7e;
}

/// Name, instance and version of the memory's section.
const RAM: &[u8] = b"\x03ram\0\0\0\0\0\0\0\x04";

/// In the low bits of a record's address.
pub(crate) mod flag {
    pub(crate) const ZERO: u64 = 0x02;
    pub(super) const MEM_SIZE: u64 = 0x04;
    pub(crate) const PAGE: u64 = 0x08;
    pub(super) const EOS: u64 = 0x10;
    pub(crate) const CONTINUE: u64 = 0x20;
}

/// A page in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// The block's name, if the record has it; else it is the block of the page before.
    pub block: Option<&'a [u8]>,
    /// Which page of the block.
    pub number: u64,
    /// What is in it; `None`: zeros.
    pub contents: Option<&'a [u8; PAGE_BYTES]>,
}

/// What comes next in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes to pass on.
    Raw(&'a [u8]),
    /// A page.
    Page(Page<'a>),
}

/// Where in the stream the parser is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Records,
    Footer,
    Between,
    /// Not looked at any more.
    Opaque,
}

/// Takes a stream apart.
#[derive(Debug)]
pub struct Parser {
    state: State,
    /// The number of the memory's section.
    section: [u8; 4],
}

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Before, section: [0; 4] }
    }
}

impl Parser {
    /// The next piece of a stream that goes on with `bytes`, and how many of them it is. `None`: there are too few to say;
    /// if `ended`, only when there are none.
    pub fn next<'a>(&mut self, bytes: &'a [u8], ended: bool) -> Option<(Piece<'a>, usize)> {
        if bytes.is_empty() {
            return None;
        }
        let found = match self.state {
            State::Before => self.before(bytes),
            State::Records => self.record(bytes),
            State::Footer => self.footer(bytes),
            State::Between => self.between(bytes),
            State::Opaque => Found::Raw(bytes.len()),
        };
        match found {
            Found::More if !ended => None,
            Found::More | Found::Strange => {
                self.state = State::Opaque;
                Some((Piece::Raw(bytes), bytes.len()))
            }
            Found::Raw(len) => Some((Piece::Raw(&bytes[..len]), len)),
            Found::Page(page, len) => Some((Piece::Page(page), len)),
        }
    }

    fn before<'a>(&mut self, bytes: &'a [u8]) -> Found<'a> {
        let searched = &bytes[..bytes.len().min(SEARCH_BYTES_MAX)];
        let head = 1 + self.section.len();
        let at = searched.windows(RAM.len()).position(|window| window == RAM);
        match at {
            Some(at) if at >= head && searched[at - head] == section::START => {
                self.section = *searched[at - head + 1..].first_chunk().expect("the name is behind it");
                self.state = State::Records;
                Found::Raw(at + RAM.len())
            }
            None if bytes.len() < SEARCH_BYTES_MAX => Found::More,
            _ => Found::Strange,
        }
    }

    fn record<'a>(&mut self, bytes: &'a [u8]) -> Found<'a> {
        let Some((head, rest)) = bytes.split_first_chunk() else { return Found::More };
        let word = u64::from_be_bytes(*head);
        let (address, flags) = (word & !(PAGE_BYTES as u64 - 1), word & (PAGE_BYTES as u64 - 1));
        match flags & !flag::CONTINUE {
            flag::EOS if word == flag::EOS => {
                self.state = State::Footer;
                Found::Raw(head.len())
            }
            flag::MEM_SIZE if flags == flag::MEM_SIZE => match blocks(address, rest) {
                Some(Ok(len)) => Found::Raw(head.len() + len),
                Some(Err(Strange)) => Found::Strange,
                None => Found::More,
            },
            kind @ (flag::ZERO | flag::PAGE) => {
                let continues = flags & flag::CONTINUE != 0;
                page(address, kind, continues, rest).map_len(head.len())
            }
            _ => Found::Strange,
        }
    }

    fn footer<'a>(&mut self, bytes: &'a [u8]) -> Found<'a> {
        self.state = State::Between;
        if bytes[0] != section::FOOTER {
            return self.between(bytes);
        }
        match bytes.get(1..1 + self.section.len()) {
            Some(section) if section == self.section => Found::Raw(1 + self.section.len()),
            Some(_) => Found::Strange,
            None => {
                self.state = State::Footer;
                Found::More
            }
        }
    }

    fn between<'a>(&mut self, bytes: &'a [u8]) -> Found<'a> {
        if ![section::PART, section::END].contains(&bytes[0]) {
            return Found::Strange;
        }
        match bytes.get(1..1 + self.section.len()) {
            Some(section) if section == self.section => {
                self.state = State::Records;
                Found::Raw(1 + self.section.len())
            }
            Some(_) => Found::Strange,
            None => Found::More,
        }
    }
}

/// What a look at the next bytes gave.
enum Found<'a> {
    /// Too few bytes.
    More,
    /// Not understood.
    Strange,
    Raw(usize),
    Page(Page<'a>, usize),
}

impl Found<'_> {
    fn map_len(self, more: usize) -> Self {
        match self {
            Self::Page(page, len) => Self::Page(page, len + more),
            other => other,
        }
    }
}

struct Strange;

/// How long the table of blocks is that follows the size of the memory.
fn blocks(total: u64, bytes: &[u8]) -> Option<Result<usize, Strange>> {
    let (mut rest, mut sum) = (bytes, 0u64);
    for _ in 0..BLOCKS_MAX {
        if sum >= total {
            break;
        }
        let (&len, tail) = rest.split_first()?;
        let (_, tail) = tail.split_at_checked(usize::from(len))?;
        let (size, tail) = tail.split_first_chunk()?;
        sum = sum.saturating_add(u64::from_be_bytes(*size));
        rest = tail;
    }
    Some(if sum == total { Ok(bytes.len() - rest.len()) } else { Err(Strange) })
}

fn page(address: u64, kind: u64, continues: bool, bytes: &[u8]) -> Found<'_> {
    let (mut rest, mut block) = (bytes, None);
    if !continues {
        let Some((&len, tail)) = rest.split_first() else { return Found::More };
        let Some((name, tail)) = tail.split_at_checked(usize::from(len)) else { return Found::More };
        (rest, block) = (tail, Some(name));
    }
    let (contents, tail) = if kind == flag::ZERO {
        match rest.split_first() {
            Some((0, tail)) => (None, tail),
            Some(_) => return Found::Strange,
            None => return Found::More,
        }
    } else {
        match rest.split_first_chunk() {
            Some((contents, tail)) => (Some(contents), tail),
            None => return Found::More,
        }
    };
    let number = address / PAGE_BYTES as u64;
    Found::Page(Page { block, number, contents }, bytes.len() - tail.len())
}
