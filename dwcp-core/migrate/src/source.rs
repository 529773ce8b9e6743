//! The side that the guest leaves.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use dwcp_core::{Connection, RecvStream};
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    MigrateError, Qmp, Report,
    converge::{Converge, Knobs, Seen},
    disks::{self, Attached, Mirrors},
    error::socket,
    memory::{self, Progress, SharedEncoder},
    message::{self, ANSWER_TIMEOUT, Answer, Kind, Offer},
    qmp::event_or,
    ram::{Encoder, PAGES_BYTES_MAX},
    recover::{Sent, recover, set_capabilities},
    report::ms,
    sockets::SocketPath,
};

/// Between two looks at QEMU's migration, if no event comes.
const REST: Duration = Duration::from_millis(50);
/// How long a target that has given up may take to say why; the guest may stand meanwhile.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);
/// QEMU's own limit for what it sends, which is the path's business.
const BANDWIDTH_MAX: u64 = 100 << 30;

/// How to migrate.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// In how much memory, at each end, pages are kept for differences; at most [`PAGES_BYTES_MAX`].
    pub pages_bytes: u64,
    /// Of zstd.
    pub level: i32,
    /// How long the guest may stand while the last of its memory is sent, as QEMU expects it.
    pub downtime_max_ms: u64,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self { pages_bytes: PAGES_BYTES_MAX, level: 3, downtime_max_ms: 300 }
    }
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The disks are copied.
    Disks,
    /// The memory is.
    Memory,
    /// The guest has stopped.
    Switchover,
    /// The target is about to be told that the guest may run there: from here on, only the target knows.
    Handover,
}

/// Moves the guest of a QEMU to the target at the other end of a connection. `told` hears of each stage as it begins.
///
/// After an error the guest runs here, as before; only after [`MigrateError::Unknown`] it stands, because it may run there.
pub async fn migrate(
    connection: &Connection,
    qmp: &Qmp,
    options: &SourceOptions,
    mut told: impl FnMut(Stage),
) -> Result<Report, MigrateError> {
    // What one that was killed has left.
    recover(qmp, Sent::Stays).await?;
    let state = qmp.status().await?;
    if state != "running" {
        return Err(MigrateError::State { state, wanted: "running" });
    }
    let moved = attempt(connection, qmp, options, &mut told).await;
    if let Err(error) = &moved
        && !matches!(error, MigrateError::Unknown)
        && let Err(failed) = recover(qmp, Sent::GoesOn).await
    {
        tracing::error!(%error, %failed, "the source could not be put back: novacron vm recover tries again");
    }
    moved
}

async fn attempt(
    connection: &Connection,
    qmp: &Qmp,
    options: &SourceOptions,
    told: &mut impl FnMut(Stage),
) -> Result<Report, MigrateError> {
    let begin = Instant::now();
    let pages_bytes = options.pages_bytes.min(PAGES_BYTES_MAX);
    let disks = disks::attached(qmp).await?;
    let (mut control, heard) = message::open(connection, Kind::Control).await?;
    let offer = Offer { disks: disks.iter().map(|attached| attached.disk.clone()).collect(), pages_bytes };
    message::say(&mut control, &offer).await?;
    let mut target = Target::hear(heard);
    target.ready().await?;

    told(Stage::Disks);
    let work = copy_disks(connection, qmp, &disks, Duration::from_millis(options.downtime_max_ms));
    let mirrors = target.unless_failed(work).await?;
    let disks_took = begin.elapsed();

    told(Stage::Memory);
    let encoder = Encoder::new(pages_bytes, options.level).map_err(socket("compression"))?;
    let encoder = Arc::new(Mutex::new(encoder));
    let progress = Progress::default();
    let mut memory = Memory::start(connection, qmp, &encoder).await?;
    let mut watched = Watched {
        qmp,
        progress: &progress,
        mirrors: Some(mirrors),
        converge: Converge::new(options.downtime_max_ms),
        passes: 0,
    };
    let work = async {
        tokio::try_join!(
            memory::send(memory.qemu, &encoder, &mut memory.stream, memory.acked, &progress),
            watched.see_through(told),
        )
    };
    target.unless_failed(work).await?;

    told(Stage::Handover);
    memory::end(&mut memory.stream).await?;
    target.runs().await?;
    let stopped = qmp.events().borrow().stopped.unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();

    let counts = encoder.lock().expect("nobody panics").counts();
    let disk_bytes = disks.iter().map(|attached| attached.disk.bytes).sum();
    let memory_bytes = progress.plain.load(Relaxed);
    let wire_bytes = connection.stats().wire_bytes_sent;
    Ok(Report {
        total_ms: ms(begin.elapsed()),
        disks_ms: ms(disks_took),
        downtime_ms: ms(now.saturating_sub(stopped)),
        passes: watched.passes,
        disk_bytes,
        memory_bytes,
        memory_coded_bytes: progress.coded.load(Relaxed),
        pages_zero: counts.zero,
        pages_full: counts.full,
        pages_delta: counts.delta,
        wire_bytes,
        ratio: (disk_bytes + memory_bytes) as f64 / wire_bytes.max(1) as f64,
    })
}

async fn copy_disks(
    connection: &Connection,
    qmp: &Qmp,
    disks: &[Attached],
    downtime_max: Duration,
) -> Result<Mirrors, MigrateError> {
    let mirrors = Mirrors::start(qmp, connection, disks).await?;
    mirrors.caught_up(qmp, downtime_max).await?;
    Ok(mirrors)
}

/// What the target says, heard at any time.
struct Target(JoinSet<Result<Answer, MigrateError>>, Option<RecvStream>);

impl Target {
    fn hear(heard: RecvStream) -> Self {
        Self(JoinSet::new(), Some(heard))
    }

    async fn ready(&mut self) -> Result<(), MigrateError> {
        let mut heard = self.1.take().expect("it is asked once");
        let timeout = ANSWER_TIMEOUT;
        let answer = tokio::time::timeout(timeout, message::hear(&mut heard)).await;
        match answer.map_err(|_| MigrateError::Timeout { what: "the target's answer", timeout })?? {
            Answer::Ready => {}
            Answer::Failed(why) => return Err(MigrateError::Target(why)),
            Answer::Running => return Err(MigrateError::Protocol("answer")),
        }
        self.0.spawn(async move { message::hear(&mut heard).await });
        Ok(())
    }

    async fn unless_failed<T>(
        &mut self,
        work: impl Future<Output = Result<T, MigrateError>>,
    ) -> Result<T, MigrateError> {
        tokio::select! {
            done = work => match done {
                Err(MigrateError::GivenUp) => Err(self.reason().await),
                done => done,
            },
            Some(answer) = self.0.join_next() => Err(match answer.expect("nobody panics") {
                Ok(Answer::Failed(why)) => MigrateError::Target(why),
                Ok(_) => MigrateError::Protocol("answer"),
                Err(error) => error,
            }),
        }
    }

    /// Why it has given up, which is on its way if it can still say something.
    async fn reason(&mut self) -> MigrateError {
        match tokio::time::timeout(REASON_TIMEOUT, self.0.join_next()).await {
            Ok(Some(Ok(Ok(Answer::Failed(why))))) => MigrateError::Target(why),
            _ => MigrateError::GivenUp,
        }
    }

    /// Everything was sent: only the target knows now.
    async fn runs(&mut self) -> Result<(), MigrateError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.0.join_next()).await;
        match answer {
            Ok(Some(Ok(Ok(Answer::Running)))) => Ok(()),
            Ok(Some(Ok(Ok(Answer::Failed(why))))) => Err(MigrateError::Target(why)),
            _ => Err(MigrateError::Unknown),
        }
    }
}

/// QEMU's stream, and ours.
struct Memory {
    qemu: UnixStream,
    stream: dwcp_core::SendStream,
    acked: watch::Receiver<u64>,
    _tasks: JoinSet<Result<(), MigrateError>>,
}

impl Memory {
    async fn start(
        connection: &Connection,
        qmp: &Qmp,
        encoder: &SharedEncoder,
    ) -> Result<Self, MigrateError> {
        set_capabilities(qmp, &["auto-converge", "events", "pause-before-switchover"]).await?;
        qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": BANDWIDTH_MAX })).await?;
        let (stream, acks) = message::open(connection, Kind::Memory).await?;
        let (pages, asked) = message::open(connection, Kind::Repair).await?;
        let (told, acked) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(memory::read_acks(acks, told));
        tasks.spawn(memory::repair(encoder.clone(), pages, asked));
        let path = SocketPath::new(qmp, "memory")?;
        let listener = path.listen()?;
        qmp.execute("migrate", json!({ "uri": format!("unix:{}", path.as_text()) })).await?;
        let qemu = accept(&listener).await?;
        Ok(Self { qemu, stream, acked, _tasks: tasks })
    }
}

async fn accept(listener: &UnixListener) -> Result<UnixStream, MigrateError> {
    let (what, timeout) = ("QEMU's migration socket", ANSWER_TIMEOUT);
    let accepted = tokio::time::timeout(timeout, listener.accept()).await;
    let (qemu, _) = accepted.map_err(|_| MigrateError::Timeout { what, timeout })?.map_err(socket(what))?;
    Ok(qemu)
}

/// QEMU's migration while it goes on.
struct Watched<'a> {
    qmp: &'a Qmp,
    progress: &'a Progress,
    /// Until the guest has stopped.
    mirrors: Option<Mirrors>,
    converge: Converge,
    passes: u64,
}

impl Watched<'_> {
    /// Sees QEMU's migration through until all is written.
    async fn see_through(&mut self, told: &mut impl FnMut(Stage)) -> Result<(), MigrateError> {
        let begin = Instant::now();
        self.turn(self.converge.knobs()).await?;
        let mut events = self.qmp.events();
        loop {
            let migration = self.qmp.query("query-migrate").await?;
            match migration["status"].as_str().unwrap_or_default() {
                "completed" => return Ok(()),
                status @ ("failed" | "cancelled" | "cancelling") => {
                    let message =
                        migration["error-desc"].as_str().unwrap_or("it does not say why").to_owned();
                    return Err(MigrateError::Migration { status: status.to_owned(), message });
                }
                "pre-switchover" => {
                    if let Some(mirrors) = self.mirrors.take() {
                        told(Stage::Switchover);
                        mirrors.finish(self.qmp).await?;
                        let state = json!({ "state": "pre-switchover" });
                        self.qmp.execute("migrate-continue", state).await?;
                    }
                }
                "active" => self.look(&migration["ram"], begin.elapsed()).await?,
                _ => {}
            }
            event_or(&mut events, REST).await;
        }
    }

    async fn look(&mut self, ram: &Value, elapsed: Duration) -> Result<(), MigrateError> {
        let number = |name: &str| ram[name].as_u64().unwrap_or(0);
        self.passes = number("dirty-sync-count");
        let sent = self.progress.plain.load(Relaxed);
        let seen = Seen {
            passes: self.passes,
            remaining: number("remaining"),
            dirtied: number("dirty-pages-rate") * number("page-size"),
            goodput: (sent as f64 / elapsed.as_secs_f64().max(1e-3)) as u64,
        };
        match self.converge.look(seen) {
            Some(knobs) => self.turn(knobs).await,
            None => Ok(()),
        }
    }

    async fn turn(&self, knobs: Knobs) -> Result<(), MigrateError> {
        let Knobs { downtime_limit_ms, throttle_trigger_percent } = knobs;
        tracing::info!(downtime_limit_ms, throttle_trigger_percent, "QEMU is told");
        let parameters = json!({
            "downtime-limit": downtime_limit_ms, "throttle-trigger-threshold": throttle_trigger_percent,
        });
        self.qmp.execute("migrate-set-parameters", parameters).await?;
        Ok(())
    }
}
