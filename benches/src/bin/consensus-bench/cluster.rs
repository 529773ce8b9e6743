//! Three members of one kind as processes: start, end, start again, one more.
//!
//! Not here: what they say of themselves to clients (`status.rs`).

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{contender::Contender, usage::Usage};

const MEMBERS: usize = 3;
/// For all members to serve clients; for one to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// A member says this in its log.
const READY: &str = "ready to serve client requests";

/// Running members; killed when dropped.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    program: PathBuf,
    flags: Vec<String>,
    members: Vec<Member>,
}

/// One member.
struct Member {
    /// `None` while it is not running.
    process: Option<Child>,
    client: u16,
    peer: u16,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // Both fail only if it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Members that do not run yet, on ports that are free.
fn places(members: usize) -> Vec<Member> {
    let member = |pair: &[u16]| Member { process: None, client: pair[0], peer: pair[1] };
    ports::free(2 * members as u16).chunks_exact(2).map(member).collect()
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Cluster {
    /// Three members with a new folder in `folder`, and with these flags beside their kind's. They serve clients when
    /// this returns.
    pub(crate) fn start(contender: &Contender, folder: &Path, flags: &[&str]) -> Result<Self> {
        let mut cluster = Self {
            folder: tempfile::tempdir_in(folder).with_context(|| folder.display().to_string())?,
            program: contender.program.clone(),
            flags: contender.flags.iter().cloned().chain(flags.iter().map(|&flag| flag.to_owned())).collect(),
            members: places(MEMBERS),
        };
        for n in 0..MEMBERS {
            cluster.spawn(n, "new")?;
        }
        let until = Instant::now() + PATIENCE;
        for n in 0..MEMBERS {
            while !cluster.log(n)?.contains(READY) {
                cluster.ensure_running(n)?;
                ensure!(
                    Instant::now() < until,
                    "member {n} is not ready after {PATIENCE:?}: {}",
                    cluster.log(n)?
                );
                std::thread::sleep(POLL);
            }
        }
        Ok(cluster)
    }

    fn log_path(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("m{n}.log"))
    }

    fn log(&self, n: usize) -> Result<String> {
        let path = self.log_path(n);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn spawn(&mut self, n: usize, state: &str) -> Result<()> {
        let list: Vec<_> =
            self.members.iter().enumerate().map(|(n, member)| format!("m{n}={}", url(member.peer))).collect();
        let log = std::fs::File::options().create(true).append(true).open(self.log_path(n))?;
        let (client, peer) = (url(self.members[n].client), url(self.members[n].peer));
        let child = Command::new(&self.program)
            .args(["--name", &format!("m{n}"), "--initial-cluster", &list.join(",")])
            .args(["--initial-cluster-state", state])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(&self.flags)
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{n}")))
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        self.members[n].process = Some(child.with_context(|| self.program.display().to_string())?);
        Ok(())
    }

    fn process(&mut self, n: usize) -> Result<&mut Child> {
        self.members[n].process.as_mut().with_context(|| format!("member {n} is not running"))
    }

    fn ensure_running(&mut self, n: usize) -> Result<()> {
        if let Some(status) = self.process(n)?.try_wait()? {
            bail!("member {n} ended, {status}: {}", self.log(n)?);
        }
        Ok(())
    }

    /// Where clients reach the members, in their order.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| url(member.client)).collect()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let processes = self.members.iter().filter_map(|member| Some(member.process.as_ref()?.id()));
        Usage::of(processes, self.folder.path())
    }

    /// `kill -9`; the member is gone when this returns.
    pub(crate) fn kill(&mut self, n: usize) -> Result<()> {
        let process = self.process(n)?;
        process.kill()?;
        process.wait()?;
        self.members[n].process = None;
        Ok(())
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self, n: usize) -> Result<()> {
        let id = self.process(n)?.id();
        Ok(kill(Pid::from_raw(id as i32), Signal::SIGTERM)?)
    }

    /// Waits until a member that was told to end has ended.
    pub(crate) async fn ended(&mut self, n: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.process(n)?.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "member {n} runs {PATIENCE:?} after SIGTERM: {}", self.log(n)?);
            tokio::time::sleep(POLL).await;
        }
        self.members[n].process = None;
        Ok(())
    }

    /// Starts a member again that has ended.
    pub(crate) fn restart(&mut self, n: usize) -> Result<()> {
        self.spawn(n, "new")
    }

    /// Says where one more member will be: its number, and its URL for the others.
    pub(crate) fn prepare(&mut self) -> Result<(usize, String)> {
        self.members.extend(places(1));
        let n = self.members.len() - 1;
        Ok((n, url(self.members[n].peer)))
    }

    /// Starts it. The others know of it already.
    pub(crate) fn join(&mut self, n: usize) -> Result<()> {
        self.spawn(n, "existing")
    }

    /// An error with its log if a member has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let running: Vec<_> =
            (0..self.members.len()).filter(|n| self.members[*n].process.is_some()).collect();
        running.into_iter().try_for_each(|n| self.ensure_running(n))
    }
}
