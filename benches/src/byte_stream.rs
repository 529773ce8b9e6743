//! Raw TCP, and the jobs over anything that is a byte stream (raw TCP, TLS over TCP).
//!
//! 256 KiB writes, reads into a 256 KiB buffer; small messages have a fixed size, so they need no framing, and go
//! through a 64 KiB buffer one way. This is the least that a program can do: the yardstick.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    net::TcpListener,
};

use crate::{
    tcp,
    workload::{BLOCK, CLOCK_STRIDE, MESSAGE, Mode, Report, RoundTrips, block},
};

const MESSAGE_BUFFER: usize = 64 << 10;

/// Serves raw TCP.
pub async fn serve(listener: TcpListener) -> Result<()> {
    tcp::serve(listener, "tcp", answer).await
}

/// Does a job over raw TCP, with this congestion control or the system's.
pub async fn connect(
    addr: SocketAddr,
    congestion_control: Option<&str>,
    mode: Mode,
    time: Duration,
) -> Result<Report> {
    let stream = tcp::connect(addr).await?;
    if let Some(name) = congestion_control {
        tcp::set_congestion_control(&stream, name)?;
    }
    ask(stream, mode, time).await
}

/// The server's side of a job.
pub async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<()> {
    match Mode::from_byte(stream.read_u8().await?)? {
        Mode::Bulk => {
            let mut buffer = vec![0; BLOCK];
            let mut bytes = 0;
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    n => bytes += n as u64,
                }
            }
            stream.write_u64_le(bytes).await?;
        }
        Mode::Rtt => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).await.is_ok() {
                stream.write_all(&message).await?;
                stream.flush().await?;
            }
        }
        Mode::Messages => {
            let mut reader = BufReader::with_capacity(MESSAGE_BUFFER, stream);
            let mut message = [0; MESSAGE];
            let mut count = 0_u64;
            while reader.read_exact(&mut message).await.is_ok() {
                count += 1;
            }
            stream = reader.into_inner();
            stream.write_u64_le(count).await?;
        }
    }
    stream.flush().await?;
    stream.shutdown().await?;
    Ok(())
}

/// The client's side of a job.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mode: Mode,
    time: Duration,
) -> Result<Report> {
    stream.write_u8(mode as u8).await?;
    stream.flush().await?;
    let start = Instant::now();
    match mode {
        Mode::Bulk => {
            let block = block();
            let mut sent = 0;
            while start.elapsed() < time {
                stream.write_all(&block).await?;
                sent += block.len() as u64;
            }
            stream.shutdown().await?;
            let bytes = stream.read_u64_le().await?;
            ensure!(bytes == sent, "{sent} bytes sent, {bytes} arrived");
            Ok(Report::bulk(bytes, start.elapsed()))
        }
        Mode::Rtt => {
            let mut message = [0; MESSAGE];
            let mut trips = RoundTrips::start(time);
            loop {
                stream.write_all(&message).await?;
                stream.flush().await?;
                stream.read_exact(&mut message).await?;
                if !trips.lap() {
                    return Ok(trips.report());
                }
            }
        }
        Mode::Messages => {
            let mut writer = BufWriter::with_capacity(MESSAGE_BUFFER, stream);
            let message = [0; MESSAGE];
            let mut sent = 0;
            while start.elapsed() < time {
                for _ in 0..CLOCK_STRIDE {
                    writer.write_all(&message).await?;
                }
                sent += CLOCK_STRIDE;
            }
            writer.shutdown().await?;
            let count = writer.get_mut().read_u64_le().await?;
            ensure!(count == sent, "{sent} messages sent, {count} arrived");
            Ok(Report::messages(count, start.elapsed()))
        }
    }
}
