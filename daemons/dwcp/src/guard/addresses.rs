//! Which addresses of this node take datagrams: the one that the settings name, or all that there are.

use std::net::{IpAddr, SocketAddr};

use dwcp_ebpf::ADDRESSES_MAX;
use dwcp_node::netlink::NetlinkError;

/// The addresses to guard, as they are at this moment.
pub(super) struct Addresses {
    listen: SocketAddr,
    now: Vec<IpAddr>,
    /// More than a guard can have were told of.
    too_many_told: bool,
}

impl Addresses {
    /// None yet.
    pub(super) fn new(listen: SocketAddr) -> Self {
        Self { listen, now: Vec::new(), too_many_told: false }
    }

    pub(super) fn now(&self) -> &[IpAddr] {
        &self.now
    }

    /// Looks; whether there is a change.
    pub(super) fn look(&mut self) -> bool {
        let found = taken(self.listen).unwrap_or_else(|error| {
            tracing::warn!(%error, "addresses of this node are not known: those that were are guarded");
            self.now.clone()
        });
        let beyond = found.len().saturating_sub(ADDRESSES_MAX);
        if beyond > 0 && !self.too_many_told {
            self.too_many_told = true;
            tracing::warn!(
                beyond,
                "this node has more addresses than are guarded: datagrams to the others pass"
            );
        }
        let found: Vec<_> = found.into_iter().take(ADDRESSES_MAX).collect();
        let changed = found != self.now;
        self.now = found;
        changed
    }
}

/// In the order of their numbers. A socket for all of IPv6 takes IPv4, too.
fn taken(listen: SocketAddr) -> Result<Vec<IpAddr>, NetlinkError> {
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen.ip()]);
    }
    let all = dwcp_node::probe::addresses()?;
    Ok(all.into_iter().filter(|address| address.is_ipv4() || listen.is_ipv6()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_named_is_the_only_one_and_none_means_all_that_there_are() {
        let of = |listen: &str| taken(listen.parse().expect("an address")).expect("the kernel says");
        assert_eq!(of("192.0.2.1:8889"), [IpAddr::from([192, 0, 2, 1])]);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert!(of("0.0.0.0:8889").contains(&loopback) && of("[::]:8889").contains(&loopback));
        assert!(of("0.0.0.0:8889").iter().all(IpAddr::is_ipv4));
    }
}
