//! Answers that cost something and may be a moment old: kept in this process, and in Redis where `cache.url` says so, which
//! other replicas read then.
//!
//! What always holds:
//! - What is kept is what there is, before anybody's rights were looked at; who asks gets of it what they may see.
//! - Nothing is older than the question allows. What comes from Redis is sealed with a key that only replicas have: with its
//!   question and its end. Whatever else is there is not looked at.
//! - A Redis that is gone, slow or at fault costs a bounded time, and then none for a while; the answer is asked for where it
//!   comes from, as if there were no cache.
//!
//! Deliberately not here: entries of the store. VMs, jobs and schedules are read from it each time, so that who has written at
//! one replica finds it at each.

mod breaker;
mod near;
mod seal;
mod shared;

use std::time::Duration;

use axum::body::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{app::now_ms, settings::CacheSettings, store::Store};
use near::Near;
pub use shared::CacheError;
use shared::Shared;

/// Largest answer that is kept, in bytes.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// What it is about, for metrics.
    kind: &'static str,
    /// All that the answer depends on.
    key: String,
    /// How old the answer may be.
    age_max: Duration,
}

impl Question {
    /// `about`: all that the answer depends on beside the kind.
    pub(crate) fn new(kind: &'static str, about: &str, age_max: Duration) -> Self {
        Self { kind, key: format!("{kind} {about}"), age_max }
    }
}

/// Answers that are kept.
pub(crate) struct Cache {
    near: Near,
    shared: Option<Shared>,
}

impl Cache {
    /// Connects to nothing yet.
    pub(crate) fn open(settings: &CacheSettings) -> Result<Self, CacheError> {
        let shared = (!settings.url.is_empty()).then(|| Shared::open(settings)).transpose()?;
        Ok(Self { near: Near::new(settings.bytes_max), shared })
    }

    /// The answer to a question, which `make` gives if it is not kept. Failures are not kept.
    pub(crate) async fn answer<T: Serialize + DeserializeOwned, E>(
        &self,
        store: &Store,
        question: Question,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        if let Some(found) = self.kept(store, &question).await {
            return Ok(found);
        }
        count(&question, "made");
        let asked_ms = now_ms();
        let made = make.await?;
        let bytes = Bytes::from(serde_json::to_vec(&made).expect("answers are JSON"));
        if bytes.len() <= VALUE_BYTES_MAX {
            // As old as its question.
            let ends_ms = asked_ms + question.age_max.as_millis() as u64;
            self.near.put(&question.key, bytes.clone(), ends_ms, now_ms());
            if let Some(shared) = &self.shared {
                shared.put(store, &question, &bytes, ends_ms).await;
            }
        }
        Ok(made)
    }

    async fn kept<T: DeserializeOwned>(&self, store: &Store, question: &Question) -> Option<T> {
        if let Some(bytes) = self.near.get(&question.key, now_ms()) {
            count(question, "near");
            return serde_json::from_slice(&bytes).ok();
        }
        let (bytes, ends_ms) = self.shared.as_ref()?.get(store, question).await?;
        // Of another version of this program it may be something else.
        let value = serde_json::from_slice(&bytes).ok()?;
        count(question, "shared");
        self.near.put(&question.key, bytes, ends_ms, now_ms());
        Some(value)
    }

    /// Something has changed that the answer depends on.
    pub(crate) async fn forget(&self, store: &Store, question: &Question) {
        self.near.forget(&question.key);
        if let Some(shared) = &self.shared {
            shared.forget(store, question).await;
        }
    }
}

fn count(question: &Question, from: &'static str) {
    metrics::counter!("cache_answers_total", "kind" => question.kind, "from" => from).increment(1);
}
