//! The processes: a store of three members, the API and the handler, which end with the value.

use std::{
    env,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, StatusCode};

use crate::load::{VMS, ask, connect, vm};

/// In the order in which they are measured.
pub(crate) const SIDES: [&str; 2] = ["**novacron-api**", "handler"];

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Ports of the members and their peers, as `novacron up` chooses them, and every how many is a member's.
const STORE_PORTS: u16 = 202;
const PORT_STEP: usize = 100;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Result<Process> {
    let child = command.stdout(Stdio::null()).env("RUST_LOG", "warn").spawn();
    Ok(Process(child.with_context(|| format!("starting {}", command.get_program().display()))?))
}

pub(crate) struct Sides {
    pub(crate) ports: [u16; 2],
    _processes: [Process; 3],
    _folder: tempfile::TempDir,
}

impl Sides {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder).context("making a folder for the store")?;
        let this = env::current_exe()?;
        let beside = |name: &str| this.with_file_name(name);
        let (members, others) = (ports::free(STORE_PORTS), ports::free(7));
        let endpoints =
            members.iter().step_by(PORT_STEP).take(3).map(|port| format!("http://127.0.0.1:{port}"));
        let endpoints = endpoints.collect::<Vec<_>>().join(",");
        let store = spawn(
            Command::new(beside("novacron"))
                .args(["up", "--no-api", "--port", &members[0].to_string()])
                .args(["--agent-port", &others[3].to_string(), "--data-dir"])
                .arg(folder.path().join("store")),
        )?;
        let api = spawn(
            Command::new(beside("novacron-api"))
                .args(["--replica", "bench", "--store-endpoints", &endpoints, "--limits-rate", "off"])
                .args(["--listen", &format!("127.0.0.1:{}", others[0])])
                .args(["--metrics-listen", &format!("127.0.0.1:{}", others[2]), "--data-dir"])
                .arg(folder.path().join("api")),
        )?;
        let bare = spawn(
            Command::new(&this)
                .args(["bare", "--endpoints", &endpoints])
                .args(["--listen", &format!("127.0.0.1:{}", others[1])]),
        )?;
        for port in [others[0], others[1]] {
            until("a listener", async || TcpStream::connect(("127.0.0.1", port)).is_ok()).await?;
        }
        until("the API to be ready", async || is_ready(others[0]).await.unwrap_or(false)).await?;
        fill(others[0]).await?;
        Ok(Self { ports: [others[0], others[1]], _processes: [bare, api, store], _folder: folder })
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !holds().await {
        if began.elapsed() > START_TIMEOUT {
            bail!("waited {START_TIMEOUT:?} for {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn is_ready(port: u16) -> Result<bool> {
    let answer = ask(&mut connect(port).await?, Method::GET, "/ready", &[], Bytes::new()).await?;
    Ok(answer.0 == StatusCode::OK)
}

async fn fill(port: u16) -> Result<()> {
    let mut sender = connect(port).await?;
    for n in 0..VMS {
        let (_, body) = vm(n);
        let (status, answer) = ask(&mut sender, Method::POST, "/api/v1/vms", &[], body).await?;
        if status != StatusCode::CREATED {
            bail!("making a VM: {status}: {}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}
