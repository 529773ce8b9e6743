//! A job's progress as it is made: server-sent events, fed by the watch of the store.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, Sse},
    },
};
use consensus_proto::mvccpb::KeyValue;
use tokio::{
    sync::{broadcast, mpsc},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::jobs;
use crate::{
    app::App,
    auth::{principal::Principal, role::Role},
    changes::News,
    http::{
        extract::Name,
        problem::{Kind, Problem},
        streams::Place,
    },
    jobs::{queue, record::Job},
};

/// Events of a stream that its client has not taken yet.
const QUEUED_MAX: usize = 4;
/// Between signs of life. At each, the store is asked, too: a watch can be silent for no good reason.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest stream. Whoever goes on is looked at anew: a token may have been revoked.
const STREAM_TIME_MAX: Duration = Duration::from_secs(600);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A job's progress
///
/// Server-sent events until the job has ended: `progress`, and `end` at last, each with the job as it is then; ids are
/// revisions of the store. With `Last-Event-ID`, only what is newer is told, and of a job that has ended then, nothing (204). A
/// stream ends after ten minutes, and when the replica drains: go on with the last id, at any replica.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", operation_id = "follow_job", tag = "jobs",
    params(
        ("id" = String, Path),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was taken"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 204, description = "The job has ended, and its end was told"),
    ))]
pub(crate) async fn follow(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let told = match headers.get(LAST_EVENT_ID).map(|id| id.to_str().ok()?.parse().ok()) {
        None => 0,
        Some(Some(revision)) => revision,
        Some(None) => {
            return Err(Problem::new(Kind::Malformed, "Last-Event-ID: expected the id of an event"));
        }
    };
    // Before the job is read, or what changes in between would be missed.
    let news = app.changes.listen();
    let (revision, job) = jobs::found(&app, &id).await?;
    jobs::check(&principal, Role::Viewer, &job)?;
    if job.has_ended() && revision <= told {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = app.streams.take(&principal.id).map_err(|why| Problem::new(Kind::Busy, why))?;
    let (sender, events) = mpsc::channel(QUEUED_MAX);
    let stream = Stream { app, key: format!("{}{id}", queue::JOBS), told, sender, _place: place };
    tokio::spawn(stream.run(news, revision, job));
    Ok(Sse::new(ReceiverStream::new(events).map(Ok::<_, Infallible>)).into_response())
}

struct Stream {
    app: Arc<App>,
    key: String,
    /// The revision that was told last.
    told: i64,
    sender: mpsc::Sender<Event>,
    _place: Place,
}

impl Stream {
    async fn run(mut self, mut news: broadcast::Receiver<News>, revision: i64, first: Job) {
        if !self.tell(revision, &first).await {
            return;
        }
        let mut end = pin!(sleep(STREAM_TIME_MAX));
        let mut beats = interval(HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.reset();
        let app = self.app.clone();
        let mut drains = pin!(app.health.drains());
        loop {
            let is_alive = tokio::select! {
                () = self.sender.closed() => false,
                () = &mut end => false,
                () = &mut drains => false,
                _ = beats.tick() => self.beat().await,
                heard = news.recv() => match heard {
                    Ok(News::Written(kv)) if kv.key == self.key.as_bytes() => self.told_of(&kv).await,
                    Ok(News::Gone(kv)) if kv.key == self.key.as_bytes() => false,
                    Ok(News::Written(_) | News::Gone(_)) => true,
                    Ok(News::Missed) | Err(broadcast::error::RecvError::Lagged(_)) => self.look().await,
                    Err(broadcast::error::RecvError::Closed) => false,
                },
            };
            if !is_alive {
                return;
            }
        }
    }

    /// Tells what is new; whether there will be more.
    async fn tell(&mut self, revision: i64, job: &Job) -> bool {
        if revision <= self.told {
            return true;
        }
        self.told = revision;
        let name = if job.has_ended() { "end" } else { "progress" };
        let event = Event::default().id(revision.to_string()).event(name).json_data(job);
        let event = event.expect("texts and numbers are JSON");
        self.sender.send(event).await.is_ok() && !job.has_ended()
    }

    async fn told_of(&mut self, kv: &KeyValue) -> bool {
        let Some(job) = queue::parsed(kv) else { return false };
        self.tell(kv.mod_revision, &job).await
    }

    /// Looks at the job; whether there will be more.
    async fn look(&mut self) -> bool {
        match self.app.store.get(&self.key).await {
            Ok(Some(kv)) => self.told_of(&kv).await,
            Ok(None) => false,
            // It may answer at the next look.
            Err(error) => {
                tracing::debug!(%error, "a stream of events");
                true
            }
        }
    }

    async fn beat(&mut self) -> bool {
        self.sender.send(Event::default().comment("heartbeat")).await.is_ok() && self.look().await
    }
}
