//! Why a guard could not be attached, told or read: what failed, where, and what to do.

use std::{io, path::PathBuf};

use crate::config::Mode;

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
        "{interface} has an XDP program already, id {id}{}: detach it (`ip link set dev {interface} xdp off`), \
         or leave XDP to it and turn the guard off",
        name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
    )]
    Occupied {
        /// The interface.
        interface: String,
        /// The program's id, as `bpftool prog show id` takes it.
        id: u32,
        /// The program's name, where this process may ask for it.
        name: Option<String>,
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
