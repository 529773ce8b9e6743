//! Routes: the interface through which an address is reached, and the MTU that IPv4's routes give to what follows them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
    },
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Netlink, NetlinkError, Route, link::Link};

/// What tells a route of IPv4 from others, unless somebody has appended one that is alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) table: u32,
    pub(crate) tos: u8,
    pub(crate) priority: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of table {}", self.network, self.prefix, self.table)
    }
}

impl Netlink {
    /// The index of the interface through which an address is reached; `None`: it is not.
    pub(crate) fn interface_to(&mut self, to: SocketAddr) -> Result<Option<u32>, NetlinkError> {
        if let SocketAddr::V6(link_local) = to
            && link_local.scope_id() != 0
        {
            return Ok(Some(link_local.scope_id()));
        }
        let to = to.ip().to_canonical();
        let mut question = RouteMessage::default();
        (question.header.address_family, question.header.destination_prefix_length) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        question.attributes.push(RouteAttribute::Destination(to.into()));
        match self.ask(&format!("tell the way to {to}"), 0, Route::GetRoute(question)) {
            Ok(messages) => Ok(messages.into_iter().find_map(|message| match message {
                Route::NewRoute(route) => {
                    route.attributes.into_iter().find_map(|attribute| match attribute {
                        RouteAttribute::Oif(index) => Some(index),
                        _ => None,
                    })
                }
                _ => None,
            })),
            Err(error) if matches!(error.errno(), Some(Errno::NETUNREACH | Errno::HOSTUNREACH)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All routes of IPv4 that lead to one host.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        let messages = self.list("list routes", Route::GetRoute(question))?;
        let unicast = messages.into_iter().filter_map(|message| match message {
            Route::NewRoute(route) if route.header.kind == RouteType::Unicast => Some(route),
            _ => None,
        });
        Ok(unicast.collect())
    }

    /// Gives what follows a route this MTU, or that of the interface. Nothing else about the route changes, and there is no
    /// moment without it.
    pub(crate) fn set_route_mtu(
        &mut self,
        route: &RouteMessage,
        mtu: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let what = format!("change the MTU of the route {}", key(route));
        self.ask(&what, NLM_F_REPLACE, Route::NewRoute(with_mtu(route, mtu))).map(drop)
    }
}

pub(crate) fn key(route: &RouteMessage) -> Key {
    let mut key = Key {
        network: Ipv4Addr::UNSPECIFIED,
        prefix: route.header.destination_prefix_length,
        table: route.header.table.into(),
        tos: route.header.tos,
        priority: 0,
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(network)) => key.network = *network,
            RouteAttribute::Table(table) => key.table = *table,
            RouteAttribute::Priority(priority) => key.priority = *priority,
            _ => {}
        }
    }
    key
}

/// Whether a route leads, or one of its ways does, through this interface.
pub(crate) fn leads_through(route: &RouteMessage, link: &Link) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == link.index,
        RouteAttribute::MultiPath(ways) => ways.iter().any(|way| way.interface_index == link.index),
        _ => false,
    })
}

/// The MTU that a route gives, if it does.
pub(crate) fn mtu(route: &RouteMessage) -> Option<u32> {
    metrics(route).find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

fn metrics(route: &RouteMessage) -> impl Iterator<Item = &RouteMetric> {
    route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.as_slice(),
        _ => &[],
    })
}

/// The route as the kernel takes it back, with another MTU. It says more of a route than it wants to hear.
fn with_mtu(route: &RouteMessage, mtu: Option<u32>) -> RouteMessage {
    let mut message = route.clone();
    message.header.flags &= RouteFlags::Onlink;
    let by_id = message.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::NhId(_)));
    message.attributes.retain_mut(|attribute| match attribute {
        RouteAttribute::Metrics(_) | RouteAttribute::CacheInfo(_) => false,
        // What the next hop of this id is, is told too.
        RouteAttribute::Oif(_)
        | RouteAttribute::Gateway(_)
        | RouteAttribute::Via(_)
        | RouteAttribute::Encap(_)
        | RouteAttribute::EncapType(_) => !by_id,
        RouteAttribute::MultiPath(ways) => {
            ways.iter_mut().for_each(|way| way.flags &= RouteNextHopFlags::Onlink);
            !by_id
        }
        _ => true,
    });
    let others = metrics(route).filter(|metric| !matches!(metric, RouteMetric::Mtu(_))).cloned();
    // Without any, the kernel takes a route by an id for the one that is there already, metrics and all (fib_find_info_nh in
    // net/ipv4/fib_semantics.c). 0 is none.
    let mtu = if by_id { Some(mtu.unwrap_or(0)) } else { mtu };
    let metrics: Vec<_> = others.chain(mtu.map(RouteMetric::Mtu)).collect();
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_mtu_changes() {
        let mut route = RouteMessage::default();
        route.header.flags = RouteFlags::Onlink | RouteFlags::Linkdown;
        route.attributes = vec![
            RouteAttribute::Table(254),
            RouteAttribute::Oif(3),
            RouteAttribute::Metrics(vec![RouteMetric::InitCwnd(20), RouteMetric::Mtu(1400)]),
        ];
        assert_eq!(mtu(&route), Some(1400));
        let changed = with_mtu(&route, Some(9000));
        assert_eq!((mtu(&changed), key(&changed)), (Some(9000), key(&route)));
        assert_eq!(metrics(&changed).count(), 2);
        assert_eq!(changed.header.flags, RouteFlags::Onlink);
        let without = with_mtu(&changed, None);
        assert_eq!(metrics(&without).collect::<Vec<_>>(), [&RouteMetric::InitCwnd(20)]);
        route.attributes.push(RouteAttribute::NhId(7));
        let by_id = with_mtu(&route, Some(9000));
        assert!(!leads_through(&by_id, &Link { index: 3, ..Link::default() }), "the id says where it leads");
        assert!(leads_through(&route, &Link { index: 3, ..Link::default() }));
        assert_eq!(mtu(&with_mtu(&by_id, None)), Some(0), "the kernel has to see that it is another");
    }
}
