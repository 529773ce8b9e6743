//! quinn: QUIC in Rust, set up for a long fat link.
//!
//! 64 MiB of stream, connection and send window, 4 MiB of UDP socket buffers, CUBIC (its default) or its BBR; MTU
//! discovery, GSO and GRO as quinn has them by default. Bulk goes over one stream by `write_chunk`/`read_chunk`, which
//! do not copy. Small messages are length-delimited on one stream: measured here, faster than a stream for each.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    framed, tls,
    workload::{Mode, Report, block},
};

const WINDOW: u32 = 64 << 20;
const SOCKET_BUFFER: usize = 4 << 20;
/// The largest chunk to take from a stream at once.
const CHUNK: usize = 1 << 20;
/// How long the server's count may take after the end of a bulk job, and after that the end of the connection. Four lost
/// probes in a row at a round trip of 300 ms.
const END_MAX: Duration = Duration::from_secs(10);

/// quinn's congestion controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// BBRv1, marked experimental by quinn.
    Bbr,
}

/// Binds a server; it answers in [`serve`].
pub fn listen(addr: SocketAddr, congestion: Congestion) -> Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls::server_config()?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(congestion));
    endpoint(addr, Some(config))
}

/// Serves until the endpoint closes.
pub async fn serve(endpoint: Endpoint) -> Result<()> {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let done = async { answer(incoming.await?).await };
            if let Err(error) = done.await {
                eprintln!("quinn: {error:#}");
            }
        });
    }
    Ok(())
}

/// Does a job over QUIC.
pub async fn connect(addr: SocketAddr, congestion: Congestion, mode: Mode, time: Duration) -> Result<Report> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls::client_config()?)?));
    config.transport_config(transport(congestion));
    let any = if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = endpoint(any.parse()?, None)?;
    let connection = endpoint.connect_with(config, addr, "localhost")?.await?;
    let report = ask(&connection, mode, time).await;
    connection.close(VarInt::from_u32(0), b"done");
    // The peer learns of it, or it does not: the figure is there.
    let _ = timeout(END_MAX, endpoint.wait_idle()).await;
    report
}

async fn answer(connection: quinn::Connection) -> Result<()> {
    let (mut send, mut recv) = connection.accept_bi().await?;
    let mode = Mode::from_byte(recv.read_u8().await?)?;
    if mode != Mode::Bulk {
        let done =
            framed::answer(tokio::io::join(std::io::Cursor::new([mode as u8]).chain(recv), send)).await;
        // Round trips end when the client closes the connection, in the middle of whatever.
        if mode == Mode::Messages {
            done?;
        }
    } else {
        // As `novacron bench`: what arrives within the time, counted from the first byte.
        let time = Duration::from_micros(recv.read_u64_le().await?);
        let (mut first, mut bytes, mut bytes_in_time) = (None, 0, 0);
        // An error: the time is over.
        while let Ok(Some(chunk)) = recv.read_chunk(CHUNK, true).await {
            bytes += chunk.bytes.len() as u64;
            if first.get_or_insert_with(Instant::now).elapsed() <= time {
                bytes_in_time = bytes;
            }
        }
        send.write_u64_le(bytes_in_time).await?;
        send.finish()?;
    }
    connection.closed().await;
    Ok(())
}

async fn ask(connection: &quinn::Connection, mode: Mode, time: Duration) -> Result<Report> {
    let (mut send, mut recv) = connection.open_bi().await?;
    if mode != Mode::Bulk {
        return framed::ask(tokio::io::join(recv, send), mode, time).await;
    }
    send.write_u8(mode as u8).await?;
    send.write_u64_le(time.as_micros() as u64).await?;
    let block = block();
    let fill = async {
        loop {
            if let Err(error) = send.write_chunk(block.clone()).await {
                return error;
            }
        }
    };
    // A write does not end when the time does: once the window is full, it waits for the credit that the receiver gives
    // for an eighth of the window at once. That takes minutes on a long path that loses.
    if let Ok(error) = timeout(time, fill).await {
        return Err(error.into());
    }
    // Not finished, for the same reason: the window is full.
    send.reset(VarInt::from_u32(0))?;
    let count = timeout(END_MAX, recv.read_u64_le()).await.context("waiting for the server's count")?;
    Ok(Report::bulk(count?, time))
}

fn transport(congestion: Congestion) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into());
    match congestion {
        Congestion::Cubic => config.congestion_controller_factory(Arc::new(CubicConfig::default())),
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    Arc::new(config)
}

fn endpoint(addr: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel caps these at rmem_max and wmem_max without an error.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&addr.into()).with_context(|| format!("bind {addr}"))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(Endpoint::new(EndpointConfig::default(), server, UdpSocket::from(socket), runtime)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a path so slow that the window is full before the time is over and stays full.
    #[tokio::test]
    async fn a_full_window_does_not_outlast_the_time() {
        let server = listen("127.0.0.1:0".parse().expect("an address"), Congestion::Cubic).expect("listen");
        let addr = server.local_addr().expect("bound");
        let peer = async {
            let connection = server.accept().await.expect("a client").await.expect("a connection");
            let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
            assert_eq!(recv.read_u8().await.expect("the job"), Mode::Bulk as u8);
            recv.read_u64_le().await.expect("the time");
            // Reads nothing.
            assert_eq!(recv.received_reset().await.expect("a connection"), Some(VarInt::from_u32(0)));
            send.write_u64_le(7).await.expect("the count");
            send.finish().expect("a stream");
            connection.closed().await;
        };
        let client = connect(addr, Congestion::Cubic, Mode::Bulk, Duration::from_millis(200));
        let (report, ()) = tokio::join!(client, peer);
        assert_eq!(report.expect("a figure").bytes, Some(7));
    }
}
