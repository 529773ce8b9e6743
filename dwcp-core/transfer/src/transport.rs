//! The narrow seam to the transport: streams of `Bytes`. A `dwcp_core::Connection` is one; tests bring their own.

use std::{future::Future, io};

use bytes::Bytes;
#[cfg(feature = "dwcp")]
use dwcp_core::{Connection, RecvStream, SendStream};

/// A content is not what was sent: counts as what the transport itself finds altered.
pub(crate) fn count_integrity_failure() {
    #[cfg(feature = "dwcp")]
    dwcp_core::count_integrity_failure();
}

/// Opens and accepts ordered byte streams. Cheap to clone.
pub trait Transport: Clone + Send + Sync + 'static {
    /// Sending half of a stream.
    type Sink: ByteSink;
    /// Receiving half of a stream.
    type Source: ByteSource;

    /// Opens a stream.
    fn open_stream(&self) -> impl Future<Output = io::Result<(Self::Sink, Self::Source)>> + Send;

    /// The next stream the peer opens.
    fn accept_stream(&self) -> impl Future<Output = io::Result<(Self::Sink, Self::Source)>> + Send;
}

/// Takes bytes without copying them.
pub trait ByteSink: Send + 'static {
    /// Sends all of `bytes`; waits while the peer gives no credit.
    fn write_bytes(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Says that no more comes.
    fn finish(&mut self) -> io::Result<()>;
}

/// Gives bytes without copying them.
pub trait ByteSource: Send + 'static {
    /// The next bytes; `None` at the end.
    fn read_chunk(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

#[cfg(feature = "dwcp")]
impl Transport for Connection {
    type Sink = SendStream;
    type Source = RecvStream;

    async fn open_stream(&self) -> io::Result<(SendStream, RecvStream)> {
        Connection::open_stream(self).await.map_err(io::Error::other)
    }

    async fn accept_stream(&self) -> io::Result<(SendStream, RecvStream)> {
        Connection::accept_stream(self).await.map_err(io::Error::other)
    }
}

#[cfg(feature = "dwcp")]
impl ByteSink for SendStream {
    async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        Ok(SendStream::write_bytes(self, bytes).await?)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(SendStream::finish(self)?)
    }
}

#[cfg(feature = "dwcp")]
impl ByteSource for RecvStream {
    async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        Ok(RecvStream::read_chunk(self).await?)
    }
}
