//! A new cluster out of a snapshot.
//!
//! Each member restores the same file, and then starts as if it had begun the cluster. The id of the cluster depends on the
//! file, so members of the old cluster, and such as have not restored, are strangers to it.

use std::{
    fs::{self, File},
    io::{self, BufReader, Seek as _},
    path::{Path, PathBuf},
};

use consensus_bolt::{
    self as bolt,
    etcd::{self, Bucket, trailer},
};
use consensus_core::{BOOTSTRAP_INDEX, NodeConfig, Start, StartError};
use consensus_rocks::{Home, RocksDisk};
use consensus_store::{
    PolicyRecords, Store, StoreError,
    export::{Change, Import},
};

use crate::{
    InitialCluster, InitialClusterError,
    snapshot::{AUTH_ENABLED, AUTH_REVISION},
};

/// Which member is made, out of what.
#[derive(Clone, Debug)]
pub struct Restore {
    /// What `etcdctl snapshot save` or `novacron cluster snapshot save` has written, of this store or of etcd.
    pub file: PathBuf,
    /// Takes a file without a digest at its end, such as a copy of etcd's database.
    pub skip_digest: bool,
    /// Folder of the new member, which is not there yet.
    pub data_dir: PathBuf,
    /// The members of the new cluster.
    pub cluster: InitialCluster,
    /// Which of them this is.
    pub name: String,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The id of the new cluster.
    pub cluster: u64,
    /// The id of the member.
    pub member: u64,
    /// The newest revision.
    pub revision: i64,
    /// Changes of keys.
    pub changes: u64,
}

/// A snapshot that was not restored. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The list of members does not help.
    #[error(transparent)]
    Cluster(#[from] InitialClusterError),
    /// There is something where the new member's data would be.
    #[error("{} exists: a snapshot is restored into a folder that is not there yet", .folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not what was saved.
    #[error("{}: {source}", .file.display())]
    Digest {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: trailer::TrailerError,
    },
    /// The file is not etcd's database.
    #[error("{}: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: etcd::ReadError,
    },
    /// What is in the file makes no sense, or cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log of the new member cannot be written.
    #[error(transparent)]
    Log(#[from] StartError),
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}

impl Restore {
    /// Makes the member's folder. It is there whole, or not at all.
    pub fn run(&self) -> Result<Restored, RestoreError> {
        let member = self.cluster.member_id(&self.name)?;
        if self.data_dir.exists() {
            return Err(RestoreError::Exists { folder: self.data_dir.clone() });
        }
        let mut part = self.data_dir.clone().into_os_string();
        part.push(".restoring");
        let part = PathBuf::from(part);
        let _ = fs::remove_dir_all(&part); // of an attempt that was cut off
        let made = self.make(&part, member).and_then(|restored| {
            fs::rename(&part, &self.data_dir).map_err(failed(&self.data_dir))?;
            let parent = self.data_dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed(parent))?;
            Ok(restored)
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        made
    }

    fn make(&self, folder: &Path, member: u64) -> Result<Restored, RestoreError> {
        let file = File::open(&self.file).map_err(failed(&self.file))?;
        let mut file = BufReader::new(file);
        match trailer::verify(&mut file) {
            Ok(_) => {}
            Err(trailer::TrailerError::Missing { .. }) if self.skip_digest => {}
            Err(source) => return Err(RestoreError::Digest { file: self.file.clone(), source }),
        }
        let mut hasher = blake3::Hasher::new();
        file.rewind().and_then(|()| hasher.update_reader(&mut file).map(drop)).map_err(failed(&self.file))?;
        let cluster = self.cluster.restored_id(hasher.finalize().as_bytes());
        let (_, disk) =
            Home::open(&folder.join("data"), consensus_store::SPACES).map_err(StoreError::from)?;
        let (revision, changes) = self.import(file, &disk)?;
        disk.flush().map_err(StoreError::from)?;
        // It opens; what a compaction that was asked for had not removed yet, the member removes.
        drop(Store::open(std::sync::Arc::new(disk))?);
        let mut node = NodeConfig::new(cluster, member, folder.join("log"), ([127, 0, 0, 1], 0).into());
        node.start = Start::Bootstrap(self.cluster.membership());
        consensus_core::prepare(&node)?;
        Ok(Restored { cluster, member, revision, changes })
    }

    fn import(&self, file: BufReader<File>, disk: &RocksDisk) -> Result<(i64, u64), RestoreError> {
        let read = |source| RestoreError::Read { file: self.file.clone(), source };
        let mut reader = bolt::Reader::open(file).map_err(|error| read(error.into()))?;
        let meta = etcd::meta(&mut reader).map_err(read)?;
        let mut import = Import::new(disk);
        for record in etcd::records(&mut reader).map_err(read)? {
            let etcd::Record { revision, deleted, key_value } = record.map_err(read)?;
            let sub = u32::try_from(revision.sub)
                .map_err(|_| StoreError::Invalid("too many changes at a revision"))?;
            import.change(&Change { revision: (revision.main, sub), deleted, key_value })?;
        }
        for lease in etcd::leases(&mut reader).map_err(read)? {
            let lease = lease.map_err(read)?;
            import.lease(lease.id, lease.ttl)?;
        }
        import.policy(&self.policy(&mut reader)?)?;
        Ok(import.finish(BOOTSTRAP_INDEX, meta.compacted.max(meta.compaction_scheduled))?)
    }

    fn policy(&self, reader: &mut bolt::Reader<BufReader<File>>) -> Result<PolicyRecords, RestoreError> {
        let mut policy =
            PolicyRecords { users: self.named(reader, Bucket::AuthUsers)?, ..Default::default() };
        policy.roles = self.named(reader, Bucket::AuthRoles)?;
        self.pairs(reader, Bucket::Auth, |key, value| {
            match key {
                AUTH_ENABLED => policy.enabled = value != [0],
                AUTH_REVISION => policy.revision = value.try_into().map_or(0, u64::from_be_bytes),
                _ => {}
            }
            Ok(())
        })?;
        // A database in which it was never looked at has none.
        policy.revision = policy.revision.max(1);
        Ok(policy)
    }

    fn named<T: prost::Message + Default>(
        &self,
        reader: &mut bolt::Reader<BufReader<File>>,
        bucket: Bucket,
    ) -> Result<Vec<(String, T)>, RestoreError> {
        let mut all = Vec::new();
        self.pairs(reader, bucket, |name, record| {
            let damaged = |_| StoreError::Damaged { what: "user or role" };
            let name =
                String::from_utf8(name.to_vec()).map_err(|_| StoreError::Damaged { what: "user or role" })?;
            all.push((name, T::decode(record).map_err(damaged)?));
            Ok(())
        })?;
        Ok(all)
    }

    /// Visits the pairs of a bucket, if there is one.
    fn pairs(
        &self,
        reader: &mut bolt::Reader<BufReader<File>>,
        bucket: Bucket,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), RestoreError> {
        let read =
            |source: bolt::ReadError| RestoreError::Read { file: self.file.clone(), source: source.into() };
        let Some(mut pairs) = reader.pairs(bucket.name()).map_err(read)? else { return Ok(()) };
        while let Some((key, value)) = pairs.next().map_err(read)? {
            visit(key, value)?;
        }
        Ok(())
    }
}
