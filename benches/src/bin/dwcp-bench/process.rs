//! Server and client processes.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_benches::workload::peak_rss_kib;
use serde::de::DeserializeOwned;

/// What a client gets beyond its measuring time to connect, to drain and to end.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// A server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// What it is bound to.
    pub(crate) addr: SocketAddr,
}

impl Server {
    /// Starts a server that prints its address as the last word of its first line.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| shown.clone())?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut reader = BufReader::new(stdout);
        reader.read_line(&mut line)?;
        // It may print more later: read on, or it would block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let mut server = Self { child, addr: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let word = line.split_whitespace().last().with_context(|| format!("{shown} printed no address"))?;
        server.addr = word.parse().with_context(|| format!("{shown} printed {line:?}"))?;
        Ok(server)
    }

    /// Peak resident memory so far, KiB.
    pub(crate) fn peak_rss_kib(&self) -> Result<u64> {
        peak_rss_kib(&self.child.id().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client for at most `limit` and parses the JSON that it prints.
pub(crate) fn client<T: DeserializeOwned>(mut command: Command, limit: Duration) -> Result<T> {
    let shown = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| shown.clone())?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let (done, output) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // Nobody listens any more once the limit has passed.
        let _ = done.send(stdout.read_to_end(&mut text).map(|_| text));
    });
    let Ok(text) = output.recv_timeout(limit) else {
        child.kill()?;
        child.wait()?;
        bail!("{shown}: not done after {limit:?}");
    };
    let status = child.wait()?;
    ensure!(status.success(), "{shown}: {status}");
    serde_json::from_slice(&text?).with_context(|| format!("output of {shown}"))
}
