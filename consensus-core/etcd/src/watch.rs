//! Watches: many on one stream.
//!
//! A watch that is current gets its events from the apply thread through the stream's bounded queue. One that is behind,
//! because it asked for the past or because the client is slow, reads the history here, in pieces, as fast as the client
//! takes them, and then becomes current again.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use consensus_proto::{
    etcdserverpb::{
        ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion, watch_server::Watch,
    },
    mvccpb::{Event, event::EventType},
};
use consensus_store::{Access, AuthEpoch, Caller, StoreError, WatchRange, WatcherId};
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{identity::Credential, server::Server, status};

/// Revisions that wait for one stream. With more, its watches are behind.
const QUEUE: usize = 1024;
/// Answers that wait to be sent to one client.
const ANSWERS: usize = 16;
/// Watches on one stream.
const WATCHES_MAX: usize = 100_000;
/// A fragment of an answer has at most about this many bytes, as in etcd.
const FRAGMENT_BYTES: usize = 2 << 20;
/// A watch that wants to know of progress is told this often, as in etcd.
const PROGRESS: Duration = Duration::from_secs(600);
/// No watch.
const NO_WATCH: i64 = -1;

/// Where the apply thread puts a watch's events.
#[derive(Debug)]
pub(crate) struct Target {
    watch: i64,
    queue: mpsc::Sender<News>,
    behind: Arc<Behind>,
}

#[derive(Debug)]
struct News {
    watch: i64,
    revision: i64,
    events: Vec<Event>,
}

/// Watches of a stream that the apply thread could not tell.
#[derive(Debug, Default)]
struct Behind {
    watches: Mutex<BTreeSet<i64>>,
    changed: Notify,
}

impl Behind {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    /// For someone who watches one thing, and then looks again.
    pub(crate) fn once() -> (Self, impl Future<Output = ()>) {
        let (queue, mut news) = mpsc::channel(1);
        let target = Self { watch: 0, queue, behind: Arc::default() };
        (target, async move { drop(news.recv().await) })
    }

    /// Whether there was room.
    pub(crate) fn deliver(&self, revision: i64, events: Vec<Event>) -> bool {
        let told = self.queue.try_send(News { watch: self.watch, revision, events }).is_ok();
        if !told {
            self.fell_behind();
        }
        told
    }

    /// The watch has to read what it was not told.
    pub(crate) fn fell_behind(&self) {
        self.behind.lock().insert(self.watch);
        self.behind.changed.notify_one();
    }
}

struct OneWatch {
    range: WatchRange,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    progress: bool,
    fragment: bool,
    /// The client has everything before this revision.
    next: i64,
    /// Who watches, and under which policy that was allowed.
    caller: Caller,
    allowed: AuthEpoch,
    /// While it is current.
    registered: Option<WatcherId>,
}

/// One stream of a client.
struct Session {
    server: Server,
    credential: Credential,
    news: mpsc::Receiver<News>,
    watches: BTreeMap<i64, OneWatch>,
    next_id: i64,
    queue: mpsc::Sender<News>,
    behind: Arc<Behind>,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// The client is gone.
struct Gone;

#[tonic::async_trait]
impl Watch for Server {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let (queue, news) = mpsc::channel(QUEUE);
        let session = Session {
            server: self.clone(),
            credential: self.credential_of_stream(&request),
            news,
            watches: BTreeMap::new(),
            next_id: 0,
            queue,
            behind: Arc::default(),
            answers,
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Session {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let mut asks = true;
        let behind = Arc::clone(&self.behind);
        let mut progress = tokio::time::interval(PROGRESS);
        progress.tick().await;
        loop {
            let done = tokio::select! {
                // What waits comes before a look at the past, so that nothing is told twice or out of order.
                biased;
                Some(news) = self.news.recv() => self.tell(news).await,
                request = requests.next(), if asks => match request {
                    Some(Ok(WatchRequest { request_union: Some(request) })) => self.take(request).await,
                    Some(Ok(_)) => Ok(()),
                    Some(Err(_)) => Err(Gone),
                    // Who asks for no more still listens.
                    None => {
                        asks = false;
                        Ok(())
                    }
                },
                () = self.server.closing() => {
                    let stopped = Status::unavailable("etcdserver: server stopped");
                    let _ = self.answers.send(Err(stopped)).await;
                    Err(Gone)
                }
                () = behind.changed.notified() => self.catch_up_all().await,
                _ = progress.tick() => self.report_progress().await,
                () = self.answers.closed() => Err(Gone),
            };
            if done.is_err() {
                break;
            }
        }
        let mut hub = self.server.shared.news.hub();
        for watch in self.watches.into_values() {
            if let Some(id) = watch.registered {
                hub.remove(id);
            }
        }
    }

    async fn answer(&self, response: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(response)).await.map_err(|_| Gone)
    }

    async fn take(&mut self, request: RequestUnion) -> Result<(), Gone> {
        match request {
            RequestUnion::CreateRequest(request) => self.create(request).await,
            RequestUnion::CancelRequest(request) => {
                let id = request.watch_id;
                let Some(watch) = self.watches.remove(&id) else { return Ok(()) };
                if let Some(id) = watch.registered {
                    self.server.shared.news.hub().remove(id);
                }
                self.behind.lock().remove(&id);
                let header = self.server.header_now();
                self.answer(WatchResponse { header, watch_id: id, canceled: true, ..Default::default() })
                    .await
            }
            RequestUnion::ProgressRequest(_) => {
                let header = self.everything_told().await?;
                self.answer(WatchResponse { header, watch_id: NO_WATCH, ..Default::default() }).await
            }
        }
    }

    /// The header of a revision up to which every watch of the stream has been told everything.
    async fn everything_told(&mut self) -> Result<Option<ResponseHeader>, Gone> {
        let revision = self.server.shared.news.hub().revision();
        for _ in 0..self.news.len() {
            if let Ok(news) = self.news.try_recv() {
                self.tell(news).await?;
            }
        }
        self.catch_up_all().await?;
        Ok(self.server.header(revision))
    }

    /// Why a watch cannot be.
    fn check(&self, request: &WatchCreateRequest) -> Result<(), &'static str> {
        let (key, range_end) = (&request.key[..], &request.range_end[..]);
        if self.watches.len() >= WATCHES_MAX {
            Err("etcdserver: too many watches on a stream")
        } else if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            Err("mvcc: duplicate watch ID provided on the WatchStream")
        } else if !matches!(range_end, [] | [0]) && range_end <= key {
            Err("mvcc: watcher range is empty")
        } else {
            Ok(())
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Gone> {
        // A key of nothing is the first of all.
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key.clone() };
        let range = WatchRange { key, range_end: request.range_end.clone() };
        let permit = self
            .server
            .authorize(&self.credential, |policy, caller| {
                policy.check_keys(caller, Access::Read, &range.key, &range.range_end)
            })
            .await;
        // The client gets everything after the revision that it is told here.
        let revision = self.server.shared.news.hub().revision();
        let header = self.server.header(revision);
        let permit = match permit {
            Ok(permit) => self.check(&request).map(|()| permit).map_err(str::to_owned),
            Err(refused) => Err(status::as_text(&refused)),
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(cancel_reason) => {
                return self
                    .answer(WatchResponse {
                        header,
                        watch_id: NO_WATCH,
                        created: true,
                        canceled: true,
                        cancel_reason,
                        ..Default::default()
                    })
                    .await;
            }
        };
        let id = match request.watch_id {
            0 => {
                while self.watches.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id => id,
        };
        let next = match request.start_revision {
            ..=0 => revision + 1,
            revision => revision,
        };
        let has = |filter: FilterType| request.filters.contains(&filter.into());
        self.watches.insert(
            id,
            OneWatch {
                range,
                no_put: has(FilterType::Noput),
                no_delete: has(FilterType::Nodelete),
                prev_kv: request.prev_kv,
                progress: request.progress_notify,
                fragment: request.fragment,
                next,
                caller: permit.caller,
                allowed: permit.epoch,
                registered: None,
            },
        );
        self.answer(WatchResponse { header, watch_id: id, created: true, ..Default::default() }).await?;
        self.catch_up(id).await
    }

    async fn catch_up_all(&mut self) -> Result<(), Gone> {
        loop {
            let next = self.behind.lock().pop_first();
            let Some(id) = next else { return Ok(()) };
            let Some(watch) = self.watches.get_mut(&id) else { continue };
            if let Some(registered) = watch.registered.take() {
                self.server.shared.news.hub().remove(registered);
            }
            self.catch_up(id).await?;
        }
    }

    /// Reads the past until the watch is current.
    async fn catch_up(&mut self, id: i64) -> Result<(), Gone> {
        loop {
            let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
            let target = Target { watch: id, queue: self.queue.clone(), behind: Arc::clone(&self.behind) };
            let registered = self.server.shared.news.hub().register(watch.range.clone(), watch.next, target);
            let current = match registered {
                Ok(registered) => {
                    watch.registered = Some(registered);
                    return Ok(());
                }
                Err((_, current)) => current,
            };
            match self.server.shared.reader.changes(&watch.range, watch.next, current) {
                Ok((changes, next)) => {
                    watch.next = next;
                    let revision = changes.last().map(|last| last.revision);
                    let events: Vec<_> = changes.into_iter().flat_map(|changes| changes.events).collect();
                    if let Some(revision) = revision
                        && self.still_allowed(id).await?
                    {
                        self.send_events(id, revision.max(current), events).await?;
                    }
                }
                Err(error) => {
                    self.watches.remove(&id);
                    let compacted = if error == StoreError::Compacted {
                        self.server.shared.reader.compacted()
                    } else {
                        0
                    };
                    return self.cancel(id, error.to_string(), compacted).await;
                }
            }
        }
    }

    async fn cancel(&self, id: i64, cancel_reason: String, compact_revision: i64) -> Result<(), Gone> {
        self.answer(WatchResponse {
            header: self.server.header_now(),
            watch_id: id,
            canceled: true,
            compact_revision,
            cancel_reason,
            ..Default::default()
        })
        .await
    }

    /// Whether a watch may still tell of its keys; it is cancelled if not. Who watches was settled when it was made, but not for
    /// how long that is allowed.
    async fn still_allowed(&mut self, id: i64) -> Result<bool, Gone> {
        let reader = &self.server.shared.reader;
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(false) };
        if watch.allowed == reader.auth_epoch() {
            return Ok(true);
        }
        let policy = reader.policy();
        let caller = watch.caller.clone().known_at(policy.revision());
        let (key, range_end) = (&watch.range.key, &watch.range.range_end);
        let Err(refused) = policy.check_keys(&caller, Access::Read, key, range_end) else {
            watch.allowed = policy.epoch();
            return Ok(true);
        };
        if let Some(registered) = self.watches.remove(&id).and_then(|watch| watch.registered) {
            self.server.shared.news.hub().remove(registered);
        }
        self.cancel(id, status::as_text(&status::auth(refused)), 0).await?;
        Ok(false)
    }

    async fn tell(&mut self, news: News) -> Result<(), Gone> {
        match self.watches.get_mut(&news.watch) {
            // Of a watch that was cancelled, and perhaps made anew, meanwhile.
            None => Ok(()),
            Some(watch) if news.revision < watch.next => Ok(()),
            Some(watch) => {
                watch.next = news.revision + 1;
                if !self.still_allowed(news.watch).await? {
                    return Ok(());
                }
                self.send_events(news.watch, news.revision, news.events).await
            }
        }
    }

    async fn send_events(&self, id: i64, revision: i64, mut events: Vec<Event>) -> Result<(), Gone> {
        let Some(watch) = self.watches.get(&id) else { return Ok(()) };
        events.retain(|event| match event.r#type() {
            EventType::Put => !watch.no_put,
            EventType::Delete => !watch.no_delete,
        });
        if !watch.prev_kv {
            events.iter_mut().for_each(|event| event.prev_kv = None);
        }
        if events.is_empty() {
            return Ok(());
        }
        let header = self.server.header(revision);
        let mut response = WatchResponse { header, watch_id: id, ..Default::default() };
        let mut bytes = 0;
        for event in events {
            let len = event.encoded_len();
            if watch.fragment && bytes > 0 && bytes + len > FRAGMENT_BYTES {
                let rest = WatchResponse { header, watch_id: id, ..Default::default() };
                let mut full = std::mem::replace(&mut response, rest);
                full.fragment = true;
                self.answer(full).await?;
                bytes = 0;
            }
            bytes += len;
            response.events.push(event);
        }
        self.answer(response).await
    }

    async fn report_progress(&mut self) -> Result<(), Gone> {
        let header = self.everything_told().await?;
        let want: Vec<_> =
            self.watches.iter().filter(|(_, watch)| watch.progress).map(|(id, _)| *id).collect();
        for watch_id in want {
            self.answer(WatchResponse { header, watch_id, ..Default::default() }).await?;
        }
        Ok(())
    }
}
