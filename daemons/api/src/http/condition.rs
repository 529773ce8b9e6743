//! ETags and the conditions of requests (RFC 9110, section 13). A resource's ETag is the revision of the store at which it
//! was last changed, as a strong one.
//!
//! What would overwrite or remove has to say what it expects: `If-Match` with an ETag, or `*` for whatever there is;
//! `If-None-Match: *` makes what is not there yet.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::problem::{Kind, Problem};

/// What a request expects to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The resource as it was at this revision.
    At(i64),
    /// The resource, whatever it is like.
    There,
    /// Nothing.
    Absent,
}

/// The ETag of a revision.
pub(crate) fn etag(revision: i64) -> HeaderValue {
    HeaderValue::from_str(&etag_text(revision)).expect("digits and quotes")
}

/// The same as text.
pub(crate) fn etag_text(revision: i64) -> String {
    format!("\"{revision}\"")
}

fn revision(etag: &str) -> Option<i64> {
    etag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (value, more) = (values.next(), values.next());
    let text = value.map(|value| value.to_str()).transpose();
    match (text, more) {
        (Ok(text), None) => Ok(text.map(str::trim)),
        _ => Err(Problem::new(Kind::Malformed, format!("{name}: expected it once, in ASCII"))),
    }
}

impl Condition {
    /// Of a request that changes something.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let (if_match, if_none_match) =
            (text(headers, &header::IF_MATCH)?, text(headers, &header::IF_NONE_MATCH)?);
        match (if_match, if_none_match) {
            (Some("*"), None) => Ok(Self::There),
            (None, Some("*")) => Ok(Self::Absent),
            (Some(etag), None) => match revision(etag) {
                Some(revision) => Ok(Self::At(revision)),
                None => Err(Problem::new(Kind::ConditionFailed, "If-Match: no resource has had this ETag")),
            },
            (None, None) => {
                let detail = "expected If-Match with the ETag, or *; or, to make it, If-None-Match: *";
                Err(Problem::new(Kind::ConditionMissing, detail))
            }
            _ => {
                let detail = "expected If-Match with one ETag or *, or If-None-Match: *, and not both";
                Err(Problem::new(Kind::Malformed, detail))
            }
        }
    }
}

/// Whether who asks has it already, by `If-None-Match`.
pub(crate) fn has(headers: &HeaderMap, at: i64) -> Result<bool, Problem> {
    knows(headers, |etag| revision(etag) == Some(at))
}

/// Whether who asks has what has one of these ETags.
pub(crate) fn knows(headers: &HeaderMap, is_it: impl Fn(&str) -> bool) -> Result<bool, Problem> {
    let known = text(headers, &header::IF_NONE_MATCH)?.unwrap_or_default();
    // For reading, weak ones are as good.
    let mut etags = known.split(',').map(|etag| etag.trim().trim_start_matches("W/"));
    Ok(known == "*" || etags.any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn conditions() {
        use header::{IF_MATCH as M, IF_NONE_MATCH as N};
        for (given, expected) in [
            (&[(M, "\"7\"")][..], Ok(Condition::At(7))),
            (&[(M, " * ")], Ok(Condition::There)),
            (&[(N, "*")], Ok(Condition::Absent)),
            (&[], Err(Kind::ConditionMissing)),
            (&[(M, "W/\"7\"")], Err(Kind::ConditionFailed)),
            (&[(M, "\"x\"")], Err(Kind::ConditionFailed)),
            (&[(N, "\"7\"")], Err(Kind::Malformed)),
            (&[(M, "*"), (N, "*")], Err(Kind::Malformed)),
        ] {
            assert_eq!(Condition::of(&headers(given)).map_err(|problem| problem.kind), expected, "{given:?}");
        }
    }

    #[test]
    fn what_who_asks_has() {
        for (given, expected) in [
            ("\"7\"", true),
            ("W/\"7\"", true),
            ("\"6\", \"7\"", true),
            ("*", true),
            ("\"6\"", false),
            ("7", false),
        ] {
            let given = headers(&[(header::IF_NONE_MATCH, given)]);
            assert_eq!(has(&given, 7).unwrap(), expected, "{given:?}");
        }
        assert!(!has(&HeaderMap::new(), 7).unwrap());
        assert_eq!(etag(7), "\"7\"");
    }
}
