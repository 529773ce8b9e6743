//! Sockets between this process and QEMU, which are there for one migration.

use std::path::PathBuf;

use tokio::net::{UnixListener, UnixStream};

use crate::{MigrateError, Qmp, error::socket};

/// A path beside QEMU's monitor. The file goes with it.
#[derive(Debug)]
pub(crate) struct SocketPath(PathBuf);

impl SocketPath {
    pub(crate) fn new(qmp: &Qmp, name: &str) -> Result<Self, MigrateError> {
        let path = qmp.folder().join(format!("dwcp-{}-{name}.sock", std::process::id()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(socket("a socket beside QEMU's monitor")(error));
            }
            _ => {}
        }
        Ok(Self(path))
    }

    pub(crate) fn as_text(&self) -> String {
        self.0.display().to_string()
    }

    pub(crate) fn listen(&self) -> Result<UnixListener, MigrateError> {
        UnixListener::bind(&self.0).map_err(socket("a socket beside QEMU's monitor"))
    }

    pub(crate) async fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(&self.0).await
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
