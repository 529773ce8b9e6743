//! Fetches a copy of another member's state, for a member that the log is too short for.

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use consensus_raft::{MemberInfo, Membership, SnapshotMetadata, Status};
use dwcp_core::{Connection, Priority};
use dwcp_transfer::{Destination, ProgressSource, Receiver, ReceiverConfig};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{StateMachineError, inbox::Input, peers::Network};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// For a member to write its copy: as long as it takes to write out what it has in memory.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// A source that sends nothing for this long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// A copy that was not taken by then is too old, or not of use.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Waits until a snapshot is wanted, and fetches it.
pub(crate) struct Fetcher {
    pub(crate) network: Arc<Network>,
    pub(crate) folder: PathBuf,
    pub(crate) inbox: mpsc::Sender<Input>,
    /// At least this index.
    pub(crate) wanted: watch::Receiver<Option<u64>>,
    pub(crate) membership: watch::Receiver<Membership>,
    pub(crate) status: watch::Receiver<Status>,
}

impl Fetcher {
    /// Works until the raft thread is gone.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let Ok(least) =
                self.wanted.wait_for(Option::is_some).await.map(|wanted| wanted.unwrap_or_default())
            else {
                return;
            };
            let mut wanted = self.wanted.clone();
            let fetched = tokio::select! {
                fetched = self.fetch(least) => fetched,
                // The log has what is missing after all.
                _ = wanted.wait_for(Option::is_none) => continue,
            };
            match fetched {
                Ok((metadata, copy)) => {
                    pause = PAUSE;
                    if self.inbox.send(Input::Fetched(metadata, copy)).await.is_err() {
                        return;
                    }
                    let taken = self.wanted.wait_for(|wanted| wanted.is_none_or(|wanted| wanted > least));
                    let _ = timeout(TAKEN_WITHIN, taken).await;
                }
                Err(error) => {
                    tracing::warn!(least, %error, "fetching a snapshot");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn fetch(&self, least: u64) -> Result<(SnapshotMetadata, PathBuf), StateMachineError> {
        let mut failed: StateMachineError = "no other member is connected".into();
        for (id, info) in self.sources() {
            match self.fetch_from(id, &info, least).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => failed = format!("from member {id:x}: {error}").into(),
            }
        }
        Err(failed)
    }

    /// The other members that answer, the nearest first. Of those that are as near, the leader comes last: it has enough to do.
    fn sources(&self) -> Vec<(u64, MemberInfo)> {
        let leader = self.status.borrow().leader;
        let members = self.membership.borrow().members.clone();
        let mut sources: Vec<_> = members
            .into_iter()
            .filter_map(|(id, info)| Some((self.network.round_trip(id)?, id, info)))
            .collect();
        // Within one machine room, differences of round trips are noise.
        let distance = |round_trip: Duration| round_trip.as_millis().max(1).ilog2();
        sources.sort_by_key(|(round_trip, id, _)| (distance(*round_trip), leader == Some(*id), Reverse(*id)));
        sources.into_iter().map(|(_, id, info)| (id, info)).collect()
    }

    async fn fetch_from(
        &self,
        id: u64,
        info: &MemberInfo,
        least: u64,
    ) -> Result<(SnapshotMetadata, PathBuf), StateMachineError> {
        let connection = self.network.connect_for_snapshot(id, info).await.ok_or("it cannot be reached")?;
        let asked = Bytes::copy_from_slice(&least.to_le_bytes());
        let mut answer = connection.messages().request(Priority::Control, asked, ANSWERED_WITHIN).await?;
        let token = answer.try_get_u64_le()?;
        let metadata = SnapshotMetadata::decode(answer)?;
        if metadata.index < least {
            return Err(format!("its snapshot is of entry {}, and {least} is wanted", metadata.index).into());
        }
        tracing::info!(from = format!("{id:x}"), index = metadata.index, "fetching a snapshot");
        let copy = super::incoming(&self.folder).join(format!("{token:016x}"));
        self.remove_unfinished(&copy).await?;
        receive(&connection, &copy, &format!("{id:016x}")).await?;
        let (description, finished) = (metadata.clone(), copy.clone());
        tokio::task::spawn_blocking(move || super::complete(&finished, &description)).await??;
        Ok((metadata, copy))
    }

    /// What is left of a copy that nobody has any more.
    async fn remove_unfinished(&self, but: &Path) -> std::io::Result<()> {
        let folder = super::incoming(&self.folder);
        tokio::fs::create_dir_all(&folder).await?;
        let mut entries = tokio::fs::read_dir(&folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            let copy = entry.path();
            if copy != but && !super::metadata(&copy).exists() {
                tokio::fs::remove_dir_all(&copy).await?;
            }
        }
        Ok(())
    }
}

async fn receive(connection: &Connection, copy: &Path, from: &str) -> Result<(), StateMachineError> {
    let mut config = ReceiverConfig::new(Destination::Folder(copy.to_owned()));
    config.overwrite = true;
    // The log is synced there, this member's or those of several on one machine.
    config.shares_disk = true;
    let receiver = Receiver::open(config)?;
    let progress = ProgressSource::default();
    let received = tokio::select! {
        received = receiver.serve(connection, from, &progress) => received?,
        () = stalled(&progress) => return Err(format!("nothing came for {} s", STALLED.as_secs()).into()),
    };
    match received.failures.first() {
        None => Ok(()),
        Some(failed) => Err(format!("{}: {}", failed.path.as_path().display(), failed.failure).into()),
    }
}

/// Returns when nothing has come for too long.
async fn stalled(progress: &ProgressSource) {
    let mut last = None;
    loop {
        let now = progress.snapshot();
        let now = (now.bytes_done, now.entries_done, now.bytes_moved);
        if last == Some(now) {
            return;
        }
        last = Some(now);
        tokio::time::sleep(STALLED).await;
    }
}
