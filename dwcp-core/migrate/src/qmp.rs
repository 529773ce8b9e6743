//! QEMU's monitor: commands and their answers, and when events came.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
    task::AbortHandle,
};

use crate::MigrateError;

/// Longest line that QEMU may answer with.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

type Answer = Result<Value, String>;
type Waiting = Mutex<HashMap<u64, oneshot::Sender<Answer>>>;

/// A connection to a monitor. QEMU serves one at a time.
#[derive(Clone)]
pub struct Qmp(Arc<Inner>);

struct Inner {
    path: PathBuf,
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    events: watch::Receiver<Events>,
    reader: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What was told without being asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    /// How many there were.
    pub(crate) count: u64,
    /// When the guest last stopped, by QEMU's clock.
    pub(crate) stopped: Option<Duration>,
    /// When it last went on.
    pub(crate) resumed: Option<Duration>,
}

impl Qmp {
    /// Connects to a monitor's socket (`-qmp unix:PATH,server=on,wait=off`).
    pub async fn connect(path: &Path) -> Result<Self, MigrateError> {
        let open = async {
            let (read, mut write) = UnixStream::connect(path).await?.into_split();
            let mut lines = Lines(BufReader::new(read));
            let greeting = lines.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if greeting.get("QMP").is_none() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no QMP socket"));
            }
            write.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await?;
            lines.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok((lines, write))
        };
        let opened = tokio::time::timeout(COMMAND_TIMEOUT, open).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it does not greet: somebody else is connected"))
        });
        let (lines, write) = opened.map_err(|source| MigrateError::Qmp { path: path.to_owned(), source })?;
        let waiting = Arc::<Waiting>::default();
        let (told, events) = watch::channel(Events::default());
        let reader = tokio::spawn(read(lines, waiting.clone(), told)).abort_handle();
        let write = tokio::sync::Mutex::new(write);
        let path = path.to_owned();
        Ok(Self(Arc::new(Inner { path, write, waiting, next: AtomicU64::new(0), events, reader })))
    }

    /// The folder that QEMU has its socket in: it can reach others there.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path.parent().unwrap_or(Path::new("/"))
    }

    /// A command and what it returns.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, MigrateError> {
        let broken = |source| MigrateError::Qmp { path: self.0.path.clone(), source };
        let id = self.0.next.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        self.0.waiting.lock().expect("nobody panics").insert(id, answer);
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let ask = async {
            // A line is written whole, or the connection is over.
            self.0.write.lock().await.write_all(line.as_bytes()).await?;
            answered.await.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let answer = tokio::time::timeout(COMMAND_TIMEOUT, ask).await;
        self.0.waiting.lock().expect("nobody panics").remove(&id);
        let answer = answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
        let refused = |message| MigrateError::Refused { command: command.to_owned(), message };
        answer.map_err(broken)?.map_err(refused)
    }

    /// A command without arguments.
    pub async fn query(&self, command: &str) -> Result<Value, MigrateError> {
        self.execute(command, json!({})).await
    }

    /// What the guest does: `running`, `paused`, `inmigrate`, ...
    pub async fn status(&self) -> Result<String, MigrateError> {
        let answer = self.query("query-status").await?;
        answer["status"]
            .as_str()
            .map(str::to_owned)
            .ok_or(MigrateError::NotUnderstood { command: "query-status" })
    }

    pub(crate) fn events(&self) -> watch::Receiver<Events> {
        self.0.events.clone()
    }

    /// The guest's last stop and start, if it was seen, since 1970.
    pub fn stopped_and_resumed(&self) -> (Option<Duration>, Option<Duration>) {
        let events = *self.0.events.borrow();
        (events.stopped, events.resumed)
    }
}

/// Waits for the next event, or a while: whatever it is, somebody looks again.
pub(crate) async fn event_or(events: &mut watch::Receiver<Events>, rest: Duration) {
    if let Ok(Err(_)) = tokio::time::timeout(rest, events.changed()).await {
        // QEMU is gone: the next command says so.
        tokio::time::sleep(rest).await;
    }
}

struct Lines(BufReader<OwnedReadHalf>);

impl Lines {
    async fn next(&mut self) -> io::Result<Option<Value>> {
        let mut line = Vec::new();
        (&mut self.0).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
    }
}

/// Hands out answers until QEMU is gone; then who still waits is told by the dropped end.
async fn read(mut lines: Lines, waiting: Arc<Waiting>, told: watch::Sender<Events>) {
    while let Ok(Some(mut line)) = lines.next().await {
        if let Some(event) = line.get("event").and_then(Value::as_str) {
            let at = time(&line["timestamp"]);
            told.send_modify(|events| {
                events.count += 1;
                match event {
                    "STOP" => events.stopped = at,
                    "RESUME" => events.resumed = at,
                    _ => {}
                }
            });
            continue;
        }
        let answer = match line.get_mut("error") {
            Some(error) => Err(error["desc"].as_str().unwrap_or("an error").to_owned()),
            None => Ok(line["return"].take()),
        };
        let id = line["id"].as_u64();
        let waiter = id.and_then(|id| waiting.lock().expect("nobody panics").remove(&id));
        if let Some(waiter) = waiter {
            let _ = waiter.send(answer);
        }
    }
    waiting.lock().expect("nobody panics").clear();
}

fn time(stamp: &Value) -> Option<Duration> {
    let seconds = Duration::from_secs(stamp["seconds"].as_u64()?);
    Some(seconds + Duration::from_micros(stamp["microseconds"].as_u64()?))
}
