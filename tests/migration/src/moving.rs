//! A guest at one side of a lab, a QEMU that waits for it at the other, and what a move took.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use dwcp_lab::{Lab, LinkSummary, Scenario, Side};
use dwcp_migrate::Qmp;

use crate::{
    guest::Guest,
    machine::{Machine, Start, wait_until},
    workload::DISK_BYTES,
};

/// A migration that has not ended by then never does.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Two QEMUs and the link between them.
pub struct Sides {
    /// Where the guest runs.
    pub source: Machine,
    /// Monitor of the source.
    pub at_source: Qmp,
    /// Where it shall run.
    pub target: Machine,
    /// Monitor of the target.
    pub at_target: Qmp,
    /// Dropped last: it ends what runs in it.
    pub lab: Lab,
}

/// What a move took.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// From its beginning until the guest ran at the target, and all of it was there.
    pub total: Duration,
    /// How long the guest stood, by the events of both QEMUs.
    pub downtime: Duration,
    /// On the wire, both ways, with TCP's and TLS's share.
    pub bytes: u64,
    /// The emulator was late: the figures are of the machine.
    pub void: bool,
}

impl Sides {
    /// Starts both, with disks of their own in a folder.
    pub async fn start(guest: &Guest, folder: &Path, scenario: &Scenario) -> Result<Self> {
        let lab = Lab::new(scenario)?;
        let source =
            Machine::start(&lab, Side::A, folder, guest, &copy(guest, folder, "a")?, Start::Saved).await?;
        let target = Self::new_target(&lab, guest, folder, DISK_BYTES).await?;
        let (at_source, at_target) = (source.qmp().await?, target.qmp().await?);
        Ok(Self { source, at_source, target, at_target, lab })
    }

    async fn new_target(lab: &Lab, guest: &Guest, folder: &Path, disk_bytes: usize) -> Result<Machine> {
        let disk = folder.join("disk-b");
        fs::File::create(&disk)?.set_len(disk_bytes as u64)?;
        Machine::start(lab, Side::B, folder, guest, &disk, Start::Incoming).await
    }

    /// Another QEMU instead of the one that waits, after a migration that failed, with an empty disk of this size.
    pub async fn replace_target(&mut self, guest: &Guest, folder: &Path, disk_bytes: usize) -> Result<()> {
        self.target.kill()?;
        self.target = Self::new_target(&self.lab, guest, folder, disk_bytes).await?;
        self.at_target = self.target.qmp().await?;
        Ok(())
    }

    /// The link's counters now.
    pub fn link(&self) -> LinkSummary {
        self.lab.stats().summary()
    }

    /// Waits for the target's guest, and sums up what began at `begin` with these counters.
    pub async fn moved(&self, begin: Instant, before: &LinkSummary) -> Result<Moved> {
        wait_until(TIMEOUT, async || Ok(self.at_target.status().await? == "running"))
            .await
            .context("the guest's arrival")?;
        let total = begin.elapsed();
        let link = self.link();
        let sum = |link: &LinkSummary| link.a_to_b.delivered_bytes + link.b_to_a.delivered_bytes;
        let (stopped, _) = self.at_source.stopped_and_resumed();
        let (_, resumed) = self.at_target.stopped_and_resumed();
        let stopped = stopped.context("the source has not stopped")?;
        let downtime = resumed.context("the target has not started")?.saturating_sub(stopped);
        Ok(Moved { total, downtime, bytes: sum(&link) - sum(before), void: link.void })
    }
}

fn copy(guest: &Guest, folder: &Path, name: &str) -> Result<PathBuf> {
    let disk = folder.join(format!("disk-{name}"));
    fs::copy(&guest.disk, &disk)?;
    Ok(disk)
}
