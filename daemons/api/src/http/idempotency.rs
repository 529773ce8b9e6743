//! Idempotency keys: a POST that is repeated with its key, at whichever replica, is done once and answered alike.
//!
//! What was answered is kept beside the effect, written in one transaction with it, for a day.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use consensus_proto::{
    etcdserverpb::{Compare, RequestOp},
    mvccpb::KeyValue,
};
use novacron_store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    condition::etag,
    problem::{Kind, Problem},
};
use crate::{
    app::App,
    audit::{Recording, Was},
    store::{Store, is_absent, put, read},
};

const PREFIX: &str = "/novacron/idempotency/";
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key in bytes.
const KEY_BYTES_MAX: usize = 255;
/// How long an answer is kept.
const KEPT_SECONDS: i64 = 24 * 60 * 60;
/// Answers that are kept; beyond it nothing is done that comes with a key. Replicas go beyond it by what others have done since
/// they have counted.
const KEPT_MAX: u64 = 500_000;
/// Between counts.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);

/// How many answers are kept: those that were there at the last count, and of this replica since then.
#[derive(Default)]
pub(crate) struct KeptAnswers(Mutex<Option<Counted>>);

struct Counted {
    answers: u64,
    /// The last count was begun.
    at: Instant,
}

impl KeptAnswers {
    /// Whether there is room for one more, which is taken. Whoever finds that it is time to `count` does so; others that come
    /// meanwhile do not wait for it, and go by the count before.
    async fn room(&self, count: impl Future<Output = Result<u64, StoreError>>) -> Result<(), Problem> {
        if self.is_due() {
            let at = Instant::now();
            let answers = count.await?;
            *self.lock() = Some(Counted { answers, at });
        }
        match &mut *self.lock() {
            Some(Counted { answers, .. }) if *answers >= KEPT_MAX => {
                let detail = format!("{KEPT_MAX} answers to requests with idempotency keys are kept");
                Err(Problem::new(Kind::Busy, detail))
            }
            counted => {
                counted.iter_mut().for_each(|counted| counted.answers += 1);
                Ok(())
            }
        }
    }

    fn is_due(&self) -> bool {
        match &mut *self.lock() {
            Some(Counted { at, .. }) if at.elapsed() < COUNT_INTERVAL => false,
            Some(Counted { at, .. }) => {
                *at = Instant::now();
                true
            }
            // Nobody knows anything yet.
            None => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request is to do, and what is answered then.
pub(crate) struct Effect {
    /// Or it is not done.
    pub(crate) compare: Vec<Compare>,
    pub(crate) then: Vec<RequestOp>,
    pub(crate) answer: Answer,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where the resource is that was made.
    pub(crate) location: String,
    pub(crate) body: Value,
}

/// An answer that is kept.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Of the request.
    fingerprint: String,
    answer: Answer,
}

/// The request that a key stands for.
pub(crate) struct Request {
    /// Where its answer is kept, if it has a key.
    key: Option<String>,
    fingerprint: String,
}

impl Request {
    /// `whose`: the principal's id, as everybody's keys are their own. `path`: the resource's own, whichever alias was asked.
    pub(crate) fn new(headers: &HeaderMap, whose: &str, path: &str, body: &[u8]) -> Result<Self, Problem> {
        let expected = || {
            Problem::new(
                Kind::Malformed,
                format!("Idempotency-Key: expected 1..={KEY_BYTES_MAX} ASCII characters"),
            )
        };
        let key = match headers.get(KEY).map(HeaderValue::as_bytes) {
            None => None,
            Some(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) => {
                let mut hasher = blake3::Hasher::new();
                // A key has no zero byte.
                hasher.update(key).update(&[0]).update(whose.as_bytes());
                Some(format!("{PREFIX}{}", hasher.finalize()))
            }
            Some(_) => return Err(expected()),
        };
        let mut hasher = blake3::Hasher::new();
        // A path has no zero byte.
        hasher.update(path.as_bytes()).update(&[0]).update(body);
        Ok(Self { key, fingerprint: hasher.finalize().to_string() })
    }

    /// What was answered before, if it was.
    pub(crate) async fn replayed(&self, store: &Store) -> Result<Option<Response>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        store.get(key).await?.map(|kept| self.replay(&kept)).transpose()
    }

    /// Makes what was not there, with its record. `None`: the comparisons of the effect do not hold.
    pub(crate) async fn done(
        &self,
        app: &App,
        recording: &Recording,
        mut effect: Effect,
    ) -> Result<Option<Response>, Problem> {
        let (store, Answer { status, location, .. }) = (&app.store, &effect.answer);
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
        effect.then.push(recording.entry(&app.audit.outbox, status, location, Was::Absent)?);
        let Some(key) = &self.key else {
            let outcome = store.txn("post", effect.compare, effect.then, Vec::new()).await?;
            return Ok(outcome.held.then(|| effect.answer.response(outcome.revision)));
        };
        app.kept_answers.room(store.count(PREFIX)).await?;
        let lease = store.shared_lease(KEPT_SECONDS).await?;
        let record = Record { fingerprint: self.fingerprint.clone(), answer: effect.answer.clone() };
        effect.compare.push(is_absent(key));
        effect.then.push(put(key, serde_json::to_vec(&record).expect("texts are JSON"), lease));
        let mut outcome = store.txn("post", effect.compare, effect.then, vec![read(key)]).await?;
        if outcome.held {
            return Ok(Some(effect.answer.response(outcome.revision)));
        }
        // Somebody may have been faster with the same key.
        outcome.read(0).map(|kept| self.replay(&kept)).transpose()
    }

    fn replay(&self, kept: &KeyValue) -> Result<Response, Problem> {
        let record: Record = serde_json::from_slice(&kept.value).map_err(|error| {
            tracing::error!(%error, "an answer that was kept");
            Problem::new(Kind::Internal, "what was answered before cannot be read")
        })?;
        if record.fingerprint != self.fingerprint {
            return Err(Problem::new(Kind::KeyReused, "path and body are not those of the request before"));
        }
        // Resource and record were written at one revision.
        let mut response = record.answer.response(kept.mod_revision);
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

impl Answer {
    fn response(self, revision: i64) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, Json(self.body)).into_response();
        response.headers_mut().insert(header::ETAG, etag(revision));
        if let Ok(location) = HeaderValue::from_str(&self.location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let long = "a".repeat(256);
        for (key, good) in
            [("a", true), ("6f-\"x\"", true), ("", false), ("a b", false), ("\u{fc}", false), (&long, false)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(KEY, HeaderValue::from_bytes(key.as_bytes()).unwrap());
            assert_eq!(Request::new(&headers, "local", "/p", b"{}").is_ok(), good, "{key:?}");
        }
        assert!(Request::new(&HeaderMap::new(), "local", "/p", b"{}").unwrap().key.is_none());
    }

    #[tokio::test]
    async fn answers_that_are_kept_are_bounded() {
        let kept = KeptAnswers::default();
        let uncounted = || async { panic!("it was counted a moment ago") };
        kept.room(async { Ok(KEPT_MAX - 2) }).await.unwrap();
        kept.room(uncounted()).await.unwrap();
        let refused = kept.room(uncounted()).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Busy);
        // Later some have ended.
        *kept.lock() = None;
        kept.room(async { Ok(KEPT_MAX - 1) }).await.unwrap();
    }

    /// There is room while another one counts, and has no answer.
    async fn beside(
        silent: impl Future<Output = Result<(), Problem>>,
        kept: &KeptAnswers,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) {
        tokio::select! {
            biased;
            _ = silent => panic!("the store does not answer"),
            counted = kept.room(count) => counted.unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_count_of_another() {
        let kept = KeptAnswers::default();
        // At first each counts for itself.
        let mut silent = std::pin::pin!(kept.room(std::future::pending()));
        beside(silent.as_mut(), &kept, async { Ok(KEPT_MAX - 3) }).await;
        tokio::time::advance(COUNT_INTERVAL).await;
        let mut silent = std::pin::pin!(kept.room(std::future::pending()));
        let uncounted = || async { panic!("another one counts") };
        beside(silent.as_mut(), &kept, uncounted()).await;
        beside(silent.as_mut(), &kept, uncounted()).await;
        assert_eq!(kept.room(uncounted()).await.unwrap_err().kind, Kind::Busy, "as far as is known");
        // Who counts may go away; the next one to find it due counts again.
        tokio::time::advance(COUNT_INTERVAL).await;
        kept.room(async { Ok(0) }).await.unwrap();
    }

    #[test]
    fn path_and_body_make_the_request() {
        let print = |path, body| Request::new(&HeaderMap::new(), "local", path, body).unwrap().fingerprint;
        assert_eq!(print("/a", b"b"), print("/a", b"b"));
        assert_ne!(print("/a", b"b"), print("/a", b"c"));
        assert_ne!(print("/ab", b""), print("/a", b"b"));
    }

    #[test]
    fn keys_are_those_of_their_principal() {
        let headers = HeaderMap::from_iter([(KEY, HeaderValue::from_static("k"))]);
        let key = |whose| Request::new(&headers, whose, "/p", b"").unwrap().key;
        assert_eq!(key("token:1"), key("token:1"));
        assert_ne!(key("token:1"), key("token:2"));
    }
}
