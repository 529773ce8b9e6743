//! What processes use, as the kernel counts it.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result};

/// Clock ticks of /proc/PID/stat; the same on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of /sys/dev/block/*/stat, whatever the device has.
const SECTOR_BYTES: f64 = 512.0;

/// What all members together have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    /// By the device that the data is on, which nobody else should use meanwhile. What the kernel counts for a process are the pages
    /// that it has changed, of which one can be a hundred times as large as what is written. 0: there is no device.
    pub(crate) written_bytes: f64,
    /// Of the largest member, now.
    pub(crate) rss_kib_max: f64,
}

impl Usage {
    /// Of these processes, with their data in this folder.
    pub(crate) fn of(processes: impl Iterator<Item = u32>, folder: &Path) -> Result<Self> {
        let mut usage = Self { written_bytes: written(folder)?, ..Self::default() };
        for id in processes {
            let read = |file: &str| {
                let path = format!("/proc/{id}/{file}");
                std::fs::read_to_string(&path).with_context(|| path)
            };
            let stat = read("stat")?;
            // Behind the name in parentheses, user and system time are the 12th and 13th field.
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |n: usize| {
                let field = fields.get(n).and_then(|field| field.parse::<f64>().ok());
                field.with_context(|| format!("/proc/{id}/stat: {stat}"))
            };
            usage.cpu_s += (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
            usage.rss_kib_max = usage.rss_kib_max.max(number(&read("status")?, "VmRSS:")?);
        }
        Ok(usage)
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes - before.written_bytes,
            rss_kib_max: self.rss_kib_max,
        }
    }
}

/// Bytes that the device of this folder has written since the system's start.
fn written(folder: &Path) -> Result<f64> {
    let device = std::fs::metadata(folder).with_context(|| folder.display().to_string())?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    // A file system without one, as tmpfs, has nothing there.
    let Ok(stat) = std::fs::read_to_string(&path) else { return Ok(0.0) };
    let sectors = stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<f64>().ok());
    Ok(sectors.with_context(|| format!("{path}: {stat}"))? * SECTOR_BYTES)
}

fn number(text: &str, key: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {key} in {text}"))
}
