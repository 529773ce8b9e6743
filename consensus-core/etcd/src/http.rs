//! What etcd answers to plain HTTP beside gRPC: `/health`, `/version` and `/metrics`.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use consensus_proto::etcdserverpb::AlarmType;

use crate::{maintenance::API_VERSION, server::Server};

/// A member that takes longer for a read is not healthy, as in etcd.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Gives the text of `/metrics`.
#[derive(Clone)]
pub struct MetricsText(Arc<dyn Fn() -> String + Send + Sync>);

impl MetricsText {
    /// Whatever keeps the metrics, as Prometheus' text format.
    pub fn new(text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(text))
    }
}

impl fmt::Debug for MetricsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsText")
    }
}

/// What `/version` says.
pub fn version_json() -> String {
    format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{API_VERSION}"}}"#)
}

impl Server {
    /// Whether it can answer a linearizable read and no member has raised an alarm, and what `/health` says.
    pub async fn health(&self) -> (bool, String) {
        let reason = if self.is_draining() {
            "draining"
        } else if self.node().status().leader.is_none() {
            "RAFT NO LEADER"
        } else if self.node().read_index(HEALTH_TIMEOUT).await.is_err() {
            "QGET ERROR:no linearizable read in time"
        } else {
            self.alarm_reason()
        };
        let healthy = reason.is_empty();
        (healthy, format!(r#"{{"health":"{healthy}","reason":"{reason}"}}"#))
    }

    /// etcd's words for an alarm that has been raised; empty: there is none.
    fn alarm_reason(&self) -> &'static str {
        let alarms = self.shared.reader.alarms().unwrap_or_default();
        let is_raised = |kind| alarms.iter().any(|alarm| alarm.alarm() == kind);
        match alarms[..] {
            [] => "",
            _ if is_raised(AlarmType::Nospace) => "ALARM NOSPACE",
            _ if is_raised(AlarmType::Corrupt) => "ALARM CORRUPT",
            _ => "ALARM UNKNOWN",
        }
    }

    /// Adds the paths to those of gRPC.
    pub(crate) fn add_http(&self, routes: Router) -> Router {
        let server = self.clone();
        let health = move || {
            let server = server.clone();
            async move {
                let (healthy, json) = server.health().await;
                let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (status, [(CONTENT_TYPE, "application/json")], json).into_response()
            }
        };
        let version = || async { ([(CONTENT_TYPE, "application/json")], version_json()).into_response() };
        let routes = routes.route("/health", get(health)).route("/version", get(version));
        let Some(MetricsText(text)) = self.shared.config.metrics.clone() else { return routes };
        let metrics = move || {
            let text = Arc::clone(&text);
            async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text()).into_response() }
        };
        routes.route("/metrics", get(metrics))
    }
}
