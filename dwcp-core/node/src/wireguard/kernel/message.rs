//! Entries as attributes of netlink messages, and back.

use std::time::{Duration, SystemTime};

use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardPeer,
    WireguardPeerAttribute, WireguardPeerFlags,
};

use super::super::{Network, PresharedKey, PublicKey};
use super::entries::Entry;

/// The kernel's way to say that there is none.
const NO_PRESHARED_KEY: [u8; 32] = [0; 32];

/// What to tell so that an entry becomes as wanted; nothing if it is. The endpoint only counts if it is to be told.
pub(super) fn difference(
    wanted: &Entry,
    present: Option<&Entry>,
    tell_endpoint: bool,
) -> Option<WireguardPeer> {
    let mut attributes = vec![WireguardPeerAttribute::PublicKey(wanted.key.0)];
    let before = attributes.len();
    if present.map(|entry| &entry.preshared_key) != Some(&wanted.preshared_key) {
        let key = wanted.preshared_key.as_ref().map_or(NO_PRESHARED_KEY, |key| key.0);
        attributes.push(WireguardPeerAttribute::PresharedKey(key));
    }
    if let Some(endpoint) = wanted.endpoint.filter(|_| tell_endpoint || present.is_none()) {
        attributes.push(WireguardPeerAttribute::Endpoint(endpoint));
    }
    if present.map_or(0, |entry| entry.keepalive_s) != wanted.keepalive_s {
        attributes.push(WireguardPeerAttribute::PersistentKeepalive(wanted.keepalive_s));
    }
    let sorted = |entry: &Entry| {
        let mut networks = entry.networks.clone();
        networks.sort();
        networks
    };
    if present.map(sorted).unwrap_or_default() != sorted(wanted) {
        attributes.push(WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps));
        attributes.push(WireguardPeerAttribute::AllowedIps(wanted.networks.iter().map(allowed_ip).collect()));
    }
    (present.is_none() || attributes.len() > before).then_some(WireguardPeer(attributes))
}

/// To remove an entry.
pub(super) fn removal(key: PublicKey) -> WireguardPeer {
    flagged(key, WireguardPeerFlags::RemoveMe)
}

/// To send something every so many seconds from an entry that is there.
pub(super) fn keepalive(key: PublicKey, seconds: u16) -> WireguardPeer {
    let mut peer = flagged(key, WireguardPeerFlags::UpdateOnly);
    peer.0.push(WireguardPeerAttribute::PersistentKeepalive(seconds));
    peer
}

fn flagged(key: PublicKey, flags: WireguardPeerFlags) -> WireguardPeer {
    WireguardPeer(vec![WireguardPeerAttribute::PublicKey(key.0), WireguardPeerAttribute::Flags(flags)])
}

fn allowed_ip(network: &Network) -> WireguardAllowedIp {
    let family = match network.address().is_ipv4() {
        true => WireguardAddressFamily::Ipv4,
        false => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(network.address()),
        WireguardAllowedIpAttr::Cidr(network.prefix()),
    ])
}

fn network(allowed: &WireguardAllowedIp) -> Option<Network> {
    let (mut address, mut prefix) = (None, None);
    for attribute in &allowed.0 {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => address = Some(*ip),
            WireguardAllowedIpAttr::Cidr(bits) => prefix = Some(*bits),
            _ => {}
        }
    }
    Network::new(address?, prefix?)
}

/// Adds what the kernel tells of a peer. One with many networks comes in parts, each with its key.
pub(super) fn add_entry(entries: &mut Vec<Entry>, peer: WireguardPeer) {
    let key = peer.0.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
        _ => None,
    });
    let Some(key) = key else { return };
    let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        entries.push(Entry::new(key));
        entries.len() - 1
    });
    for attribute in peer.0 {
        fill(&mut entries[at], attribute);
    }
}

fn fill(entry: &mut Entry, attribute: WireguardPeerAttribute) {
    match attribute {
        WireguardPeerAttribute::PresharedKey(key) => {
            entry.preshared_key = (key != NO_PRESHARED_KEY).then_some(PresharedKey(key));
        }
        WireguardPeerAttribute::Endpoint(endpoint) => entry.endpoint = Some(endpoint),
        WireguardPeerAttribute::PersistentKeepalive(seconds) => entry.keepalive_s = seconds,
        WireguardPeerAttribute::LastHandshake(at) if at.seconds > 0 => {
            let nanos = at.nano_seconds.clamp(0, 999_999_999) as u32;
            entry.handshake = Some(SystemTime::UNIX_EPOCH + Duration::new(at.seconds as u64, nanos));
        }
        WireguardPeerAttribute::RxBytes(bytes) => entry.rx_bytes = bytes,
        WireguardPeerAttribute::TxBytes(bytes) => entry.tx_bytes = bytes,
        WireguardPeerAttribute::AllowedIps(all) => entry.networks.extend(all.iter().filter_map(network)),
        _ => {}
    }
}

/// What a kernel makes of a message (`set_peer`, drivers/net/wireguard/netlink.c).
#[cfg(test)]
pub(super) fn obey(entries: &mut Vec<Entry>, peer: WireguardPeer) {
    let flags = peer.0.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let flags = flags.unwrap_or(WireguardPeerFlags::empty());
    let WireguardPeerAttribute::PublicKey(key) = peer.0[0] else { panic!("the key comes first: {peer:?}") };
    if flags.contains(WireguardPeerFlags::RemoveMe) {
        return entries.retain(|entry| entry.key.0 != key);
    }
    if flags.contains(WireguardPeerFlags::ReplaceAllowedIps) {
        entries.iter_mut().filter(|entry| entry.key.0 == key).for_each(|entry| entry.networks.clear());
    }
    for attribute in &peer.0 {
        if let WireguardPeerAttribute::AllowedIps(all) = attribute {
            let taken: Vec<_> = all.iter().filter_map(network).collect();
            entries.iter_mut().for_each(|entry| entry.networks.retain(|network| !taken.contains(network)));
        }
    }
    add_entry(entries, peer);
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;
    use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};

    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_header_of_linux_says() {
        let mut wanted = Entry::new(PublicKey([7; 32]));
        wanted.endpoint = Some("192.0.2.1:51820".parse().expect("an endpoint"));
        wanted.networks = vec!["10.1.0.0/16".parse().expect("a network")];
        wanted.keepalive_s = 25;
        let peer = difference(&wanted, None, true).expect("it is new");
        let attributes = vec![WireguardAttribute::IfIndex(3), WireguardAttribute::Peers(vec![peer])];
        let message = WireguardMessage { cmd: WireguardCmd::SetDevice, attributes };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        // Each attribute: its length with this head, its type (0x8000: nested), its value, padded to four bytes.
        let expected = [
            &[8, 0, 1, 0, 3, 0, 0, 0][..], // WGDEVICE_A_IFINDEX
            &[148, 0, 8, 0x80],            // WGDEVICE_A_PEERS
            &[144, 0, 0, 0x80],            // the first peer
            &[36, 0, 1, 0],                // WGPEER_A_PUBLIC_KEY
            &[7; 32],
            &[36, 0, 2, 0], // WGPEER_A_PRESHARED_KEY: none
            &[0; 32],
            &[20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 0, 2, 1], // WGPEER_A_ENDPOINT, struct sockaddr_in
            &[0; 8],
            &[6, 0, 5, 0, 25, 0, 0, 0], // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
            &[8, 0, 3, 0, 2, 0, 0, 0],  // WGPEER_A_FLAGS: WGPEER_F_REPLACE_ALLOWEDIPS
            &[32, 0, 9, 0x80],          // WGPEER_A_ALLOWEDIPS
            &[28, 0, 0, 0x80],          // the first network
            &[6, 0, 1, 0, 2, 0, 0, 0],  // WGALLOWEDIP_A_FAMILY: AF_INET
            &[8, 0, 2, 0, 10, 1, 0, 0], // WGALLOWEDIP_A_IPADDR
            &[5, 0, 3, 0, 16, 0, 0, 0], // WGALLOWEDIP_A_CIDR_MASK
        ];
        assert_eq!(bytes, expected.concat());
    }
}
