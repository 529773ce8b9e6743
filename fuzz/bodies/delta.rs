//! Any bytes as a delta, a difference of two blocks, or a list of chunks: no panic, nothing outside of the baseline, and what is
//! accepted is in its bounds. The first byte chooses.

use dwcp_delta::{Baseline, BaselineName, Decoder, Unreadable, chunks, xor};

const BASELINE_BYTES: usize = 64 << 10;
const PART_BYTES: usize = 8 << 10;
const CHUNKS_MAX: usize = 1000;

/// What the seeds of the corpus were made with.
pub(crate) const NAME: BaselineName = BaselineName { id: [1; 16], version: 2, hash: [3; 32] };

/// Bytes that repeat, but not soon.
pub(crate) fn baseline() -> Vec<u8> {
    (0..BASELINE_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Says so if it is asked for what it does not have.
struct Strict(Vec<u8>);

impl Baseline for Strict {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Unreadable> {
        assert!(offset + out.len() as u64 <= self.len(), "outside of the baseline");
        self.0[..].read_at(offset, out)
    }
}

pub(crate) fn run(data: &[u8]) {
    let Some((&reader, bytes)) = data.split_first() else { return };
    match reader % 4 {
        0 => delta(bytes),
        // Most bytes of a head would be lost on a name.
        1 => delta(&[&[1], &NAME.encode()[..], bytes].concat()),
        2 => difference(bytes),
        _ => list(bytes),
    }
}

fn delta(bytes: &[u8]) {
    let baseline = Strict(baseline());
    let mut decoder = Decoder::default();
    for (offset, len) in
        [(0, PART_BYTES), (4096, PART_BYTES), (BASELINE_BYTES as u64 - 100, 300), (u64::MAX, 2), (0, 0)]
    {
        let mut part = vec![0; len];
        let first = decoder.decode(bytes, &NAME, &baseline, offset, &mut part);
        let mut again = vec![0xaa; len];
        assert_eq!(decoder.decode(bytes, &NAME, &baseline, offset, &mut again), first);
        assert!(first.is_err() || part == again, "what is accepted says everything");
    }
}

fn difference(bytes: &[u8]) {
    let old = baseline();
    let mut block = old[..4096].to_vec();
    if xor::decode(bytes, &mut block).is_ok() {
        let mut again = Vec::new();
        assert!(xor::encode(&old[..4096], &block, usize::MAX, &mut again));
        let mut same = old[..4096].to_vec();
        assert_eq!(xor::decode(&again, &mut same), Ok(()));
        assert!(same == block);
    }
}

fn list(bytes: &[u8]) {
    let Ok(list) = chunks::decode(bytes, 1 << 40, CHUNKS_MAX) else { return };
    assert!(list.len() <= CHUNKS_MAX);
    let mut end = 0;
    for chunk in &list {
        assert!(chunk.offset >= end && chunk.len > 0);
        end = chunk.offset + u64::from(chunk.len);
    }
    assert!(end <= 1 << 40);
    assert!(chunks::encode(&list) == bytes, "a list has one encoding");
}
