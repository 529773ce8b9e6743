//! Three members of one kind, and what they use.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

const MEMBERS: usize = 3;
/// For a leader to be there.
const START: Duration = Duration::from_secs(30);
/// Clock ticks of /proc/PID/stat; the same on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A kind of member.
pub(crate) struct Contender {
    pub(crate) name: String,
    program: PathBuf,
}

impl Contender {
    pub(crate) fn novacron(program: PathBuf) -> Self {
        Self { name: "novacron".to_owned(), program }
    }

    /// With its version as part of its name.
    pub(crate) fn etcd(program: PathBuf) -> Result<Self> {
        let output = Command::new(&program).arg("--version").output().with_context(|| {
            format!("{}: etcd is what is compared with (Debian's package etcd-server)", program.display())
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().last())
            .unwrap_or("of unknown version");
        Ok(Self { name: format!("etcd {version}"), program })
    }
}

/// Three running members; killed when dropped.
pub(crate) struct Cluster {
    _folder: tempfile::TempDir,
    members: Vec<Child>,
    clients: Vec<u16>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Both fail only if it has ended already.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Cluster {
    pub(crate) fn start(contender: &Contender, folder: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let ports = free_ports(2 * MEMBERS)?;
        let (clients, peers) = ports.split_at(MEMBERS);
        let list: Vec<_> =
            peers.iter().enumerate().map(|(n, port)| format!("m{n}=http://127.0.0.1:{port}")).collect();
        let mut cluster = Self { members: Vec::new(), clients: clients.to_vec(), _folder: folder };
        for n in 0..MEMBERS {
            let name = format!("m{n}");
            let data = cluster._folder.path().join(&name);
            let log = std::fs::File::create(cluster._folder.path().join(format!("{name}.log")))?;
            let (client, peer) =
                (format!("http://127.0.0.1:{}", clients[n]), format!("http://127.0.0.1:{}", peers[n]));
            let mut command = Command::new(&contender.program);
            command.args(["--name", &name, "--initial-cluster", &list.join(",")]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.arg("--data-dir").arg(data);
            let child = command.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn();
            cluster.members.push(child.with_context(|| contender.program.display().to_string())?);
        }
        cluster.wait()?;
        Ok(cluster)
    }

    /// Waits until the members serve clients, which they say in their log.
    fn wait(&mut self) -> Result<()> {
        let until = Instant::now() + START;
        for n in 0..MEMBERS {
            let path = self._folder.path().join(format!("m{n}.log"));
            while !std::fs::read_to_string(&path)?.contains("ready to serve client requests") {
                let ended = self.members[n].try_wait()?;
                ensure!(ended.is_none(), "member {n} ended: {}", std::fs::read_to_string(&path)?);
                if Instant::now() > until {
                    bail!("member {n} is not ready after {START:?}: {}", std::fs::read_to_string(&path)?);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.clients.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for member in &self.members {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", member.id()));
            let stat = read("stat")?;
            // Behind the name in parentheses, user and system time are the 12th and 13th field.
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks =
                |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
            usage.cpu_s += (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
            let number = |text: &str, key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default()
            };
            usage.written_bytes += number(&read("io")?, "write_bytes:");
            usage.rss_kib_max = usage.rss_kib_max.max(number(&read("status")?, "VmRSS:"));
        }
        Ok(usage)
    }
}

/// What all members together have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) written_bytes: f64,
    /// Of the largest member, now.
    pub(crate) rss_kib_max: f64,
}

impl Usage {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes - before.written_bytes,
            rss_kib_max: self.rss_kib_max,
        }
    }
}
