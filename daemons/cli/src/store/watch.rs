//! `novacron kv watch`: changes as they come, each once, whichever members come and go.
//!
//! Events of a revision come together, so the revision after the last one that was printed is where the next member goes
//! on. Deliberately not here: what a change is.

use std::{io, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use consensus_proto::{
    etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use novacron_store::{Client, Effect, Failure, Link, StoreError, printable};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{
    answer,
    output::{Printed, print},
    range::KeyRange,
};

/// Requests that wait to be sent on a watch's stream: the one that creates it, and one for progress.
const REQUESTS: usize = 2;
/// The only watch on its stream.
const WATCH_ID: i64 = 0;
/// Between attempts to go on.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often `--progress` asks how far the member is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    range: KeyRange,
    /// Begins with the changes of this revision [default: the next].
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Prints after each change what the key was before, as `WAS VALUE`.
    #[arg(long)]
    prev_kv: bool,
    /// Prints `PROGRESS REVISION` whenever the member has told everything up to there, each second at most.
    #[arg(long)]
    progress: bool,
}

/// A watch that outlives members.
struct Watch<'a> {
    args: &'a WatchArgs,
    json: bool,
    /// Everything before this revision was printed; 0 if no member has said yet where it began.
    next: i64,
    /// The newest progress that was printed.
    progress: i64,
    /// Since when no member has said anything, if the last one was lost.
    lost: Option<Instant>,
}

/// A stream with the watch on it. Without the sender, the member would take it to be over.
type Opened = (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>);

/// Watches until a signal ends the process; returns with an error only.
pub(super) async fn run(client: &Client, args: &WatchArgs, json: bool) -> Result<u8> {
    Watch { args, json, next: args.rev, progress: 0, lost: None }.follow(client).await
}

async fn open(link: Link, create: WatchCreateRequest) -> Result<Response<Opened>, Status> {
    let (sender, requests) = mpsc::channel(REQUESTS);
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    assert!(sender.try_send(create).is_ok(), "there is room for the first request");
    let mut request = Request::new(ReceiverStream::new(requests));
    // etcd then ends the stream when the member has no leader: nothing new would come from it.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let answers = link.watch().watch(request).await?.into_inner();
    Ok(Response::new((sender, answers)))
}

impl Watch<'_> {
    /// Goes on at one member after the other; ends with an error only.
    async fn follow(&mut self, client: &Client) -> Result<u8> {
        let mut began = false;
        loop {
            match client.read("watch", self.create_request(), open).await {
                Ok(stream) => {
                    if began {
                        let (name, revision) = (client.current().name(), self.next);
                        eprintln!("novacron: watch: {name} goes on at revision {revision}");
                    }
                    began = true;
                    let status = self.listen(stream).await?;
                    let failure = Failure::of_status(client.current().name(), &status);
                    if failure.effect == Effect::Refused {
                        bail!(StoreError::Refused { what: "watch", failure });
                    }
                    eprintln!("novacron: watch: {failure}");
                    if self.is_lost_for(client.timeout()) {
                        bail!(StoreError::NoMember { what: "watch", failures: vec![failure] });
                    }
                    client.skip_current();
                }
                Err(error) if !began || !error.may_pass() || self.is_lost_for(client.timeout()) => {
                    bail!(error)
                }
                Err(_) => {}
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Whether no member has said anything for longer than this.
    fn is_lost_for(&mut self, patience: Duration) -> bool {
        self.lost.get_or_insert_with(Instant::now).elapsed() > patience
    }

    fn create_request(&self) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.args.range.key(),
            range_end: self.args.range.end(),
            start_revision: self.next,
            // Also where nobody wants to see it: a watch of quiet keys then goes on from where it is, which may have been
            // compacted otherwise.
            progress_notify: true,
            prev_kv: self.args.prev_kv,
            watch_id: WATCH_ID,
            ..Default::default()
        }
    }

    /// Prints what comes, until the stream ends, and says why it did.
    async fn listen(&mut self, (requests, mut answers): Opened) -> Result<Status> {
        let mut ticks = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Some(ended) = self.handle(&answer)? {
                            return Ok(ended);
                        }
                        self.lost = None;
                    }
                    Ok(None) => return Ok(Status::unavailable("the member has ended the watch")),
                    Err(status) => return Ok(status),
                },
                _ = ticks.tick(), if self.args.progress => {
                    let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // If the last one still waits, that is enough.
                    let _ = requests.try_send(WatchRequest { request_union: Some(ask) });
                }
            }
        }
    }

    /// Takes an answer; what ended the watch, if it did.
    fn handle(&mut self, answer: &WatchResponse) -> Result<Option<Status>> {
        if answer.canceled {
            return self.canceled(answer).map(Some);
        }
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        if answer.created {
            // A watch without a revision begins after the one that the member has.
            self.next = if self.next == 0 { revision + 1 } else { self.next };
            return Ok(None);
        }
        if answer.events.is_empty() {
            self.tell_progress(revision)?;
            // Only a watch's own progress is in order with its events: etcd before 3.4.25 and 3.5.8 may answer a request for it, which is
            // about no watch, while some are still on their way.
            if answer.watch_id == WATCH_ID {
                self.next = self.next.max(revision + 1);
            }
            return Ok(None);
        }
        // Should a member begin too early, nothing comes twice.
        let revision_of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for event in answer.events.iter().filter(|event| revision_of(event) >= self.next) {
            self.tell(event)?;
        }
        let last = answer.events.iter().map(revision_of).max().unwrap_or(0);
        self.next = self.next.max(last + 1);
        Ok(None)
    }

    fn canceled(&self, answer: &WatchResponse) -> Result<Status> {
        let (wanted, oldest) = (self.next, answer.compact_revision);
        if oldest > 0 {
            bail!(
                "watch: revision {wanted} has been compacted: changes from it up to revision {oldest} cannot be told any \
                 more (--rev {oldest} begins with what is left; read the keys first)"
            );
        }
        let reason = match answer.cancel_reason.as_str() {
            "" => "the member has canceled the watch",
            reason => reason,
        };
        // etcd says so in the reason where a stream goes on; a watch that is canceled for another reason is so everywhere.
        if reason == "etcdserver: no leader" {
            return Ok(Status::unavailable(reason));
        }
        bail!("watch: {}", printable(reason.strip_prefix("etcdserver: ").unwrap_or(reason)))
    }

    fn tell_progress(&mut self, revision: i64) -> io::Result<()> {
        if !self.args.progress || revision <= self.progress {
            return Ok(());
        }
        self.progress = revision;
        if self.json {
            print(json!({ "type": "progress", "revision": revision }))
        } else {
            print(format_args!("PROGRESS {revision}"))
        }
    }

    fn tell(&self, event: &Event) -> io::Result<()> {
        let Some(kv) = &event.kv else { return Ok(()) };
        let is_put = event.r#type() == EventType::Put;
        if self.json {
            return print(event_json(event, is_put));
        }
        let key = Printed(&kv.key);
        if is_put {
            print(format_args!("PUT {key} {}", Printed(&kv.value)))?
        } else {
            print(format_args!("DELETE {key}"))?
        }
        event.prev_kv.as_ref().map_or(Ok(()), |kv| print(format_args!("WAS {}", Printed(&kv.value))))
    }
}

fn event_json(event: &Event, is_put: bool) -> Value {
    json!({
        "type": if is_put { "put" } else { "delete" },
        "kv": event.kv.as_ref().map(answer::key_value),
        "prev_kv": event.prev_kv.as_ref().map(answer::key_value),
    })
}
