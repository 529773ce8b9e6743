//! A network namespace without a name.
//!
//! Owns: making one, running code and commands in it, and its settings (addresses, buffers). Nothing is left in
//! `/run/netns`: the namespace is held by a file descriptor, so the kernel removes it, with its devices and routes,
//! when the last process in it ends, however that happens. Two labs can never meet in a name.

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Buffers a TCP socket may grow to by autotuning. The kernel's default for sending, 4 MiB, ends a 300 ms path at
/// 100 Mbit/s; with 64 MiB the link is the limit and not the host. `net.core.{r,w}mem_max` cannot be raised inside a
/// namespace: a program that sets `SO_SNDBUF` or `SO_RCVBUF` itself stays under the host's limit.
const TCP_BUFFER_MAX: usize = 64 << 20;

/// Settings written in every namespace. The default congestion control is not among them: a namespace inherits the
/// host's and may not change it to one the host restricts, so reports name it instead.
fn sysctls() -> [(&'static str, String); 5] {
    [
        ("ipv4/tcp_rmem", format!("4096 131072 {TCP_BUFFER_MAX}")),
        ("ipv4/tcp_wmem", format!("4096 16384 {TCP_BUFFER_MAX}")),
        // A connection must not start from what an earlier one learned about the path.
        ("ipv4/tcp_no_metrics_save", "1".into()),
        ("ipv6/conf/all/disable_ipv6", "0".into()),
        ("ipv6/conf/default/accept_ra", "0".into()),
    ]
}

/// A network namespace of our own.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes an empty namespace with loopback up and the lab's settings.
    pub fn create() -> Result<Self> {
        // A thread of its own moves into the new namespace and ends there; the caller stays where it is.
        let file = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
            File::open("/proc/thread-self/ns/net").context("open /proc/thread-self/ns/net")
        })
        .join()
        .expect("the namespace thread does not panic")?;
        let namespace = Self { file };
        namespace.enter(|| -> Result<()> {
            for (key, value) in sysctls() {
                let path = format!("/proc/sys/net/{key}");
                std::fs::write(&path, &value).with_context(|| format!("write {value:?} to {path}"))?;
            }
            Ok(())
        })?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay there wherever they are used.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("setns to a namespace we hold");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Makes `command` run in the namespace, and die when the thread that spawns it does.
    pub fn confine(&self, command: &mut Command) {
        let fd = self.file.as_raw_fd();
        // SAFETY: between fork and exec only async-signal-safe calls are made: setns and prctl, without allocation.
        // The descriptor is the child's copy of `self.file`; a command that is spawned after the namespace was
        // dropped fails in setns (EBADF, or EINVAL for a file that is no namespace).
        unsafe {
            command.pre_exec(move || {
                setns(BorrowedFd::borrow_raw(fd), CloneFlags::CLONE_NEWNET)?;
                nix::errno::Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                Ok(())
            });
        }
    }

    /// Runs `ip` (iproute2) commands, one per line, inside the namespace.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.confine(&mut command);
        let mut child = command.spawn().context("run `ip` (Debian package iproute2)")?;
        child.stdin.take().expect("stdin is piped").write_all((lines.join("\n") + "\n").as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Where other processes find the namespace while this one lives: `nsenter --net=PATH COMMAND`.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}
