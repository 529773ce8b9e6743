//! The records of changes.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, now_ms},
    audit::{AuditError, Filter, ID_DIGITS, Outcome, Record, TIME_DIGITS, Which, drain},
    cache::Question,
    http::{
        extract::Query,
        page::{LIMIT, LIMIT_MAX},
        problem::{Kind, Problem},
    },
};

/// Records that are older than this are complete, or stay as they are: far more than a request takes.
const SETTLED_MS: u64 = 60 * 60 * 1000;
/// How old a page of such records may be.
const OLD_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest text of a filter in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Which records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(default)]
    principal: String,
    #[serde(default)]
    method: String,
    #[serde(default)]
    resource: String,
    outcome: Option<Outcome>,
    #[serde(default)]
    from_ms: i64,
    to_ms: Option<i64>,
}

/// Records of changes.
#[derive(Serialize, ToSchema)]
pub(crate) struct Records {
    /// The newest first.
    items: Vec<Record>,
    /// For the next page, which there may be if this is not null.
    next: Option<String>,
}

impl AuditQuery {
    fn filter(self) -> Result<Filter, Problem> {
        let malformed = |detail: String| Err(Problem::new(Kind::Malformed, detail));
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return malformed(format!("limit: expected 1..={LIMIT_MAX}"));
        }
        let before = self.cursor.unwrap_or_default();
        let is_id = before.len() == ID_DIGITS && before.bytes().all(|b| b.is_ascii_hexdigit());
        if !before.is_empty() && !is_id {
            return malformed("cursor: expected what a page gave as next".to_owned());
        }
        for (name, text) in
            [("principal", &self.principal), ("method", &self.method), ("resource", &self.resource)]
        {
            // PostgreSQL has no text with a zero in it.
            if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
                return malformed(format!("{name}: expected at most {TEXT_BYTES_MAX} bytes, none of them 0"));
            }
        }
        Ok(Filter {
            before,
            principal: self.principal,
            method: self.method,
            resource: self.resource,
            outcome: self.outcome.map(|outcome| outcome.to_string()).unwrap_or_default(),
            from_ms: self.from_ms,
            to_ms: self.to_ms.unwrap_or(i64::MAX),
            limit: limit as i64,
        })
    }
}

/// Pages behind a cursor of long ago do not change any more, but that records have their end.
async fn listed(app: &App, filter: &Filter) -> Result<Vec<Record>, AuditError> {
    let listed = app.audit.list(filter);
    let at_ms = filter.before.get(..TIME_DIGITS).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    if at_ms.is_none_or(|at_ms| now_ms().saturating_sub(at_ms) < SETTLED_MS) {
        return listed.await;
    }
    // Without a common database each replica has its own records.
    let database = &app.settings.database.url;
    let of = if database.is_empty() { &app.settings.replica } else { database };
    let about = format!("{} {filter:?}", blake3::hash(of.as_bytes()));
    app.cache.answer(&app.store, Question::new("audit", &about, OLD_AGE_MAX), listed).await
}

/// Lists records of changes
///
/// Who has asked for which change, and what became of it; the newest first.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "list_audit", tag = "audit",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 500, description = "Entries of a page; 100 if not given"),
        ("cursor" = Option<String>, Query, description = "What the page before gave as `next`"),
        ("principal" = Option<String>, Query, max_length = 1024, description = "Only those of this principal"),
        ("method" = Option<String>, Query, max_length = 1024, description = "Only those of this method"),
        ("resource" = Option<String>, Query, max_length = 1024, description = "Only those of this resource: its path"),
        ("outcome" = Option<Outcome>, Query, description = "Only those of which this became"),
        ("from_ms" = Option<i64>, Query, description = "Only those since then, in milliseconds since 1970"),
        ("to_ms" = Option<i64>, Query, description = "Only those until then, in milliseconds since 1970"),
    ),
    responses((status = 200, body = Records)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Records>, Problem> {
    let filter = query.filter()?;
    // Whoever lists finds what was answered before: with a database of its own, at the replica that did.
    app.audit.flush().await?;
    let is_own = app.settings.database.url.is_empty();
    drain(&app, if is_own { Which::Own } else { Which::All }).await?;
    let items = listed(&app, &filter).await?;
    let is_full = items.len() as i64 == filter.limit;
    let next = items.last().filter(|_| is_full).map(|record| record.id.clone());
    Ok(Json(Records { items, next }))
}
