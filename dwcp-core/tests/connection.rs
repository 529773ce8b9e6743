//! Two endpoints over loopback.

use std::time::Duration;

use bytes::Bytes;
use dwcp_core::{
    CompressionConfig, Connection, ConnectionError, Endpoint, EndpointConfig, MessageError, Priority,
    ReadError, WriteError,
};

fn config(name: &str, links: u16) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.transport.streams.initial = links;
    config
}

async fn pair(links: u16) -> (Connection, Connection) {
    let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config("server", links)).await.unwrap();
    let client = Endpoint::client(config("client", links)).unwrap();
    let addr = server.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(client.connect(addr, "server"), server.accept());
    (connected.unwrap(), accepted.unwrap())
}

/// Bytes that depend on their position.
fn pattern(len: usize) -> Bytes {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect::<Vec<_>>().into()
}

async fn read_all(recv: &mut dwcp_core::RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(chunk) = recv.read_chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_stream_arrives_whole_over_one_and_four_links() {
    for links in [1, 4] {
        let (a, b) = pair(links).await;
        assert_eq!(a.peer().node_id, "server");
        assert_eq!(b.peer().node_id, "client");
        let data = pattern(50 << 20);
        let (mut send, mut recv) = a.open_stream().await.unwrap();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            send.write_bytes(sent).await.unwrap();
            send.finish().unwrap();
            send.acknowledged().await.unwrap();
        });
        let (mut answer, mut incoming) = b.accept_stream().await.unwrap();
        assert!(read_all(&mut incoming).await.unwrap() == data);
        answer.write_all(b"done").await.unwrap();
        answer.finish().unwrap();
        assert_eq!(read_all(&mut recv).await.unwrap(), b"done");
        writer.await.unwrap();
        drop(answer);
        a.drain().await.unwrap();
        assert!(matches!(b.closed().await, ConnectionError::ClosedByPeer(reason) if reason.code.0 == 0));
    }
}

// DWCP-7.7: the deadline is the requester's business.
#[tokio::test]
async fn requests_are_answered_failed_dropped_and_timed_out() {
    let (a, b) = pair(1).await;
    let server = tokio::spawn(async move {
        let messages = b.messages();
        while let Ok(message) = messages.recv().await {
            let Some(responder) = message.responder else { continue };
            match &message.payload[..] {
                b"echo" => responder.respond(message.payload).unwrap(),
                b"fail" => responder.fail("no".into()).unwrap(),
                b"drop" => drop(responder),
                _ => {
                    tokio::spawn(async move { responder.cancelled().await });
                }
            }
        }
    });
    let messages = a.messages();
    let long = Duration::from_secs(120);
    assert_eq!(messages.request(Priority::Normal, "echo".into(), long).await.unwrap(), "echo");
    let failed = messages.request(Priority::Control, "fail".into(), long).await;
    assert_eq!(failed, Err(MessageError::Remote("no".into())));
    assert_eq!(messages.request(Priority::Bulk, "drop".into(), long).await, Err(MessageError::Dropped));
    let late = messages.request(Priority::Normal, "never".into(), Duration::from_millis(50)).await;
    assert_eq!(late, Err(MessageError::DeadlineExceeded));
    let too_large = messages.send(Priority::Normal, vec![0; 65537].into()).await;
    assert_eq!(too_large, Err(MessageError::TooLarge { len: 65537, max: 65536 }));
    a.close(7, "enough");
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_arrive_once_each() {
    const COUNT: u64 = 200_000;
    let (a, b) = pair(2).await;
    let sender = tokio::spawn(async move {
        let messages = a.messages();
        let mut batch = Vec::new();
        for i in 0..COUNT {
            batch.push(Bytes::copy_from_slice(&i.to_le_bytes()));
            if batch.len() == 500 {
                messages.send_many(Priority::Normal, &mut batch).await.unwrap();
            }
        }
        a
    });
    let messages = b.messages();
    let mut seen = vec![false; COUNT as usize];
    let mut got = Vec::new();
    let mut total = 0;
    while total < COUNT {
        messages.recv_many(&mut got, 256).await.unwrap();
        for message in got.drain(..) {
            let i = u64::from_le_bytes(message.payload[..].try_into().unwrap());
            assert!(!std::mem::replace(&mut seen[i as usize], true), "message {i} came twice");
            total += 1;
        }
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn reset_and_stop_reach_the_other_side() {
    let (a, b) = pair(1).await;
    let (mut send, mut recv) = a.open_stream().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (mut answer, mut incoming) = b.accept_stream().await.unwrap();
    assert_eq!(incoming.read_chunk().await.unwrap().unwrap(), "x");
    send.reset(42);
    assert_eq!(incoming.read_chunk().await, Err(ReadError::Reset(42)));
    recv.stop(43);
    let error = loop {
        match answer.write_all(&[0; 1000]).await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error, WriteError::Stopped(43));
}

#[tokio::test]
async fn backpressure_reaches_the_writer() {
    let (a, b) = pair(1).await;
    let (mut send, _recv) = a.open_stream().await.unwrap();
    let writing = send.write_bytes(pattern(200 << 20));
    // Nobody reads: the write must not complete.
    assert!(tokio::time::timeout(Duration::from_millis(500), writing).await.is_err());
    drop(b);
}

#[tokio::test]
async fn plaintext_to_the_world_is_refused() {
    let refused = Endpoint::listen("0.0.0.0:0".parse().unwrap(), config("x", 1)).await;
    assert!(refused.unwrap_err().to_string().contains("plaintext"));
    let client = Endpoint::client(config("x", 1)).unwrap();
    let refused = client.connect("192.0.2.1:1".parse().unwrap(), "x").await;
    assert!(refused.unwrap_err().to_string().contains("plaintext"));
}
