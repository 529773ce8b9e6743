//! What is recorded of a change.

use std::{fmt, str::FromStr};

use axum::{
    http::{StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{now_ms, random},
    http::{
        condition::etag_text,
        problem::{Kind, Problem},
    },
};

/// Hexadecimal digits of a record's id.
pub(crate) const ID_DIGITS: usize = 28;
/// Those of the time, which are the first.
pub(crate) const TIME_DIGITS: usize = 12;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Nobody knows: its replica was lost, or the database.
    Begun,
    /// It was made.
    Done,
    /// It was not.
    Refused,
    /// Nobody knows: the store did not answer, or the server is at fault.
    Unknown,
}

/// The record of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Record {
    /// Its id; ids sort by time.
    pub(crate) id: String,
    /// When it was asked for, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Who asked: `token:ID`, `certificate:NAME`, `jwt:SUBJECT`, `local`, or `command` for the command line.
    pub(crate) principal: String,
    /// What people call who asked.
    pub(crate) name: String,
    /// Where the connection came from.
    pub(crate) address: String,
    /// The method.
    pub(crate) method: String,
    /// The pattern of the path.
    pub(crate) route: String,
    /// What was changed, or was to be.
    pub(crate) resource: String,
    /// The id of the request, as in the header `x-request-id` and in logs.
    pub(crate) request_id: String,
    /// The replica that was asked.
    pub(crate) replica: String,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// The HTTP status; 0 while it is only begun.
    pub(crate) status: i64,
    /// The ETag before, empty if there was none.
    pub(crate) etag_before: String,
    /// The ETag after, empty if there is none.
    pub(crate) etag_after: String,
}

/// The revision of what a request has changed, before it did: an extension of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before(pub(crate) i64);

/// Which records.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Only those before this id; empty: all.
    pub(crate) before: String,
    /// Empty texts: any.
    pub(crate) principal: String,
    pub(crate) method: String,
    pub(crate) resource: String,
    pub(crate) outcome: String,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) limit: i64,
}

/// How ids of records begin that were made at this time, in milliseconds since 1970.
pub(crate) fn time_of(at_ms: u64) -> String {
    format!("{at_ms:0TIME_DIGITS$x}")
}

impl Record {
    /// One that has only begun. Who asks for what, the caller fills in.
    pub(crate) fn begun() -> Self {
        let now = now_ms();
        Self {
            id: format!("{}{:016x}", time_of(now), random()),
            at_ms: i64::try_from(now).unwrap_or(i64::MAX),
            principal: String::new(),
            name: String::new(),
            address: String::new(),
            method: String::new(),
            route: String::new(),
            resource: String::new(),
            request_id: String::new(),
            replica: String::new(),
            outcome: Outcome::Begun,
            status: 0,
            etag_before: String::new(),
            etag_after: String::new(),
        }
    }

    /// With what was answered.
    pub(crate) fn ended(mut self, response: &Response) -> Self {
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = response.extensions().get::<Problem>().map(|problem| problem.kind);
        self.status = i64::from(response.status().as_u16());
        self.outcome = match kind {
            Some(Kind::EffectUnknown | Kind::Internal) => Outcome::Unknown,
            None if response.status() < StatusCode::BAD_REQUEST => Outcome::Done,
            _ => Outcome::Refused,
        };
        let location = text(header::LOCATION);
        if !location.is_empty() {
            location.clone_into(&mut self.resource);
        }
        text(header::ETAG).clone_into(&mut self.etag_after);
        if let Some(Before(revision)) = response.extensions().get() {
            self.etag_before = etag_text(*revision);
        }
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        })
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "begun" => Ok(Self::Begun),
            "done" => Ok(Self::Done),
            "refused" => Ok(Self::Refused),
            "unknown" => Ok(Self::Unknown),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn what_was_answered_says_what_became_of_it() {
        let problem = |kind| Problem::new(kind, "").into_response();
        for (response, outcome, status) in [
            (StatusCode::CREATED.into_response(), Outcome::Done, 201),
            (problem(Kind::ConditionFailed), Outcome::Refused, 412),
            (problem(Kind::StoreUnavailable), Outcome::Refused, 503),
            (problem(Kind::EffectUnknown), Outcome::Unknown, 503),
            (problem(Kind::Internal), Outcome::Unknown, 500),
        ] {
            let record = Record::begun().ended(&response);
            assert_eq!((record.outcome, record.status), (outcome, status));
            assert_eq!(outcome.to_string().parse(), Ok(outcome));
        }
    }

    #[test]
    fn ids_have_their_length() {
        assert_eq!(Record::begun().id.len(), ID_DIGITS);
    }
}
