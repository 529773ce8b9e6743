//! What the members talk over: namespaces at a bridge, or loopback where there are none.
//!
//! Each member's namespace has one device, the other end of which is a port of a bridge in a further namespace, where the
//! clients are. Nobody asks for hardware addresses: they are given and never expire, and a packet with a wrong one is lost
//! without a word. That makes a loss one-way and needs nothing of the kernel but `veth` and `bridge`. The namespaces have no
//! names, so the kernel removes them with the last process that uses them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_lab::namespace::Namespace;

use crate::MEMBERS;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 9090;
/// The hardware address of nobody.
const NOBODY: &str = "02:00:00:00:00:ff";
/// States of a bridge's port (linux/if_bridge.h).
const PORT_DISABLED: u8 = 0;
const PORT_FORWARDING: u8 = 3;

/// What of a member's traffic is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// All of it, clients included.
    Everything,
    /// That with the other members. Clients still reach it.
    Members,
    /// What it sends to the other members.
    ToMembers,
    /// What the other members send to it.
    FromMembers,
}

/// Where members listen and how they are cut off.
#[derive(Debug)]
pub enum Network {
    /// A namespace for each member.
    Bridged {
        /// The bridge, and the clients.
        bridge: Namespace,
        /// The members.
        members: Vec<Namespace>,
    },
    /// Ports for clients and for members. Nothing can be cut.
    Loopback(Vec<(u16, u16)>),
}

/// The address of a member (TEST-NET-1, RFC 5737).
fn ip(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 11 + member as u8)
}

fn hardware_address(member: usize) -> String {
    format!("02:00:00:00:00:{:02x}", 11 + member)
}

fn neighbour(member: usize, hardware_address: &str) -> String {
    format!("neigh replace {} lladdr {hardware_address} nud permanent dev eth0", ip(member))
}

fn batch(namespace: &Namespace, lines: &[String]) -> Result<()> {
    namespace.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

impl Network {
    /// Namespaces at a bridge. The error says why this machine has none.
    pub fn bridged() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("not root: network namespaces need CAP_SYS_ADMIN and CAP_NET_ADMIN");
        }
        let bridge = Namespace::create()?;
        bridge.ip(&["link add br0 type bridge", "link set br0 up", "address add 192.0.2.1/24 dev br0"])?;
        let members = (0..MEMBERS).map(|_| Namespace::create()).collect::<Result<Vec<_>>>()?;
        for (n, member) in members.iter().enumerate() {
            batch(
                &bridge,
                &[
                    format!("link add port{n} type veth peer name member{n}"),
                    format!("link set member{n} address {}", hardware_address(n)),
                    format!("link set member{n} netns {}", member.path().display()),
                    format!("link set port{n} master br0 up"),
                ],
            )
            .with_context(|| format!("port {n} of the bridge"))?;
            let mut lines = vec![
                format!("link set member{n} name eth0"),
                "link set eth0 up".to_owned(),
                format!("address add {}/24 dev eth0", ip(n)),
            ];
            lines.extend(others(n).map(|other| neighbour(other, &hardware_address(other))));
            batch(member, &lines).with_context(|| format!("device of member {n}"))?;
        }
        Ok(Self::Bridged { bridge, members })
    }

    /// Free ports of this machine.
    pub fn loopback() -> Self {
        let ports = ports::free(2 * MEMBERS as u16);
        Self::Loopback(ports.chunks(2).map(|pair| (pair[0], pair[1])).collect())
    }

    /// Where a member listens for clients.
    pub fn client_address(&self, member: usize) -> SocketAddr {
        match self {
            Self::Bridged { .. } => (ip(member), CLIENT_PORT).into(),
            Self::Loopback(ports) => (IpAddr::from([127, 0, 0, 1]), ports[member].0).into(),
        }
    }

    /// Where a member listens for the others.
    pub fn peer_address(&self, member: usize) -> SocketAddr {
        match self {
            Self::Bridged { .. } => (ip(member), PEER_PORT).into(),
            Self::Loopback(ports) => (IpAddr::from([127, 0, 0, 1]), ports[member].1).into(),
        }
    }

    /// Makes a command run where a member is, and die with the thread that starts it if that is a namespace.
    pub fn confine(&self, member: usize, command: &mut Command) {
        if let Self::Bridged { members, .. } = self {
            members[member].confine(command);
        }
    }

    /// Runs `work` on a thread where the clients are. Sockets made there stay there.
    pub fn enter_clients<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Bridged { bridge, .. } => bridge.enter(work),
            Self::Loopback(_) => work(),
        }
    }

    /// The namespace of a member, if it has one.
    pub fn member(&self, member: usize) -> Option<&Namespace> {
        match self {
            Self::Bridged { members, .. } => Some(&members[member]),
            Self::Loopback(_) => None,
        }
    }

    /// Loses traffic of a member from now on.
    pub fn cut(&self, member: usize, cut: Cut) -> Result<()> {
        match cut {
            Cut::Everything => self.port(member, PORT_DISABLED),
            Cut::Members => self.redirect(member, true, true),
            Cut::ToMembers => self.redirect(member, false, true),
            Cut::FromMembers => self.redirect(member, true, false),
        }
    }

    /// Loses nothing of a member any more.
    pub fn heal(&self, member: usize) -> Result<()> {
        self.port(member, PORT_FORWARDING)?;
        self.redirect(member, false, false)
    }

    /// A port that is disabled tells neither end: both devices stay up.
    fn port(&self, member: usize, state: u8) -> Result<()> {
        let Self::Bridged { bridge, .. } = self else {
            bail!("nothing can be cut on loopback");
        };
        // `ip link set type bridge_slave state` is accepted and does nothing.
        let mut command = Command::new("bridge");
        command.args(["link", "set", "dev", &format!("port{member}"), "state", &state.to_string()]);
        bridge.confine(&mut command);
        let output = command.output().context("run `bridge` (Debian package iproute2)")?;
        ensure!(output.status.success(), "bridge: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Whether what others send to a member, and what it sends to them, goes to nobody.
    fn redirect(&self, member: usize, from_lost: bool, to_lost: bool) -> Result<()> {
        let Self::Bridged { members, .. } = self else {
            bail!("nothing can be cut on loopback");
        };
        let entry = |at: usize, lost: bool| match lost {
            true => neighbour(at, NOBODY),
            false => neighbour(at, &hardware_address(at)),
        };
        let outwards: Vec<_> = others(member).map(|other| entry(other, to_lost)).collect();
        batch(&members[member], &outwards)?;
        others(member).try_for_each(|other| batch(&members[other], &[entry(member, from_lost)]))
    }
}

fn others(member: usize) -> impl Iterator<Item = usize> {
    (0..MEMBERS).filter(move |other| *other != member)
}
