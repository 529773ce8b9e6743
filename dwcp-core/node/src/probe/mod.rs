//! What this node can do, and why not.
//!
//! Owns: looking. Nothing is changed, and nothing is needed: what may not be asked is [`Finding::Unknown`], with the reason.
//! AF_XDP, XDP and RDMA are looked at by their own crates.

mod interfaces;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use netlink_packet_route::link::InfoKind;
use rustix::{process::Resource, system::uname};

use crate::{netlink::Netlink, wireguard};
pub use interfaces::{Interface, addresses, interfaces};

/// The capabilities that the node agent needs, and their bits (linux/capability.h).
const CAPABILITIES: [(&str, u32, &str); 5] = [
    ("CAP_NET_ADMIN", 12, "tunnels, qdiscs, MTUs and XDP"),
    ("CAP_NET_RAW", 13, "AF_XDP sockets"),
    ("CAP_IPC_LOCK", 14, "memory for RDMA beyond the limit of locked memory"),
    ("CAP_PERFMON", 38, "loading XDP programs"),
    ("CAP_BPF", 39, "loading XDP programs"),
];
/// Regions that compare times of day want clocks that agree to this.
const CLOCK_ERROR_MAX: Duration = Duration::from_millis(100);
/// Locked memory that RDMA buffers need without CAP_IPC_LOCK.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there.
    Yes {
        /// What exactly.
        detail: String,
    },
    /// It is not.
    No {
        /// Why, and what to do.
        reason: String,
    },
    /// That cannot be told.
    Unknown {
        /// Why not.
        reason: String,
    },
}

impl Finding {
    /// Whether it is there for sure.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes { .. })
    }

    fn yes(detail: impl Into<String>) -> Self {
        Self::Yes { detail: detail.into() }
    }

    fn no(reason: impl Into<String>) -> Self {
        Self::No { reason: reason.into() }
    }

    fn unknown(reason: impl fmt::Display) -> Self {
        Self::Unknown { reason: reason.to_string() }
    }

    /// There or not, by an answer of the kernel.
    fn answer<E: fmt::Display>(answer: Result<bool, E>, detail: &str, reason: &str) -> Self {
        match answer {
            Ok(true) => Self::yes(detail),
            Ok(false) => Self::no(reason),
            Err(error) => Self::unknown(error),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes { detail } => write!(f, "yes: {detail}"),
            Self::No { reason } => write!(f, "no: {reason}"),
            Self::Unknown { reason } => write!(f, "unknown: {reason}"),
        }
    }
}

/// A capability of the calling thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// As `capabilities(7)` calls it.
    pub name: &'static str,
    /// Whether it is effective.
    pub finding: Finding,
}

/// What this node can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release, as `uname -r` tells.
    pub kernel: String,
    /// BBR congestion control.
    pub bbr: Finding,
    /// The qdisc `fq`.
    pub fq: Finding,
    /// VXLAN interfaces.
    pub vxlan: Finding,
    /// TUN devices.
    pub tun: Finding,
    /// WireGuard by the kernel.
    pub wireguard_kernel: Finding,
    /// WireGuard by this process.
    pub wireguard_user_space: Finding,
    /// Types of the kernel. The guard in XDP needs none; other BPF programs may.
    pub btf: Finding,
    /// A BPF file system, where the XDP program outlives a restart.
    pub bpf_file_system: Finding,
    /// Memory that may be locked.
    pub memlock: Finding,
    /// A clock that somebody keeps right.
    pub clock: Finding,
    /// The capabilities that the node agent needs.
    pub capabilities: Vec<Capability>,
    /// The interfaces of this network namespace, or why they cannot be told.
    pub interfaces: Result<Vec<Interface>, String>,
}

impl Report {
    /// All findings, each with what it is about.
    pub fn findings(&self) -> Vec<(&'static str, &Finding)> {
        let mut all = vec![
            ("BBR", &self.bbr),
            ("fq", &self.fq),
            ("VXLAN", &self.vxlan),
            ("TUN", &self.tun),
            ("WireGuard in the kernel", &self.wireguard_kernel),
            ("WireGuard in user space", &self.wireguard_user_space),
            ("BTF", &self.btf),
            ("BPF file system", &self.bpf_file_system),
            ("locked memory", &self.memlock),
            ("clock", &self.clock),
        ];
        all.extend(self.capabilities.iter().map(|capability| (capability.name, &capability.finding)));
        all
    }
}

/// Looks.
pub fn probe() -> Report {
    let capabilities = capabilities();
    let tun = tun();
    let wireguard_user_space = wireguard_user_space(&tun, &capabilities);
    Report {
        kernel: uname().release().to_string_lossy().into_owned(),
        bbr: bbr(),
        fq: Finding::answer(
            Netlink::route().and_then(|mut netlink| netlink.has_fq()),
            "the kernel knows it",
            "this kernel has none (CONFIG_NET_SCH_FQ, module sch_fq); BBR paces by itself without it",
        ),
        vxlan: Finding::answer(
            Netlink::route().and_then(|mut netlink| netlink.has_kind(InfoKind::Vxlan)),
            "the kernel knows it",
            "this kernel has none (CONFIG_VXLAN, module vxlan)",
        ),
        tun,
        wireguard_kernel: Finding::answer(
            wireguard::kernel_has_it(),
            "the kernel knows it",
            "this kernel has none (CONFIG_WIREGUARD, module wireguard)",
        ),
        wireguard_user_space,
        btf: there(
            Path::new("/sys/kernel/btf/vmlinux"),
            "this kernel has none (CONFIG_DEBUG_INFO_BTF), or /sys is not mounted; the guard in XDP needs none",
        ),
        bpf_file_system: bpf_file_system(),
        memlock: memlock(&capabilities),
        clock: clock(),
        capabilities,
        interfaces: interfaces().map_err(|error| error.to_string()),
    }
}

fn there(path: &Path, reason: &str) -> Finding {
    match fs::metadata(path) {
        Ok(_) => Finding::yes(path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::no(reason),
        Err(error) => Finding::unknown(format!("{}: {error}", path.display())),
    }
}

fn bbr() -> Finding {
    const PATH: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    match fs::read_to_string(PATH) {
        Ok(names) => bbr_of(names.trim()),
        Err(error) => Finding::unknown(format!("{PATH}: {error}")),
    }
}

fn bbr_of(names: &str) -> Finding {
    match names.split_whitespace().any(|name| name == "bbr") {
        true => Finding::yes(format!("the kernel offers {names}")),
        false => Finding::no(format!("the kernel offers {names}: `modprobe tcp_bbr` (CONFIG_TCP_CONG_BBR)")),
    }
}

fn tun() -> Finding {
    const PATH: &str = "/dev/net/tun";
    match fs::OpenOptions::new().read(true).write(true).open(PATH) {
        Ok(_) => Finding::yes(PATH),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::no(format!(
            "there is no {PATH} (CONFIG_TUN, module tun; a container has to be given it)"
        )),
        Err(error) => Finding::no(format!("{PATH}: {error}")),
    }
}

fn wireguard_user_space(tun: &Finding, capabilities: &[Capability]) -> Finding {
    let admin = capabilities.iter().find(|capability| capability.name == "CAP_NET_ADMIN").map(|c| &c.finding);
    match (tun, admin) {
        (Finding::Yes { .. }, Some(Finding::Yes { .. })) => Finding::yes("on a TUN device"),
        (Finding::Yes { .. }, Some(other)) => other.clone(),
        (other, _) => other.clone(),
    }
}

fn capabilities() -> Vec<Capability> {
    // A thread has its own.
    let status = fs::read_to_string("/proc/thread-self/status");
    let effective = status.as_deref().map(effective);
    let finding = |bit: u32, purpose: &str| match effective {
        Ok(Some(all)) if all & 1 << bit != 0 => Finding::yes("effective"),
        Ok(Some(_)) => Finding::no(format!("not effective: run as root, or grant it; it is for {purpose}")),
        Ok(None) => Finding::unknown("/proc/thread-self/status does not say"),
        Err(error) => Finding::unknown(format!("/proc/thread-self/status: {error}")),
    };
    CAPABILITIES.map(|(name, bit, purpose)| Capability { name, finding: finding(bit, purpose) }).into()
}

/// Whether the calling thread may change the network (`CAP_NET_ADMIN`). None: `/proc` does not say.
pub(crate) fn has_net_admin() -> Option<bool> {
    let (_, bit, _) = CAPABILITIES.iter().find(|(name, ..)| *name == "CAP_NET_ADMIN")?;
    Some(effective(&fs::read_to_string("/proc/thread-self/status").ok()?)? & 1 << bit != 0)
}

fn effective(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

fn bpf_file_system() -> Finding {
    match fs::read_to_string("/proc/thread-self/mounts") {
        Ok(mounts) => match bpf_mount(&mounts) {
            Some(path) => Finding::yes(path.display().to_string()),
            None => Finding::no("none is mounted: `mount -t bpf bpf /sys/fs/bpf`, or mount the host's there"),
        },
        Err(error) => Finding::unknown(format!("/proc/thread-self/mounts: {error}")),
    }
}

/// The first BPF file system of the table (`fstab(5)`).
fn bpf_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "bpf").then(|| PathBuf::from(path))
    })
}

fn memlock(capabilities: &[Capability]) -> Finding {
    if capabilities.iter().any(|capability| capability.name == "CAP_IPC_LOCK" && capability.finding.is_yes())
    {
        return Finding::yes("as much as one likes, by CAP_IPC_LOCK");
    }
    match rustix::process::getrlimit(Resource::Memlock).current {
        None => Finding::yes("as much as one likes"),
        Some(bytes) if bytes >= MEMLOCK_BYTES_MIN => Finding::yes(format!("{} KiB", bytes >> 10)),
        Some(bytes) => Finding::no(format!(
            "{} KiB, and RDMA wants {} KiB: raise it (`ulimit -l`, LimitMEMLOCK=), or grant CAP_IPC_LOCK",
            bytes >> 10,
            MEMLOCK_BYTES_MIN >> 10
        )),
    }
}

fn clock() -> Finding {
    let clock = match dwcp_sys::clock() {
        Ok(clock) => clock,
        Err(error) => return Finding::unknown(format!("adjtimex: {error}")),
    };
    let error = format!("estimated error {:?}, at most {:?}", clock.error_estimated, clock.error_max);
    match clock.synchronised {
        false => Finding::no(format!("nobody keeps it right (chrony, ntpd): {error}")),
        true if clock.error_estimated > CLOCK_ERROR_MAX => Finding::no(format!("it is far off: {error}")),
        true => Finding::yes(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_read() {
        assert!(bbr_of("reno bbr cubic").is_yes());
        assert!(
            matches!(bbr_of("reno cubic"), Finding::No { reason } if reason.contains("modprobe tcp_bbr"))
        );
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000001000\n"), Some(0xc0_0000_1000));
        assert_eq!(effective("Name:\tx\n"), None);
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert_eq!(bpf_mount(mounts), Some("/sys/fs/bpf".into()));
        assert_eq!(bpf_mount("bpf /x tmpfs rw 0 0\n\nhalf"), None);
    }

    #[test]
    fn wireguard_in_user_space_needs_both() {
        let capability = |finding| vec![Capability { name: "CAP_NET_ADMIN", finding }];
        let (yes, no) = (Finding::yes("x"), Finding::no("y"));
        assert!(wireguard_user_space(&yes, &capability(yes.clone())).is_yes());
        assert_eq!(wireguard_user_space(&yes, &capability(no.clone())), no);
        assert_eq!(wireguard_user_space(&no, &capability(yes.clone())), no);
    }
}
