//! The members: processes that are started, struck and healed.
//!
//! Their data and logs are in a folder in memory. Nothing is left behind: the folder and the processes carry a mark by which
//! they are found when the cluster is dropped, or, after a SIGKILL, when the next one starts.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_lab::sweep::{self, MARK_VARIABLE, Mark};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    MEMBERS,
    fault::{Fault, Round},
    network::Network,
};

/// For a new cluster to serve its clients. Only what hangs reaches it.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// etcd's word for "I serve clients".
const READY: &str = "ready to serve client requests";
const HEARTBEAT_MS: u64 = 50;
const ELECTION_TIMEOUT_MS: u64 = 500;
/// Lines of a log that an error shows.
const LINES_SHOWN: usize = 20;

/// Three members.
#[derive(Debug)]
pub struct Cluster {
    network: Arc<Network>,
    program: PathBuf,
    mark: Mark,
    /// `None` while a member is killed.
    members: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts `program` three times and waits until all of them serve. They die with the thread that calls this.
    pub fn start(program: &Path, network: Network) -> Result<Self> {
        sweep::sweep_dead();
        let members = (0..MEMBERS).map(|_| None).collect();
        let mut cluster =
            Self { network: Arc::new(network), program: program.to_owned(), mark: Mark::unique(), members };
        let folder = cluster.folder();
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        (0..MEMBERS).try_for_each(|n| cluster.spawn(n))?;
        let until = Instant::now() + START;
        for n in 0..MEMBERS {
            while !std::fs::read_to_string(cluster.log(n))?.contains(READY) {
                cluster.ensure_alive()?;
                ensure!(
                    Instant::now() < until,
                    "member {n} is not ready after {START:?}:\n{}",
                    cluster.log_end(n)
                );
                std::thread::sleep(POLL);
            }
        }
        Ok(cluster)
    }

    /// What the members talk over.
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// Where data and logs are.
    pub fn folder(&self) -> PathBuf {
        self.mark.scratch()
    }

    /// The process of a member, unless it is killed at the moment.
    pub fn process(&self, n: usize) -> Option<u32> {
        self.members[n].as_ref().map(Child::id)
    }

    fn log(&self, n: usize) -> PathBuf {
        self.folder().join(format!("m{n}.log"))
    }

    fn log_end(&self, n: usize) -> String {
        let text = std::fs::read_to_string(self.log(n)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }

    /// Copies the members' logs into a folder.
    pub fn keep_logs(&self, into: &Path) -> Result<()> {
        for n in 0..MEMBERS {
            std::fs::copy(self.log(n), into.join(format!("m{n}.log")))
                .with_context(|| format!("the log of member {n} into {}", into.display()))?;
        }
        Ok(())
    }

    fn spawn(&mut self, n: usize) -> Result<()> {
        let url = |address| format!("http://{address}");
        let list: Vec<_> =
            (0..MEMBERS).map(|m| format!("m{m}={}", url(self.network.peer_address(m)))).collect();
        let client = url(self.network.client_address(n));
        let log = std::fs::File::options().create(true).append(true).open(self.log(n))?;
        let mut command = Command::new(&self.program);
        command
            .args(["--name", &format!("m{n}"), "--initial-cluster", &list.join(",")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &url(self.network.peer_address(n))])
            .args(["--heartbeat-interval", &HEARTBEAT_MS.to_string()])
            .args(["--election-timeout", &ELECTION_TIMEOUT_MS.to_string()])
            .arg("--allow-plaintext")
            .arg("--data-dir")
            .arg(self.folder().join(format!("m{n}")))
            .env(MARK_VARIABLE, self.mark.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.network.confine(n, &mut command);
        let child = command.spawn().with_context(|| self.program.display().to_string())?;
        self.members[n] = Some(child);
        Ok(())
    }

    fn kill(&mut self, n: usize) -> Result<()> {
        self.ensure_alive()?;
        let mut child = self.members[n].take().context("a member is killed once")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn signal(&self, n: usize, signal: Signal) -> Result<()> {
        let child = self.members[n].as_ref().context("it runs")?;
        Ok(kill(Pid::from_raw(child.id() as i32), signal)?)
    }

    /// The beginning of a round.
    pub fn strike(&mut self, round: &Round) -> Result<()> {
        match round.fault {
            Fault::Kill => self.kill(round.member),
            Fault::KillAll => (0..MEMBERS).try_for_each(|n| self.kill(n)),
            Fault::Stop => self.signal(round.member, Signal::SIGSTOP),
            Fault::Cut(cut) => self.network.cut(round.member, cut),
        }
    }

    /// The end of a round's fault.
    pub fn heal(&mut self, round: &Round) -> Result<()> {
        match round.fault {
            Fault::Kill => self.spawn(round.member),
            Fault::KillAll => (0..MEMBERS).try_for_each(|n| self.spawn(n)),
            Fault::Stop => self.signal(round.member, Signal::SIGCONT),
            Fault::Cut(_) => self.network.heal(round.member),
        }
    }

    /// An error if a member has ended that nobody killed.
    pub fn ensure_alive(&mut self) -> Result<()> {
        for n in 0..MEMBERS {
            let Some(child) = &mut self.members[n] else { continue };
            if let Some(status) = child.try_wait()? {
                bail!("member {n} ended by itself, {status}:\n{}", self.log_end(n));
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            // Both fail only if it has ended already.
            let _ = member.kill();
            let _ = member.wait();
        }
        sweep::sweep_lab(&self.mark);
    }
}
