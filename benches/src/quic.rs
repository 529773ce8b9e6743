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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    framed, tls,
    workload::{Mode, Report, block},
};

const WINDOW: u32 = 64 << 20;
const SOCKET_BUFFER: usize = 4 << 20;
/// The largest chunk to take from a stream at once.
const CHUNK: usize = 1 << 20;

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
    endpoint.wait_idle().await;
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
    let start = Instant::now();
    while start.elapsed() < time {
        send.write_chunk(block.clone()).await?;
    }
    // Not finished: what fills the window would take minutes on a long path that loses.
    send.reset(VarInt::from_u32(0))?;
    Ok(Report::bulk(recv.read_u64_le().await?, time))
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
