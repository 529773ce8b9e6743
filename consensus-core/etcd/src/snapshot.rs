//! Snapshots as etcd's tools know them: a database file and its digest, streamed to a client.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _},
    sync::Arc,
};

use bytes::Bytes;
use consensus_bolt::{
    WriteError,
    etcd::{self, Bucket, Meta, Record, Revision, trailer::Digest},
};
use consensus_core::{StateCopy, StateMachineError};
use consensus_proto::etcdserverpb::SnapshotResponse;
use consensus_rocks::{Kind, RocksDisk};
use consensus_store::{StoreError, export};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Status;

use crate::server::Server;

/// Names of etcd's for whether users are asked for, and for what grows with every change of them.
pub(crate) const AUTH_ENABLED: &[u8] = b"authEnabled";
pub(crate) const AUTH_REVISION: &[u8] = b"authRevision";
/// Bytes of one message.
const CHUNK_BYTES: usize = 64 << 10;
/// Messages that wait to be sent.
const CHUNKS: usize = 16;
/// Snapshots that are taken at a time.
pub(crate) const AT_ONCE: usize = 2;

/// Why a copy of the state did not become a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] WriteError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("copying the state: {0}")]
    Copy(StateMachineError),
}

impl Server {
    /// The messages of a snapshot.
    pub(crate) async fn snapshot_messages(
        &self,
    ) -> Result<mpsc::Receiver<Result<SnapshotResponse, Status>>, Status> {
        let shared = Arc::clone(&self.shared);
        let Ok(place) = Arc::clone(&shared.snapshots).try_acquire_owned() else {
            return Err(Status::resource_exhausted("etcdserver: too many snapshots are being taken"));
        };
        let copy = shared.node.copy().await;
        let copy = copy.map_err(|error| Status::unavailable(ExportError::Copy(error).to_string()))?;
        let header = self.header_now();
        let (messages, receiver) = mpsc::channel(CHUNKS);
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let sent = write_database(&copy).and_then(|file| {
                stream(file, |remaining_bytes, blob| {
                    let message = SnapshotResponse { header, remaining_bytes, blob, ..Default::default() };
                    messages.blocking_send(Ok(message)).is_ok()
                })
            });
            if let Err(error) = sent {
                tracing::error!(%error, "a snapshot cannot be taken");
                // If nobody listens any more, nobody has to know.
                let _ = messages.blocking_send(Err(Status::internal(format!("etcdserver: {error}"))));
            }
        });
        Ok(receiver)
    }
}

/// Makes etcd's database file out of a copy, beside it.
fn write_database(copy: &StateCopy) -> Result<File, ExportError> {
    let disk =
        RocksDisk::open(&copy.state(), Kind::Data, consensus_store::SPACES).map_err(StoreError::from)?;
    let path = copy.state().with_file_name("db");
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let mut writer = etcd::Writer::new(BufWriter::new(file))?;
    let policy = export::policy(&disk)?;
    writer.put(Bucket::Auth, AUTH_ENABLED, &[policy.enabled.into()])?;
    writer.put(Bucket::Auth, AUTH_REVISION, &policy.revision.to_be_bytes())?;
    for (name, role) in &policy.roles {
        writer.put(Bucket::AuthRoles, name.as_bytes(), &role.encode_to_vec())?;
    }
    for (name, user) in &policy.users {
        writer.put(Bucket::AuthUsers, name.as_bytes(), &user.encode_to_vec())?;
    }
    export::export(&disk, |change| {
        let (main, sub) = change.revision;
        let revision = Revision { main, sub: sub.into() };
        let record = Record { revision, deleted: change.deleted, key_value: change.key_value };
        writer.record(&record).map_err(ExportError::from)
    })?;
    export::leases(&disk, |id, ttl| {
        writer.lease(&etcd::Lease { id, ttl, remaining_ttl: 0 }).map_err(ExportError::from)
    })?;
    let summary = export::summary(&disk)?;
    let compacted = summary.compacted;
    let meta = Meta { consistent_index: summary.applied, compaction_scheduled: compacted, compacted };
    let mut file = writer.finish(&meta)?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.flush()?;
    file.rewind()?;
    Ok(file)
}

/// Gives the file in pieces, and its digest as the last, to `send` with how many bytes are left; until `send` has enough.
fn stream(file: File, mut send: impl FnMut(u64, Bytes) -> bool) -> Result<(), ExportError> {
    let mut left = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let mut digest = Digest::default();
    while left > 0 {
        let mut piece = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
        file.read_exact(&mut piece)?;
        digest.update(&piece);
        left -= piece.len() as u64;
        // The digest is left even after the last byte.
        if !send(left, piece.into()) {
            return Ok(());
        }
    }
    send(0, Bytes::copy_from_slice(&digest.finish()));
    Ok(())
}
