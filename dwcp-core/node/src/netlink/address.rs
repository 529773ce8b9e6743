//! Addresses of interfaces.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};
use rustix::io::Errno;

use super::{Netlink, NetlinkError, Route, link::Link};

impl Netlink {
    /// All addresses of this network namespace, those of links alone too.
    pub(crate) fn addresses(&mut self) -> Result<BTreeSet<IpAddr>, NetlinkError> {
        let messages = self.list("list addresses", Route::GetAddress(AddressMessage::default()))?;
        let addresses = messages.into_iter().filter_map(|message| match message {
            Route::NewAddress(message) => local(&message),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Gives an interface these addresses, each with the length of its network, and no others but those that IPv6 makes
    /// by itself.
    pub(crate) fn set_addresses(&mut self, link: &Link, wanted: &[(IpAddr, u8)]) -> Result<(), NetlinkError> {
        let messages = self.list("list addresses", Route::GetAddress(AddressMessage::default()))?;
        let has = messages.into_iter().filter_map(|message| match message {
            Route::NewAddress(message) if message.header.index == link.index => address(&message),
            _ => None,
        });
        let has: Vec<_> = has.collect();
        for &(address, prefix) in has.iter().filter(|has| !wanted.contains(has)) {
            let what = format!("take {address}/{prefix} from {}", link.name);
            self.ask(&what, 0, Route::DelAddress(message(link, address, prefix)))?;
        }
        for &(address, prefix) in wanted.iter().filter(|wanted| !has.contains(wanted)) {
            let what = format!("give {} the address {address}/{prefix}", link.name);
            match self.ask(
                &what,
                NLM_F_CREATE | NLM_F_EXCL,
                Route::NewAddress(message(link, address, prefix)),
            ) {
                Err(error) if error.errno() == Some(Errno::EXIST) => {}
                result => drop(result?),
            }
        }
        Ok(())
    }
}

fn message(link: &Link, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.index = link.index;
    message.header.prefix_len = prefix;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        // Nobody else is asked: a tunnel has no neighbours that could have the same one.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    if message.header.scope == AddressScope::Link {
        return None;
    }
    Some((local(message)?, message.header.prefix_len))
}

/// The address of this end.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
