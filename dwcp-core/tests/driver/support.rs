//! Endpoints and data for the tests.

use std::net::SocketAddr;

use bytes::Bytes;
use dwcp_core::{CompressionConfig, Connection, Endpoint, EndpointConfig, ReadError, RecvStream};

pub(crate) fn config(name: &str, links: u16) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.transport.streams.initial = links;
    config
}

pub(crate) async fn listen(config: EndpointConfig) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    let addr = endpoint.local_addr().unwrap();
    (endpoint, addr)
}

/// A connection from a client of this configuration; the client's half first.
pub(crate) async fn connect(
    server: &Endpoint,
    addr: SocketAddr,
    client: EndpointConfig,
) -> (Connection, Connection) {
    let client = Endpoint::client(client).unwrap();
    let (connected, accepted) = tokio::join!(client.connect(addr, "localhost"), server.accept());
    (connected.unwrap(), accepted.unwrap())
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
