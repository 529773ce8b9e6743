//! Bytes of peers: whatever they are, they are read or refused.

use bytes::{Bytes, BytesMut};
use consensus_raft::{Message, proposal};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..16_u8) {
        let _ = Message::decode(Bytes::from(bytes.clone()));
        // Past the version, where the fields are.
        let message = [&[1, kind][..], &bytes].concat();
        if let Ok(message) = Message::decode(Bytes::from(message.clone())) {
            let mut again = BytesMut::new();
            message.encode(&mut again);
            prop_assert_eq!(&again[..], &message_bytes(&message)[..]);
        }
        let _ = proposal::decode(Bytes::from(bytes));
    }
}

fn message_bytes(message: &Message) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    let bytes = bytes.freeze();
    assert_eq!(Message::decode(bytes.clone()).as_ref(), Ok(message));
    bytes
}
