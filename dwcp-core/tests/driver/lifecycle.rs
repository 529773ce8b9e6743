//! How connections and endpoints end.

use std::time::Duration;

use bytes::Bytes;
use dwcp_core::{BindError, ConnectError, ConnectionError, Endpoint, Priority, ReadError, WriteError};
use dwcp_proto::CloseCode;

use crate::support::{assert_works, config, connect, listen, pair, pattern, read_all};

fn is_closed_with(error: &ConnectionError, code: CloseCode) -> bool {
    matches!(error, ConnectionError::ClosedByPeer(reason) if reason.code == code)
}

#[tokio::test]
async fn drain_waits_for_open_streams() {
    let (a, b) = pair(2).await;
    let (mut send, mut recv) = a.open_stream().await.unwrap();
    send.write_all(b"begin ").await.unwrap();
    let (mut answer, mut incoming) = b.accept_stream().await.unwrap();
    assert_eq!(incoming.read_chunk().await.unwrap().unwrap(), "begin ");

    let draining = tokio::spawn({
        let a = a.clone();
        async move { a.drain().await }
    });
    tokio::task::yield_now().await; // to `draining`: there is one thread
    assert_eq!(a.open_stream().await.unwrap_err(), ConnectionError::Draining);
    // What exists goes on.
    send.write_all(b"end").await.unwrap();
    assert_eq!(incoming.read_chunk().await.unwrap().unwrap(), "end");
    assert!(!draining.is_finished());
    send.finish().unwrap();
    answer.write_all(b"last").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(read_all(&mut incoming).await.unwrap(), b"");
    assert_eq!(read_all(&mut recv).await.unwrap(), b"last");
    draining.await.unwrap().unwrap();
    assert!(is_closed_with(&b.closed().await, CloseCode::NONE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_may_drain_at_once() {
    for _ in 0..50 {
        let (a, b) = pair(2).await;
        assert_works(&a, &b).await;
        let (drained_a, drained_b) = tokio::join!(a.drain(), b.drain());
        drained_a.unwrap();
        drained_b.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_that_was_dropped_listens_until_its_connections_have_ended() {
    let (server, addr) = listen(config("server", 2)).await;
    let client = Endpoint::client(config("client", 2)).unwrap();
    let (a, b) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    let (a, b) = (a.unwrap(), b.unwrap());
    drop(server);
    let refused = client.connect(addr, "localhost").await.expect_err("nobody takes it");
    assert!(
        matches!(&refused, ConnectError::Refused { reason, .. } if reason.code == CloseCode::SHUTTING_DOWN),
        "{refused}"
    );
    // Links may still join: tests of lost links go on with endpoints that were dropped.
    assert_works(&a, &b).await;
    a.drain().await.unwrap();
    drop((a, b));
    while tokio::net::TcpListener::bind(addr).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_wakes_everyone_who_waits() {
    for by_peer in [true, false] {
        let (a, b) = pair(2).await;
        let (mut send, mut recv) = a.open_stream().await.unwrap();
        let writing = tokio::spawn(async move { send.write_bytes(pattern(100 << 20)).await });
        let reading = tokio::spawn(async move { recv.read_chunk().await });
        let (accepting, messages) = (a.clone(), a.messages());
        let accepting = tokio::spawn(async move { accepting.accept_stream().await.map(drop) });
        let receiving = tokio::spawn(async move { messages.recv().await.map(drop) });
        let messages = a.messages();
        let asking = tokio::spawn(async move {
            messages.request(Priority::Normal, Bytes::new(), Duration::from_secs(100)).await
        });
        b.messages().recv().await.unwrap(); // the request was sent; its responder goes, too
        let closing = if by_peer { &b } else { &a };
        closing.close(7, "enough");
        let error = a.closed().await;
        if by_peer {
            assert!(is_closed_with(&error, CloseCode(CloseCode::APPLICATION + 7)), "{error}");
            assert!(error.to_string().contains("enough"), "{error}");
        } else {
            assert_eq!(error, ConnectionError::ClosedLocally);
            let error = b.closed().await;
            assert!(is_closed_with(&error, CloseCode(CloseCode::APPLICATION + 7)), "{error}");
        }
        assert_eq!(writing.await.unwrap(), Err(WriteError::Connection(error.clone())));
        assert_eq!(reading.await.unwrap(), Err(ReadError::Connection(error.clone())));
        assert_eq!(accepting.await.unwrap(), Err(error.clone()));
        assert_eq!(receiving.await.unwrap(), Err(error.into()));
        assert!(asking.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_last_handle() {
    let (a, b) = pair(1).await;
    let (mut send, recv) = a.open_stream().await.unwrap();
    let clone = a.clone();
    drop(a);
    drop(clone);
    drop(recv);
    send.write_all(b"still here").await.unwrap();
    let (_answer, mut incoming) = b.accept_stream().await.unwrap();
    assert_eq!(incoming.read_chunk().await.unwrap().unwrap(), "still here");
    drop(send);
    assert!(is_closed_with(&b.closed().await, CloseCode::NONE));
}

#[tokio::test]
async fn shutdown_drains_and_lets_nobody_in() {
    let (server, addr) = listen(config("server", 1)).await;
    let (quiet, _quiet_peer) = connect(&server, addr, config("quiet", 1)).await;
    server.shutdown(Duration::from_secs(1000)).await; // it does not take all of it
    assert!(is_closed_with(&quiet.closed().await, CloseCode::NONE));
    assert!(server.accept().await.is_none());
    let late = Endpoint::client(config("late", 1)).unwrap().connect(addr, "localhost").await;
    assert!(matches!(late, Err(ConnectError::Io { call: "connect", .. })), "{late:?}");
    let from_it = server.connect(addr, "localhost").await;
    assert!(matches!(from_it, Err(ConnectError::ShuttingDown)), "{from_it:?}");
}

#[tokio::test]
async fn shutdown_closes_what_does_not_drain_in_time() {
    let (server, addr) = listen(config("server", 1)).await;
    let (busy, _busy_peer) = connect(&server, addr, config("busy", 1)).await;
    let (mut send, _recv) = busy.open_stream().await.unwrap();
    send.write_all(b"never finished").await.unwrap();
    server.shutdown(Duration::from_millis(200)).await;
    assert!(is_closed_with(&busy.closed().await, CloseCode::SHUTTING_DOWN));
}

/// Keepalives are no traffic; messages are.
#[tokio::test]
async fn an_idle_connection_ends_and_the_peer_learns_why() {
    let timeout = Duration::from_millis(400);
    let mut settings = config("server", 2);
    settings.transport.idle_timeout = Some(timeout);
    settings.transport.keepalive_interval = timeout / 8;
    let (server, addr) = listen(settings).await;
    let (a, b) = connect(&server, addr, config("client", 2)).await;
    assert_works(&a, &b).await;
    let (mut send, mut recv) = a.open_stream().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (_answer, mut incoming) = b.accept_stream().await.unwrap();
    assert_eq!(incoming.read_chunk().await.unwrap().unwrap(), "x");

    let idle = ConnectionError::IdleTimedOut(timeout);
    assert_eq!(b.closed().await, idle);
    assert_eq!(incoming.read_chunk().await, Err(ReadError::Connection(idle)));
    let error = a.closed().await;
    assert!(is_closed_with(&error, CloseCode::IDLE), "{error}");
    assert_eq!(recv.read_chunk().await, Err(ReadError::Connection(error.clone())));
    assert_eq!(send.write_all(b"y").await, Err(WriteError::Connection(error)));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_server, addr) = listen(config("server", 1)).await;
    let second = Endpoint::listen(addr, config("second", 1)).await.unwrap_err();
    assert!(matches!(second, BindError::Io { call: "bind", addr: named, .. } if named == addr), "{second:?}");
    let text = second.to_string();
    assert!(text.contains("bind") && text.contains(&addr.to_string()) && text.contains("in use"), "{text}");
}

/// Whoever drains need not take a stream just to see that its opener has given it up.
#[tokio::test]
async fn a_drain_does_not_wait_for_streams_that_were_given_up() {
    let (a, b) = pair(2).await;
    for _ in 0..3 {
        let (mut send, recv) = a.open_stream().await.unwrap();
        send.write_all(b"never mind").await.unwrap();
        drop((send, recv));
    }
    let drained = tokio::time::timeout(std::time::Duration::from_secs(60), b.drain()).await;
    drained.expect("the drain ends").unwrap();
}
