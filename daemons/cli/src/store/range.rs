//! Which keys a command is about: one, those with a prefix, those between two, or all from one on.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use bytes::Bytes;
use clap::Args;

/// The first key that there can be, and, as the end of a range, the end of all keys.
const ZERO: &[u8] = b"\0";

/// A key, or a range of keys.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyRange {
    /// The key.
    key: OsString,
    /// All keys that begin with KEY.
    #[arg(long, conflicts_with_all = ["range_end", "from_key"])]
    prefix: bool,
    /// All keys from KEY on that are before this one.
    #[arg(long, value_name = "KEY", conflicts_with = "from_key")]
    range_end: Option<OsString>,
    /// KEY and all keys after it.
    #[arg(long)]
    from_key: bool,
}

impl KeyRange {
    /// Where it begins.
    pub(crate) fn key(&self) -> Bytes {
        let key = self.key.as_bytes();
        // Keys are not empty: the first of all is this one.
        if key.is_empty() && self.is_range() { Bytes::from_static(ZERO) } else { Bytes::copy_from_slice(key) }
    }

    /// Where it ends, as requests say it: empty for one key.
    pub(crate) fn end(&self) -> Bytes {
        match &self.range_end {
            Some(end) => Bytes::copy_from_slice(end.as_bytes()),
            None if self.prefix => end_of_prefix(self.key.as_bytes()),
            None if self.from_key => Bytes::from_static(ZERO),
            None => Bytes::new(),
        }
    }

    /// Whether it may be more than one key.
    pub(crate) fn is_range(&self) -> bool {
        self.prefix || self.from_key || self.range_end.is_some()
    }
}

/// The key after all that begin with `prefix`, as requests say it.
fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        assert_eq!(end_of_prefix(b"a"), &b"b"[..]);
        assert_eq!(end_of_prefix(&[1, 0xff]), &[2][..]);
        assert_eq!(end_of_prefix(&[0xff]), ZERO, "to the end");
        assert_eq!(end_of_prefix(b""), ZERO, "everything");
    }

    #[test]
    fn everything_begins_with_the_first_key_that_there_can_be() {
        let all = KeyRange { key: OsString::new(), prefix: true, range_end: None, from_key: false };
        assert_eq!((all.key(), all.end()), (ZERO.into(), ZERO.into()));
    }
}
