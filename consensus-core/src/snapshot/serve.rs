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

use super::{StateCopy, throttle::Throttled};
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

/// A copy, and what it is of.
#[derive(Debug)]
struct Copy {
    files: StateCopy,
    metadata: SnapshotMetadata,
}

impl Outgoing {
    pub(crate) fn new(folder: &Path, inbox: mpsc::Sender<Input>, bytes_per_second: Option<u64>) -> Self {
        Self {
            folder: folder.to_owned(),
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
        answer.put_u64_le(copy.files.token);
        answer.put_slice(&copy.metadata.encode());
        responder.respond(answer.freeze())?;
        let source = Source::Path { path: copy.files.state(), dest: RelPath::new(*b"state")? };
        let mut config = SenderConfig::new(vec![source]);
        config.checksum = true;
        // The store's own compactions take the other name of files of a copy: no reason to send them once more.
        config.written_once = true;
        let sent = Sender::new(config)?.run(&Throttled::new(connection.clone(), self.bytes_per_second)).await;
        // Above all if it was cut off: whoever comes back goes on with the same copy, and nobody else keeps it for ever.
        self.keep_for_a_while(&copy).await;
        match sent?.failures.first() {
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
            let files = StateCopy::make(&self.folder, &self.inbox).await?;
            let (reply, metadata) = oneshot::channel();
            self.inbox.send(Input::Describe(files.index(), reply)).await?;
            // Of one that is from before the last change of the membership, the log does not say who the members were.
            let Some(metadata) = metadata.await? else { continue };
            if metadata.index < least {
                return Err(format!("it has applied {}, and {least} is wanted", metadata.index).into());
            }
            return Ok(Copy { files, metadata });
        }
        Err("the membership changes too fast".into())
    }

    async fn keep_for_a_while(self: &Arc<Self>, copy: &Arc<Copy>) {
        if let Some((_, used)) =
            self.current.lock().await.as_mut().filter(|(kept, _)| kept.files.token == copy.files.token)
        {
            *used = Instant::now();
        }
        let (outgoing, token) = (Arc::clone(self), copy.files.token);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            let mut current = outgoing.current.lock().await;
            if current
                .as_ref()
                .is_some_and(|(kept, used)| kept.files.token == token && used.elapsed() >= KEPT)
            {
                *current = None;
            }
        });
    }
}

fn refuse(responder: Responder, error: StateMachineError) -> Result<(), StateMachineError> {
    responder.fail(error.to_string().into())?;
    Err(error)
}
