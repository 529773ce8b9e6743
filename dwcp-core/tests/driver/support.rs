//! Endpoints and data for the tests.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{
    CompressionConfig, Connection, Endpoint, EndpointConfig, Priority, ReadError, RecvStream, TrustZone,
};

use crate::links::DEADLINE;

pub(crate) fn config(name: &str, links: u16) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.transport.streams.initial = links;
    config.transport.rdma_zones = zones();
    config.allow_plaintext = of_environment("DWCP_TEST_ADDRESS").is_some();
    config
}

/// Of the environment: the suite is also run over RDMA, between two devices (`make test-rdma`).
#[allow(clippy::disallowed_methods)] // a test is its own program
fn of_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn zones() -> Vec<TrustZone> {
    of_environment("DWCP_TEST_RDMA_ZONE").iter().map(|zone| zone.parse().unwrap()).collect()
}

pub(crate) async fn listen(config: EndpointConfig) -> (Endpoint, SocketAddr) {
    let address = of_environment("DWCP_TEST_ADDRESS");
    let ip: IpAddr = address.as_deref().unwrap_or("127.0.0.1").parse().unwrap();
    let endpoint = Endpoint::listen(SocketAddr::new(ip, 0), config).await.unwrap();
    let addr = endpoint.local_addr().unwrap();
    (endpoint, addr)
}

/// A connection from a client of this configuration; the client's half first.
pub(crate) async fn connect(
    server: &Endpoint,
    addr: SocketAddr,
    client: EndpointConfig,
) -> (Connection, Connection) {
    let over_rdma = of_environment("DWCP_TEST_ADDRESS").is_some_and(|ip| ip == addr.ip().to_string());
    let client = Endpoint::client(client).unwrap();
    let (connected, accepted) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    let going_over = async {
        while over_rdma && !is_over_rdma(&connected) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, going_over).await;
    assert!(in_time.is_ok(), "something else would be tested: {:?}", connected.stats().links);
    (connected, accepted)
}

fn is_over_rdma(connection: &Connection) -> bool {
    let links = connection.stats().links;
    !links.is_empty() && links.iter().all(|link| link.transport == "rdma")
}

pub(crate) async fn pair(links: u16) -> (Connection, Connection) {
    let (server, addr) = listen(config("server", links)).await;
    connect(&server, addr, config("client", links)).await
}

/// Bytes that depend on their position.
pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect::<Vec<_>>().into()
}

pub(crate) async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(chunk) = recv.read_chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// One small stream each way: the connection works.
pub(crate) async fn assert_works(a: &Connection, b: &Connection) {
    let (mut send, mut recv) = a.open_stream().await.unwrap();
    send.write_all(b"question").await.unwrap();
    send.finish().unwrap();
    let (mut answer, mut incoming) = b.accept_stream().await.unwrap();
    assert_eq!(read_all(&mut incoming).await.unwrap(), b"question");
    answer.write_all(b"answer").await.unwrap();
    answer.finish().unwrap();
    assert_eq!(read_all(&mut recv).await.unwrap(), b"answer");
}

/// Answers each request with its own payload, for as long as the connection lives.
pub(crate) fn echo(connection: &Connection) {
    let messages = connection.messages();
    tokio::spawn(async move {
        while let Ok(message) = messages.recv().await {
            message.responder.unwrap().respond(message.payload).unwrap();
        }
    });
}

/// Several tasks ask at once, each many times without a pause, while a stream is busy: whoever waits for an answer
/// may read a link himself, and none may be lost between him and the reader task.
pub(crate) async fn assert_requests_work_beside_bulk(a: &Connection, b: &Connection) {
    echo(b);
    let (mut send, _recv) = a.open_stream().await.unwrap();
    let data = pattern(32 << 20);
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        send.write_bytes(sent).await.unwrap();
        send.finish().unwrap();
        send
    });
    let (_send, mut recv) = b.accept_stream().await.unwrap();
    let reading = tokio::spawn(async move { read_all(&mut recv).await });
    let asking = [1_u8, 2, 3].map(|asker| {
        let messages = a.messages();
        tokio::spawn(async move {
            for number in 0..2000_u32 {
                let question = Bytes::from([&[asker][..], &number.to_le_bytes()].concat());
                let deadline = Duration::from_secs(100);
                let answer = messages.request(Priority::Control, question.clone(), deadline).await;
                assert_eq!(answer.unwrap(), question);
            }
        })
    });
    for asked in asking {
        asked.await.unwrap();
    }
    assert!(reading.await.unwrap().unwrap() == data);
    writing.await.unwrap();
}
