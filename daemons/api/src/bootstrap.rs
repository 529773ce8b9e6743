//! The first token, made by whoever can reach the store: all others are made with one.

use crate::{
    app::random,
    audit::{Outbox, Record, Recording},
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
    /// It was refused, or nobody knows.
    #[error("no token: {0}")]
    Refused(String),
}

/// Makes a token for an administrator of all regions, with a record that a replica takes into its database, and returns the token.
///
/// # Errors
/// See [`CreateError`].
pub async fn create_token(settings: &Settings, name: &str) -> Result<String, CreateError> {
    let store = Store::open(&settings.store)?;
    let outbox = Outbox::of(&store).await.map_err(|error| refused(&error.into()))?;
    let new =
        NewToken { name: name.to_owned(), grants: vec![Grant::everywhere(Role::Admin)], lasts_seconds: None };
    let recording = Recording::new(Record {
        principal: "command".to_owned(),
        name: "novacron-api --create-token".to_owned(),
        method: "POST".to_owned(),
        route: tokens::PATH.to_owned(),
        resource: tokens::PATH.to_owned(),
        request_id: format!("{:016x}", random()),
        replica: settings.replica.clone(),
        ..Record::begun()
    });
    let made = tokens::make(&store, &outbox, &recording, new, "command").await;
    made.map(|(_, text, _)| text).map_err(|problem| refused(&problem))
}

fn refused(problem: &Problem) -> CreateError {
    CreateError::Refused(problem.detail().to_owned())
}
