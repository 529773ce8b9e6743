//! What a lab leaves behind when it is killed, and removing it.
//!
//! Owns: the mark that every command of a lab carries in its environment, and ending the processes (and scratch
//! folders) that carry it. Namespaces and devices need no sweeping, the kernel removes them; but a grandchild that
//! outlived its lab would keep a namespace alive. What slips through all the same, the next lab's sweep finds.

use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The environment variable that marks a lab's commands.
pub const MARK_VARIABLE: &str = "DWCP_LAB_MARK";
/// Scratch folders live in memory, so that a disk is never the bottleneck of a transfer over the lab.
const SCRATCH_ROOT: &str = "/dev/shm";
const SCRATCH_PREFIX: &str = "dwcp-lab-";
/// Between two looks at processes that change.
const MOMENT: Duration = Duration::from_millis(1);

/// Identifies one lab: process, its start time (process ids are used again), and a count within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pid: u32,
    started: u64,
    number: u32,
}

impl Mark {
    /// A mark no other lab has or had.
    pub fn unique() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        Self { pid, started: start_time(pid).unwrap_or(0), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let mark = Self {
            pid: fields.next()?.parse().ok()?,
            started: fields.next()?.parse().ok()?,
            number: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(mark)
    }

    fn owner_is_dead(&self) -> bool {
        start_time(self.pid) != Some(self.started)
    }

    fn owner_is_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// The scratch folder of this lab; the caller makes it.
    pub fn scratch(&self) -> PathBuf {
        Path::new(SCRATCH_ROOT).join(format!("{SCRATCH_PREFIX}{self}"))
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.pid, self.started, self.number)
    }
}

/// Removes what labs of dead processes left.
pub fn sweep_dead() {
    sweep(Mark::owner_is_dead);
}

/// Removes what one lab left.
pub fn sweep_lab(mark: &Mark) {
    sweep(|found| found == mark);
}

/// On SIGINT, SIGTERM or SIGHUP a thread sweeps what the labs of this process made and exits. To be called before any
/// thread is made: the signals are blocked in all others. Commands start with none blocked, as `std` sees to.
pub fn end_on_signals() {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().expect("block signals");
    std::thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            sweep(Mark::owner_is_this_process);
            std::process::exit(128 + signal as i32);
        }
    });
}

fn sweep(condemned: impl Fn(&Mark) -> bool) {
    /// More than any process takes to die or to fork, unless the kernel holds it.
    const PASSES: usize = 100;
    // A process may have forked between being seen and being killed: until none is left.
    for _ in 0..PASSES {
        let found = marked_processes().filter(|(_, mark)| condemned(mark)).inspect(|(pid, _)| {
            // A process that ended in between is what was wanted.
            let _ = signal::kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        });
        if found.count() == 0 {
            break;
        }
        std::thread::sleep(MOMENT);
    }
    for entry in std::fs::read_dir(SCRATCH_ROOT).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mark = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX)).and_then(Mark::parse);
        if mark.is_some_and(|mark| condemned(&mark)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn marked_processes() -> impl Iterator<Item = (u32, Mark)> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id()).filter_map(|pid| {
        let environment = environment(pid)?;
        let prefix = format!("{MARK_VARIABLE}=");
        let value = environment.split(|byte| *byte == 0).find_map(|v| v.strip_prefix(prefix.as_bytes()))?;
        Some((pid, Mark::parse(std::str::from_utf8(value).ok()?)?))
    })
}

/// `/proc/PID/environ`; `None` when the process is gone. In the midst of `exec` a process has the new program and no
/// environment yet (fs/exec.c, `begin_new_exec`): it is asked again.
fn environment(pid: u32) -> Option<Vec<u8>> {
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        // What has no program either has ended, or is the kernel's.
        if !environment.is_empty() || std::fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            return Some(environment);
        }
        std::thread::sleep(MOMENT);
    }
    Some(Vec::new())
}

/// When a process started, in ticks since boot (`/proc/PID/stat`, field 22); `None` when it is gone.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, field 2, is in parentheses and may contain anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back_and_name_living_owners() {
        let mark = Mark::unique();
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark.clone()));
        assert_ne!(Mark::unique(), mark);
        assert!(!mark.owner_is_dead() && mark.owner_is_this_process());
        let reused = Mark { started: mark.started + 1, ..mark.clone() };
        assert!(reused.owner_is_dead(), "same process id, another process");
        for bad in ["", "1-2", "1-2-3-4", "x-2-3"] {
            assert_eq!(Mark::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_marked_are_swept() {
        let (mine, other) = (Mark::unique(), Mark::unique());
        let spawn = |mark: &Mark| {
            std::process::Command::new("sleep")
                .arg("60")
                .env(MARK_VARIABLE, mark.to_string())
                .spawn()
                .unwrap()
        };
        let (mut swept, mut kept) = (spawn(&mine), spawn(&other));
        let visible = |mark: &Mark| marked_processes().any(|(_, found)| found == *mark);
        while !(visible(&mine) && visible(&other)) {
            std::thread::yield_now(); // `spawn` returns while the new program's environment is still being set up
        }
        std::fs::create_dir_all(mine.scratch()).unwrap();
        sweep_lab(&mine);
        assert!(!swept.wait().unwrap().success());
        assert!(!mine.scratch().exists());
        assert!(kept.try_wait().unwrap().is_none(), "another lab's process lives on");
        kept.kill().unwrap();
        kept.wait().unwrap();
    }
}
