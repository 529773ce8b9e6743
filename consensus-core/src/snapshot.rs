//! Copies of the state machine for members that the log is too short for.
//!
//! A member that needs one fetches it: from the nearest member that has it, over a connection of its own, as a transfer that
//! resumes after a cut and is verified (`dwcp-transfer`). Whoever is asked has its state machine write a copy, which
//! stays for a while, for others and for whoever comes back. Both happen below one folder:
//!
//! ```text
//! outgoing/TOKEN/state/...    a copy of this member's state
//! incoming/TOKEN/state/...    one of another's, on its way
//! incoming/TOKEN/metadata     what it is of: written last, so it says that the rest is complete and on the disk
//! ```

mod fetch;
mod serve;
mod throttle;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use consensus_raft::SnapshotMetadata;
use tokio::sync::{mpsc, oneshot};

use crate::{StateMachineError, inbox::Input};

pub(crate) use fetch::Fetcher;
pub(crate) use serve::Outgoing;

fn outgoing(folder: &Path) -> PathBuf {
    folder.join("outgoing")
}

fn incoming(folder: &Path) -> PathBuf {
    folder.join("incoming")
}

/// A copy of the state in a folder of its own, which is removed when this is dropped.
#[derive(Debug)]
pub struct StateCopy {
    folder: PathBuf,
    index: u64,
    token: u64,
}

impl StateCopy {
    /// Has the state machine write one below the folder for snapshots.
    pub(crate) async fn make(
        snapshot_dir: &Path,
        inbox: &mpsc::Sender<Input>,
    ) -> Result<Self, StateMachineError> {
        let token = getrandom::u64().map_err(|error| error.to_string())?;
        let folder = outgoing(snapshot_dir).join(format!("{token:016x}"));
        tokio::fs::create_dir_all(&folder).await?;
        let mut copy = Self { folder, index: 0, token };
        let (reply, index) = oneshot::channel();
        inbox.send(Input::Copy(copy.state(), reply)).await?;
        copy.index = index.await??;
        Ok(copy)
    }

    /// Where the state machine's files are; beside it is room for more.
    pub fn state(&self) -> PathBuf {
        state(&self.folder)
    }

    /// Index of the last entry that is in it.
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl Drop for StateCopy {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Where the files of a copy are.
pub(crate) fn state(copy: &Path) -> PathBuf {
    copy.join("state")
}

fn metadata(copy: &Path) -> PathBuf {
    copy.join("metadata")
}

/// Marks a copy that was fetched as complete.
fn complete(copy: &Path, description: &SnapshotMetadata) -> io::Result<()> {
    let (path, unfinished) = (metadata(copy), copy.join("metadata.part"));
    let mut file = File::create(&unfinished)?;
    file.write_all(&description.encode())?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    for folder in [Some(copy), copy.parent()].into_iter().flatten() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes what is left of a copy. If it stays, the next start removes it.
pub(crate) fn remove(copy: &Path) {
    if let Err(error) = fs::remove_dir_all(copy) {
        tracing::warn!(folder = %copy.display(), %error, "a copy of the state cannot be removed");
    }
}

/// A complete copy of everything up to `index` that was fetched before the last stop, if there is one. All else is removed.
pub(crate) fn left_over(folder: &Path, index: u64) -> io::Result<Option<PathBuf>> {
    let remove = |path: &Path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove(&outgoing(folder))?;
    let incoming = incoming(folder);
    let mut found = None;
    let entries = match fs::read_dir(&incoming) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        let copy = entry?.path();
        let description = fs::read(metadata(&copy)).ok().map(Bytes::from).map(SnapshotMetadata::decode);
        match description {
            Some(Ok(description)) if description.index == index => found = Some(copy),
            _ => remove(&copy)?,
        }
    }
    Ok(found)
}
