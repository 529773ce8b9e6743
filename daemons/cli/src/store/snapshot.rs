//! `novacron cluster snapshot save|verify|restore`: a copy of a whole store in a file, and whether a file is one.
//!
//! A snapshot is the store's data file and, as its last 32 bytes, the SHA-256 of what is before them, as etcd sends it.
//! Deliberately not here: what is in the data file.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{BufReader, BufWriter, ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use consensus_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use novacron_store::{Client, Failure, StoreError};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustix::fs::FlockOperation;
use serde_json::json;
use tokio::time::timeout;
use tonic::Streaming;

use super::{
    output::print,
    restore::{self, RestoreArgs},
};
use crate::{
    exit::{self, Ended},
    size,
};

const WHAT: &str = "cluster snapshot save";
/// Bytes of a file that are read at a time.
const READ_BYTES: usize = 256 << 10;
/// Only its owner may read it: it has every key.
const MODE: u32 = 0o600;

#[derive(Subcommand, Debug)]
pub(super) enum SnapshotCommand {
    /// Copies the store into a file, from the first member that answers.
    ///
    /// It grows as FILE.part, and takes FILE's place when it is whole and on the disk. A member that fails meanwhile makes
    /// it begin anew with the next one.
    Save {
        /// The file.
        file: PathBuf,
    },
    /// Checks a snapshot against its hash; exit code 5 if it does not match.
    Verify {
        /// The file.
        file: PathBuf,
    },
    /// Makes the data folder of a member of a new cluster out of a snapshot. No server is asked.
    ///
    /// Run it once for each member of the new cluster, with the same file; then start them.
    Restore(RestoreArgs),
}

/// The hash of content whose last bytes are that hash.
struct Checksum {
    digest: Context,
    /// The newest bytes: they are the hash, if nothing follows.
    tail: Vec<u8>,
    bytes: u64,
}

impl Checksum {
    fn new() -> Self {
        Self { digest: Context::new(&SHA256), tail: Vec::new(), bytes: 0 }
    }

    fn update(&mut self, content: &[u8]) {
        self.bytes += content.len() as u64;
        self.tail.extend_from_slice(content);
        let before = self.tail.len().saturating_sub(SHA256_OUTPUT_LEN);
        self.digest.update(&self.tail[..before]);
        self.tail.drain(..before);
    }

    /// The hash, if it is the right one.
    fn finish(self) -> Option<Hash> {
        let digest = self.digest.finish();
        let is_right = self.tail == digest.as_ref() && self.bytes > SHA256_OUTPUT_LEN as u64;
        let sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        is_right.then_some(Hash { sha256, bytes: self.bytes })
    }
}

/// A whole snapshot.
struct Hash {
    sha256: String,
    /// Of the file, its hash included.
    bytes: u64,
}

pub(super) async fn run(client: &Client, command: &SnapshotCommand, json: bool) -> Result<u8> {
    let (file, hash, done) = match command {
        SnapshotCommand::Save { file } => (file, save(client, file).await?, "saved"),
        SnapshotCommand::Verify { file } => (file, verify(file)?, "whole"),
        SnapshotCommand::Restore(args) => return restore::run(args, json),
    };
    let (name, Hash { sha256, bytes }) = (file.display(), hash);
    if json {
        print(json!({ "file": name.to_string(), "bytes": bytes, "sha256": sha256 }))?;
    } else {
        print(format_args!("{name}: {done}, {} ({bytes} bytes), sha256 {sha256}", size::show(bytes)))?;
    }
    Ok(exit::OK)
}

async fn save(client: &Client, path: &Path) -> Result<Hash> {
    let part = part_of(path);
    let file = lock(&part)?;
    let saved = receive(client, &part, &file).await.and_then(|hash| {
        fs::rename(&part, path).with_context(|| format!("{WHAT}: renaming {}", part.display()))?;
        sync_folder(path).with_context(|| format!("{WHAT}: syncing the folder of {}", path.display()))?;
        Ok(hash)
    });
    if saved.is_err() {
        // It is of no use, and the next attempt begins anew whether it is there or not.
        let _ = fs::remove_file(&part);
    }
    saved
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".part");
    name.into()
}

/// The file that grows, which nobody else writes to.
fn lock(part: &Path) -> Result<File> {
    let name = part.display();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(MODE)
        .open(part)
        .with_context(|| format!("{WHAT}: cannot write {name}"))?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    // Between opening and locking it, another run may have renamed it: then it is that run's snapshot.
    let is_still_there =
        fs::metadata(part).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino()));
    if locked.is_err() || !is_still_there {
        bail!(Ended::refused(format!("{WHAT}: another process writes {name}")));
    }
    // A run that was killed has left one, or somebody else: it must be as if it had not been there.
    file.set_permissions(Permissions::from_mode(MODE))
        .with_context(|| format!("{WHAT}: cannot write {name}"))?;
    Ok(file)
}

/// Writes what a member sends, and has it on the disk. If the stream breaks, it begins anew with the next member.
async fn receive(client: &Client, part: &Path, file: &File) -> Result<Hash> {
    let mut failures = Vec::new();
    for _ in 0..client.endpoints().len() {
        let asked = client.read(WHAT, SnapshotRequest {}, |link, request| async move {
            link.maintenance().snapshot(request).await
        });
        let answers = match asked.await {
            Err(StoreError::NoMember { failures: latest, .. }) => {
                failures.extend(latest);
                break;
            }
            answers => answers?,
        };
        match receive_from_one(client, answers, part, file).await? {
            Ok(hash) => return Ok(hash),
            Err(failure) => {
                tracing::warn!(%failure, "a snapshot breaks off");
                failures.push(failure);
                client.skip_current();
            }
        }
    }
    Err(StoreError::NoMember { what: WHAT, failures }.into())
}

/// The inner error is that of the stream.
async fn receive_from_one(
    client: &Client,
    mut answers: Streaming<SnapshotResponse>,
    part: &Path,
    mut file: &File,
) -> Result<Result<Hash, Failure>> {
    let writing = || format!("{WHAT}: writing {}", part.display());
    // Of the member before, some may be there.
    file.set_len(0).and_then(|()| file.rewind()).with_context(writing)?;
    let mut checksum = Checksum::new();
    let mut out = BufWriter::with_capacity(READ_BYTES, file);
    loop {
        match next(client, &mut answers).await {
            Ok(Some(answer)) => {
                checksum.update(&answer.blob);
                out.write_all(&answer.blob).with_context(writing)?;
            }
            Ok(None) => break,
            Err(failure) => return Ok(Err(failure)),
        }
    }
    let Some(hash) = checksum.finish() else {
        let from = client.current().name();
        bail!(Ended::integrity(format!(
            "{WHAT}: {from}: what it sent does not end with its hash; try again"
        )));
    };
    out.flush().and_then(|()| file.sync_all()).with_context(writing)?;
    Ok(Ok(hash))
}

async fn next(
    client: &Client,
    answers: &mut Streaming<SnapshotResponse>,
) -> Result<Option<SnapshotResponse>, Failure> {
    let (limit, name) = (client.timeout(), client.current().name());
    match timeout(limit, answers.message()).await {
        Ok(answer) => answer.map_err(|status| Failure::of_status(name, &status)),
        Err(_) => Err(Failure::silent(name, format!("nothing more within {limit:?}"))),
    }
}

/// So that the name is on the disk as well.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn verify(path: &Path) -> Result<Hash> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cluster snapshot verify: cannot read {name}"))?;
    let mut from = BufReader::new(file);
    let mut checksum = Checksum::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => checksum.update(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cluster snapshot verify: reading {name}"));
            }
        }
    }
    checksum.finish().ok_or_else(|| {
        Ended::integrity(format!(
            "cluster snapshot verify: {name}: the last {SHA256_OUTPUT_LEN} bytes are not the SHA-256 of what is before: it \
             is damaged or cut short, or a copy of a data file, which has no hash"
        ))
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_found_however_the_bytes_come() {
        let mut whole = b"content".to_vec();
        whole.extend_from_slice(ring::digest::digest(&SHA256, b"content").as_ref());
        let finish = |bytes: &[u8], at_a_time: usize| {
            let mut checksum = Checksum::new();
            bytes.chunks(at_a_time).for_each(|chunk| checksum.update(chunk));
            checksum.finish().map(|hash| hash.bytes)
        };
        for at_a_time in [1, 7, 31, 32, 33, 100] {
            assert_eq!(finish(&whole, at_a_time), Some(39));
            assert_eq!(finish(&whole[1..], at_a_time), None);
            assert_eq!(finish(&whole[..38], at_a_time), None);
        }
        assert_eq!(finish(ring::digest::digest(&SHA256, b"").as_ref(), 8), None, "a hash of nothing");
        assert_eq!(finish(b"", 8), None);
    }
}
