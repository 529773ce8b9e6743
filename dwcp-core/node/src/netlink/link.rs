//! Interfaces: what they are, and making, changing and removing them.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rustix::io::Errno;

use super::{Netlink, NetlinkError, Route};

/// Bytes of an interface's name (`IFNAMSIZ` less the end).
pub(crate) const NAME_BYTES_MAX: usize = 15;

/// The name of an interface that is never made.
const PROBE: &str = "dwcp-probe";

/// What the kernel says of an interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) loopback: bool,
    pub(crate) mtu: u32,
    /// 0: none is known.
    pub(crate) mtu_max: u32,
    pub(crate) alias: Option<String>,
    pub(crate) address: Vec<u8>,
    /// Of a virtual one: `vxlan`, `wireguard`, `tun`, `veth`.
    pub(crate) kind: Option<InfoKind>,
    pub(crate) data: Option<InfoData>,
    pub(crate) rx_queues: u32,
    pub(crate) tx_queues: u32,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::MaxMtu(mtu) => link.mtu_max = mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(address) => link.address = address,
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = queues,
                LinkAttribute::NumTxQueues(queues) => link.tx_queues = queues,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind),
                            LinkInfo::Data(data) => link.data = Some(data),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

/// Whether the kernel takes this as the name of an interface (`dev_valid_name`).
pub(crate) fn valid_name(name: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | ':' | '\0' | '%');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name != "." && name != ".." && name.chars().all(plain)
}

impl Netlink {
    /// The interface of this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(&format!("tell of {name}"), 0, Route::GetLink(message)) {
            Ok(messages) => Ok(messages.into_iter().find_map(new_link)),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces of this network namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let messages = self.list("list interfaces", Route::GetLink(LinkMessage::default()))?;
        Ok(messages.into_iter().filter_map(new_link).collect())
    }

    /// Makes a virtual interface, which is down and has no alias yet.
    pub(crate) fn make_link(
        &mut self,
        name: &str,
        address: Option<[u8; 6]>,
        kind: InfoKind,
        data: Option<InfoData>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.extend(address.map(|address| LinkAttribute::Address(address.to_vec())));
        let infos = [LinkInfo::Kind(kind.clone())].into_iter().chain(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(infos.collect()));
        let what = format!("make {name} of kind {kind}");
        self.ask(&what, NLM_F_CREATE | NLM_F_EXCL, Route::NewLink(message)).map(drop)
    }

    /// Whether the kernel has virtual interfaces of a kind that needs data to be made, as a module or built in. It is asked
    /// to make one without, and says first if it knows the kind at all.
    pub(crate) fn has_kind(&mut self, kind: InfoKind) -> Result<bool, NetlinkError> {
        match self.make_link(PROBE, None, kind, None) {
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => Ok(false),
            Err(error) if error.errno() == Some(Errno::INVAL) => Ok(true),
            Err(error) => Err(error),
            // This kind needs none; then there is one now.
            Ok(()) => match self.link(PROBE)? {
                Some(link) => self.remove_link(&link).map(|()| true),
                None => Ok(true),
            },
        }
    }

    /// Changes an attribute of an interface.
    pub(crate) fn set_link(
        &mut self,
        what: &str,
        index: u32,
        attribute: LinkAttribute,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.ask(what, 0, Route::SetLink(message)).map(drop)
    }

    pub(crate) fn set_mtu(&mut self, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
        let what = format!("set the MTU of {} to {mtu}", link.name);
        self.set_link(&what, link.index, LinkAttribute::Mtu(mtu))
    }

    pub(crate) fn set_alias(&mut self, link: &Link, alias: &str) -> Result<(), NetlinkError> {
        let what = format!("mark {}", link.name);
        self.set_link(&what, link.index, LinkAttribute::IfAlias(alias.to_owned()))
    }

    pub(crate) fn set_up(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(&format!("bring up {}", link.name), 0, Route::SetLink(message)).map(drop)
    }

    /// Removes an interface. That it is gone already is as good.
    pub(crate) fn remove_link(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        match self.ask(&format!("remove {}", link.name), 0, Route::DelLink(message)) {
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(()),
            result => result.map(drop),
        }
    }
}

fn new_link(message: Route) -> Option<Link> {
    match message {
        Route::NewLink(message) => Some(message.into()),
        _ => None,
    }
}
