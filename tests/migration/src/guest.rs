//! The guest as it is at the beginning of each migration: booted once, and kept.

use std::{
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dwcp_lab::{Lab, Scenario, Side};
use serde_json::json;

use crate::{
    machine::{Machine, Start, wait_until},
    workload::{DISK_BYTES, FILES_BYTES},
};

/// Booting, on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);
/// What guest.sh ends with where it cannot make one.
const SKIPPED: i32 = 77;

/// A guest that can be started.
pub struct Guest {
    /// Kernel and initramfs.
    pub kernel: [PathBuf; 2],
    /// Its disk.
    pub disk: PathBuf,
    /// Its memory and devices, as QEMU has saved them.
    pub state: PathBuf,
}

/// Makes the guest in a folder, with the program `migration-guest` that the same build has made. `Err`: why it cannot be made.
pub async fn make(folder: &Path) -> Result<Result<Guest, String>> {
    if let Some(reason) = dwcp_lab::unavailable() {
        return Ok(Err(reason));
    }
    let Some(program) = program("migration-guest")? else {
        return Ok(Err("migration-guest is not built (cargo build --release -p migration)".into()));
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest.sh");
    let made = Command::new(script).arg(folder).arg(program).output().context("guest.sh")?;
    let said = String::from_utf8_lossy(&made.stdout);
    if made.status.code() == Some(SKIPPED) {
        return Ok(Err(said.trim().trim_start_matches("SKIP: ").to_owned()));
    }
    ensure!(made.status.success(), "guest.sh: {said}{}", String::from_utf8_lossy(&made.stderr));
    let guest = Guest {
        kernel: ["vmlinuz", "initramfs"].map(|name| folder.join(name)),
        disk: folder.join("disk"),
        state: folder.join("state"),
    };
    fill(&guest.disk)?;
    boot(&guest, folder).await?;
    Ok(Ok(guest))
}

/// A program of the same build.
pub fn program(name: &str) -> Result<Option<PathBuf>> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    Ok(folders.map(|folder| folder.join(name)).find(|program| program.is_file()))
}

/// Files of this machine, one behind the other, and room behind them.
fn fill(disk: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share/perl", "/usr/share/doc"] {
        list(Path::new(folder), &mut files);
    }
    files.sort();
    let mut out = BufWriter::new(File::create(disk)?);
    let mut left = FILES_BYTES as u64;
    for file in files {
        // Not all of a large one, so that there are many.
        let mut from = File::open(&file)?.take(left.min(1 << 20));
        left -= std::io::copy(&mut from, &mut out).with_context(|| file.display().to_string())?;
    }
    ensure!(left == 0, "this machine has too few files to fill a disk");
    out.flush()?;
    Ok(File::options().write(true).open(disk)?.set_len(DISK_BYTES as u64)?)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            Ok(kind) if kind.is_dir() => list(&entry.path(), files),
            _ => {}
        }
    }
}

/// Lets it come up, and saves it.
async fn boot(guest: &Guest, folder: &Path) -> Result<()> {
    let lab = Lab::new(&Scenario::clean("boot", 100.0, 1.0))?;
    let mut machine = Machine::start(&lab, Side::A, folder, guest, &guest.disk, Start::Boot).await?;
    machine.hear("READY", BOOT_TIMEOUT).await?;
    let qmp = machine.qmp().await?;
    qmp.query("stop").await?;
    let uri = format!("exec:cat >{}", guest.state.display());
    qmp.execute("migrate", json!({ "uri": uri })).await?;
    wait_until(BOOT_TIMEOUT, async || Ok(qmp.query("query-migrate").await?["status"] == "completed")).await?;
    qmp.query("quit").await?;
    machine.ended()
}
