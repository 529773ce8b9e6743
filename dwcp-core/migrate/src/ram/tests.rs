//! A stream through an encoder and a decoder.

use proptest::{collection::vec, prelude::*};

use super::{
    parse::{PAGE_BYTES, Parser, Piece},
    *,
};

const ROOM: u64 = 64 * PAGE_BYTES as u64;

/// A stream as QEMU writes it, made by hand.
struct Stream(Vec<u8>);

impl Stream {
    fn new() -> Self {
        let mut bytes = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x01\0\0\0\x05\x03ram\0\0\0\0\0\0\0\x04".to_vec();
        // Two blocks, 0x50000 bytes together.
        bytes.extend(0x50004u64.to_be_bytes());
        for (name, size) in [("pc.ram", 0x40000u64), ("vga", 0x10000)] {
            bytes.push(name.len() as u8);
            bytes.extend(name.as_bytes());
            bytes.extend(size.to_be_bytes());
        }
        let mut stream = Self(bytes);
        stream.end();
        stream
    }

    fn end(&mut self) {
        self.0.extend(0x10u64.to_be_bytes());
        self.0.extend([0x7e, 0, 0, 0, 5]);
    }

    fn part(&mut self, kind: u8, pages: &[(Option<&str>, u64, Option<u8>)], changed: Option<usize>) {
        self.0.extend([kind, 0, 0, 0, 5]);
        for &(block, page, fill) in pages {
            let flags = if fill.is_some() { 8 } else { 2 } | if block.is_none() { 0x20 } else { 0 };
            self.0.extend((page << 12 | flags).to_be_bytes());
            if let Some(block) = block {
                self.0.push(block.len() as u8);
                self.0.extend(block.as_bytes());
            }
            match fill {
                None => self.0.push(0),
                Some(fill) => {
                    let mut contents = [fill; PAGE_BYTES];
                    if let Some(at) = changed {
                        contents[at] ^= 1;
                    }
                    self.0.extend(contents);
                }
            }
        }
        self.end();
    }
}

/// Two passes: pages with names and without, zeros, and in the second pass a byte that has changed.
fn stream() -> Vec<u8> {
    let mut stream = Stream::new();
    let pages = [
        (Some("pc.ram"), 0, Some(1)),
        (None, 1, Some(2)),
        (None, 7, None),
        (Some("vga"), 3, Some(3)),
        (Some("pc.ram"), 2, Some(9)),
    ];
    stream.part(2, &pages, None);
    stream.part(2, &pages, Some(100));
    stream.part(3, &pages, Some(200));
    stream.0.extend(b"\x04devices follow\0");
    stream.0
}

fn encoded(stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Encoder) {
    let mut encoder = Encoder::new(ROOM, 1).unwrap();
    let (mut batches, mut at, mut end) = (vec![], 0, 0);
    let mut cuts = cuts.iter().cycle();
    while at < stream.len() {
        end = (end + cuts.next().unwrap_or(&usize::MAX).min(&stream.len()).max(&1)).min(stream.len());
        let mut taken = 0;
        while let Some(len) = encoder.take(&stream[at..end], end == stream.len()) {
            at += len;
            taken += len;
            if encoder.is_full() {
                break;
            }
        }
        if taken > 0 {
            batches.push(encoder.batch().unwrap().unwrap());
        }
    }
    assert_eq!(encoder.batch().unwrap(), None);
    (batches, encoder)
}

/// What a decoder makes of batches; before the last one its pages are spoilt, if asked for, and what it then needs comes from
/// the encoder.
fn decoded(batches: &[Vec<u8>], encoder: &Encoder, spoil: bool) -> (Vec<u8>, usize) {
    let mut decoder = Decoder::new(ROOM).unwrap();
    let (mut plain, mut repairs) = (vec![], 0);
    for (number, batch) in batches.iter().enumerate() {
        let head = Head::decode(batch.first_chunk().unwrap()).unwrap();
        decoder.begin(&head, &batch[HEAD_BYTES..]).unwrap();
        if spoil && number + 1 == batches.len() {
            for page in [0, 1] {
                decoder.pages.put(Place { block: 0, page }, &[77; PAGE_BYTES]);
            }
        }
        while let Step::Needs(place) = decoder.step().unwrap() {
            repairs += 1;
            decoder.provide(encoder.page_sent(place).unwrap());
        }
        plain.extend_from_slice(decoder.plain());
    }
    (plain, repairs)
}

/// MIGRATE-4.2
#[test]
fn pages_are_found() {
    let stream = stream();
    let (mut parser, mut at, mut pages) = (Parser::default(), 0, vec![]);
    while let Some((piece, len)) = parser.next(&stream[at..], true) {
        if let Piece::Page(page) = piece {
            pages.push((page.block.map(<[u8]>::to_vec), page.number, page.contents.map(|bytes| bytes[0])));
        }
        at += len;
    }
    assert_eq!(at, stream.len());
    assert_eq!(pages.len(), 15);
    assert_eq!(pages[0], (Some(b"pc.ram".to_vec()), 0, Some(1)));
    assert_eq!(pages[2], (None, 7, None));
}

/// MIGRATE-4.3
#[test]
fn what_was_sent_before_is_sent_as_a_difference() {
    let stream = stream();
    let (batches, encoder) = encoded(&stream, &[]);
    assert_eq!(encoder.counts(), Counts { zero: 3, full: 4, delta: 8 });
    assert_eq!(decoded(&batches, &encoder, false), (stream, 0));
}

/// MIGRATE-4.4
#[test]
fn a_wrong_base_is_found_and_the_page_sent_whole() {
    let mut first = Stream::new();
    let pages = [(Some("pc.ram"), 0, Some(1)), (None, 1, Some(2))];
    first.part(2, &pages, None);
    let cut = first.0.len();
    first.part(3, &pages, Some(5));
    let (batches, encoder) = encoded(&first.0, &[cut]);
    assert_eq!(batches.len(), 2);
    assert_eq!(decoded(&batches, &encoder, true), (first.0, 2));
}

/// MIGRATE-4.5
#[test]
fn other_contents_are_refused() {
    let (mut batches, _) = encoded(&stream(), &[]);
    batches[0][14] ^= 1;
    let mut decoder = Decoder::new(ROOM).unwrap();
    let head = Head::decode(batches[0].first_chunk().unwrap()).unwrap();
    decoder.begin(&head, &batches[0][HEAD_BYTES..]).unwrap();
    assert_eq!(decoder.step(), Err(DecodeError::OtherContents));
}

/// With less room than the guest has pages, both ends forget the same ones.
#[test]
fn room_is_kept() {
    let mut stream = Stream::new();
    let pages: Vec<_> = (0..200).map(|page| (Some("pc.ram"), page, Some(page as u8))).collect();
    for round in 0..3 {
        stream.part(2, &pages[round * 10..], Some(round));
        stream.part(2, &pages[190..], Some(round + 100));
    }
    let (batches, encoder) = encoded(&stream.0, &[]);
    assert_eq!(encoder.counts().delta, 30);
    assert_eq!(decoded(&batches, &encoder, false), (stream.0, 0));
}

proptest! {
    /// MIGRATE-4.1
    #[test]
    fn any_stream_comes_back(
        mut bytes in Just(stream()),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in vec(1usize..6000, 1..5),
        len: prop::sample::Index,
        whole: bool,
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(1 + len.index(bytes.len()));
        }
        let (batches, encoder) = encoded(&bytes, &cuts);
        prop_assert_eq!(decoded(&batches, &encoder, false), (bytes, 0));
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), HEAD_BYTES..400)) {
        if let Ok(head) = Head::decode(noise.first_chunk().unwrap()) {
            let mut decoder = Decoder::new(ROOM).unwrap();
            if decoder.begin(&head, &noise[HEAD_BYTES..]).is_ok() {
                let _ = decoder.step();
            }
        }
    }
}
