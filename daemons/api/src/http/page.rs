//! Lists by pages: all pages of a list are of one revision of the store, whatever is written meanwhile.

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
    pub(crate) async fn read<T>(
        mut self,
        store: &Store,
        prefix: &str,
        fit: impl Fn(&str, &KeyValue) -> Option<T>,
    ) -> Result<Page<T>, Problem> {
        let mut items = Vec::new();
        for read in 0..READS_MAX {
            let entries = if read == 0 { self.limit } else { READ_ENTRIES };
            let answer = store.list(prefix, &self.after, entries, self.revision).await?;
            if self.revision == 0 {
                self.revision = answer.header.as_ref().map_or(0, |header| header.revision);
            }
            let looked_at = answer.kvs.len();
            for (n, kv) in answer.kvs.iter().enumerate() {
                let Some(name) = name_of(prefix, &kv.key) else { continue };
                name.clone_into(&mut self.after);
                items.extend(fit(name, kv));
                if items.len() == self.limit {
                    let is_last = !answer.more && n + 1 == looked_at;
                    return Ok(Page { items, next: (!is_last).then(|| self.cursor()) });
                }
            }
            if !answer.more {
                return Ok(Page { items, next: None });
            }
        }
        Ok(Page { items, next: Some(self.cursor()) })
    }

    fn cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.revision, self.after))
    }
}

fn opened(cursor: &str) -> Option<(i64, String)> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (revision, after) = text.split_once(':')?;
    let revision = revision.parse().ok().filter(|revision| *revision > 0)?;
    Some((revision, after.to_owned()))
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
    fn other_cursors_and_limits_are_refused() {
        let long = "A".repeat(CURSOR_BYTES_MAX + 1);
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for cursor in
            ["", "!", &long, &encoded("7"), &encoded("x:a"), &encoded("-1:a"), &encoded("0:a"), "__4"]
        {
            assert!(Place::new(None, Some(cursor)).is_err(), "{cursor:?}");
        }
        assert!(Place::new(Some(0), None).is_err());
        assert!(Place::new(Some(LIMIT_MAX + 1), None).is_err());
        assert_eq!(Place::new(None, None).unwrap().limit, LIMIT);
    }
}
