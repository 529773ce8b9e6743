//! What changes in the store, told as it happens: one watch of this replica, for whoever listens.
//!
//! A watch can be lost, and then nobody knows what was missed: listeners are told to look for themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use consensus_proto::{
    etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    mvccpb::{KeyValue, event::EventType},
};
use novacron_store::StoreError;
use tokio::{sync::broadcast, time::sleep};
use tokio_stream::StreamExt as _;

use crate::{
    app::App, auth::token::TOKENS, jobs::queue::JOBS, schedules::hand_out::SCHEDULES, store::end_of,
};

/// What is watched: listeners are told of the first, of all changes are counted.
const PREFIXES: [&str; 3] = [JOBS, TOKENS, SCHEDULES];
/// Changes that a listener has not taken yet; one that is further behind is told that it has missed some.
const BEHIND_MAX: usize = 256;
/// Between attempts to watch.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What a listener is told.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// An entry was written.
    Written(Arc<KeyValue>),
    /// An entry is gone.
    Gone(Arc<KeyValue>),
    /// Anything may have changed.
    Missed,
}

/// The watch.
pub(crate) struct Changes {
    sender: broadcast::Sender<News>,
    /// The watch is there: what has changed since was told.
    is_live: AtomicBool,
    /// Of each prefix: grows with each change below it, and when the watch is lost.
    counts: [AtomicU64; PREFIXES.len()],
}

impl Default for Changes {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(BEHIND_MAX);
        Self { sender, is_live: AtomicBool::new(false), counts: Default::default() }
    }
}

impl Changes {
    /// Listens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<News> {
        self.sender.subscribe()
    }

    /// A number that stays the same while nothing changes below a prefix; `None`: that is not known.
    pub(crate) fn count(&self, prefix: &str) -> Option<u64> {
        let count = self.counts[PREFIXES.iter().position(|watched| *watched == prefix)?].load(SeqCst);
        self.is_live.load(SeqCst).then_some(count)
    }

    fn tell(&self, news: News) {
        let key = match &news {
            News::Written(kv) | News::Gone(kv) => Some(&kv.key),
            News::Missed => None,
        };
        for (prefix, count) in PREFIXES.iter().zip(&self.counts) {
            if key.is_none_or(|key| key.starts_with(prefix.as_bytes())) {
                count.fetch_add(1, SeqCst);
            }
        }
        if key.is_none_or(|key| key.starts_with(PREFIXES[0].as_bytes())) {
            // Nobody may listen.
            let _ = self.sender.send(news);
        }
    }
}

/// Watches for as long as the replica runs.
pub(crate) async fn watch(app: Arc<App>) {
    loop {
        match watched(&app).await {
            Ok(()) => tracing::debug!("the watch has ended"),
            Err(error) => tracing::debug!(%error, "watching the store"),
        }
        app.changes.is_live.store(false, SeqCst);
        app.changes.tell(News::Missed);
        sleep(RETRY_PAUSE).await;
    }
}

/// One watch, until it ends.
async fn watched(app: &App) -> Result<(), StoreError> {
    let open = app.store.client().read("watch", (), |link, ()| async move {
        let requests = PREFIXES.map(|prefix| WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: prefix.into(),
                range_end: end_of(prefix).into(),
                ..WatchCreateRequest::default()
            })),
        });
        // It lasts for as long as the requests do.
        link.watch().watch(tokio_stream::iter(requests).chain(tokio_stream::pending())).await
    });
    let mut answers = open.await?;
    let mut made = 0;
    while let Ok(Some(answer)) = answers.message().await {
        if answer.canceled {
            break;
        }
        if answer.created {
            made += 1;
            if made == PREFIXES.len() {
                // What happened before was not told.
                app.changes.tell(News::Missed);
                app.changes.is_live.store(true, SeqCst);
            }
        }
        for event in answer.events {
            let is_gone = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv.map(Arc::new) else { continue };
            app.changes.tell(if is_gone { News::Gone(kv) } else { News::Written(kv) });
        }
    }
    Ok(())
}
