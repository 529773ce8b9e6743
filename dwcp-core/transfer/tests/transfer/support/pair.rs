//! Two sides that send versions of one content, and the stores of what they sent and received.

use std::{fs, path::PathBuf, sync::Arc};

use dwcp_transfer::{BaselineStore, DeltaConfig, ReceiverConfig, SenderConfig, StoreConfig, Summary};

use super::{into_folder, noise, source, transfer};

pub const MIB: usize = 1 << 20;

/// A sender, a receiver, and what each keeps.
pub struct Pair {
    pub dir: tempfile::TempDir,
    /// Whether each side has a store.
    pub stores: (bool, bool),
}

impl Pair {
    pub fn new(sender: bool, receiver: bool) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), stores: (sender, receiver) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self, side: &str) -> Arc<BaselineStore> {
        let mut config = StoreConfig::new(self.path(side));
        config.fsync = false;
        Arc::new(BaselineStore::open(config).unwrap())
    }

    pub fn sender(&self) -> SenderConfig {
        let mut config = SenderConfig::new(vec![source(self.path("image"), "image")]);
        config.delta = Some(DeltaConfig::new(self.stores.0.then(|| self.store("sent"))));
        config
    }

    pub fn receiver(&self) -> ReceiverConfig {
        let mut config = into_folder(&self.path("into"));
        (config.overwrite, config.fsync) = (true, false);
        config.delta = Some(DeltaConfig::new(self.stores.1.then(|| self.store("received"))));
        config
    }

    /// Sends a version; what arrives is the same. Gives what it took.
    pub async fn send(&self, content: &[u8]) -> (Summary, Summary, u64) {
        fs::write(self.path("image"), content).unwrap();
        let ended = transfer(self.sender(), self.receiver()).await;
        let carried = ended.carried;
        let (sent, received) = ended.clean();
        assert!(fs::read(self.path("into/image")).unwrap() == content, "what arrived is another content");
        (sent, received, carried)
    }

    /// Files of a store, by folder.
    pub fn stored(&self, side: &str, folder: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(side).join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// Two versions: blocks changed in place, and bytes inserted.
pub fn versions() -> (Vec<u8>, Vec<u8>) {
    let old = noise(20 * MIB, 1);
    let mut new = old.clone();
    for at in [5_000, 9 * MIB, 19 * MIB] {
        new[at..at + 100].copy_from_slice(&noise(100, at as u64));
    }
    new.splice(13 * MIB..13 * MIB, noise(777, 2));
    (old, new)
}
