//! tokio with `LengthDelimitedCodec`, over TCP or over one QUIC stream: what most Rust services begin with.
//!
//! Frames carry a 4-byte length. One-way messages are fed and flushed only when the write buffer is full or the job
//! is over; that buffer is raised from 8 to 64 KiB, which makes the codec faster than it is by default.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{
    tcp,
    workload::{CLOCK_STRIDE, MESSAGE, Mode, Report, RoundTrips, block},
};

/// Bulk frames are smaller than the blocks of others: the codec copies each into its buffer, and this is its best size.
const FRAME: usize = 64 << 10;
const WRITE_BUFFER: usize = 64 << 10;

/// Serves frames over TCP.
pub async fn serve(listener: TcpListener) -> Result<()> {
    tcp::serve(listener, "framed", answer).await
}

/// Does a job over TCP.
pub async fn connect(addr: SocketAddr, mode: Mode, time: Duration) -> Result<Report> {
    ask(tcp::connect(addr).await?, mode, time).await
}

fn frames<S: AsyncRead + AsyncWrite>(stream: S) -> Framed<S, LengthDelimitedCodec> {
    let mut framed = Framed::with_capacity(stream, LengthDelimitedCodec::new(), WRITE_BUFFER);
    framed.set_backpressure_boundary(WRITE_BUFFER);
    framed
}

/// The server's side of a job.
pub async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<()> {
    let mode = Mode::from_byte(stream.read_u8().await?)?;
    let mut framed = frames(stream);
    let (mut count, mut bytes) = (0_u64, 0_u64);
    while let Some(frame) = framed.next().await.transpose()? {
        count += 1;
        bytes += frame.len() as u64;
        if mode == Mode::Rtt {
            framed.send(frame.freeze()).await?;
        }
    }
    let total = match mode {
        Mode::Bulk => bytes,
        Mode::Messages => count,
        Mode::Rtt => return Ok(()),
    };
    framed.send(Bytes::copy_from_slice(&total.to_le_bytes())).await?;
    framed.get_mut().shutdown().await?;
    Ok(())
}

/// The client's side of a job.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mode: Mode,
    time: Duration,
) -> Result<Report> {
    stream.write_u8(mode as u8).await?;
    let mut framed = frames(stream);
    let message = block().slice(..MESSAGE);
    let start = Instant::now();
    match mode {
        Mode::Bulk => {
            let frame = block().slice(..FRAME);
            let mut sent = 0;
            while start.elapsed() < time {
                framed.feed(frame.clone()).await?;
                sent += frame.len() as u64;
            }
            let bytes = total(framed).await?;
            ensure!(bytes == sent, "{sent} bytes sent, {bytes} arrived");
            Ok(Report::bulk(bytes, start.elapsed()))
        }
        Mode::Rtt => {
            let mut trips = RoundTrips::start(time);
            loop {
                framed.send(message.clone()).await?;
                framed.next().await.context("the server closed")??;
                if !trips.lap() {
                    return Ok(trips.report());
                }
            }
        }
        Mode::Messages => {
            let mut sent = 0;
            while start.elapsed() < time {
                for _ in 0..CLOCK_STRIDE {
                    framed.feed(message.clone()).await?;
                }
                sent += CLOCK_STRIDE;
            }
            let count = total(framed).await?;
            ensure!(count == sent, "{sent} messages sent, {count} arrived");
            Ok(Report::messages(count, start.elapsed()))
        }
    }
}

/// Ends the client's direction and waits for the server's count.
async fn total<S: AsyncRead + AsyncWrite + Unpin>(
    mut framed: Framed<S, LengthDelimitedCodec>,
) -> Result<u64> {
    futures_util::SinkExt::<Bytes>::flush(&mut framed).await?;
    framed.get_mut().shutdown().await?;
    let frame = framed.next().await.context("the server closed")??;
    Ok(u64::from_le_bytes(frame[..].try_into()?))
}
