//! Keys as of a revision: what is on the disk, and over it what is being applied.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;
use consensus_disk::{Disk, Order};

use crate::{
    StoreError,
    keys::{self, VERSIONS},
    recent::SharedRecent,
    version::Version,
};

/// Versions that are not on the disk yet, the newest of a key last.
pub(crate) type Overlay = BTreeMap<Bytes, Vec<Version>>;

/// Users' keys `start <= key < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRange<'a> {
    One(&'a [u8]),
    /// `None`: all that follow.
    Span(&'a [u8], Option<&'a [u8]>),
}

impl<'a> KeyRange<'a> {
    /// As requests say it: no end: one key; an end of one zero byte: all that follow.
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::Span(key, None),
            end => Self::Span(key, Some(end)),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => *one == key,
            Self::Span(start, end) => key >= *start && end.is_none_or(|end| key < end),
        }
    }
}

/// Keys as they were after all changes up to `revision`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) overlay: Option<&'a Overlay>,
    pub(crate) recent: Option<&'a SharedRecent>,
    pub(crate) revision: i64,
}

impl View<'_> {
    /// A key's version in force; `None`: it never was, or is deleted.
    pub(crate) fn get(&self, key: &[u8], with_value: bool) -> Result<Option<Version>, StoreError> {
        let mut found = None;
        self.visit_one(key, &mut |entry| {
            found = Some(if with_value { entry.version() } else { entry.head() });
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Visits this key, if it is there.
    fn visit_one(
        &self,
        key: &[u8],
        visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut visit = |entry: Entry<'_>| match entry.is_deletion() {
            true => ControlFlow::Continue(()),
            false => visit(entry),
        };
        if let Some(version) = self.overlaid(key).cloned().or_else(|| self.recent?.get(key, self.revision)) {
            let _ = visit(Entry::Known { key, version: &version });
            return Ok(());
        }
        let (from, to) = keys::versions_of(key, self.revision);
        let mut read = Ok(());
        self.disk.scan(VERSIONS, &from, Some(&to), Order::Ascending, &mut |disk_key, stored| {
            read = keys::split_version_key(disk_key).and_then(|(escaped, revision)| {
                let head = Version::decode(stored, revision)?;
                let _ = visit(Entry::Stored { escaped, stored, head });
                Ok(())
            });
            ControlFlow::Break(())
        })?;
        read
    }

    fn overlaid(&self, key: &[u8]) -> Option<&Version> {
        newest(self.overlay?.get(key)?, self.revision)
    }

    /// Visits the keys of a range that are there, in order.
    pub(crate) fn scan(
        &self,
        range: KeyRange<'_>,
        visit: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (start, end) = match range {
            KeyRange::One(key) => return self.visit_one(key, visit),
            KeyRange::Span(_, Some([])) => return Ok(()),
            KeyRange::Span(start, end) => (start, end),
        };
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut overlaid = self
            .overlay
            .into_iter()
            .flat_map(|overlay| overlay.range::<[u8], _>((Bound::Included(start), upper)))
            .filter_map(|(key, versions)| Some((key, newest(versions, self.revision)?)))
            .peekable();
        let visit = &mut |entry: Entry<'_>| match entry.is_deletion() {
            true => ControlFlow::Continue(()),
            false => visit(entry),
        };
        let mut seen: Vec<u8> = Vec::new();
        // What is over the disk may be newer than what is known of gaps.
        let mut gone = Gone::new(self.recent.filter(|_| self.overlay.is_none()), self.revision);
        let (mut from, to) = keys::version_bounds(start, end);
        loop {
            let mut outcome = Ok(Step::Next);
            self.disk.scan(VERSIONS, &from, to.as_deref(), Order::Ascending, &mut |disk_key, stored| {
                let mut one = || -> Result<Step, StoreError> {
                    let (escaped, revision) = keys::split_version_key(disk_key)?;
                    // No key is empty, so nothing equals `seen` at first.
                    if seen == escaped || revision > self.revision {
                        return Ok(Step::Next);
                    }
                    seen.clear();
                    seen.extend_from_slice(escaped);
                    if overlaid.peek().is_some() {
                        let key = keys::unescape(escaped);
                        while let Some((overlaid_key, version)) =
                            overlaid.next_if(|(overlaid_key, _)| overlaid_key[..] < key[..])
                        {
                            if visit(Entry::Known { key: overlaid_key, version }).is_break() {
                                return Ok(Step::Stop);
                            }
                        }
                        if let Some((overlaid_key, version)) =
                            overlaid.next_if(|(overlaid_key, _)| overlaid_key[..] == key[..])
                        {
                            return Ok(visit(Entry::Known { key: overlaid_key, version }).into());
                        }
                    }
                    let head = Version::decode(stored, revision)?;
                    if head.is_deletion() {
                        return Ok(gone.pass(escaped).map_or(Step::Next, Step::Leap));
                    }
                    gone.end();
                    Ok(visit(Entry::Stored { escaped, stored, head }).into())
                };
                match one() {
                    Ok(Step::Next) => ControlFlow::Continue(()),
                    other => {
                        outcome = other;
                        ControlFlow::Break(())
                    }
                }
            })?;
            match outcome? {
                Step::Next => break,
                Step::Stop => return Ok(()),
                Step::Leap(key) => from = keys::version_bounds(&key, None).0,
            }
        }
        gone.end();
        let _ = overlaid.try_for_each(|(key, version)| visit(Entry::Known { key, version }));
        Ok(())
    }
}

/// How a scan of the disk goes on.
enum Step {
    Next,
    Stop,
    /// With this key, or what is behind it.
    Leap(Bytes),
}

impl From<ControlFlow<()>> for Step {
    fn from(flow: ControlFlow<()>) -> Self {
        if flow.is_break() { Self::Stop } else { Self::Next }
    }
}

/// Deleted keys that a scan passes, one behind the other.
struct Gone<'a> {
    recent: Option<&'a SharedRecent>,
    revision: i64,
    /// The first one's and the last one's bytes, escaped; none if the last key that was passed is there.
    first: Vec<u8>,
    last: Vec<u8>,
    passed: usize,
    leaps: usize,
}

/// Every how many deleted keys it is asked whether more of them are known to be gone: to begin a scan anew costs as much as to pass
/// about as many.
const LEAP_EVERY: usize = 16;
/// So many, or so many leaps, are worth to be remembered as one gap.
const LEARN_KEYS_MIN: usize = 32;
const LEARN_LEAPS_MIN: usize = 4;

impl<'a> Gone<'a> {
    fn new(recent: Option<&'a SharedRecent>, revision: i64) -> Self {
        Self { recent, revision, first: Vec::new(), last: Vec::new(), passed: 0, leaps: 0 }
    }

    /// Passes a deleted key; the first one behind the gap in which it is, if that is known.
    fn pass(&mut self, escaped: &[u8]) -> Option<Bytes> {
        let recent = self.recent?;
        if self.passed == 0 {
            self.first.clear();
            self.first.extend_from_slice(escaped);
        }
        self.last.clear();
        self.last.extend_from_slice(escaped);
        self.passed += 1;
        if self.passed % LEAP_EVERY != 1 {
            return None;
        }
        let end = recent.end_of_gap(&keys::unescape(escaped), self.revision)?;
        self.leaps += 1;
        Some(end)
    }

    /// The next key is there, or there is none.
    fn end(&mut self) {
        if let Some(recent) = self.recent
            && (self.passed >= LEARN_KEYS_MIN || self.leaps >= LEARN_LEAPS_MIN)
        {
            let (first, last) = (keys::unescape(&self.first), keys::unescape(&self.last));
            recent.learn_gap(first.into(), &last.into(), self.revision);
        }
        (self.passed, self.leaps) = (0, 0);
    }
}

/// A key of a range. Of what is on the disk, key and value are copied only when they are asked for: most requests count more
/// keys than they return.
pub(crate) enum Entry<'a> {
    Known { key: &'a [u8], version: &'a Version },
    Stored { escaped: &'a [u8], stored: &'a [u8], head: Version },
}

impl Entry<'_> {
    fn is_deletion(&self) -> bool {
        match self {
            Self::Known { version, .. } => version.is_deletion(),
            Self::Stored { head, .. } => head.is_deletion(),
        }
    }

    pub(crate) fn key(&self) -> Bytes {
        match self {
            Self::Known { key, .. } => Bytes::copy_from_slice(key),
            Self::Stored { escaped, .. } => keys::unescape(escaped).into(),
        }
    }

    /// Without its value.
    pub(crate) fn head(&self) -> Version {
        match self {
            Self::Known { version, .. } => Version { value: Bytes::new(), ..**version },
            Self::Stored { head, .. } => head.clone(),
        }
    }

    pub(crate) fn version(&self) -> Version {
        match self {
            Self::Known { version, .. } => (*version).clone(),
            Self::Stored { stored, head, .. } => Version { value: Version::value_of(stored), ..*head },
        }
    }
}

fn newest(versions: &[Version], revision: i64) -> Option<&Version> {
    versions.iter().rev().find(|version| version.mod_revision <= revision)
}
