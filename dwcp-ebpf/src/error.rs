//! Why a guard could not be attached, told or read: what failed, where, and what to do.

use std::{fmt, io, path::PathBuf};

use crate::config::Mode;

/// A program that an interface has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
    /// Where it runs.
    pub mode: Mode,
    /// Its name, where this process may ask for it.
    pub name: Option<String>,
    /// Who keeps it there.
    pub holder: Holder,
}

/// What keeps a program at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The interface itself.
    Interface,
    /// A link with this id, as `bpftool link show id` takes it, that a process holds or has pinned.
    Link(u32),
    /// A link of a guard of ours, that is pinned in this folder.
    Pin(PathBuf),
    /// This process may not ask: that takes CAP_SYS_ADMIN.
    Unknown,
}

impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.id)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl Present {
    /// What takes it off: what was attached by a link the interface does not let go.
    fn way_off(&self, interface: &str) -> String {
        let mode = match self.mode {
            Mode::Native => "xdpdrv",
            Mode::Generic => "xdpgeneric",
        };
        let off = format!("`ip link set dev {interface} {mode} off`");
        match &self.holder {
            Holder::Interface => format!("detach it ({off})"),
            Holder::Link(id) => {
                format!("end the process that holds its link, or detach that (`bpftool link detach id {id}`)")
            }
            Holder::Pin(folder) => {
                format!(
                    "it is a guard of an earlier process with other pins: remove them (`rm -r {}`)",
                    folder.display()
                )
            }
            Holder::Unknown => {
                format!(
                    "detach it ({off}; if a link holds it, end who has that: `bpftool link show` names it)"
                )
            }
        }
    }
}

/// Why a guard does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This program was built without XDP.
    #[error("XDP is not available: {reason}")]
    Unavailable {
        /// What was missing, and how to get it.
        reason: &'static str,
    },
    /// A setting is out of range.
    #[error("{setting} has to be {allowed}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its range.
        allowed: &'static str,
    },
    /// There is no such interface in this network namespace.
    #[error("there is no interface {interface} here: {source}")]
    NoInterface {
        /// The name that was given.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process may not load programs.
    #[error("missing {missing}: run as root, or give the process CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")]
    NotPermitted {
        /// The capabilities that are not there.
        missing: String,
    },
    /// The folder for pins is not in a BPF file system.
    #[error("{path} is not in a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, or mount the host's there")]
    NoBpfFileSystem {
        /// The folder that was looked at.
        path: PathBuf,
    },
    /// A pin, or the folder of the pins, cannot be made, read or removed.
    #[error("{call} {path}: {source}")]
    Folder {
        /// What was tried.
        call: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process guards the interface.
    #[error("another process guards {interface} (it holds a lock on {folder}): stop it first")]
    InUse {
        /// The interface.
        interface: String,
        /// The folder of its pins.
        folder: PathBuf,
    },
    /// The interface has an XDP program that is not of this guard.
    #[error(
        "{interface} has an XDP program already, {present}: {}, or leave XDP to it and turn the guard off",
        present.way_off(interface)
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The program.
        present: Present,
    },
    /// The kernel has no XDP.
    #[error("this kernel does not load XDP programs: it needs CONFIG_BPF_SYSCALL, and Linux 5.18 or later")]
    KernelWithoutXdp,
    /// The kernel refuses the program or its maps.
    #[error("the kernel refuses the program or its maps (the log of the target `libbpf` says why): {source}")]
    Load {
        /// What libbpf said.
        source: io::Error,
    },
    /// The interface takes no program in this mode.
    #[error("{interface} takes no XDP program in {mode} mode: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode that was tried last.
        mode: Mode,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pinned link guards an interface of the same name in another network namespace.
    #[error("{folder} belongs to an interface {interface} of another network namespace: take another folder")]
    OtherNamespace {
        /// The interface.
        interface: String,
        /// The folder of the pins.
        folder: PathBuf,
    },
    /// The program of the pinned link cannot be replaced, or the link not be asked or detached.
    #[error("{call} of the pinned link of {interface}: {source}")]
    Link {
        /// What was tried.
        call: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A map cannot be read or written.
    #[error("{call} in the map {map}: {source}")]
    Map {
        /// What was tried.
        call: &'static str,
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advised_can_work_for_who_holds_the_program() {
        let told = |mode, holder| {
            let present = Present { id: 7, mode, name: None, holder };
            Error::Occupied { interface: "eth0".to_owned(), present }.to_string()
        };
        assert!(told(Mode::Generic, Holder::Interface).contains("`ip link set dev eth0 xdpgeneric off`"));
        let by_link = told(Mode::Native, Holder::Link(3));
        assert!(
            by_link.contains("bpftool link detach id 3") && !by_link.contains("ip link set"),
            "{by_link}"
        );
        let ours = told(Mode::Native, Holder::Pin("/sys/fs/bpf/old/eth0".into()));
        assert!(ours.contains("rm -r /sys/fs/bpf/old/eth0"), "{ours}");
        let unknown = told(Mode::Native, Holder::Unknown);
        assert!(unknown.contains("xdpdrv off") && unknown.contains("bpftool link show"), "{unknown}");
    }
}
