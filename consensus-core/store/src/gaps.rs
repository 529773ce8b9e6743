//! Spans of keys that are all deleted, in memory: whoever reads a range need not walk through them again, key by key and version
//! by version, until a compaction has them removed. Where keys come and go below one prefix, those that are gone soon outnumber
//! those that are there.
//!
//! What always holds: between two changes, no key of a span is there at the span's revision, nor at any later one. Who changes a
//! key splits its span before anybody can read at the revision of the change.
//!
//! Deliberately not here: how a range is read (`view`), and what is remembered of single keys (`recent`).

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

/// Spans that are remembered.
const SPANS_MAX: usize = 256;
/// The newest changes: a reader may still have seen what was before them.
const CHANGES_MAX: usize = 256;
/// Longest key of a change and of a bound that is remembered, in bytes.
const KEY_BYTES_MAX: usize = 1 << 10;

/// Where a span ends, and since when its keys are gone.
#[derive(Debug)]
struct Span {
    /// The first key behind it.
    end: Bytes,
    revision: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// By their first keys. No two have a key in common.
    spans: BTreeMap<Bytes, Span>,
    /// Keys, and the revisions at which they were changed, the newest last.
    changes: VecDeque<(i64, Bytes)>,
    /// All changes after this revision are in `changes`; `None`: there was no change yet.
    complete_after: Option<i64>,
}

impl Gaps {
    /// The first key behind the span that this key is in, for who reads at this revision.
    pub(crate) fn end_of(&self, key: &[u8], revision: i64) -> Option<&Bytes> {
        let (_, span) = self.spans.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (key < &span.end[..] && span.revision <= revision).then_some(&span.end)
    }

    /// A key was changed, at a revision that nobody reads at yet. `is_gone`: it is deleted.
    pub(crate) fn changed(&mut self, key: &Bytes, revision: i64, is_gone: bool) {
        self.complete_after.get_or_insert(revision - 1);
        if key.len() > KEY_BYTES_MAX {
            self.changes.clear();
            self.complete_after = Some(revision);
        } else {
            if self.changes.len() == CHANGES_MAX {
                self.complete_after = self.changes.pop_front().map(|(revision, _)| revision);
            }
            self.changes.push_back((revision, key.clone()));
        }
        if !is_gone {
            self.split(key);
        }
    }

    fn split(&mut self, key: &[u8]) {
        let before = (Bound::Unbounded, Bound::Included(key));
        let Some((start, span)) = self.spans.range::<[u8], _>(before).next_back() else { return };
        if key >= &span.end[..] {
            return;
        }
        let start = start.clone();
        let Some(Span { end, revision }) = self.spans.remove(&start) else { return };
        let key = Bytes::copy_from_slice(key);
        let behind = next(&key);
        for (start, end) in [(start, key), (behind, end)] {
            if start < end && self.spans.len() < SPANS_MAX {
                self.spans.insert(start, Span { end, revision });
            }
        }
    }

    /// Who read at this revision has seen that all keys from `first` to `last` are deleted.
    pub(crate) fn learn(&mut self, first: Bytes, last: &Bytes, revision: i64) {
        let is_known = self.complete_after.is_some_and(|after| after <= revision);
        if !is_known || first.len().max(last.len()) > KEY_BYTES_MAX {
            return;
        }
        let newer = self.changes.iter().rev().take_while(|(changed, _)| *changed > revision);
        if newer.into_iter().any(|(_, key)| (&first..=last).contains(&key)) {
            return;
        }
        // What touches it becomes part of it, for readers at whose revisions all of it is gone.
        let (mut start, mut end, mut revision) = (first, next(last), revision);
        while let Some((other, span)) =
            self.spans.range::<Bytes, _>(..=&end).next_back().filter(|(_, span)| span.end >= start)
        {
            let other = other.clone();
            end = end.max(span.end.clone());
            start = start.min(other.clone());
            revision = revision.max(span.revision);
            self.spans.remove(&other);
        }
        // Most may be of keys that a compaction has removed since. Those that are not are soon learnt again.
        if self.spans.len() == SPANS_MAX {
            self.spans.clear();
        }
        self.spans.insert(start, Span { end, revision });
    }
}

/// The first key behind this one.
fn next(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> Bytes {
        vec![b'k', n].into()
    }

    /// Keys that are skipped by who reads at this revision.
    fn skipped(gaps: &Gaps, revision: i64) -> Vec<u8> {
        (0..40).filter(|n| gaps.end_of(&key(*n), revision).is_some()).collect()
    }

    #[test]
    fn a_key_that_comes_back_splits_its_span() {
        let mut gaps = Gaps::default();
        gaps.changed(&key(39), 5, true);
        gaps.learn(key(10), &key(20), 5);
        gaps.learn(key(21), &key(22), 6);
        assert!(skipped(&gaps, 4).is_empty());
        gaps.changed(&key(15), 7, false);
        gaps.changed(&key(16), 7, true);
        assert_eq!(skipped(&gaps, 7), [10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22]);
        assert_eq!(gaps.end_of(&key(11), 7), Some(&key(15)));
        gaps.learn(key(12), &key(17), 8);
        assert_eq!(skipped(&gaps, 8), (10..=22).collect::<Vec<_>>());
        assert_eq!(gaps.end_of(&key(10), 8), Some(&next(&key(20))));
    }

    #[test]
    fn what_was_seen_before_a_change_is_not_learnt_after_it() {
        let mut gaps = Gaps::default();
        gaps.learn(key(1), &key(9), 5);
        assert!(skipped(&gaps, 5).is_empty(), "nobody knows what was changed before");
        gaps.changed(&key(4), 6, false);
        gaps.learn(key(1), &key(9), 5);
        assert!(skipped(&gaps, 6).is_empty());
        gaps.learn(key(5), &key(9), 5);
        assert_eq!(skipped(&gaps, 6), [5, 6, 7, 8, 9]);
        for n in 0..CHANGES_MAX as i64 {
            gaps.changed(&key(39), 7 + n, true);
        }
        gaps.learn(key(1), &key(3), 5);
        assert_eq!(skipped(&gaps, 1000), [5, 6, 7, 8, 9], "the change may have been forgotten");
    }

    #[test]
    fn a_key_that_is_too_long_to_remember_ends_what_is_known_of_changes() {
        let mut gaps = Gaps::default();
        gaps.changed(&key(1), 5, true);
        gaps.changed(&vec![b'k'; KEY_BYTES_MAX + 1].into(), 6, false);
        gaps.learn(key(2), &key(9), 5);
        assert!(skipped(&gaps, 6).is_empty());
        gaps.learn(key(2), &key(9), 6);
        assert_eq!(skipped(&gaps, 6).len(), 8);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8),
        Delete(u8),
        /// Keys between two, as they were so many revisions ago.
        Learn(u8, u8, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let n = 0_u8..40;
        prop::collection::vec(
            prop_oneof![
                n.clone().prop_map(Step::Put),
                n.clone().prop_map(Step::Delete),
                (n.clone(), n, 0_usize..4).prop_map(|(a, b, ago)| Step::Learn(a.min(b), a.max(b), ago)),
            ],
            0..100,
        )
    }

    proptest! {
        /// The keys of each revision are kept: nothing is skipped that is there at the reader's, and what was learnt is kept whole.
        #[test]
        fn only_what_is_gone_is_skipped(steps in steps()) {
            let mut gaps = Gaps::default();
            let mut alive = vec![BTreeSet::new()];
            for step in steps {
                let mut now = alive[alive.len() - 1].clone();
                let revision = alive.len() as i64;
                match step {
                    Step::Put(n) => {
                        now.insert(n);
                        gaps.changed(&key(n), revision, false);
                        alive.push(now);
                    }
                    Step::Delete(n) => {
                        now.remove(&n);
                        gaps.changed(&key(n), revision, true);
                        alive.push(now);
                    }
                    Step::Learn(first, last, ago) => {
                        let at = (alive.len() - 1).saturating_sub(ago);
                        if alive[at].range(first..=last).next().is_none() {
                            gaps.learn(key(first), &key(last), at as i64);
                            let is_newest = ago == 0 && alive.len() > 1;
                            prop_assert!(!is_newest || gaps.end_of(&key(first), at as i64) > Some(&key(last)));
                        }
                    }
                }
                for (revision, alive) in alive.iter().enumerate() {
                    let skipped = skipped(&gaps, revision as i64);
                    prop_assert!(skipped.iter().all(|n| !alive.contains(n)), "{revision}: {skipped:?}");
                }
                let mut last = Bytes::new();
                for (start, span) in &gaps.spans {
                    prop_assert!(last <= *start && *start < span.end);
                    last = span.end.clone();
                }
            }
        }
    }
}
