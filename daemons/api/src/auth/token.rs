//! API tokens: made of randomness, shown once, and kept in the store as their digest, with a lease for as long as they last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use consensus_proto::{etcdserverpb::RequestOp, mvccpb::KeyValue};
use novacron_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    login::{Effort, LoginError},
    principal::Principal,
    role::{GRANTS_MAX, Grant, Grants},
};
use crate::{
    app::{now_ms, random},
    changes::Changes,
    http::problem::FieldError,
    store::{Store, put},
};

/// Entries in the store.
pub(crate) const TOKENS: &str = "/novacron/tokens/";
/// What every token begins with: secrets are found by it where they should not be.
pub(crate) const PREFIX: &str = "nct_";
/// Hexadecimal digits of the id, bytes of the secret, and length of the whole.
const ID_DIGITS: usize = 16;
const SECRET_BYTES: usize = 32;
const TOKEN_BYTES: usize = PREFIX.len() + ID_DIGITS + 1 + (SECRET_BYTES * 8).div_ceil(6);
/// Tokens that last. Replicas that make some at the same time may go beyond it by one each.
pub(crate) const TOKENS_MAX: usize = 1000;
/// Tokens that a replica remembers, and how long it believes that: a watch that is silent for no good reason tells of no revocation.
const KNOWN_MAX: usize = 2 * TOKENS_MAX;
const KNOWN_TIME_MAX: Duration = Duration::from_secs(10);
/// Between looks at all tokens, for those that are shown where many fail to log in.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 63;
/// How long a token lasts, in seconds: if nobody says otherwise, at least, and at most.
pub(crate) const LASTS_SECONDS: u64 = 90 * 24 * 60 * 60;
const LASTS_SECONDS_MIN: u64 = 60;
const LASTS_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;

/// A token that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// What people call it: 1 to 63 bytes without control characters.
    #[schema(min_length = 1, max_length = 63, example = "ci")]
    pub(crate) name: String,
    /// What it may do: no more than whoever makes it may give.
    #[schema(min_items = 1, max_items = 64)]
    pub(crate) grants: Vec<Grant>,
    /// How long it lasts; 90 days if not given.
    #[schema(minimum = 60, maximum = 31622400)]
    pub(crate) lasts_seconds: Option<u64>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Token {
    /// Its id, which is no secret.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) grants: Vec<Grant>,
    /// When it was made, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Who made it.
    pub(crate) created_by: String,
    /// From then on it is not valid.
    pub(crate) expires_ms: u64,
}

/// A token as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) token: Token,
    /// Of the whole text, BLAKE3. The secret has 256 random bits, so nothing slower is needed.
    digest: String,
}

impl NewToken {
    /// What of it is not what it may be.
    pub(crate) fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut check = |good: bool, field: &str, detail: &str| {
            if !good {
                errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
            }
        };
        let name = (1..=NAME_BYTES_MAX).contains(&self.name.len()) && !self.name.contains(char::is_control);
        check(name, "name", "expected 1..=63 bytes without control characters");
        let grants =
            (1..=GRANTS_MAX).contains(&self.grants.len()) && self.grants.iter().all(Grant::is_well_formed);
        check(grants, "grants", "expected 1..=64 roles, each in a region or *");
        let lasts = (LASTS_SECONDS_MIN..=LASTS_SECONDS_MAX).contains(&self.lasts_seconds());
        check(lasts, "lasts_seconds", "expected 60..=31622400");
        errors
    }

    pub(crate) fn lasts_seconds(&self) -> u64 {
        self.lasts_seconds.unwrap_or(LASTS_SECONDS)
    }

    /// Its record, and the text that is shown once.
    pub(crate) fn made(self, created_by: &str) -> (Record, String) {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).expect("Linux has randomness");
        let id = format!("{:0ID_DIGITS$x}", random());
        let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let (created_ms, lasts_ms) = (now_ms(), self.lasts_seconds() * 1000);
        let token = Token {
            id,
            name: self.name,
            grants: self.grants,
            created_ms,
            created_by: created_by.to_owned(),
            expires_ms: created_ms + lasts_ms,
        };
        (Record { token, digest: blake3::hash(text.as_bytes()).to_string() }, text)
    }
}

impl Record {
    /// Writes it, with a lease that ends with it.
    pub(crate) fn put(&self, lease: i64) -> RequestOp {
        put(&key(&self.token.id), serde_json::to_vec(self).expect("texts and numbers are JSON"), lease)
    }

    /// As it is in the store; `None` for what somebody else wrote there.
    pub(crate) fn parsed(kv: &KeyValue) -> Option<Self> {
        serde_json::from_slice(&kv.value)
            .inspect_err(|error| {
                tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "a token's entry");
            })
            .ok()
    }

    fn is_of(&self, text: &str) -> bool {
        // Compared in constant time, which is a property of this type.
        blake3::Hash::from_hex(&self.digest).is_ok_and(|digest| digest == blake3::hash(text.as_bytes()))
    }
}

/// Where a token is kept.
pub(crate) fn key(id: &str) -> String {
    format!("{TOKENS}{id}")
}

/// The id in a token's text, if it is well-formed.
fn id_of(text: &str) -> Option<&str> {
    if text.len() != TOKEN_BYTES {
        return None;
    }
    let rest = text.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_at_checked(ID_DIGITS)?;
    let is_id = id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_secret = URL_SAFE_NO_PAD.decode(secret.strip_prefix('_')?).is_ok();
    (is_id && is_secret).then_some(id)
}

/// Tokens that are shown, and those that were looked at before.
#[derive(Default)]
pub(crate) struct Tokens {
    known: Mutex<HashMap<String, Remembered>>,
    /// The last look at all of them.
    looked: Mutex<Option<Instant>>,
}

/// What the store had.
#[derive(Clone)]
struct Remembered {
    record: Record,
    /// Of [`Changes::count`]; `None`: nobody would have told of a change.
    at: Option<u64>,
    since: Instant,
}

impl Remembered {
    /// No token has changed since.
    fn is_fresh(&self, now: Option<u64>) -> bool {
        self.at.is_some() && self.at == now && self.since.elapsed() < KNOWN_TIME_MAX
    }
}

impl Tokens {
    /// Who a token is of.
    pub(crate) async fn principal(
        &self,
        store: &Store,
        changes: &Changes,
        text: &str,
        effort: Effort,
    ) -> Result<Arc<Principal>, LoginError> {
        // Of a token that is none, was revoked or has expired, the answer is the same.
        let invalid = || LoginError::Invalid("the token is not valid");
        let id = id_of(text).ok_or_else(invalid)?;
        let before = changes.count(TOKENS);
        let mut known = self.known(id);
        if known.is_none() && effort == Effort::Small {
            self.look_at_all(store).await;
            known = self.known(id);
        }
        let record = match known {
            Some(known) if known.is_fresh(before) => Some(known.record),
            // Whoever has the secret of a token that was one may ask whether it still is.
            known
                if effort == Effort::Full || known.as_ref().is_some_and(|known| known.record.is_of(text)) =>
            {
                let read = self.read(store, changes, id, before).await;
                read.map_err(|error| LoginError::Problem(error.into()))?
            }
            _ => return Err(LoginError::Unchecked),
        };
        let record = record.filter(|record| record.is_of(text) && record.token.expires_ms > now_ms());
        let Token { id, name, grants, .. } = record.ok_or_else(invalid)?.token;
        Ok(Arc::new(Principal { id: format!("token:{id}"), name, grants: Grants(grants) }))
    }

    /// Has all tokens known, which are few, unless that was a moment ago: that costs the same however many tokens are shown that are
    /// none, and one that is one passes.
    async fn look_at_all(&self, store: &Store) {
        let is_due = |looked: &mut Option<Instant>| {
            let is_due = looked.is_none_or(|at| at.elapsed() >= LOOK_PAUSE);
            if is_due {
                *looked = Some(Instant::now());
            }
            is_due
        };
        if !is_due(&mut self.looked.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        match store.list(TOKENS, "", KNOWN_MAX, 0).await {
            Ok(found) => {
                for record in found.kvs.iter().filter_map(Record::parsed) {
                    if self.known(&record.token.id).is_none() {
                        // It is asked for by itself when its secret is shown.
                        self.remember(&record.token.id, None, Some(&record));
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "looking at all tokens"),
        }
    }

    /// As it is in the store.
    async fn read(
        &self,
        store: &Store,
        changes: &Changes,
        id: &str,
        before: Option<u64>,
    ) -> Result<Option<Record>, StoreError> {
        let found = store.get(&key(id)).await?.and_then(|kv| Record::parsed(&kv));
        let at = before.filter(|_| changes.count(TOKENS) == before);
        self.remember(id, at, found.as_ref());
        Ok(found)
    }

    fn known(&self, id: &str) -> Option<Remembered> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn remember(&self, id: &str, at: Option<u64>, record: Option<&Record>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = record else {
            known.remove(id);
            return;
        };
        if known.len() >= KNOWN_MAX && !known.contains_key(id) {
            known.clear();
        }
        known.insert(id.to_owned(), Remembered { record: record.clone(), at, since: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, StoreSettings};

    fn made() -> (Record, String) {
        let grants = vec!["viewer@eu".parse().unwrap()];
        NewToken { name: "ci".to_owned(), grants, lasts_seconds: None }.made("local")
    }

    #[test]
    fn a_record_is_of_its_token_and_does_not_tell_it() {
        let (record, text) = made();
        assert_eq!(id_of(&text), Some(record.token.id.as_str()));
        assert!(record.is_of(&text));
        let (_, secret) = text.rsplit_once(&format!("{}_", record.token.id)).unwrap();
        assert!(!serde_json::to_string(&record).unwrap().contains(secret));
        assert_ne!(made().1, text);
        // Another secret with the same id.
        let (_, other) = made();
        let forged = format!("{}{}", &text[..PREFIX.len() + ID_DIGITS], &other[PREFIX.len() + ID_DIGITS..]);
        assert_eq!(id_of(&forged), id_of(&text));
        assert!(!record.is_of(&forged));
    }

    #[test]
    fn what_is_no_token_has_no_id() {
        let text = made().1;
        let long = format!("{text}A");
        let upper = format!("{PREFIX}{}", text[PREFIX.len()..].to_uppercase());
        let wide = text.replace(&text[20..22], "\u{fc}");
        for text in ["", "nct_", &text[..text.len() - 1], &long, &text.replace("nct_", "nct-"), &upper, &wide]
        {
            assert_eq!(id_of(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_known_is_believed_until_a_token_changes() {
        let (tokens, (record, _)) = (Tokens::default(), made());
        let id = &record.token.id;
        tokens.remember(id, Some(1), Some(&record));
        let is_fresh = |now| tokens.known(id).unwrap().is_fresh(now);
        assert!(is_fresh(Some(1)) && !is_fresh(Some(2)) && !is_fresh(None));
        assert!(tokens.known("another").is_none());
        tokens.remember(id, None, Some(&record));
        assert!(!is_fresh(None), "nobody tells of changes");
        tokens.remember(id, Some(2), None);
        assert!(tokens.known(id).is_none());
    }

    #[tokio::test]
    async fn only_the_secret_of_a_known_token_is_worth_a_small_effort() {
        let (tokens, changes, (record, text)) = (Tokens::default(), Changes::default(), made());
        // Nobody is there: whoever asks learns that.
        let store = Store::open(&StoreSettings {
            endpoints: vec!["http://127.0.0.1:1".to_owned()],
            timeout: Duration::from_millis(100),
            ..Settings::new("a".to_owned()).store
        });
        let store = store.unwrap();
        let asked = async |text: &str, effort| match tokens.principal(&store, &changes, text, effort).await {
            Err(LoginError::Problem(_)) => true,
            Err(LoginError::Unchecked) => false,
            other => panic!("{other:?}"),
        };
        assert!(asked(&text, Effort::Full).await && !asked(&text, Effort::Small).await);
        tokens.remember(&record.token.id, None, Some(&record));
        let (_, other) = made();
        let forged = format!("{}{}", &text[..PREFIX.len() + ID_DIGITS], &other[PREFIX.len() + ID_DIGITS..]);
        assert!(asked(&text, Effort::Small).await && !asked(&forged, Effort::Small).await);
    }

    #[test]
    fn bounds() {
        let new = |name: &str, grants: usize, lasts| {
            let grants = vec!["viewer@eu".parse().unwrap(); grants];
            NewToken { name: name.to_owned(), grants, lasts_seconds: lasts }.errors().len()
        };
        assert_eq!(new("a", 1, None), 0);
        assert_eq!(new(&"a".repeat(63), 64, Some(60)), 0);
        for (name, grants, lasts) in [
            ("", 1, None),
            ("a\n", 1, None),
            ("a", 0, None),
            ("a", 65, None),
            ("a", 1, Some(59)),
            ("a", 1, Some(u64::MAX)),
        ] {
            assert_eq!(new(name, grants, lasts), 1, "{name:?} {grants} {lasts:?}");
        }
    }
}
