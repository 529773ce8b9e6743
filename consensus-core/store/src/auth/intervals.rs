//! Sets of keys, as permissions describe them: merged, so that one look says whether a whole range is inside.
//!
//! Deliberately not here: whose keys they are, and what may be done with them.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Keys `start <= key < end`; no end: all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    /// The keys of a range as requests say it; `None`: its end is not after its beginning.
    fn new(key: &Bytes, range_end: &Bytes) -> Option<Self> {
        match &range_end[..] {
            [] => Some(Self::one(key)),
            [0] => Some(Self { start: key.clone(), end: None }),
            end => (end > &key[..]).then(|| Self { start: key.clone(), end: Some(range_end.clone()) }),
        }
    }

    fn one(key: &Bytes) -> Self {
        let mut next = BytesMut::with_capacity(key.len() + 1);
        next.put_slice(key);
        next.put_u8(0);
        Self { start: key.clone(), end: Some(next.freeze()) }
    }

    /// Whether it goes at least as far as another one.
    fn reaches(&self, other: &Self) -> bool {
        match (&self.end, &other.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(other)) => end >= other,
        }
    }

    /// Whether nothing lies between it and a span that does not begin before it.
    fn touches(&self, later: &Self) -> bool {
        self.end.as_ref().is_none_or(|end| *end >= later.start)
    }
}

/// A set of keys: spans in order, with a gap between each and the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet {
    spans: Vec<Span>,
}

impl KeySet {
    /// The keys of all ranges, each as requests say it.
    pub(crate) fn new<'a>(ranges: impl IntoIterator<Item = (&'a Bytes, &'a Bytes)>) -> Self {
        let mut all: Vec<_> = ranges.into_iter().filter_map(|(key, end)| Span::new(key, end)).collect();
        all.sort_by(|a, b| a.start.cmp(&b.start));
        let mut spans: Vec<Span> = Vec::new();
        for span in all {
            match spans.last_mut() {
                Some(last) if last.touches(&span) => {
                    if !last.reaches(&span) {
                        last.end = span.end;
                    }
                }
                _ => spans.push(span),
            }
        }
        Self { spans }
    }

    /// Whether all keys of a range are in it. A range without keys counts as its first key.
    pub(crate) fn contains(&self, key: &Bytes, range_end: &Bytes) -> bool {
        let wanted = Span::new(key, range_end).unwrap_or_else(|| Span::one(key));
        let after = self.spans.partition_point(|span| span.start <= wanted.start);
        // There are gaps between spans, so only the last that begins early enough can hold all of it.
        after.checked_sub(1).is_some_and(|at| self.spans[at].reaches(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(&'static str, &'static str)]) -> KeySet {
        let ranges: Vec<(Bytes, Bytes)> =
            ranges.iter().map(|(key, end)| ((*key).into(), (*end).into())).collect();
        KeySet::new(ranges.iter().map(|(key, end)| (key, end)))
    }

    fn contains(set: &KeySet, key: &'static str, end: &'static str) -> bool {
        set.contains(&key.into(), &end.into())
    }

    #[test]
    fn ranges_that_touch_become_one() {
        for (ranges, spans) in [
            (&[][..], 0),
            (&[("a", "c"), ("b", "d")], 1),
            (&[("a", "b"), ("b", "c")], 1),
            (&[("c", "d"), ("a", "b")], 2),
            (&[("a", "\0"), ("b", "c"), ("x", "")], 1),
            (&[("a", ""), ("a\0", "")], 1),
            (&[("a", ""), ("b", "")], 2),
            (&[("b", "a"), ("b", "b")], 0),
        ] {
            assert_eq!(set(ranges).spans.len(), spans, "{ranges:?}");
        }
    }

    #[test]
    fn a_range_is_inside_as_a_whole_or_not() {
        let keys = set(&[("a", "c"), ("c", "e"), ("k", ""), ("x", "\0")]);
        for (key, end, inside) in [
            ("a", "", true),
            ("b", "d", true),
            ("a", "e", true),
            ("a", "e\0", false),
            ("e", "", false),
            ("", "", false),
            ("\0", "\0", false),
            ("k", "", true),
            ("k", "k\0", true),
            ("k", "l", false),
            ("k\0", "", false),
            ("x", "\0", true),
            ("zz", "zzz", true),
            ("w", "\0", false),
            ("a", "z", false),
            // No keys at all.
            ("b", "a", true),
            ("f", "a", false),
        ] {
            assert_eq!(contains(&keys, key, end), inside, "{key:?} {end:?}");
        }
    }

    /// Few different bytes, so that ranges meet.
    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2)], 1..3).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = (Bytes, Bytes)> {
        (key(), prop_oneof![2 => Just(Bytes::new()), 4 => key()])
    }

    /// As requests mean it, one key at a time.
    fn holds((key, end): &(Bytes, Bytes), one: &[u8]) -> bool {
        match &end[..] {
            [] => key == one,
            [0] => one >= &key[..],
            end => one >= &key[..] && one < end,
        }
    }

    /// All keys that the ranges of a case can tell apart: one byte longer than theirs.
    fn universe() -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = vec![vec![]];
        let mut last = all.clone();
        for _ in 0..3 {
            last = last.iter().flat_map(|key| (0..=3).map(|byte| [&key[..], &[byte]].concat())).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    proptest! {
        #[test]
        fn it_answers_as_a_look_at_every_key_does(
            ranges in prop::collection::vec(range(), 0..6),
            asked in range(),
        ) {
            let set = KeySet::new(ranges.iter().map(|(key, end)| (key, end)));
            let allowed = |key: &[u8]| ranges.iter().any(|range| holds(range, key));
            let wanted: Vec<_> = universe().into_iter().filter(|key| holds(&asked, key)).collect();
            let expected = match wanted.is_empty() {
                true => allowed(&asked.0),
                false => wanted.iter().all(|key| allowed(key)),
            };
            prop_assert_eq!(set.contains(&asked.0, &asked.1), expected, "{:?} in {:?}", asked, ranges);
        }
    }
}
