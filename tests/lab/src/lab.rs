//! A lab: two namespaces, the emulated link between them, and the commands that run there.
//!
//! Owns: putting the pieces together and taking them apart. What the link does is `scenario`; who competes on it is
//! `contender`.

use crate::link::Link;
use crate::namespace::Namespace;
use crate::pump::Pump;
use crate::scenario::Scenario;
use crate::stats::LinkStats;
use crate::sweep::{self, MARK_VARIABLE, Mark};
use crate::tun::Tun;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

const DEVICE: &str = "wan0";
const MTU: u32 = 1500;
/// Packets the device holds for the pump. Super-packets at 400 Mbit/s arrive a few per millisecond; this is enough for
/// a flood of small ones while the pump waits for a processor.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;
/// How often a condition is looked at while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// One end of the link. By custom the client, which sends, is at A and the server at B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// 192.0.2.1, 2001:db8::1
    A,
    /// 192.0.2.2, 2001:db8::2
    B,
}

impl Side {
    /// The IPv4 address of this end (TEST-NET-1, RFC 5737).
    pub const fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 1 + self as u8)
    }

    /// The IPv6 address of this end (documentation prefix, RFC 3849).
    pub const fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + self as u16)
    }

    /// The address of this end in the wanted family.
    pub const fn ip(self, ipv6: bool) -> IpAddr {
        if ipv6 { IpAddr::V6(self.ipv6()) } else { IpAddr::V4(self.ipv4()) }
    }
}

/// A running lab. Dropping it ends its commands and removes everything it made.
#[derive(Debug)]
pub struct Lab {
    // In this order: the pump holds the devices, the devices live in the namespaces.
    pump: Pump,
    namespaces: [Namespace; 2],
    mark: Mark,
}

/// Why no lab can be made on this machine; `None` when one can. For tests that have to skip.
pub fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN".into());
    }
    if let Err(error) = std::fs::File::open("/dev/net/tun") {
        return Some(format!("no TUN devices: open /dev/net/tun: {error}"));
    }
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(error) => return Some(format!("no network namespaces: {error:#}")),
    };
    namespace.enter(|| Tun::create(DEVICE)).err().map(|error| format!("no TUN device can be made: {error:#}"))
}

impl Lab {
    /// Makes the namespaces and starts the link; its time 0 is now. Also removes what labs of dead processes left.
    pub fn new(scenario: &Scenario) -> Result<Self> {
        let [a_to_b, b_to_a] = scenario.directions()?;
        sweep::sweep_dead();
        let end = |side: Side| -> Result<(Namespace, Tun)> {
            let namespace = Namespace::create()?;
            let tun = namespace.enter(|| Tun::create(DEVICE)).context("make a TUN device")?;
            namespace.ip(&[
                &format!("link set {DEVICE} mtu {MTU} txqueuelen {DEVICE_QUEUE_PACKETS} up"),
                &format!("address add {}/24 dev {DEVICE}", side.ipv4()),
                &format!("address add {}/64 dev {DEVICE} nodad", side.ipv6()),
            ])?;
            Ok((namespace, tun))
        };
        let ((namespace_a, tun_a), (namespace_b, tun_b)) = (end(Side::A)?, end(Side::B)?);
        let pump = Pump::start(tun_a, tun_b, Link::new(a_to_b), Link::new(b_to_a));
        Ok(Self { pump, namespaces: [namespace_a, namespace_b], mark: Mark::unique() })
    }

    /// A command that will run at `side`. It is killed when the lab is dropped, and when the thread that spawns it
    /// ends, so keep that thread. The environment tells it where it is: `DWCP_LAB_SIDE`, and `DWCP_LAB_NETNS_A` and
    /// `_B` for `nsenter --net=`.
    pub fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env(MARK_VARIABLE, self.mark.to_string())
            .env("DWCP_LAB_SIDE", format!("{side:?}"))
            .env("DWCP_LAB_NETNS_A", self.namespace(Side::A).path())
            .env("DWCP_LAB_NETNS_B", self.namespace(Side::B).path());
        self.namespace(side).confine(&mut command);
        command
    }

    /// Starts a command that was made with [`Lab::command`].
    pub fn spawn(&self, mut command: Command) -> Result<Running> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("run {name}"))?;
        Ok(Running { child, name })
    }

    /// Runs `work` on a thread at `side`. Sockets made there stay there wherever they are used.
    pub fn enter<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> T {
        self.namespace(side).enter(work)
    }

    /// The namespace at `side`, for what the methods here do not cover.
    pub fn namespace(&self, side: Side) -> &Namespace {
        &self.namespaces[side as usize]
    }

    /// Takes the link down or up, both ways: nothing passes, and no endpoint is told.
    pub fn set_link_up(&self, up: bool) {
        self.pump.set_up(up);
    }

    /// The counters as they are now, with what the devices themselves dropped.
    pub fn stats(&self) -> LinkStats {
        let mut stats = self.pump.stats();
        let dropped = |side, column| self.enter(side, || device_counter(column)).unwrap_or(1);
        stats.a_to_b.device_drops = dropped(Side::A, TX_DROPPED) + dropped(Side::B, RX_DROPPED);
        stats.b_to_a.device_drops = dropped(Side::B, TX_DROPPED) + dropped(Side::A, RX_DROPPED);
        stats
    }

    /// A folder in memory that goes away with the lab.
    pub fn scratch(&self) -> Result<PathBuf> {
        let path = self.mark.scratch();
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Waits until something at `side` listens on TCP or is bound on UDP (on `port`, if given).
    pub fn wait_for_listener(&self, side: Side, port: Option<u16>, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !self.enter(side, || has_listener(port)) {
            if Instant::now() > deadline {
                bail!("nothing listens at side {side:?} after {timeout:?}");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        sweep::sweep_lab(&self.mark);
    }
}

/// A command in the lab; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// The child process, for its pipes and id.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Waits for its end at most `timeout` and returns what it wrote to a piped stdout. An error when it fails, or is
    /// still running then.
    pub fn stdout_within(mut self, timeout: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut stdout = self.child.stdout.take().expect("the command's stdout is piped");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![];
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}", self.name);
            }
            std::thread::sleep(POLL_INTERVAL);
        };
        let bytes = reader.join().expect("the reader does not panic")?;
        if !status.success() {
            let text = String::from_utf8_lossy(&bytes);
            bail!("{}: {status}: {}", self.name, text.trim().chars().take(300).collect::<String>());
        }
        Ok(bytes)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; either way there is nothing left to do about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Columns of `/proc/net/dev` after the interface's name.
const RX_DROPPED: usize = 3;
const TX_DROPPED: usize = 11;

fn device_counter(column: usize) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'))?;
    line.split_whitespace().nth(column)?.parse().ok()
}

/// Looks for TCP sockets that listen and UDP sockets that are bound, in the thread's namespace.
fn has_listener(port: Option<u16>) -> bool {
    let matches = |table: &str, wanted_state: &str| {
        let path = Path::new("/proc/thread-self/net").join(table);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
                return false;
            };
            let local_port = local.rsplit_once(':').and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
            state == wanted_state && port.is_none_or(|port| local_port == Some(port))
        })
    };
    // TCP_LISTEN is 0A; an unconnected UDP socket shows as 07 (TCP_CLOSE).
    ["tcp", "tcp6"].iter().any(|t| matches(t, "0A")) || ["udp", "udp6"].iter().any(|t| matches(t, "07"))
}
