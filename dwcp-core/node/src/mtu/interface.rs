//! The interfaces that lead to peers, raised, restricted and put back.
//!
//! The kernel sends no packet that is longer than its interface's MTU, so a path can only be measured once that is raised.
//! Until all paths have proved more, and after they fail to, everything else is held to the former size: by the MTU metric of
//! every route of IPv4, and by `net.ipv6.conf.INTERFACE.mtu`. Probes are sent with `IP_PMTUDISC_PROBE`, which goes by the
//! interface alone (`ip_skb_dst_mtu`, net/ip.h). Neither is locked: paths that carry less are still discovered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::Path,
};

use netlink_packet_route::link::InfoKind;

use super::{
    MTU_MIN,
    record::{Held, Raised, Record},
};
use crate::{
    netlink::{
        Netlink, NetlinkError,
        link::Link,
        route::{Key, key, leads_through, mtu},
    },
    state::StateError,
    tune::{self, Item, Outcome, Report, kernel::Kernel, record::Change},
};

/// Routes through an uplink that are held. With more it is not raised.
pub const ROUTES_MAX: usize = 4096;

/// An interface through which peers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// The most that its device takes. 0: it does not say.
    pub mtu_max: u32,
    /// Why it is not to be raised, whatever peers say.
    pub obstacle: Option<String>,
}

/// Why an uplink is not what it should be. If it could not be raised, it is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MtuError {
    /// What was there before cannot be recorded, or not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel refuses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// What IPv6 sends cannot be restricted.
    #[error("IPv6 would send larger packets: {reason}")]
    Ipv6 {
        /// Why.
        reason: String,
    },
    /// There are too many routes.
    #[error("{count} routes lead through {interface}; at most {ROUTES_MAX} are held")]
    Routes {
        /// The interface.
        interface: String,
        /// How many.
        count: usize,
    },
    /// Two routes differ only in where they lead, so that one cannot be changed without the other.
    #[error(
        "there are two routes to {route} that differ in nothing but their way: give them metrics of their own"
    )]
    Alike {
        /// Where to.
        route: String,
    },
    /// The interface is gone.
    #[error("there is no interface {interface} any more")]
    Gone {
        /// Its name.
        interface: String,
    },
    /// Somebody else has set its MTU.
    #[error("somebody else has set the MTU of {interface} to {mtu}, which is left")]
    Changed {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
    },
}

/// Through which interface each of these addresses is reached, if it is: its name, and what there is to know of each. The
/// loopback does not count.
///
/// # Errors
///
/// If the kernel does not tell.
pub fn interfaces_to(
    peers: &[SocketAddr],
) -> Result<(Vec<Option<String>>, BTreeMap<String, Interface>), MtuError> {
    let mut netlink = Netlink::route()?;
    let links: HashMap<u32, Link> =
        netlink.links()?.into_iter().filter(|link| !link.loopback).map(|link| (link.index, link)).collect();
    let (mut names, mut interfaces) = (Vec::new(), BTreeMap::new());
    for peer in peers {
        let link = netlink.interface_to(*peer)?.and_then(|index| links.get(&index));
        names.push(link.map(|link| link.name.clone()));
        if let Some(link) = link {
            interfaces.entry(link.name.clone()).or_insert_with(|| interface(link));
        }
    }
    Ok((names, interfaces))
}

fn interface(link: &Link) -> Interface {
    let obstacle = match &link.kind {
        Some(InfoKind::Bridge) => Some("a bridge has the MTU of its ports".to_owned()),
        Some(
            kind @ (InfoKind::Vxlan
            | InfoKind::Wireguard
            | InfoKind::Tun
            | InfoKind::Geneve
            | InfoKind::GreTap
            | InfoKind::GreTap6
            | InfoKind::GreTun
            | InfoKind::GreTun6
            | InfoKind::IpIp
            | InfoKind::Ip6Tnl
            | InfoKind::SitTun
            | InfoKind::Xfrm),
        ) => Some(format!("a tunnel ({kind}) has the MTU of what is below it, less its headers")),
        _ if link.mtu_max == 0 => Some("the device does not say what it takes".to_owned()),
        _ => None,
    };
    Interface { name: link.name.clone(), mtu: link.mtu, mtu_max: link.mtu_max, obstacle }
}

/// Raises an interface to this MTU, and holds what is sent through it to the former one, except for probes.
///
/// # Errors
///
/// [`MtuError`] says what is in the way.
pub fn raise(interface: &str, to: u32, state: &Path) -> Result<(), MtuError> {
    let mut kernel = Kernel::here();
    let mut record = Record::load(state)?;
    let link = link(&mut kernel, interface)?;
    if to <= link.mtu || link.mtu < MTU_MIN {
        return Err(MtuError::Changed { interface: interface.to_owned(), mtu: link.mtu });
    }
    let ipv6_was = ipv6(&mut kernel, interface);
    record.raised.retain(|raised| raised.interface != interface);
    let mut raised = Raised {
        interface: interface.to_owned(),
        was: link.mtu,
        to,
        ipv6_was,
        traffic: vec![link.mtu],
        routes: Vec::new(),
    };
    let held = hold(&mut kernel, &link, &mut raised, |raised| {
        let mut record = record.clone();
        record.raised.push(raised.clone());
        record.store(state)
    });
    let done = held.and_then(|()| {
        kernel.route_netlink()?.set_mtu(&link, to)?;
        // The kernel has given IPv6 the new MTU with the interface.
        restrict_ipv6(&mut kernel, &raised)
    });
    if done.is_err() {
        put_back(&mut kernel, &raised);
        record.store(state)?;
    }
    done
}

/// Lets packets of so many bytes, and no longer ones, be sent through an interface that was raised; new routes, too. To be
/// called again and again: routes come and go.
///
/// # Errors
///
/// [`MtuError`]; after `Gone` and `Changed` there is nothing to put back any more but with [`restore`].
pub fn allow(interface: &str, traffic: u32, state: &Path) -> Result<(), MtuError> {
    let mut kernel = Kernel::here();
    let mut record = Record::load(state)?;
    let link = link(&mut kernel, interface)?;
    let Some(at) = record.raised.iter().position(|raised| raised.interface == interface) else {
        return Err(MtuError::Changed { interface: interface.to_owned(), mtu: link.mtu });
    };
    let mut raised = record.raised[at].clone();
    if link.mtu != raised.to {
        return Err(MtuError::Changed { interface: interface.to_owned(), mtu: link.mtu });
    }
    let before = raised.traffic.last().copied().unwrap_or(raised.was);
    raised.traffic = vec![before, traffic];
    raised.traffic.dedup();
    hold(&mut kernel, &link, &mut raised, |raised| {
        if record.raised[at] == *raised {
            return Ok(());
        }
        record.raised[at] = raised.clone();
        record.store(state)
    })?;
    restrict_ipv6(&mut kernel, &raised)
}

/// Puts back this interface, or all.
///
/// # Errors
///
/// If the state file cannot be read or replaced.
pub fn restore(interface: Option<&str>, state: &Path) -> Result<Vec<Report>, StateError> {
    let mut record = Record::load(state)?;
    let mut kernel = Kernel::here();
    let mut reports = Vec::new();
    record.raised.retain(|raised| {
        if interface.is_some_and(|interface| interface != raised.interface) {
            return true;
        }
        let (outcome, done) = put_back(&mut kernel, raised);
        reports.push(Report { item: Item::Mtu(raised.interface.clone()), outcome });
        !done
    });
    record.store(state)?;
    Ok(reports)
}

/// The interface first: what holds packets to its former MTU goes last.
fn put_back(kernel: &mut Kernel, raised: &Raised) -> (Outcome, bool) {
    let change = |item, was: u32, ours: Vec<u32>| Change {
        item,
        was: was.to_string(),
        ours: ours.iter().map(u32::to_string).collect(),
    };
    let mtu = change(Item::Mtu(raised.interface.clone()), raised.was, vec![raised.to]);
    let (outcome, done) = tune::put_back(kernel, &mtu);
    if !done {
        return (outcome, false);
    }
    if let Some(was) = raised.ipv6_was {
        let mut ours = raised.traffic.clone();
        ours.extend([raised.was, raised.to]);
        tune::put_back(kernel, &change(ipv6_item(&raised.interface), was, ours));
    }
    match release(kernel, raised) {
        Ok(()) => (outcome, true),
        Err(error) => (Outcome::Cannot { reason: error.to_string() }, false),
    }
}

/// Gives routes back what they had, if it is still what we have put there.
fn release(kernel: &mut Kernel, raised: &Raised) -> Result<(), NetlinkError> {
    let held: BTreeMap<&Key, Option<u32>> =
        raised.routes.iter().map(|held| (&held.route, held.was)).collect();
    if held.is_empty() {
        return Ok(());
    }
    let netlink = kernel.route_netlink()?;
    for route in netlink.routes()? {
        let is_ours = mtu(&route).is_some_and(|mtu| raised.traffic.contains(&mtu));
        if let Some(was) = held.get(&key(&route)).filter(|_| is_ours) {
            netlink.set_route_mtu(&route, *was)?;
        }
    }
    Ok(())
}

/// Holds all routes through an interface to the last of the sizes, `store` having what was there before.
fn hold(
    kernel: &mut Kernel,
    link: &Link,
    raised: &mut Raised,
    store: impl FnOnce(&Raised) -> Result<(), StateError>,
) -> Result<(), MtuError> {
    let size = *raised.traffic.last().expect("there is a size");
    let netlink = kernel.route_netlink()?;
    let routes = netlink.routes()?;
    let known: BTreeMap<Key, Option<u32>> =
        raised.routes.drain(..).map(|held| (held.route, held.was)).collect();
    let (mut seen, mut to_change) = (BTreeSet::new(), Vec::new());
    let mut alike = None;
    for route in &routes {
        let key = key(route);
        if !seen.insert(key.clone()) {
            alike.get_or_insert_with(|| key.clone());
        }
        if !leads_through(route, link) {
            continue;
        }
        let now = mtu(route);
        let was = match known.get(&key) {
            Some(was) if now.is_some_and(|now| raised.traffic.contains(&now)) => *was,
            // Somebody restricts it further, whom we do not get in the way of.
            _ if now.is_some_and(|now| now <= raised.was) => continue,
            _ => now,
        };
        raised.routes.push(Held { route: key, was });
        // Somebody gave it an MTU between both.
        let size = was.map_or(size, |was| size.min(was));
        if now != Some(size) {
            to_change.push((route, size));
        }
    }
    if raised.routes.len() > ROUTES_MAX {
        return Err(MtuError::Routes { interface: link.name.clone(), count: raised.routes.len() });
    }
    if let Some(key) = alike.filter(|alike| raised.routes.iter().any(|held| held.route == *alike)) {
        return Err(MtuError::Alike { route: key.to_string() });
    }
    store(raised)?;
    for (route, size) in to_change {
        match netlink.set_route_mtu(route, Some(size)) {
            // It went away meanwhile.
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Holds IPv6 to the last of the sizes, and to what it was held to before if that was less than the interface's MTU.
fn restrict_ipv6(kernel: &mut Kernel, raised: &Raised) -> Result<(), MtuError> {
    let Some(was) = raised.ipv6_was else { return Ok(()) };
    let size = *raised.traffic.last().expect("there is a size");
    let size = if was < raised.was { was } else { size };
    if ipv6(kernel, &raised.interface) == Some(size) {
        return Ok(());
    }
    kernel.write(&ipv6_item(&raised.interface), &size.to_string()).map_err(|reason| MtuError::Ipv6 { reason })
}

/// What IPv6 sends at most through an interface; `None`: it has no IPv6.
fn ipv6(kernel: &mut Kernel, interface: &str) -> Option<u32> {
    kernel.read(&ipv6_item(interface)).ok()?.parse().ok()
}

/// In the name of a sysctl, dots of an interface's are slashes.
fn ipv6_item(interface: &str) -> Item {
    Item::Sysctl(format!("net.ipv6.conf.{}.mtu", interface.replace('.', "/")))
}

fn link(kernel: &mut Kernel, interface: &str) -> Result<Link, MtuError> {
    let link = kernel.route_netlink()?.link(interface)?;
    link.ok_or_else(|| MtuError::Gone { interface: interface.to_owned() })
}
