//! The dictionaries that both sides of a connection have, and which of them pays. Owns what was measured of each;
//! deliberately not when a payload is compressed at all (`controller`).

use std::{
    num::NonZeroU32,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use dwcp_proto::hello::Capabilities;

use crate::dictionary::Dictionary;

/// Longer payloads have enough in themselves to refer to.
pub const DICTIONARY_RAW_MAX: usize = 16 << 10;
/// One payload in this many is encoded in every way there is, to see which one pays.
const COMPARE_EVERY: u32 = 32;
/// A comparison counts this many times less for each later one: about four are remembered.
const KEPT: u64 = 4;
/// One part in this many must be saved, or payloads go without a dictionary.
const MARGIN: u64 = 32;

/// The dictionaries of a connection.
#[derive(Debug)]
pub struct Common {
    dictionaries: Vec<Arc<Dictionary>>,
    measured: Mutex<Measured>,
}

/// *Ways* are numbered: 0 is without a dictionary, others are one more than the place of theirs.
#[derive(Debug)]
struct Measured {
    payloads: u32,
    /// Of each way, bytes that were left of the payloads of late comparisons.
    left: Vec<u64>,
    best: usize,
}

impl Common {
    /// Of these, those that the peer has too; `None`: it has none of them.
    pub fn new(ours: &[Arc<Dictionary>], peer: &Capabilities) -> Option<Arc<Self>> {
        let dictionaries: Vec<_> =
            ours.iter().filter(|one| peer.dictionaries.contains(one.hash())).cloned().collect();
        let left = vec![0; dictionaries.len() + 1];
        let measured = Mutex::new(Measured { payloads: 0, left, best: 0 });
        (!dictionaries.is_empty()).then(|| Arc::new(Self { dictionaries, measured }))
    }

    /// The dictionary of a way; `None`: it is without.
    pub(super) fn of_way(&self, way: usize) -> Option<&Dictionary> {
        self.dictionaries.get(way.checked_sub(1)?).map(Arc::as_ref)
    }

    /// The dictionary that a frame says it was made with.
    pub(super) fn by_id(&self, id: NonZeroU32) -> Option<&Dictionary> {
        self.dictionaries.iter().find(|one| one.id() == id).map(Arc::as_ref)
    }

    /// In which ways to encode the next payload: in the best, or now and then in all.
    pub(super) fn ways(&self) -> Range<usize> {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let compare = measured.payloads.is_multiple_of(COMPARE_EVERY);
        measured.payloads = measured.payloads.wrapping_add(1);
        if compare { 0..measured.left.len() } else { measured.best..measured.best + 1 }
    }

    /// What a payload was long after each of [`ways`](Self::ways); one that was encoded in one way says nothing.
    pub(super) fn compare(&self, lengths: &[usize]) {
        if lengths.len() <= 1 {
            return;
        }
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        for (left, length) in measured.left.iter_mut().zip(lengths) {
            *left = *left - *left / KEPT + *length as u64;
        }
        let left = &measured.left;
        let best = (0..left.len()).min_by_key(|way| left[*way]).unwrap_or(0);
        let is_worth_it = left[best] + left[0] / MARGIN < left[0];
        measured.best = if is_worth_it { best } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use dwcp_proto::frame::Codec;

    use super::*;
    use crate::{
        compress::{DecodeError, Encoding, decode, encode},
        dictionary::train,
        sample_data::SampleData,
    };

    const KINDS: [&str; 2] = [
        "{\"event\":\"piece verified\",\"transfer\":",
        "GET /api/v1/dwcp/migrations?region=eu-central&page=",
    ];

    /// Records of one kind, which have a number each.
    fn records(kind: &str, from: usize) -> Vec<Vec<u8>> {
        (from..from + 600)
            .map(|n| {
                format!("{kind}{}, of {} bytes, answered in {} us with 200", n * 7919 % 9973, n * n, n % 977)
                    .repeat(2)
                    .into_bytes()
            })
            .collect()
    }

    fn dictionaries() -> Vec<Arc<Dictionary>> {
        KINDS.iter().map(|kind| Arc::new(train(&records(kind, 0), 4 << 10).unwrap().dictionary)).collect()
    }

    fn peer(dictionaries: &[Arc<Dictionary>]) -> Capabilities {
        let mut peer = Capabilities { dictionaries: Vec::new(), ..capabilities() };
        peer.dictionaries = dictionaries.iter().map(|one| *one.hash()).collect();
        peer
    }

    fn capabilities() -> Capabilities {
        Capabilities {
            node_id: "peer".into(),
            region: String::new(),
            codecs: Capabilities::codec_bit(Codec::Zstd),
            dictionaries: Vec::new(),
            links_max: 1,
            frame_bytes_max: 1 << 18,
            connection_window: 1 << 20,
            stream_window: 1 << 20,
            message_window: 1 << 20,
            streams_max: 1,
            payload_crc: true,
            resume_timeout_ms: 0,
        }
    }

    #[test]
    fn the_one_that_pays_is_used_and_another_when_the_data_changes() {
        let ours = dictionaries();
        let common = Common::new(&ours, &peer(&ours)).unwrap();
        for (way, kind) in KINDS.iter().enumerate() {
            for raw in records(kind, 10_000) {
                let wire = encode(Encoding::Zstd(1), &raw, Some(&common)).unwrap();
                assert_eq!(decode(Codec::Zstd, &wire, raw.len(), Some(&common)).unwrap(), raw);
            }
            assert_eq!(common.measured.lock().unwrap().best, way + 1, "{kind}");
        }
        // What has nothing to do with any of them goes without.
        for seed in 0..600 {
            encode(Encoding::Zstd(1), &SampleData::Random.generate(seed, 1000), Some(&common));
        }
        assert_eq!(common.measured.lock().unwrap().best, 0);
    }

    #[test]
    fn only_what_both_have_counts() {
        let ours = dictionaries();
        assert!(Common::new(&ours, &peer(&[])).is_none());
        assert!(Common::new(&[], &peer(&ours)).is_none());
        let common = Common::new(&ours, &peer(&ours[1..])).unwrap();
        assert_eq!(common.dictionaries.len(), 1);
        assert_eq!(common.by_id(ours[0].id()).map(Dictionary::hash), None);
    }

    #[test]
    fn a_frame_with_an_unknown_dictionary_says_so() {
        let ours = dictionaries();
        let all = Common::new(&ours, &peer(&ours)).unwrap();
        let raw = &records(KINDS[0], 10_000)[0];
        let wire = encode(Encoding::Zstd(1), raw, Some(&all)).unwrap();
        let other = Common::new(&ours, &peer(&ours[1..])).unwrap();
        for common in [None, Some(&*other)] {
            let error = decode(Codec::Zstd, &wire, raw.len(), common).unwrap_err();
            let expected = format!("dictionary {}, which is none that both sides have", ours[0].id());
            assert!(
                matches!(&error, DecodeError::Corrupt { reason, .. } if reason.contains(&expected)),
                "{error}"
            );
        }
    }
}
