//! Values of items in the kernel, as texts, and in words why one cannot be read or written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{Item, decide::Want};
use crate::netlink::{Netlink, NetlinkError, link::Link};

/// Before the name of a qdisc that the kernel has chosen.
pub(super) const DEFAULT: &str = "default ";
const NO_FQ: &str =
    "this kernel has no fq (CONFIG_NET_SCH_FQ, module sch_fq); BBR paces by itself without it";
/// Where the switches of each interface are.
pub(super) const CONF: &str = "net.ipv4.conf";
/// What helps where `/proc/sys` cannot be written.
const READ_ONLY: &str = "/proc/sys is read-only here: mount the host's writable, or set it on the host";

/// The kernel of this network namespace.
#[derive(Debug)]
pub(crate) struct Kernel {
    sysctls: PathBuf,
    netlink: Option<Netlink>,
    has_fq: Option<Result<bool, String>>,
}

impl Kernel {
    pub(crate) fn here() -> Self {
        Self::with_sysctls("/proc/sys".into())
    }

    pub(super) fn with_sysctls(sysctls: PathBuf) -> Self {
        Self { sysctls, netlink: None, has_fq: None }
    }

    /// Whether the kernel has what is wanted, as far as it says so beforehand.
    pub(super) fn possible(&mut self, want: &Want) -> Result<(), String> {
        match want {
            Want::Fq | Want::Exactly("fq") if !self.has_fq()? => Err(NO_FQ.to_owned()),
            _ => Ok(()),
        }
    }

    /// Who may not ask, is told by trying.
    fn has_fq(&mut self) -> Result<bool, String> {
        if self.has_fq.is_none() {
            let asked = self.netlink().and_then(|netlink| match netlink.has_fq() {
                Err(error) if matches!(error.errno(), Some(Errno::PERM)) => Ok(true),
                answer => answer.map_err(|error| error.to_string()),
            });
            self.has_fq = Some(asked);
        }
        self.has_fq.clone().expect("asked")
    }

    pub(crate) fn read(&mut self, item: &Item) -> Result<String, String> {
        match item {
            Item::Sysctl(name) => {
                let path = path(&self.sysctls, name);
                let value = fs::read_to_string(&path).map_err(|error| sysctl_reason(name, &error))?;
                Ok(value.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            Item::RootQdisc(interface) => {
                let link = self.link(interface)?;
                let root = self.netlink()?.root_qdisc(&link).map_err(reason)?;
                Ok(match root {
                    Some(root) if root.default => format!("{DEFAULT}{}", root.kind),
                    Some(root) => root.kind,
                    None => format!("{DEFAULT}noqueue"),
                })
            }
            Item::Mtu(interface) => Ok(self.link(interface)?.mtu.to_string()),
        }
    }

    /// Whether there is no such item any more, and nothing to put back.
    pub(super) fn is_gone(&mut self, item: &Item) -> bool {
        match item {
            Item::Sysctl(name) => matches!(path(&self.sysctls, name).try_exists(), Ok(false)),
            Item::RootQdisc(interface) | Item::Mtu(interface) => {
                matches!(self.netlink().map(|netlink| netlink.link(interface)), Ok(Ok(None)))
            }
        }
    }

    /// What the kernel overwrites when it begins or ends to forward IPv4 (`inet_forward_change` in net/ipv4/devinet.c), with
    /// the values now: `accept_redirects` of all is 0 then and 1 after, whatever it was, and each interface that forwards
    /// does so no longer after. It also turns off the receive offload of interfaces (LRO), which stays off.
    pub(super) fn beside_forwarding(&mut self) -> Result<Vec<(Item, String)>, String> {
        let redirects = Item::Sysctl(format!("{CONF}.all.accept_redirects"));
        let mut items = vec![(redirects.clone(), self.read(&redirects)?)];
        let interfaces =
            fs::read_dir(path(&self.sysctls, CONF)).map_err(|error| sysctl_reason(CONF, &error))?;
        for interface in interfaces.flatten() {
            let interface = interface.file_name().to_string_lossy().replace('.', "/");
            let item = Item::Sysctl(format!("{CONF}.{interface}.forwarding"));
            // One that has just gone has nothing to put back.
            match self.read(&item) {
                Ok(value) if value != "0" && interface != "all" => items.push((item, value)),
                _ => {}
            }
        }
        Ok(items)
    }

    pub(crate) fn write(&mut self, item: &Item, value: &str) -> Result<(), String> {
        match item {
            Item::Sysctl(name) => {
                fs::write(path(&self.sysctls, name), value).map_err(|error| match error.raw_os_error() {
                    // The file is there, since it has just been read.
                    Some(code) if code == Errno::NOENT.raw_os_error() => {
                        format!("this kernel has no {value}")
                    }
                    _ => sysctl_reason(name, &error),
                })
            }
            Item::RootQdisc(interface) => {
                let link = self.link(interface)?;
                let netlink = self.netlink()?;
                match value.starts_with(DEFAULT) {
                    true => netlink.remove_root_qdisc(&link),
                    false => netlink.set_root_qdisc(&link, value),
                }
                .map_err(reason)
            }
            Item::Mtu(interface) => {
                let link = self.link(interface)?;
                let mtu = value.parse().map_err(|_| format!("{value:?} is no MTU"))?;
                self.netlink()?.set_mtu(&link, mtu).map_err(reason)
            }
        }
    }

    pub(crate) fn link(&mut self, interface: &str) -> Result<Link, String> {
        let link = self.netlink()?.link(interface).map_err(reason)?;
        link.ok_or_else(|| format!("there is no interface {interface} here"))
    }

    fn netlink(&mut self) -> Result<&mut Netlink, String> {
        self.route_netlink().map_err(reason)
    }

    pub(crate) fn route_netlink(&mut self) -> Result<&mut Netlink, NetlinkError> {
        if self.netlink.is_none() {
            self.netlink = Some(Netlink::route()?);
        }
        Ok(self.netlink.as_mut().expect("opened"))
    }
}

fn reason(error: NetlinkError) -> String {
    error.to_string()
}

fn path(sysctls: &Path, name: &str) -> PathBuf {
    let swapped = name.chars().map(|c| match c {
        '.' => '/',
        // A dot of an interface's name.
        '/' => '.',
        c => c,
    });
    sysctls.join(swapped.collect::<String>())
}

fn sysctl_reason(name: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "there is no {name} here: an older kernel, or one for the whole host, in its own network namespace"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "{name} may not be written here ({error}): it needs root, on some settings in the host's namespaces"
            )
        }
        io::ErrorKind::ReadOnlyFilesystem => READ_ONLY.to_owned(),
        _ => error.to_string(),
    }
}
