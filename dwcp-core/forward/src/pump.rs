//! Bytes between a socket and a stream, each way by itself (FORWARD-3).

use std::io;

use bytes::BytesMut;
use dwcp_core::{ReadError, RecvStream, SendStream, WriteError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
};

use crate::socket::Socket;

/// Read from a socket at once; a frame of the transport.
const READ_BYTES: usize = 256 << 10;
/// A new buffer is taken when less than this is left in one.
const ROOM_MIN: usize = 16 << 10;
/// With what a stream is reset or stopped when a socket was.
pub(crate) const RESET: u32 = 1;

/// Why both ways end at once.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The socket.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The stream, where it is read.
    #[error("stream: {0}")]
    Read(#[from] ReadError),
    /// The stream, where it is written.
    #[error("stream: {0}")]
    Write(#[from] WriteError),
}

/// Carries until both ways have ended, or one breaks: then the other end's socket is reset, too.
pub(crate) async fn carry(
    mut socket: Socket,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), Broken> {
    let carried = match &mut socket {
        Socket::Tcp(stream) => {
            let (read, write) = stream.split();
            both(read, write, &mut send, &mut recv).await
        }
        Socket::Unix(stream) => {
            let (read, write) = stream.split();
            both(read, write, &mut send, &mut recv).await
        }
    };
    if carried.is_err() {
        send.reset(RESET);
        recv.stop(RESET);
        socket.reset();
    }
    carried
}

/// Carries between a Unix socket that somebody else has connected and a stream that somebody else has opened.
pub async fn carry_unix(socket: UnixStream, send: SendStream, recv: RecvStream) -> Result<(), Broken> {
    carry(Socket::Unix(socket), send, recv).await
}

async fn both(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Broken> {
    tokio::try_join!(outwards(read, send), inwards(recv, write)).map(|_| ())
}

/// Reads no more than the stream takes: that is how a slow reader at the other end makes the writer at this one wait.
async fn outwards(mut read: impl AsyncRead + Unpin, send: &mut SendStream) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.capacity() < ROOM_MIN {
            buffer = BytesMut::with_capacity(READ_BYTES);
        }
        if read.read_buf(&mut buffer).await? == 0 {
            return Ok(send.finish()?);
        }
        send.write_bytes(buffer.split().freeze()).await?;
    }
}

async fn inwards(recv: &mut RecvStream, mut write: impl AsyncWrite + Unpin) -> Result<(), Broken> {
    while let Some(chunk) = recv.read_chunk().await? {
        write.write_all(&chunk).await?;
    }
    match write.shutdown().await {
        // The peer has closed all of it already, and nothing was left to be told.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        shut => Ok(shut?),
    }
}
