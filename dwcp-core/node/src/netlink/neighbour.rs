//! The forwarding table of a VXLAN interface: which station is behind which tunnel end.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Netlink, NetlinkError, Route, link::Link};

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// What goes to a station goes to this tunnel end. The station of zeroes stands for all that are not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) station: Mac,
    pub(crate) end: IpAddr,
}

impl Netlink {
    /// The entries that were written, not learned.
    pub(crate) fn entries(&mut self, link: &Link) -> Result<Vec<Entry>, NetlinkError> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        let messages = self.list("list a forwarding table", Route::GetNeighbour(question))?;
        let ours = messages.into_iter().filter_map(|message| match message {
            Route::NewNeighbour(message)
                if message.header.ifindex == link.index
                    && message.header.flags.contains(NeighbourFlags::Own) =>
            {
                entry(message)
            }
            _ => None,
        });
        Ok(ours.collect())
    }

    /// `through`: the number of the interface that packets to this end leave by, whatever routes say.
    pub(crate) fn add_entry(
        &mut self,
        link: &Link,
        entry: Entry,
        through: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let what =
            format!("send what goes to {} through {} to {}", text(entry.station), link.name, entry.end);
        // A station has one end, but that of zeroes as many as it likes, each appended.
        let appended = if entry.station == [0; 6] { NLM_F_APPEND } else { 0 };
        let message = message(link, entry, through);
        self.ask(&what, NLM_F_CREATE | appended, Route::NewNeighbour(message)).map(drop)
    }

    pub(crate) fn remove_entry(&mut self, link: &Link, entry: Entry) -> Result<(), NetlinkError> {
        let what = format!("forget that {} is behind {} of {}", text(entry.station), entry.end, link.name);
        self.ask(&what, 0, Route::DelNeighbour(message(link, entry, None))).map(drop)
    }
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn message(link: &Link, entry: Entry, through: Option<u32>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    let end = match entry.end {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.station.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(end));
    message.attributes.extend(through.map(NeighbourAttribute::IfIndex));
    message
}

fn entry(message: NeighbourMessage) -> Option<Entry> {
    let (mut station, mut end) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => station = address.try_into().ok(),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => end = Some(address.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => end = Some(address.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => end = address(&bytes),
            _ => {}
        }
    }
    Some(Entry { station: station?, end: end? })
}

/// An address without its family, told apart by its length: in the family of bridges the kernel says no more.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
