//! Many watchers of one key: how soon the last of them has heard of a put, and how many events all of them get.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use consensus_proto::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient,
    watch_client::WatchClient, watch_request::RequestUnion,
};
use futures_util::{StreamExt as _, future::try_join_all, stream};
use hdrhistogram::Histogram;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tonic::{Streaming, transport::Channel};

use super::{Case, Sizes};
use crate::{
    clients::{CONNECTIONS_MAX, VALUE_BYTES},
    cluster::Cluster,
    contender::Contender,
    figure::Figure,
    status::connect,
};

const KEY: &str = "watched";
/// Puts on their way to watchers while it is counted how many events they get.
const PUTS_AT_ONCE: usize = 16;
/// For an event.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before what counts: connections are new.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a table calls it.
pub(crate) fn case(watchers: usize) -> String {
    format!("{watchers} watchers")
}

pub(crate) async fn measure(sizes: &Sizes, contender: &Contender) -> Result<Vec<Case>> {
    let cluster = Cluster::start(contender, &sizes.folder, &[])?;
    let connections = connect(&cluster.endpoints(), CONNECTIONS_MAX).await?;
    let mut watchers = Watchers::start(&connections, sizes.watchers).await?;
    let kv = KvClient::new(connections[0].clone());
    watchers.puts(&kv, 1, WARM_UP).await?;
    let one = watchers.puts(&kv, 1, sizes.time).await?;
    let before = cluster.usage()?;
    let many = watchers.puts(&kv, PUTS_AT_ONCE, sizes.time).await?;
    let used = cluster.usage()?.since(&before);
    let events = many.times.len() as f64 * sizes.watchers as f64;
    let ms = |quantile| one.times.value_at_quantile(quantile) as f64 / 1000.0;
    let figures = [
        (Figure::EventsPerSecond, events / many.seconds),
        (Figure::LastWatcherP50Ms, ms(0.5)),
        (Figure::LastWatcherP99Ms, ms(0.99)),
        (Figure::CpuSeconds, used.cpu_s * 1e5 / events),
        (Figure::RssMib, used.rss_kib_max / 1024.0),
    ];
    Ok(vec![Case {
        name: case(sizes.watchers),
        figures: figures.map(|(figure, value)| (figure, vec![value])).to_vec(),
    }])
}

/// Watchers that count what they get together.
struct Watchers {
    count: usize,
    /// When all together have got as many events as there are watchers, once more.
    all_heard: mpsc::Receiver<Instant>,
    /// Ended when dropped. None ends by itself but with an error.
    tasks: JoinSet<Result<()>>,
}

/// Puts, each with the time until all watchers had heard of it, in microseconds.
struct Puts {
    times: Histogram<u64>,
    seconds: f64,
}

impl Watchers {
    /// When it returns, the members know all of them.
    async fn start(connections: &[Channel], count: usize) -> Result<Self> {
        let streams = (0..count).map(|n| watch(connections[n % connections.len()].clone()));
        let streams = try_join_all(streams).await?;
        let (sender, all_heard) = mpsc::channel(PUTS_AT_ONCE);
        let heard = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for stream in streams {
            tasks.spawn(count_events(stream, heard.clone(), count as u64, sender.clone()));
        }
        Ok(Self { count, all_heard, tasks })
    }

    /// Keeps `at_once` puts on their way for a time, and waits until watchers have heard of all.
    async fn puts(&mut self, kv: &KvClient<Channel>, at_once: usize, time: Duration) -> Result<Puts> {
        let start = Instant::now();
        let mut times = Histogram::new(3)?;
        let mut waiting = VecDeque::with_capacity(at_once);
        let mut puts = JoinSet::new();
        loop {
            while waiting.len() < at_once && start.elapsed() < time {
                waiting.push_back(Instant::now());
                puts.spawn(put(kv.clone()));
            }
            let Some(sent) = waiting.pop_front() else { break };
            let heard = tokio::select! {
                heard = timeout(PATIENCE, self.all_heard.recv()) => heard,
                ended = self.tasks.join_next() => bail!("a watcher ended: {ended:?}"),
            };
            let heard = heard.with_context(|| format!("one of {} watchers hears nothing", self.count))?;
            times += heard.context("all watchers have ended")?.duration_since(sent).as_micros() as u64;
            while let Some(answered) = puts.try_join_next() {
                answered??;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        while let Some(answered) = puts.join_next().await {
            answered??;
        }
        Ok(Puts { times, seconds })
    }
}

async fn put(mut kv: KvClient<Channel>) -> Result<()> {
    let value: Bytes = vec![b'w'; VALUE_BYTES].into();
    kv.put(PutRequest { key: KEY.into(), value, ..Default::default() }).await?;
    Ok(())
}

/// A watch of its own stream that the member has confirmed.
async fn watch(connection: Channel) -> Result<Streaming<WatchResponse>> {
    let create = WatchCreateRequest { key: KEY.into(), ..Default::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open: its end would be the watch's.
    let requests = stream::iter([request]).chain(stream::pending());
    let mut stream = WatchClient::new(connection).watch(requests).await?.into_inner();
    let created = stream.message().await?.context("the stream of a watch ended")?;
    ensure!(created.created, "the first answer of a watch is {created:?}");
    Ok(stream)
}

async fn count_events(
    mut stream: Streaming<WatchResponse>,
    heard: Arc<AtomicU64>,
    watchers: u64,
    all_heard: mpsc::Sender<Instant>,
) -> Result<()> {
    loop {
        let response = stream.message().await?.context("the stream of a watch ended")?;
        ensure!(!response.canceled, "a watch was cancelled: {}", response.cancel_reason);
        for _ in &response.events {
            let count = heard.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_multiple_of(watchers) {
                // Room for each put that can be on its way.
                all_heard.try_send(Instant::now())?;
            }
        }
    }
}
