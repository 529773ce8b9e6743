//! Where and when a run took place.

use std::{path::Path, process::Command};

use serde::{Deserialize, Serialize};

/// Machine, kernel, commit, date, command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Its model.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Its release.
    pub kernel: String,
    /// Of TCP, the default.
    pub congestion_control: String,
    /// What was measured.
    pub commit: String,
    /// UTC.
    pub date: String,
    /// With its arguments.
    pub command: String,
}

impl Machine {
    /// This one, now, for this program.
    pub fn current(program: &str) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let sysctl = |key: &str| {
            std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default().trim().to_owned()
        };
        // Where things are on this machine says nothing to others.
        let place = |argument: String| match Path::new(&argument).file_name() {
            Some(name) if argument.starts_with('/') => name.to_string_lossy().into_owned(),
            _ => argument,
        };
        let arguments: Vec<String> = std::env::args().skip(1).map(place).collect();
        Self {
            processor: model.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: sysctl("kernel/osrelease"),
            congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
            commit: output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            command: format!("{program} {}", arguments.join(" ")).trim_end().to_owned(),
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
