//! The machine a figure comes from.
//!
//! Owns: its description for reports, what its kernel offers, and how idle its processors were. Runs nothing but `git`
//! and `date`, and reads nothing but `/proc`.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, sockopt};
use serde::{Deserialize, Serialize};
use std::process::Command;

/// Machine, kernel and the commit that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names say it; memory in bytes")]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub default_congestion_control: String,
    pub commit: String,
}

impl Machine {
    /// This machine, and the commit checked out in the current folder.
    pub fn current() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let sysctl = |key: &str| {
            let value = std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
            value.trim().to_owned()
        };
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib: u64 =
            field(&meminfo, "MemTotal").and_then(|value| value.split(' ').next()?.parse().ok()).unwrap_or(0);
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_kib * 1024,
            kernel: sysctl("kernel/osrelease"),
            default_congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
            commit: commit(),
        }
    }
}

fn commit() -> String {
    output("git", &["describe", "--always", "--dirty", "--abbrev=12"])
}

/// The time now, to the minute, in UTC.
pub fn date() -> String {
    output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
}

fn output(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().into(),
        _ => "unknown".into(),
    }
}

/// Why TCP cannot use this congestion control here; `None` when it can. Makes the kernel load its module.
pub fn congestion_control_missing(name: &str) -> Option<String> {
    let set = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        nix::sys::socket::setsockopt(&socket, sockopt::TcpCongestion, &name.into())
    };
    set().err().map(|error| format!("congestion control {name}: {error}"))
}

/// Measures what share of all processors is idle.
#[derive(Debug)]
pub struct IdleMeter {
    idle: u64,
    total: u64,
}

impl IdleMeter {
    /// Begins now (`/proc/stat`, first line).
    pub fn start() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or("")
            .split_whitespace()
            .skip(1)
            .filter_map(|f| f.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user time.
        Self { idle: fields.iter().skip(3).take(2).sum(), total: fields.iter().take(8).sum() }
    }

    /// The idle share since the start, 0.0..=1.0.
    pub fn share(&self) -> f64 {
        let now = Self::start();
        // The kernel's idle counter may step back by a tick (proc(5)).
        now.idle.saturating_sub(self.idle) as f64 / now.total.saturating_sub(self.total).max(1) as f64
    }
}
