//! A QEMU at one side of a lab.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_lab::{Lab, Running, Side};
use dwcp_migrate::Qmp;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::guest::Guest;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Reading all of memory and disk, on a busy machine.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);
/// 128 MiB, and no multiple of 256 KiB: of such, QEMU 7.2 without KVM loses what the guest writes while it is moved
/// (docs/migration.md).
const MEMORY: &str = "size=131080K";
const POLL: Duration = Duration::from_millis(20);

/// What a QEMU begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The kernel.
    Boot,
    /// The guest as it was saved.
    Saved,
    /// A migration, of which it will be told.
    Incoming,
}

/// A QEMU. Ends when dropped; its serial line's log stays in the folder.
pub struct Machine {
    running: Running,
    monitor: PathBuf,
    ours: PathBuf,
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Machine {
    /// Starts one with a disk, with its sockets in a folder.
    pub async fn start(
        lab: &Lab,
        side: Side,
        folder: &Path,
        guest: &Guest,
        disk: &Path,
        start: Start,
    ) -> Result<Self> {
        let at = |name: &str| folder.join(format!("{side:?}-{name}"));
        let [kernel, initramfs] = &guest.kernel;
        let (monitor, ours, serial, log) = (at("qmp"), at("watch"), at("serial"), at("serial.log"));
        for path in [&monitor, &ours, &serial] {
            // One that was killed has left them.
            let _ = std::fs::remove_file(path);
        }
        let mut command = lab.command(side, "qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "1", "-m", MEMORY]);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel"])
            .arg(kernel);
        command.arg("-initrd").arg(initramfs);
        command.args(["-append", "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check"]);
        for path in [&monitor, &ours] {
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path.display()));
        }
        let chardev =
            format!("socket,id=line,path={},server=on,wait=off,logfile={}", serial.display(), log.display());
        command.args(["-chardev", &chardev, "-serial", "chardev:line"]);
        command.args(["-drive", &format!("if=none,id=disk,format=raw,file={}", disk.display())]);
        command.args(["-device", "virtio-blk-pci,drive=disk"]);
        match start {
            Start::Boot => {}
            Start::Saved => {
                command.arg("-incoming").arg(format!("exec:cat {}", guest.state.display()));
            }
            Start::Incoming => {
                command.args(["-incoming", "defer"]);
            }
        }
        let running = lab.spawn(command)?;
        let mut line = None;
        wait_until(START_TIMEOUT, async || {
            line = UnixStream::connect(&serial).await.ok();
            Ok(line.is_some() && monitor.exists() && ours.exists())
        })
        .await
        .context("QEMU's start")?;
        let (read, write) = line.expect("it is there").into_split();
        let machine = Self { running, monitor, ours, lines: BufReader::new(read).lines(), write };
        if start == Start::Saved {
            machine.go_on().await?;
        }
        Ok(machine)
    }

    /// A monitor for the test: each serves one at a time.
    pub async fn qmp(&self) -> Result<Qmp> {
        Ok(Qmp::connect(&self.ours).await?)
    }

    /// Where the other monitor is.
    pub fn monitor(&self) -> &Path {
        &self.monitor
    }

    /// Lets a guest go on that stood when it was saved.
    async fn go_on(&self) -> Result<()> {
        let qmp = self.qmp().await?;
        let is_loaded = async || Ok(qmp.status().await? == "paused");
        wait_until(START_TIMEOUT, is_loaded).await.context("the saved guest")?;
        qmp.query("cont").await?;
        Ok(())
    }

    /// Waits for a line of the guest that begins so.
    pub async fn hear(&mut self, begin: &str, timeout: Duration) -> Result<String> {
        let hear = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.starts_with(begin) || line.starts_with("DAMAGED") || line.contains("guest ended") {
                    return Ok(line);
                }
            }
            bail!("QEMU has ended")
        };
        let line =
            tokio::time::timeout(timeout, hear).await.with_context(|| format!("the guest's {begin}"))??;
        ensure!(line.starts_with(begin), "the guest says: {line}");
        Ok(line)
    }

    /// Writes a line to the guest.
    pub async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self.write.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Lets the guest check its memory and its disk.
    pub async fn check(&mut self) -> Result<()> {
        self.tell("check").await?;
        self.hear("WHOLE", CHECK_TIMEOUT).await?;
        Ok(())
    }

    /// Waits until the process has ended.
    pub fn ended(mut self) -> Result<()> {
        self.running.wait()?;
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.running.child().kill()?)
    }
}

/// Looks again and again.
pub async fn wait_until(timeout: Duration, mut is: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is().await? {
        ensure!(begin.elapsed() < timeout, "took longer than {timeout:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
