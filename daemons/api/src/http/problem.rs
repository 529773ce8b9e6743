//! Problem documents (RFC 9457): what went wrong with a request.
//!
//! A [`Problem`] is put onto a response as an extension; the outermost layer knows the request and writes the document.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use novacron_store::StoreError;
use serde::Serialize;
use tonic::Code;
use utoipa::ToSchema;

use crate::{agents::AskError, audit::AuditError, database::DatabaseError};

/// What clients are to wait before they ask again.
const RETRY_AFTER: &str = "1";

/// What can go wrong, one for each `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unauthenticated,
    Forbidden,
    RateLimited,
    Misdirected,
    NoRoute,
    NotFound,
    MethodNotAllowed,
    Malformed,
    Invalid,
    BodyTooLarge,
    MediaType,
    CrossSite,
    Exists,
    Ended,
    ConditionFailed,
    ConditionMissing,
    KeyReused,
    CursorExpired,
    BodyTimeout,
    Busy,
    StoreUnavailable,
    AgentUnavailable,
    AuditUnavailable,
    HistoryUnavailable,
    LoginUnavailable,
    StoreFull,
    EffectUnknown,
    TimedOut,
    Internal,
}

impl Kind {
    /// Status, the end of `type`, and `title`.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "Nothing proves who asks"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The principal has not the role that this needs"),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate-limited", "There are too many requests"),
            Self::Misdirected => {
                (S::MISDIRECTED_REQUEST, "misdirected", "The request is meant for another server")
            }
            Self::NoRoute => (S::NOT_FOUND, "no-route", "There is no such path"),
            Self::NotFound => (S::NOT_FOUND, "not-found", "There is no such resource"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not have this method")
            }
            Self::Malformed => (S::BAD_REQUEST, "malformed", "The request cannot be read"),
            Self::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid", "The request asks for what cannot be"),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body has to be JSON"),
            Self::CrossSite => (S::FORBIDDEN, "cross-site", "Pages of other sites may not change anything"),
            Self::Exists => (S::CONFLICT, "exists", "There is such a resource already"),
            Self::Ended => (S::CONFLICT, "ended", "The job has ended"),
            Self::ConditionFailed => {
                (S::PRECONDITION_FAILED, "condition-failed", "The resource is not what the request expects")
            }
            Self::ConditionMissing => {
                (S::PRECONDITION_REQUIRED, "condition-missing", "The request has to say what it expects")
            }
            Self::KeyReused => {
                (S::UNPROCESSABLE_ENTITY, "key-reused", "The idempotency key belongs to another request")
            }
            Self::CursorExpired => (S::GONE, "cursor-expired", "The list that the cursor is of is gone"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body-timeout", "The body did not come in time"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy", "There is too much to do"),
            Self::StoreUnavailable => {
                (S::SERVICE_UNAVAILABLE, "store-unavailable", "The store does not answer")
            }
            Self::AgentUnavailable => {
                (S::SERVICE_UNAVAILABLE, "agent-unavailable", "The agent of the node does not answer")
            }
            Self::AuditUnavailable => {
                (S::SERVICE_UNAVAILABLE, "audit-unavailable", "Changes cannot be recorded")
            }
            Self::HistoryUnavailable => {
                (S::SERVICE_UNAVAILABLE, "history-unavailable", "Jobs that have ended cannot be looked at")
            }
            Self::LoginUnavailable => {
                (S::SERVICE_UNAVAILABLE, "login-unavailable", "The keys of tokens cannot be looked at")
            }
            Self::StoreFull => (S::INSUFFICIENT_STORAGE, "store-full", "The store has no space"),
            Self::EffectUnknown => {
                (S::SERVICE_UNAVAILABLE, "effect-unknown", "It is not known whether the request was done")
            }
            Self::TimedOut => (S::SERVICE_UNAVAILABLE, "timed-out", "The request took too long"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "This is a fault of the server"),
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// What is wrong with a request.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    required: Option<String>,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Its name.
    pub(crate) field: String,
    /// What it should be.
    pub(crate) detail: String,
}

/// A problem document, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// Which kind of problem it is: `urn:novacron:problem:` and its name.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What it is in this case.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// The id of the request, as in the header `x-request-id` and in logs.
    request_id: String,
    /// What is wrong with which fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The role that is missing, as `ROLE@REGION`; the region is `*` for all of them, `some` for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<String>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), required: None }
    }

    /// What it is in this case.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// With the role that is missing.
    pub(crate) fn with_required(self, required: String) -> Self {
        Self { required: Some(required), ..self }
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what} {name:?}"))
    }

    /// Of fields that are not what they may be.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let each: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
        Self { kind: Kind::Invalid, detail: each.join("; "), errors, required: None }
    }

    /// The answer, for a request of this path and id.
    pub(crate) fn render(self, instance: &str, request_id: &str, mut response: Response) -> Response {
        let (status, name, title) = self.kind.parts();
        let document = Document {
            kind: format!("urn:novacron:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            instance: instance.to_owned(),
            request_id: request_id.to_owned(),
            errors: self.errors,
            required: self.required,
        };
        let body = serde_json::to_vec(&document).expect("texts and numbers are JSON");
        let headers = response.headers_mut();
        // What an empty body had.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        *response.body_mut() = Body::from(body);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // Names of members and the like are for logs.
        tracing::warn!(%error, "the store");
        match &error {
            StoreError::Unknown { .. } => Self::new(
                Kind::EffectUnknown,
                "the store did not answer: it may have been done all the same; look, or repeat the request with the same \
                 Idempotency-Key or If-Match",
            ),
            StoreError::Refused { failure, .. } => match failure.code {
                Code::OutOfRange => Self::new(Kind::CursorExpired, "begin again without a cursor"),
                Code::ResourceExhausted => Self::new(Kind::StoreFull, "nothing was done"),
                _ => Self::new(Kind::Internal, "the store refused what this server asked; nothing was done"),
            },
            _ => Self::new(Kind::StoreUnavailable, "no member of the store answers; nothing was done"),
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => error.into(),
            error => Self::new(Kind::AgentUnavailable, error.to_string()),
        }
    }
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        if let AuditError::Store(error) = error {
            return error.into();
        }
        // Where the database is is for logs.
        tracing::warn!(%error, "the audit");
        Self::new(Kind::AuditUnavailable, "nothing was done")
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        tracing::warn!(%error, "the history of jobs");
        Self::new(
            Kind::HistoryUnavailable,
            "the database does not answer; jobs are listed without it with history=false",
        )
    }
}
