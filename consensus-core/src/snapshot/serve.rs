//! Gives copies of this member's state to others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use consensus_raft::SnapshotMetadata;
use dwcp_core::{Connection, IncomingMessage, Responder};
use dwcp_transfer::{RelPath, Sender, SenderConfig, Source};
use tokio::{
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::throttle::Throttled;
use crate::{StateMachineError, inbox::Input};

/// Members that are served at a time; more are told to look elsewhere, or to come again.
const SERVED_AT_ONCE: usize = 2;
/// A copy is kept for this long after it was used, for whoever comes back.
const KEPT: Duration = Duration::from_secs(60);
/// For whoever has connected to say what it wants.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// A copy can turn out to be from before the last change of the membership.
const ATTEMPTS: usize = 3;

/// What this member has for others.
#[derive(Debug)]
pub(crate) struct Outgoing {
    folder: PathBuf,
    inbox: mpsc::Sender<Input>,
    bytes_per_second: Option<u64>,
    places: Semaphore,
    current: Mutex<Option<(Arc<Copy>, Instant)>>,
}

/// A copy on the disk, for as long as somebody uses it.
#[derive(Debug)]
struct Copy {
    token: u64,
    metadata: SnapshotMetadata,
    folder: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        super::remove(&self.folder);
    }
}

impl Outgoing {
    pub(crate) fn new(folder: &Path, inbox: mpsc::Sender<Input>, bytes_per_second: Option<u64>) -> Self {
        Self {
            folder: super::outgoing(folder),
            inbox,
            bytes_per_second,
            places: Semaphore::new(SERVED_AT_ONCE),
            current: Mutex::default(),
        }
    }

    /// Serves a member that has connected for a copy.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection) {
        let peer = connection.peer().node_id.clone();
        match self.serve_one(&connection).await {
            Ok(()) => tracing::info!(peer, "sent a snapshot"),
            Err(error) => tracing::warn!(peer, error, "sending a snapshot"),
        }
    }

    async fn serve_one(self: &Arc<Self>, connection: &Connection) -> Result<(), StateMachineError> {
        let asked = timeout(ASKED_WITHIN, connection.messages().recv()).await??;
        let IncomingMessage { payload, responder: Some(responder), .. } = asked else {
            return Err("it does not ask for one".into());
        };
        let Ok(_place) = self.places.try_acquire() else {
            return refuse(responder, "too many members fetch a snapshot here".into());
        };
        let copy = match self.copy(payload).await {
            Ok(copy) => copy,
            Err(error) => return refuse(responder, error),
        };
        let mut answer = BytesMut::new();
        answer.put_u64_le(copy.token);
        answer.put_slice(&copy.metadata.encode());
        responder.respond(answer.freeze())?;
        let source = Source::Path { path: super::state(&copy.folder), dest: RelPath::new(*b"state")? };
        let mut config = SenderConfig::new(vec![source]);
        config.checksum = true;
        let sent =
            Sender::new(config)?.run(&Throttled::new(connection.clone(), self.bytes_per_second)).await?;
        self.keep_for_a_while(&copy).await;
        match sent.failures.first() {
            None => Ok(()),
            Some(failed) => Err(format!("{}: {}", failed.path.as_path().display(), failed.failure).into()),
        }
    }

    /// A copy that has what is asked for: the one that is there, or a new one.
    async fn copy(&self, mut asked: Bytes) -> Result<Arc<Copy>, StateMachineError> {
        let least = asked.try_get_u64_le()?;
        let mut current = self.current.lock().await;
        if let Some((copy, used)) = current.as_mut().filter(|(copy, _)| copy.metadata.index >= least) {
            *used = Instant::now();
            return Ok(Arc::clone(copy));
        }
        let copy = Arc::new(self.make(least).await?);
        *current = Some((Arc::clone(&copy), Instant::now()));
        Ok(copy)
    }

    async fn make(&self, least: u64) -> Result<Copy, StateMachineError> {
        for _ in 0..ATTEMPTS {
            let token = random()?;
            let folder = self.folder.join(format!("{token:016x}"));
            tokio::fs::create_dir_all(&folder).await?;
            let made = self.describe_copy(&folder).await;
            match made {
                Ok(Some(metadata)) if metadata.index >= least => return Ok(Copy { token, metadata, folder }),
                Ok(Some(metadata)) => {
                    super::remove(&folder);
                    return Err(format!("it has applied {}, and {least} is wanted", metadata.index).into());
                }
                Ok(None) => super::remove(&folder),
                Err(error) => {
                    super::remove(&folder);
                    return Err(error);
                }
            }
        }
        Err("the membership changes too fast".into())
    }

    /// Has a copy written, and says what it is of; `None`: of what the log does not say any more, or not yet.
    async fn describe_copy(&self, folder: &Path) -> Result<Option<SnapshotMetadata>, StateMachineError> {
        let (reply, index) = oneshot::channel();
        self.inbox.send(Input::Copy(super::state(folder), reply)).await?;
        let index = index.await??;
        let (reply, metadata) = oneshot::channel();
        self.inbox.send(Input::Describe(index, reply)).await?;
        Ok(metadata.await?)
    }

    async fn keep_for_a_while(self: &Arc<Self>, copy: &Arc<Copy>) {
        if let Some((_, used)) =
            self.current.lock().await.as_mut().filter(|(kept, _)| kept.token == copy.token)
        {
            *used = Instant::now();
        }
        let (outgoing, token) = (Arc::clone(self), copy.token);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            let mut current = outgoing.current.lock().await;
            if current.as_ref().is_some_and(|(kept, used)| kept.token == token && used.elapsed() >= KEPT) {
                *current = None;
            }
        });
    }
}

fn refuse(responder: Responder, error: StateMachineError) -> Result<(), StateMachineError> {
    responder.fail(error.to_string().into())?;
    Err(error)
}

fn random() -> Result<u64, StateMachineError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(u64::from_le_bytes(bytes))
}
