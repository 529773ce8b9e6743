//! The keys of datagrams (DATAGRAM-6): derived from the connection's first link, never from a later one.

use std::fmt;

use dwcp_proto::{
    conn::Role,
    datagram::{HEADER_LEN, KeyChoice, OpeningKeys, SealingKeys, TAG_LEN},
    hello::{ConnectionId, JoinToken},
};
use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
};

use crate::security::{Exporter, expand_label};

const EXPORTER_LABEL: &str = "EXPERIMENTAL dwcp datagrams 1";
const CLIENT_LABEL: &str = "dwcp client";
const SERVER_LABEL: &str = "dwcp server";

/// What both directions of a connection need.
#[derive(Debug)]
pub(crate) struct ConnectionKeys {
    pub(crate) send_flow: u64,
    pub(crate) sealing: SealingKey,
    pub(crate) recv_flow: u64,
    pub(crate) opening: OpeningKeySet,
}

impl ConnectionKeys {
    /// `exporter`: of the first link; `None`: it is not encrypted, and nor is what these keys encrypt protected from
    /// whoever sees the link, whose HELLO has the token.
    pub(crate) fn new(
        role: Role,
        exporter: Option<&Exporter>,
        connection: ConnectionId,
        token: JoinToken,
    ) -> Self {
        let secret = match exporter {
            Some(exporter) => {
                Prk::new_less_safe(HKDF_SHA256, &exporter.export(EXPORTER_LABEL, &connection.0))
            }
            None => Salt::new(HKDF_SHA256, &connection.0).extract(&token.0),
        };
        let (client, server) = (Traffic::first(&secret, CLIENT_LABEL), Traffic::first(&secret, SERVER_LABEL));
        let flows = (client.flow(0b01), server.flow(0b10));
        let ((send_flow, send), (recv_flow, recv)) = match role {
            Role::Client => ((flows.0, client), (flows.1, server)),
            Role::Server => ((flows.1, server), (flows.0, client)),
        };
        Self { send_flow, sealing: SealingKey::new(send), recv_flow, opening: OpeningKeySet::new(recv) }
    }
}

/// A traffic secret.
struct Traffic(Prk);

impl Traffic {
    fn first(secret: &Prk, label: &str) -> Self {
        Self(Prk::new_less_safe(HKDF_SHA256, &derive::<32>(secret, label)))
    }

    fn next(&self) -> Self {
        Self::first(&self.0, "dwcp ku")
    }

    fn key(&self) -> Key {
        let key = UnboundKey::new(&AES_128_GCM, &derive::<16>(&self.0, "dwcp key"));
        Key { aead: LessSafeKey::new(key.expect("16 bytes")), iv: derive(&self.0, "dwcp iv") }
    }

    /// `sender`: never 0, and different for both directions.
    fn flow(&self, sender: u64) -> u64 {
        u64::from_le_bytes(derive(&self.0, "dwcp flow")) & !0b11 | sender
    }
}

fn derive<const N: usize>(secret: &Prk, label: &str) -> [u8; N] {
    let mut out = [0; N];
    expand_label(secret, label, &[], &mut out);
    out
}

struct Key {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

impl Key {
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, xor)| *byte ^= xor);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The key of a sender.
pub(crate) struct SealingKey {
    traffic: Traffic,
    key: Key,
}

impl SealingKey {
    fn new(traffic: Traffic) -> Self {
        Self { key: traffic.key(), traffic }
    }
}

impl SealingKeys for SealingKey {
    fn seal(&mut self, number: u64, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> [u8; TAG_LEN] {
        let Key { aead, .. } = &self.key;
        let tag = aead.seal_in_place_separate_tag(self.key.nonce(number), Aad::from(header), payload);
        let tag = tag.expect("a datagram is shorter than AES-GCM's bound");
        tag.as_ref().try_into().expect("AES-GCM's tag")
    }

    fn update(&mut self) {
        *self = Self::new(self.traffic.next());
    }
}

/// The keys of a receiver. The next one is made before it is needed, so that no datagram takes longer than others.
pub(crate) struct OpeningKeySet {
    previous: Option<Key>,
    current: Key,
    next: Key,
    /// Of the next key.
    traffic: Traffic,
}

impl OpeningKeySet {
    fn new(traffic: Traffic) -> Self {
        let next = traffic.next();
        Self { previous: None, current: traffic.key(), next: next.key(), traffic: next }
    }
}

impl OpeningKeys for OpeningKeySet {
    fn open(&mut self, key: KeyChoice, number: u64, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> bool {
        let key = match key {
            KeyChoice::Previous => self.previous.as_ref(),
            KeyChoice::Current => Some(&self.current),
            KeyChoice::Next => Some(&self.next),
        };
        key.is_some_and(|key| key.aead.open_in_place(key.nonce(number), Aad::from(header), payload).is_ok())
    }

    fn update(&mut self) {
        self.traffic = self.traffic.next();
        let next = std::mem::replace(&mut self.next, self.traffic.key());
        self.previous = Some(std::mem::replace(&mut self.current, next));
    }

    fn forget_previous(&mut self) {
        self.previous = None;
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl fmt::Debug for OpeningKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpeningKeySet(..)")
    }
}

#[cfg(test)]
mod tests {
    use dwcp_proto::datagram::{DatagramHeader, DatagramType, Limits, Opened, RecvFlow, SendFlow};

    use super::*;

    const ID: ConnectionId = ConnectionId([0xc1; 16]);
    const TOKEN: JoinToken = JoinToken([0x70; 16]);

    fn ends(connection: ConnectionId, token: JoinToken) -> [ConnectionKeys; 2] {
        [Role::Client, Role::Server].map(|role| ConnectionKeys::new(role, None, connection, token))
    }

    fn open(recv: &mut RecvFlow<OpeningKeySet>, datagram: &[u8]) -> Option<(Opened, Vec<u8>)> {
        let (header, _) = DatagramHeader::decode(datagram).unwrap();
        let mut payload = datagram[HEADER_LEN..].to_vec();
        let opened = recv.open(&header, &mut payload).ok()?;
        payload.truncate(opened.len);
        Some((opened, payload))
    }

    // DATAGRAM-6.5 and DATAGRAM-6.6: made by an HKDF and an AES-GCM that are not ring's (Python's cryptography).
    #[test]
    fn a_datagram_by_another_implementation() {
        let [client, server] = ends(ID, TOKEN);
        assert_eq!((client.send_flow, server.send_flow), (server.recv_flow, client.recv_flow));
        let mut send = SendFlow::new(client.send_flow, client.sealing, Limits::default());
        let mut made = Vec::new();
        send.seal(DatagramType::Message, b"first", &mut made).unwrap();
        assert_eq!(hex(&made), KNOWN_FIRST);
        send.on_answer(0);
        assert!(send.update());
        let mut made = Vec::new();
        send.seal(DatagramType::Gossip, b"second", &mut made).unwrap();
        assert_eq!(hex(&made), KNOWN_SECOND);
    }

    const KNOWN_FIRST: &str =
        "da01040015000000e5fd2663310ab9660000000000000000fd518863b95af49867f70390789d8098ce81a4c4aa";
    const KNOWN_SECOND: &str = "da01030116000000e5fd2663310ab9660100000000000000e8406799ee7e91592a59a3866deb8366694b83f462\
        e1";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // DATAGRAM-6.1, DATAGRAM-6.2, DATAGRAM-6.3
    #[test]
    fn both_directions_through_many_keys() {
        let [client, server] = ends(ID, TOKEN);
        let limits = Limits { update_after: 3, ..Limits::default() };
        for (from, to) in [(&client.send_flow, &server.recv_flow), (&server.send_flow, &client.recv_flow)] {
            assert_eq!(from, to);
        }
        assert_ne!(client.send_flow, server.send_flow);
        let directions = [
            (SendFlow::new(client.send_flow, client.sealing, limits), RecvFlow::new(server.opening, limits)),
            (SendFlow::new(server.send_flow, server.sealing, limits), RecvFlow::new(client.opening, limits)),
        ];
        for (mut send, mut recv) in directions {
            for content in 0..100_u8 {
                let mut datagram = Vec::new();
                let number = send.seal(DatagramType::Message, &[content; 50], &mut datagram).unwrap();
                let (opened, plain) = open(&mut recv, &datagram).expect("each is opened");
                assert_eq!((opened.number, &plain[..]), (number, &[content; 50][..]));
                send.on_answer(number);
            }
            assert!(send.first_of_key() >= 96, "keys have changed");
        }
    }

    // DATAGRAM-6.5, DATAGRAM-6.6: another connection, another token, the other direction: nothing of it is the same.
    #[test]
    fn keys_are_of_one_connection_and_direction() {
        let sealed = |keys: ConnectionKeys| {
            let mut datagram = Vec::new();
            SendFlow::new(1, keys.sealing, Limits::default())
                .seal(DatagramType::Message, &[0; 32], &mut datagram)
                .unwrap();
            datagram
        };
        let [client, server] = ends(ID, TOKEN);
        let [other_id, _] = ends(ConnectionId([0xc2; 16]), TOKEN);
        let [other_token, _] = ends(ID, JoinToken([0x71; 16]));
        let mut all = vec![sealed(client), sealed(server), sealed(other_id), sealed(other_token)];
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
