//! What both sides say to each other (MIGRATE-2): how each stream begins, and the messages of the first one.

use std::time::Duration;

use dwcp_core::{Connection, RecvStream, SendStream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::AsyncReadExt as _;

use crate::MigrateError;

/// First bytes of each stream: magic and version; behind them the kind and a number.
const MAGIC: [u8; 5] = *b"DWVM\x01";
const PREAMBLE_BYTES: usize = 8;
/// Longest message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How long a peer may take to say what a stream is, or to answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Control,
    Memory,
    Repair,
    /// The NBD connection of the disk with this number in the offer.
    Disk(u16),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) disks: Vec<Disk>,
    /// In how much memory pages are kept for differences.
    pub(crate) pages_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// What the device is called, in both QEMUs.
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// What the target says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ready,
    /// The guest runs here.
    Running,
    /// It does not, and will not.
    Failed(String),
}

/// Opens a stream.
pub(crate) async fn open(
    connection: &Connection,
    kind: Kind,
) -> Result<(SendStream, RecvStream), MigrateError> {
    let (mut send, recv) = connection.open_stream().await?;
    send.write_all(&encode(kind)).await?;
    Ok((send, recv))
}

/// What a stream that the peer has opened is for.
pub(crate) async fn accepted(recv: &mut RecvStream) -> Result<Kind, MigrateError> {
    let mut preamble = [0; PREAMBLE_BYTES];
    let read = tokio::time::timeout(ANSWER_TIMEOUT, recv.read_exact(&mut preamble)).await;
    match read {
        Ok(Ok(_)) => decode(preamble).ok_or(MigrateError::Protocol("stream")),
        _ => Err(MigrateError::Protocol("stream")),
    }
}

fn encode(kind: Kind) -> [u8; PREAMBLE_BYTES] {
    let (kind, number) = match kind {
        Kind::Control => (0, 0),
        Kind::Memory => (1, 0),
        Kind::Repair => (2, 0),
        Kind::Disk(number) => (3, number),
    };
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..5].copy_from_slice(&MAGIC);
    preamble[5] = kind;
    preamble[6..].copy_from_slice(&number.to_le_bytes());
    preamble
}

fn decode(preamble: [u8; PREAMBLE_BYTES]) -> Option<Kind> {
    let number = u16::from_le_bytes([preamble[6], preamble[7]]);
    let kind = match (preamble[5], number) {
        (0, 0) => Kind::Control,
        (1, 0) => Kind::Memory,
        (2, 0) => Kind::Repair,
        (3, number) => Kind::Disk(number),
        _ => return None,
    };
    preamble.starts_with(&MAGIC).then_some(kind)
}

pub(crate) async fn say(send: &mut SendStream, message: &impl Serialize) -> Result<(), MigrateError> {
    let text = serde_json::to_vec(message).expect("messages have text keys");
    let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&text);
    Ok(send.write_bytes(bytes.into()).await?)
}

pub(crate) async fn hear<T: DeserializeOwned>(recv: &mut RecvStream) -> Result<T, MigrateError> {
    let broken = |error: std::io::Error| match error.get_ref().and_then(|source| source.downcast_ref()) {
        Some(dwcp_core::ReadError::Connection(error)) => MigrateError::Connection(error.clone()),
        _ => MigrateError::Protocol("message"),
    };
    let mut len = [0; 4];
    recv.read_exact(&mut len).await.map_err(broken)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MESSAGE_BYTES_MAX {
        return Err(MigrateError::Protocol("message"));
    }
    let mut text = vec![0; len];
    recv.read_exact(&mut text).await.map_err(broken)?;
    serde_json::from_slice(&text).map_err(|_| MigrateError::Protocol("message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MIGRATE-2.1
    #[test]
    fn kinds_of_streams_come_back() {
        for kind in [Kind::Control, Kind::Memory, Kind::Repair, Kind::Disk(0), Kind::Disk(700)] {
            assert_eq!(decode(encode(kind)), Some(kind));
        }
        for bad in [*b"DWVM\x01\x04\0\0", *b"DWVM\x02\0\0\0", *b"DWVM\x01\0\x01\0", [0; 8]] {
            assert_eq!(decode(bad), None);
        }
    }

    /// MIGRATE-2.2
    #[test]
    fn messages_have_the_form_that_is_specified() {
        let disk = Disk { name: "drive0".to_owned(), bytes: 7 };
        let offer = Offer { disks: vec![disk], pages_bytes: 9 };
        assert_eq!(
            serde_json::to_string(&offer).unwrap(),
            r#"{"disks":[{"name":"drive0","bytes":7}],"pages_bytes":9}"#
        );
        for (answer, text) in [
            (Answer::Ready, r#""ready""#),
            (Answer::Running, r#""running""#),
            (Answer::Failed("why".to_owned()), r#"{"failed":"why"}"#),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        }
    }
}
