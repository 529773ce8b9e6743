//! New certificates without a restart. Connections that exist keep what they have.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::{TlsConfig, TlsError, TlsFiles};

/// How often [`watch`] looks, unless told otherwise.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The configuration that the next handshake uses.
#[derive(Debug)]
pub struct TlsStore {
    current: RwLock<Arc<TlsConfig>>,
}

impl TlsStore {
    /// Begins with `config`.
    pub fn new(config: Arc<TlsConfig>) -> Self {
        Self { current: RwLock::new(config) }
    }

    /// What is in force now.
    pub fn current(&self) -> Arc<TlsConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on handshakes use `config`.
    pub fn replace(&self, config: Arc<TlsConfig>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// Looks at the files each `interval` and hands each new, good configuration to `apply`. A bad one
/// is logged once and what is in force stays. Never returns; abort the task to stop. The state of the
/// files at the first look is taken as known.
pub async fn watch(files: TlsFiles, interval: Duration, mut apply: impl FnMut(Arc<TlsConfig>) + Send) {
    let mut reloader = Reloader::new(files);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        // Files may be on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let result = reloader.look();
            (reloader, result)
        })
        .await;
        let Ok((back, result)) = looked else {
            // Only while the runtime shuts down.
            return;
        };
        reloader = back;
        match result {
            None => {}
            Some(Ok(config)) => {
                tracing::info!(cert = %reloader.files.cert.display(), "TLS certificates reloaded");
                apply(Arc::new(config));
            }
            Some(Err(error)) => {
                tracing::error!(%error, "new TLS files are unusable, the old certificates stay in force");
            }
        }
    }
}

/// Inode and time of last change: differs when a file is replaced or rewritten, even by a copy that
/// keeps the modification time. Symbolic links are followed, as Kubernetes switches secrets by
/// exchanging one.
type Stamp = Option<(u64, i64, i64)>;

struct Reloader {
    files: TlsFiles,
    seen: [Stamp; 3],
    /// Text of the last failure: it is tried again at each look, but reported once.
    failure: Option<String>,
}

impl Reloader {
    fn new(files: TlsFiles) -> Self {
        Self { seen: stamps(&files), files, failure: None }
    }

    /// `None` if there is nothing new to tell.
    fn look(&mut self) -> Option<Result<TlsConfig, TlsError>> {
        let now = stamps(&self.files);
        if now == self.seen && self.failure.is_none() {
            return None;
        }
        // Stamped before reading: a write in between shows as another change at the next look.
        self.seen = now;
        match self.files.load() {
            Ok(config) => {
                self.failure = None;
                Some(Ok(config))
            }
            Err(error) => {
                let text = error.to_string();
                let known = self.failure.as_ref() == Some(&text);
                self.failure = Some(text);
                (!known).then_some(Err(error))
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 3] {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
    };
    [&files.cert, &files.key, &files.ca].map(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles { cert: path("cert"), key: path("key"), ca: path("ca"), allow: None };
        let mut reloader = Reloader::new(files.clone());
        assert!(reloader.look().is_none());
        fs::write(&files.ca, "nonsense").unwrap();
        let first = reloader.look().unwrap().unwrap_err();
        assert!(matches!(first, TlsError::Read { .. }), "{first}");
        for content in ["other nonsense", "still nonsense"] {
            assert!(reloader.look().is_none());
            fs::write(&files.ca, content).unwrap();
            assert!(reloader.look().is_none());
        }
        fs::write(&files.cert, "nonsense").unwrap();
        fs::write(&files.key, "nonsense").unwrap();
        let second = reloader.look().unwrap().unwrap_err();
        assert!(matches!(second, TlsError::Missing { .. }), "{second}");
    }
}
