//! The client: sends (or, reversed, receives) for the given time and gathers the figures.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use dwcp_core::{Connection, ConnectionStats, Endpoint, Messages, Priority};
use hdrhistogram::Histogram;
use tokio::{sync, task::JoinSet, time::Instant};

use super::{
    Arrivals, BLOCK_BYTES, BLOCK_BYTES_MAX, ClientArgs, Control, End, MESSAGE_BYTES, Mode, Outcome, Plan,
    Ring, Until, cpu_seconds, drain, fill, peak_rss_kib,
    report::{Interval, LinkReport, Report},
};
use novacron_process::Signals;

use crate::{
    exit::{self, Usage},
    observe::Observable,
    settings::Node,
};

/// Messages handed over at once.
const MESSAGES_BATCH: usize = 256;
/// A round trip longer than this ends the run.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(60);
/// Beside streams, round trips that end before this, or before a quarter of the time, do not count: the streams have not
/// filled the links yet, and a hundred quick round trips in the first moments can outnumber all later ones.
const WARM_UP: Duration = Duration::from_millis(500);

/// What messages carry: static, so that cloning one costs nothing.
static MESSAGE: [u8; Messages::LEN_MAX] = [0; Messages::LEN_MAX];

/// Measures; returns the exit code.
pub(super) async fn run(args: &ClientArgs, node: Node) -> Result<u8> {
    let time = Duration::try_from_secs_f64(args.time).map_err(|error| Usage(format!("--time: {error}")))?;
    let interval =
        Duration::try_from_secs_f64(args.interval).map_err(|error| Usage(format!("--interval: {error}")))?;
    ensure!(!interval.is_zero(), Usage("--interval must be longer than nothing".into()));
    let reversible = args.mode == Mode::Throughput;
    ensure!(!args.reverse || reversible, Usage("--reverse is for --mode throughput".into()));
    let size =
        args.size.map(usize::try_from).transpose().map_err(|error| Usage(format!("--size: {error}")))?;
    let (block_bytes, message_bytes) = match args.mode {
        Mode::Throughput => (size.unwrap_or(BLOCK_BYTES), 0),
        _ => (BLOCK_BYTES, size.unwrap_or(MESSAGE_BYTES)),
    };
    let write_fits = (1..=BLOCK_BYTES_MAX).contains(&block_bytes);
    ensure!(write_fits, Usage(format!("--size: a write has 1..={BLOCK_BYTES_MAX} bytes")));
    let most = MESSAGE.len();
    ensure!(message_bytes <= most, Usage(format!("--size: a message has at most {most} bytes")));
    let plan = Plan {
        mode: args.mode,
        streams: args.streams.unwrap_or((args.mode == Mode::Throughput).into()),
        block_bytes,
        data: args.data.to_string(),
        reverse: args.reverse,
        time,
    };
    let mut signals = Signals::listen()?;
    let ring = Ring::new(args.data, block_bytes).await?;

    let observable = Observable::prepare(&node.settings.metrics).await?;
    let endpoint = Endpoint::client(node.settings.endpoint.clone())?;
    node.keep_fresh(&endpoint);
    let _observed = observable.serve("novacron bench client", &node.settings, &endpoint, signals.draining());
    let Some(connected) = signals.unless(connect(args, &endpoint)).await else {
        bail!("told to stop before anything was measured");
    };
    let connection = connected?;
    let (end, early) = sync::watch::channel(false);
    let message = Bytes::from_static(&MESSAGE[..message_bytes]);
    let work = measure(args, interval, plan, ring, message, connection.clone(), early);
    let drain = async {
        end.send_replace(true);
        tokio::time::sleep(node.settings.drain_timeout).await;
    };
    let Some(report) = signals.let_finish(work, drain).await else {
        bail!("told to stop before there was a result");
    };
    let report = report?;
    connection.close(0, "done");
    report.print(args.json)?;
    Ok(if report.ended_early { exit::FAILURE } else { exit::OK })
}

async fn measure(
    args: &ClientArgs,
    interval: Duration,
    plan: Plan,
    ring: Ring,
    message: Bytes,
    connection: Connection,
    early: sync::watch::Receiver<bool>,
) -> Result<Report> {
    let mut control = Control::new(connection.open_stream().await?);
    control.send(&plan).await?;
    let ready: String = control.recv().await?;
    ensure!(ready == "ready", "the server says {ready:?}");

    let (start, time) = (Instant::now(), plan.time);
    let until = Until { time: start + time, early };
    let arrivals = Arrivals::new(time);
    let mut run = Run { connection: connection.clone(), arrivals, plan, message, until };
    let before = (cpu_seconds(), connection.stats());
    let quiet = args.json || run.plan.streams == 0;
    let watcher = watch(connection.clone(), start, run.until.clone(), interval, args.reverse, quiet);
    let watcher = tokio::spawn(watcher);
    let work = run.work(ring).await?;
    let ended_early = *run.until.early.borrow() && start.elapsed() < time;
    control.send(&End { messages: work.messages }).await?;
    let outcome: Outcome = control.recv().await?;
    let seconds = start.elapsed().as_secs_f64();
    // Its time is over as well: nothing ends before that.
    let (intervals, links) = watcher.await?;
    let stats = connection.stats();

    let (bytes, bytes_in_time) = if args.reverse {
        (run.arrivals.bytes(), run.arrivals.in_time())
    } else {
        (outcome.bytes, outcome.bytes_in_time)
    };
    let bytes_per_second =
        if ended_early { bytes as f64 / seconds } else { bytes_in_time as f64 / time.as_secs_f64() };
    let wire = |s: &ConnectionStats| if args.reverse { s.wire_bytes_received } else { s.wire_bytes_sent };
    let wire_bytes = wire(&stats) - wire(&before.1);
    let sent_retransmits: u64 = stats.links.iter().map(|link| link.retransmits).sum();
    Ok(Report {
        mode: args.mode,
        seconds,
        ended_early,
        bytes,
        bits_per_second: bytes_per_second * 8.0,
        wire_bytes,
        ratio: (wire_bytes > 0).then(|| bytes as f64 / wire_bytes as f64),
        messages: outcome.messages,
        messages_per_second: outcome.messages as f64 / seconds,
        p50_us: work.trips.as_ref().map(|trips| trips.value_at_quantile(0.5) as f64 / 1e3),
        p99_us: work.trips.as_ref().map(|trips| trips.value_at_quantile(0.99) as f64 / 1e3),
        retransmits: if args.reverse { outcome.retransmits } else { sent_retransmits },
        cpu_seconds_client: cpu_seconds() - before.0,
        cpu_seconds_server: outcome.cpu_seconds,
        peak_rss_kib: peak_rss_kib()?,
        decision: stats.last_decision,
        congestion_control_decision: stats.congestion_control_decision,
        links,
        intervals,
    })
}

async fn connect(args: &ClientArgs, endpoint: &Endpoint) -> Result<Connection> {
    let server = args.server.as_deref().ok_or_else(|| Usage("HOST:PORT is missing".into()))?;
    let (host, _) = server.rsplit_once(':').ok_or_else(|| Usage(format!("{server:?} is not HOST:PORT")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = args.server_name.as_deref().unwrap_or(host);
    let mut connected = Err(anyhow!("{host} has no address"));
    for addr in tokio::net::lookup_host(server).await.with_context(|| format!("cannot resolve {host}"))? {
        connected = endpoint.connect(addr, name).await.map_err(anyhow::Error::from);
        if connected.is_ok() {
            break;
        }
    }
    connected.with_context(|| format!("cannot connect to {server}"))
}

struct Run {
    connection: Connection,
    plan: Plan,
    message: Bytes,
    /// What comes here, if the server sends.
    arrivals: Arc<Arrivals>,
    until: Until,
}

/// What the foreground job did.
#[derive(Default)]
struct Work {
    messages: u64,
    trips: Option<Histogram<u64>>,
}

impl Run {
    async fn work(&mut self, ring: Ring) -> Result<Work> {
        let mut streams = JoinSet::new();
        for _ in 0..self.plan.streams {
            if self.plan.reverse {
                let (_, recv) = self.connection.accept_stream().await?;
                let (arrivals, early) = (Arc::clone(&self.arrivals), self.until.clone().early());
                streams.spawn(async move {
                    tokio::select! {
                        drained = drain(recv, arrivals) => drained,
                        () = early => Ok(()),
                    }
                });
            } else {
                let (send, _) = self.connection.open_stream().await?;
                streams.spawn(fill(send, ring.clone(), self.until.clone()));
            }
        }
        let work = match self.plan.mode {
            Mode::Throughput => Work::default(),
            Mode::Rtt => self.round_trips().await?,
            Mode::Messages => self.one_way().await?,
        };
        while let Some(done) = streams.join_next().await {
            done??;
        }
        Ok(work)
    }

    async fn round_trips(&self) -> Result<Work> {
        let messages = self.connection.messages();
        let mut trips = Histogram::new_with_bounds(1, ROUND_TRIP_MAX.as_nanos() as u64, 3)?;
        let warm_up = if self.plan.streams > 0 { WARM_UP.min(self.plan.time / 4) } else { Duration::ZERO };
        let mut count = 0;
        let mut last = Instant::now();
        let counted_from = last + warm_up;
        while !self.until.is_over() {
            messages.request(Priority::Control, self.message.clone(), ROUND_TRIP_MAX).await?;
            let now = Instant::now();
            if now >= counted_from {
                trips.saturating_record((now - last).as_nanos() as u64);
            }
            count += 1;
            last = now;
        }
        Ok(Work { messages: count, trips: Some(trips).filter(|trips| !trips.is_empty()) })
    }

    async fn one_way(&self) -> Result<Work> {
        let messages = self.connection.messages();
        let mut batch = Vec::with_capacity(MESSAGES_BATCH);
        let mut sent = 0;
        while !self.until.is_over() {
            batch.resize(MESSAGES_BATCH, self.message.clone());
            messages.send_many(Priority::Normal, &mut batch).await?;
            sent += MESSAGES_BATCH as u64;
        }
        Ok(Work { messages: sent, trips: None })
    }
}

/// Prints a line at each interval; at the end, how the links are.
async fn watch(
    connection: Connection,
    start: Instant,
    until: Until,
    interval: Duration,
    reverse: bool,
    quiet: bool,
) -> (Vec<Interval>, Vec<LinkReport>) {
    let moved = |stats: &ConnectionStats| if reverse { stats.bytes_received } else { stats.bytes_sent };
    let mut intervals = Vec::new();
    let (mut last, mut bytes) = (Duration::ZERO, moved(&connection.stats()));
    loop {
        let next = (start + last + interval).min(until.time);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = until.clone().early() => {}
        }
        let now = start.elapsed();
        let stats = connection.stats();
        let rate = (moved(&stats) - bytes) as f64 * 8.0 / (now - last).as_secs_f64().max(f64::EPSILON);
        intervals.push(Interval {
            start: last.as_secs_f64(),
            end: now.as_secs_f64(),
            bits_per_second: rate,
            links: stats.links.len(),
            congestion_control: stats.links.first().map(|link| link.congestion_control.clone()),
        });
        if !quiet {
            println!("{}", intervals[intervals.len() - 1]);
        }
        if next >= until.time || until.is_over() {
            return (intervals, stats.links.iter().map(LinkReport::new).collect());
        }
        (last, bytes) = (now, moved(&stats));
    }
}
