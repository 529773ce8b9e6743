//! What was encoded decodes to the same bytes with the same baseline, and to an error or other bytes with any other; whatever
//! the bytes are, nothing panics.

use std::sync::Arc;

use dwcp_delta::{
    Baseline, BaselineName, Decoder, DeltaError, Encoder, Regions, Unreadable,
    chunks::{self, Cutting, Index},
};
use proptest::{collection::vec, prelude::*};

const BLOCK: usize = 4096;

fn name(version: u64) -> BaselineName {
    BaselineName { id: [1; 16], version, hash: [2; 32] }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What may become of a content.
#[derive(Clone, Debug)]
enum Change {
    Write(usize, usize, u64),
    Touch(usize),
    Zero(usize, usize),
    Insert(usize, usize, u64),
    Remove(usize, usize),
    Move(usize, usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let (at, len) = (0usize..400_000, 0usize..40_000);
    prop_oneof![
        (at.clone(), len.clone(), any::<u64>()).prop_map(|(at, len, seed)| Change::Write(at, len, seed)),
        at.clone().prop_map(Change::Touch),
        (at.clone(), len.clone()).prop_map(|(at, len)| Change::Zero(at, len)),
        (at.clone(), len.clone(), any::<u64>()).prop_map(|(at, len, seed)| Change::Insert(at, len, seed)),
        (at.clone(), len.clone()).prop_map(|(at, len)| Change::Remove(at, len)),
        (at.clone(), at, len).prop_map(|(at, to, len)| Change::Move(at, to, len)),
    ]
}

fn changed(old: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut new = old.to_vec();
    for change in changes {
        let clip = |at: usize, len: usize| at.min(new.len())..(at + len).min(new.len());
        match *change {
            Change::Write(at, len, seed) => {
                let range = clip(at, len);
                new[range.clone()].copy_from_slice(&noise(range.len(), seed));
            }
            Change::Touch(at) => new.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
            Change::Zero(at, len) => {
                let range = clip(at, len);
                new[range].fill(0);
            }
            Change::Insert(at, len, seed) => {
                let at = at.min(new.len());
                new.splice(at..at, noise(len, seed));
            }
            Change::Remove(at, len) => drop(new.drain(clip(at, len))),
            Change::Move(at, to, len) => {
                let moved: Vec<u8> = new.drain(clip(at, len)).collect();
                let to = to.min(new.len());
                new.splice(to..to, moved);
            }
        }
    }
    new
}

/// The parts of `new` by way of deltas against `old`; their length together, parts sent as they are included.
fn by_baseline(old: &[u8], new: &[u8], part_bytes: usize) -> usize {
    let regions = Arc::new(Regions::of(old));
    let (mut encoder, mut decoder) = (Encoder::new(BLOCK, 3), Decoder::default());
    let mut total = 0;
    for (number, part) in new.chunks(part_bytes).enumerate() {
        let (offset, mut delta) = ((number * part_bytes) as u64, Vec::new());
        let regions = || Some(regions.clone());
        if !encoder.by_baseline((offset, part), &name(1), old, regions, &mut delta).unwrap() {
            assert!(delta.is_empty());
            total += part.len();
            continue;
        }
        let mut decoded = vec![0x55; part.len()];
        decoder.decode(&delta, &name(1), old, offset, &mut decoded).unwrap();
        assert!(decoded == part, "part {number}");
        total += delta.len();
    }
    total
}

fn cut(cutting: Cutting, content: &[u8]) -> Vec<chunks::Chunk> {
    let mut found = Vec::new();
    assert_eq!(cutting.chunks(content, 0, true, |chunk| found.push(chunk)), content.len());
    found
}

fn by_chunks(old: &[u8], new: &[u8], part_bytes: usize, cutting: Cutting) -> usize {
    let list = chunks::encode(&cut(cutting, old));
    let mut index = Index::default();
    index.extend(&chunks::decode(&list, old.len() as u64, usize::MAX).unwrap());
    let (mut encoder, mut decoder) = (Encoder::new(BLOCK, 3), Decoder::default());
    let mut total = list.len();
    for start in (0..new.len()).step_by(part_bytes) {
        let end = (start + part_bytes).min(new.len());
        let lead = start.saturating_sub(cutting.lead_bytes());
        let window = &new[lead..(end + cutting.bytes_max()).min(new.len())];
        let (part, mut delta) = (start - lead..end - lead, Vec::new());
        let place = (start as u64, window);
        if !encoder.by_chunks(place, part, &name(1), (cutting, &index), &mut delta) {
            assert!(delta.is_empty());
            total += end - start;
            continue;
        }
        let mut decoded = vec![0x55; end - start];
        decoder.decode(&delta, &name(1), old, start as u64, &mut decoded).unwrap();
        assert!(decoded == new[start..end], "part at {start}");
        total += delta.len();
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// DELTA-2.1
    #[test]
    fn whatever_changes_comes_back(
        len in 0usize..400_000,
        changes in vec(change(), 0..8),
        part_bytes in prop_oneof![Just(1 << 16), Just(1 << 20), 1000usize..200_000],
    ) {
        let old = noise(len, 1);
        let new = changed(&old, &changes);
        by_baseline(&old, &new, part_bytes);
        by_chunks(&old, &new, part_bytes, Cutting::Content(13));
        by_chunks(&old, &new, 1 << 16, Cutting::Blocks(12));
    }

    /// DELTA-2.3, DELTA-2.5
    #[test]
    fn damage_and_other_baselines_never_panic(
        changes in vec(change(), 1..6),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        other in change(),
    ) {
        let old = noise(100_000, 1);
        let new = changed(&old, &changes);
        let part = &new[..new.len().min(1 << 16)];
        let regions = Arc::new(Regions::of(&old));
        let mut delta = Vec::new();
        let encoded = Encoder::new(BLOCK, 3)
            .by_baseline((0, part), &name(1), &old[..], || Some(regions), &mut delta)
            .unwrap();
        prop_assume!(encoded);
        let (mut decoder, mut decoded) = (Decoder::default(), vec![0; part.len()]);
        let _ = decoder.decode(&delta, &name(1), &changed(&old, &[other])[..], 0, &mut decoded);
        prop_assert_eq!(
            decoder.decode(&delta, &name(2), &old[..], 0, &mut decoded),
            Err(DeltaError::OtherBaseline)
        );
        let at = at.index(delta.len());
        prop_assert!(decoder.decode(&delta[..at], &name(1), &old[..], 0, &mut decoded).is_err());
        delta[at] ^= flip;
        let _ = decoder.decode(&delta, &name(1), &old[..], 0, &mut decoded);
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..300), len in 0usize..300) {
        let head = [&[1][..], &name(1).encode(), &noise].concat();
        let _ = Decoder::default().decode(&head, &name(1), &noise[..], 5, &mut vec![0; len]);
        let _ = chunks::decode(&noise, 1 << 20, 100);
    }
}

/// DELTA-2.2
#[test]
fn what_has_not_changed_takes_next_to_nothing() {
    let old = noise(8 << 20, 1);
    assert!(by_baseline(&old, &old, 4 << 20) < 200);
    let list = chunks::encode(&cut(Cutting::Content(13), &old)).len();
    assert!(by_chunks(&old, &old, 4 << 20, Cutting::Content(13)) < list + 200);
}

/// DELTA-4.1
#[test]
fn moved_and_changed_content_is_found_in_the_baseline() {
    let old = noise(8 << 20, 1);
    let insert = [Change::Insert(100_000, 77, 2), Change::Write(3 << 20, 500, 3)];
    let new = changed(&old, &insert);
    let patched = by_baseline(&old, &new, 4 << 20);
    assert!(patched < 20_000, "{patched} bytes");
    let chunked = by_chunks(&old, &new, 4 << 20, Cutting::Content(13));
    assert!(chunked < 200_000, "{chunked} bytes");
}

/// DELTA-5.1
#[test]
fn boundaries_depend_on_content_alone() {
    let old = noise(4 << 20, 1);
    let cutting = Cutting::Content(13);
    let ids = |content: &[u8]| cut(cutting, content).iter().map(|chunk| chunk.id).collect::<Vec<_>>();
    let before = ids(&old);
    let after = ids(&changed(&old, &[Change::Insert(1000, 1, 2)]));
    let kept = after.iter().filter(|id| before.contains(id)).count();
    assert!(kept + 3 >= before.len(), "{kept} of {}", before.len());
}

/// DELTA-2.6
#[test]
fn what_hardly_gains_is_sent_as_it_is() {
    let old = noise(1 << 20, 1);
    for (divisor, gains) in [(8, true), (32, false)] {
        let mut new = noise(1 << 20, 2);
        let kept = new.len() / divisor;
        new[..kept].copy_from_slice(&old[..kept]);
        let (mut encoder, mut delta) = (Encoder::new(BLOCK, 3), Vec::new());
        let made = encoder.by_baseline((0, &new), &name(1), &old[..], || None, &mut delta).unwrap();
        assert_eq!((made, delta.is_empty()), (gains, !gains), "a {divisor}th");
    }
}

/// DELTA-5.2
#[test]
fn lists_of_chunks_leave_zeros_out_and_come_back() {
    let mut content = noise(1 << 18, 1);
    content[1 << 16..1 << 17].fill(0);
    for cutting in [Cutting::Content(12), Cutting::Blocks(12)] {
        let found = cut(cutting, &content);
        let list = chunks::encode(&found);
        assert_eq!(chunks::decode(&list, content.len() as u64, found.len()), Ok(found.clone()));
        assert!(chunks::decode(&list, content.len() as u64, found.len() - 1).is_err(), "more than allowed");
        assert!(chunks::decode(&list, content.len() as u64 - 1, found.len()).is_err(), "behind the end");
        let told: u64 = found.iter().map(|chunk| u64::from(chunk.len)).sum();
        assert!(told < content.len() as u64 - (1 << 15), "{told} bytes");
        for chunk in &found {
            let bytes = &content[chunk.offset as usize..][..chunk.len as usize];
            assert_eq!(chunk.id, blake3::hash(bytes).as_bytes()[..8]);
        }
    }
}

/// DELTA-5.3
#[test]
fn who_begins_in_the_middle_finds_the_same_boundaries() {
    let content = noise(4 << 20, 1);
    let cutting = Cutting::Content(12);
    let whole = cut(cutting, &content);
    for start in (1 << 20..4 << 20).step_by(300_007) {
        let lead = start - cutting.lead_bytes();
        let mut found = Vec::new();
        cutting.chunks(&content[lead..], lead as u64, true, |chunk| found.push(chunk));
        let behind = |chunks: Vec<chunks::Chunk>| -> Vec<_> {
            chunks.into_iter().filter(|chunk| chunk.offset >= start as u64).collect()
        };
        assert_eq!(behind(found), behind(whole.clone()), "from {start}");
    }
}

/// A disk that fails, or lost its end.
struct Broken;

impl Baseline for Broken {
    fn len(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
}

/// DELTA-2.4
#[test]
fn a_baseline_that_cannot_be_read_is_a_typed_error() {
    let old = noise(1 << 20, 1);
    let mut delta = Vec::new();
    let mut encoder = Encoder::new(BLOCK, 3);
    assert!(encoder.by_baseline((0, &old[..]), &name(1), &Broken, || None, &mut delta).is_err());
    assert!(encoder.by_baseline((0, &old[..]), &name(1), &old[..], || None, &mut delta).unwrap());
    let decoded = Decoder::default().decode(&delta, &name(1), &Broken, 0, &mut vec![0; 1 << 20]);
    assert_eq!(decoded, Err(DeltaError::Baseline(Unreadable)));
}
