//! Any bytes as a HELLO payload: no panic, what is accepted is within bounds and encodes to the same meaning, and a
//! connection can be made with it.

use std::time::Duration;

use bytes::Bytes;
use dwcp_proto::{
    conn::{Connection, ConnectionConfig, LinkId, Priority, Role, TxBatch},
    hello::{Capabilities, HELLO_LEN_MAX, Hello},
};

pub(crate) fn run(data: &[u8]) {
    let Ok(hello) = Hello::decode(data) else { return };
    assert!(data.len() <= HELLO_LEN_MAX);
    assert_eq!(Hello::decode(&hello.encode()).as_ref(), Ok(&hello), "what was accepted can be said again");
    meet(hello.capabilities);
}

/// A connection to a peer with these capabilities, whatever they are.
fn meet(peer: Capabilities) {
    let local = Capabilities {
        node_id: "fuzz".into(),
        region: String::new(),
        codecs: 1,
        dictionaries: Vec::new(),
        links_max: 1,
        frame_bytes_max: 4096,
        connection_window: 4096,
        stream_window: 4096,
        message_window: 128 << 10,
        streams_max: 1,
        payload_crc: false,
        resume_timeout_ms: 0,
    };
    let config = ConnectionConfig {
        role: Role::Client,
        local,
        peer,
        keepalive_interval: Duration::MAX,
        idle_timeout: Some(Duration::MAX),
        resume_timeout: Duration::MAX,
        links_authenticated: true,
    };
    let mut connection = Connection::new(config, Duration::from_secs(1));
    assert!(connection.link_added(Duration::ZERO, LinkId(u32::MAX)));
    if let Ok(id) = connection.open_stream() {
        let room = connection.stream_reserve(id, usize::MAX).expect("every window takes a frame");
        assert_eq!(room.len, connection.frame_bytes_max());
    }
    let len = connection.message_len_max();
    connection.message_send(Duration::MAX, Priority::Bulk, Bytes::from(vec![0; len])).expect("fits");
    assert!(connection.poll_transmit(Duration::MAX, LinkId(u32::MAX), &mut TxBatch::default()));
    connection.handle_timeout(Duration::MAX);
    connection.link_lost(Duration::MAX, LinkId(u32::MAX));
    let _ = connection.poll_timeout();
    connection.assert_invariants();
}
