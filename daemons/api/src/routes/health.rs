//! How this replica is, and what it can be asked.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// How a replica is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Whether it takes requests: the store answers, and it does not drain.
    ready: bool,
    /// Whether a majority of the store's members answers it.
    store_answers: bool,
    /// Whether it comes to its end.
    draining: bool,
    /// What it is called.
    replica: String,
    /// Its version.
    version: &'static str,
}

/// How this replica is
#[utoipa::path(get, path = "/api/v1/health", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    Json(Health {
        ready: app.health.is_ready(),
        store_answers: app.health.store_answers(),
        draining: app.health.is_draining(),
        replica: app.settings.replica.clone(),
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// 200 while the process runs
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 while requests are taken: the store answers, and the replica does not drain
#[utoipa::path(get, path = "/ready", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain"), (status = 503, body = String, content_type = "text/plain")))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.health.is_ready() {
        (StatusCode::OK, "ready\n")
    } else if app.health.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n")
    }
}

/// 200 once the replica has begun
///
/// Not a matter of the store: a replica that was started anew for it would find the same one.
#[utoipa::path(get, path = "/startup", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn startup() -> &'static str {
    "started\n"
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, content_type = "application/json")))]
pub(crate) async fn openapi(State(app): State<Arc<App>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone())
}
