//! Any bytes as what another region says, as entries of a log, and as stored records: they are read or refused, and what is
//! accepted is written as it was read. The first byte chooses who reads them.

use bytes::Bytes;
use consensus_regions::{Command, Item, Message, Replica, limits};

pub(crate) fn run(data: &[u8]) {
    let Some((&reader, bytes)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    match reader % 4 {
        0 => message(bytes),
        1 => command(bytes),
        2 => item(bytes),
        _ => replica(bytes),
    }
}

fn message(bytes: Bytes) {
    let Ok(message) = Message::decode(bytes.clone()) else { return };
    assert_eq!(message.encode(), bytes, "a message has one encoding");
    assert!(bytes.len() <= limits::MESSAGE_BYTES_MAX);
}

fn command(bytes: Bytes) {
    let Ok(command) = Command::decode(bytes.clone()) else { return };
    assert_eq!(command.encode(), bytes, "an entry has one encoding");
}

fn item(bytes: Bytes) {
    let Ok(item) = Item::from_record(bytes) else { return };
    let _ = (item.view(), item.version(), item.dots());
    // Which stamp the others are told from is the writer's choice.
    let record = item.to_record();
    assert_eq!(Item::from_record(record.clone()).map(|item| item.to_record()), Ok(record));
}

fn replica(bytes: Bytes) {
    let Ok(replica) = Replica::from_record(bytes.clone(), None) else { return };
    assert_eq!(replica.to_record(), bytes, "a record has one encoding");
}
