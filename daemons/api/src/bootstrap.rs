//! The first token, made by whoever can reach the store: all others are made with one.

use axum::response::IntoResponse as _;

use crate::{
    app::random,
    audit::{Audit, AuditError, Record},
    auth::{
        role::{Grant, Role},
        token::NewToken,
    },
    http::problem::Problem,
    routes::tokens,
    settings::Settings,
    store::{OpenError, Store},
};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// It could not be recorded.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// It was refused, or nobody knows.
    #[error("no token: {0}")]
    Refused(String),
}

/// Makes a token for an administrator of all regions, records that, and returns the token.
///
/// # Errors
/// See [`CreateError`].
pub async fn create_token(settings: &Settings, name: &str) -> Result<String, CreateError> {
    let (store, audit) = (Store::open(&settings.store)?, Audit::open(&settings.database)?);
    let new =
        NewToken { name: name.to_owned(), grants: vec![Grant::everywhere(Role::Admin)], lasts_seconds: None };
    let record = Record {
        principal: "command".to_owned(),
        name: "novacron-api --create-token".to_owned(),
        method: "POST".to_owned(),
        route: tokens::PATH.to_owned(),
        resource: tokens::PATH.to_owned(),
        request_id: format!("{:016x}", random()),
        replica: settings.replica.clone(),
        ..Record::begun()
    };
    audit.write(record.clone()).await?;
    let made = tokens::make(&store, new, "command").await;
    let (response, result) = match made {
        Ok((made, text, revision)) => (tokens::created(made.token, None, revision), Ok(text)),
        Err(problem) => (problem.clone().into_response(), Err(refused(&problem))),
    };
    if let Err(error) = audit.write(record.ended(&response)).await {
        tracing::error!(%error, "the record of the new token stays as it was begun");
    }
    result
}

fn refused(problem: &Problem) -> CreateError {
    CreateError::Refused(problem.detail().to_owned())
}
