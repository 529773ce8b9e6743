//! Lists by pages: all pages of a list are of one revision of the store, whatever is written meanwhile.
//!
//! A list may be of the store and of a database to which entries go from there, in one order of names. Then the store is read first,
//! as it was at that revision, and the database after it: what went there before is in the database, what goes later is in the
//! store, and what is in both is as the store has it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use consensus_proto::mvccpb::KeyValue;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Kind, Problem};
use crate::store::{Store, name_of};

/// Entries of a page, if nobody says otherwise, and the most.
pub(crate) const LIMIT: usize = 100;
pub(crate) const LIMIT_MAX: usize = 500;
/// Entries that are read of the store at once where the first `limit` did not all fit, and how often. A page of few that
/// fit has fewer than it may.
const READ_ENTRIES: usize = 500;
const READS_MAX: usize = 10;
/// Longest cursor in bytes.
const CURSOR_BYTES_MAX: usize = 512;

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// In the order of their names.
    pub(crate) items: Vec<T>,
    /// For the next page, which there is exactly if this is not null. A page can hold fewer than `limit`, and none.
    pub(crate) next: Option<String>,
}

/// Which page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    limit: usize,
    /// The store's; 0: now.
    revision: i64,
    /// The page begins behind this name.
    after: String,
}

/// What of a list is not in the store.
pub(crate) trait Rest<T> {
    /// Up to so many entries behind a name, with `None` for those that do not fit.
    fn behind(
        &self,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(String, Option<T>)>, Problem>> + Send;
}

/// Nothing.
impl<T: Send> Rest<T> for () {
    async fn behind(&self, _: &str, _: usize) -> Result<Vec<(String, Option<T>)>, Problem> {
        Ok(Vec::new())
    }
}

impl Place {
    /// As a request has it.
    pub(crate) fn new(limit: Option<usize>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(Kind::Malformed, format!("limit: expected 1..={LIMIT_MAX}")));
        }
        let Some(cursor) = cursor else { return Ok(Self { limit, revision: 0, after: String::new() }) };
        let (revision, after) = opened(cursor).ok_or_else(|| {
            Problem::new(Kind::Malformed, "cursor: expected what a page of this list gave as next")
        })?;
        Ok(Self { limit, revision, after })
    }

    /// Reads the page: of the entries below a prefix those of which `fit` makes something.
    pub(crate) async fn read<T: Send>(
        self,
        store: &Store,
        prefix: &str,
        fit: impl Fn(&str, &KeyValue) -> Option<T>,
    ) -> Result<Page<T>, Problem> {
        self.read_both(store, prefix, fit, &()).await
    }

    /// The same of a list the rest of which is elsewhere.
    pub(crate) async fn read_both<T>(
        mut self,
        store: &Store,
        prefix: &str,
        fit: impl Fn(&str, &KeyValue) -> Option<T>,
        rest: &impl Rest<T>,
    ) -> Result<Page<T>, Problem> {
        let mut items = Vec::new();
        for read in 0..READS_MAX {
            let entries = if read == 0 { self.limit } else { READ_ENTRIES };
            let answer = store.list(prefix, &self.after, entries, self.revision).await?;
            if self.revision == 0 {
                self.revision = answer.header.as_ref().map_or(0, |header| header.revision);
            }
            let others = rest.behind(&self.after, entries).await?;
            let are_more = others.len() == entries;
            let named = answer.kvs.iter().filter_map(|kv| Some((name_of(prefix, &kv.key)?, kv)));
            let found = named.map(|(name, kv)| (name.to_owned(), fit(name, kv))).collect();
            let (both, is_more) = merged((found, answer.more), (others, are_more));
            let looked_at = both.len();
            for (n, (name, item)) in both.into_iter().enumerate() {
                self.after = name;
                items.extend(item);
                if items.len() == self.limit {
                    let is_last = !is_more && n + 1 == looked_at;
                    return Ok(Page { items, next: (!is_last).then(|| self.cursor()) });
                }
            }
            if !is_more {
                return Ok(Page { items, next: None });
            }
        }
        Ok(Page { items, next: Some(self.cursor()) })
    }

    fn cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.revision, self.after))
    }
}

/// Of two lists, each with whether there is more behind it, as much as is known to be whole, and whether there is more. What is in both
/// is as the first has it.
fn merged<T>(
    first: (Vec<(String, T)>, bool),
    second: (Vec<(String, T)>, bool),
) -> (BTreeMap<String, T>, bool) {
    let end = |(list, is_more): &(Vec<(String, T)>, bool)| {
        list.last().filter(|_| *is_more).map(|(name, _)| name.clone())
    };
    let end = [end(&first), end(&second)].into_iter().flatten().min();
    let mut both: BTreeMap<_, _> = second.0.into_iter().chain(first.0).collect();
    if let Some(end) = &end {
        both.retain(|name, _| name <= end);
    }
    (both, end.is_some())
}

fn opened(cursor: &str) -> Option<(i64, String)> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (revision, after) = text.split_once(':')?;
    let revision = revision.parse().ok().filter(|revision| *revision > 0)?;
    // PostgreSQL has no text with a zero in it, and no name has.
    (!after.contains('\0')).then(|| (revision, after.to_owned()))
}

/// Which page, in a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    pub(crate) limit: Option<usize>,
    pub(crate) cursor: Option<String>,
}

impl PageQuery {
    pub(crate) fn place(&self) -> Result<Place, Problem> {
        Place::new(self.limit, self.cursor.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for after in ["", "a", "a:b", "\u{fc}"] {
            let place = Place { limit: 7, revision: 12, after: after.to_owned() };
            assert_eq!(Place::new(Some(7), Some(&place.cursor())).unwrap(), place);
        }
    }

    #[test]
    fn of_two_lists_what_is_whole_is_taken() {
        let list = |names: &str, of: u8, is_more| {
            (names.chars().map(|name| (name.to_string(), of)).collect::<Vec<_>>(), is_more)
        };
        for (first, first_more, second, second_more, expected, is_more) in [
            ("", false, "", false, "", false),
            ("ac", false, "bd", false, "a1b2c1d2", false),
            ("ab", false, "bc", false, "a1b1c2", false),
            ("ac", true, "bd", false, "a1b2c1", true),
            ("ad", false, "bc", true, "a1b2c2", true),
            ("ab", true, "cd", true, "a1b1", true),
            ("b", true, "b", true, "b1", true),
            ("", false, "ab", true, "a2b2", true),
        ] {
            let (both, more) = merged(list(first, 1, first_more), list(second, 2, second_more));
            let found: String = both.iter().map(|(name, of)| format!("{name}{of}")).collect();
            assert_eq!((found.as_str(), more), (expected, is_more), "{first} {second}");
        }
    }

    #[test]
    fn other_cursors_and_limits_are_refused() {
        let long = "A".repeat(CURSOR_BYTES_MAX + 1);
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for cursor in [
            "",
            "!",
            &long,
            &encoded("7"),
            &encoded("x:a"),
            &encoded("-1:a"),
            &encoded("0:a"),
            &encoded("7:a\0"),
            "__4",
        ] {
            assert!(Place::new(None, Some(cursor)).is_err(), "{cursor:?}");
        }
        assert!(Place::new(Some(0), None).is_err());
        assert!(Place::new(Some(LIMIT_MAX + 1), None).is_err());
        assert_eq!(Place::new(None, None).unwrap().limit, LIMIT);
    }
}
