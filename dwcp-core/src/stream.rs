//! The two halves of a stream.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use dwcp_proto::{
    ProtocolError,
    conn::{Chunk, Read, Reservation, SendError},
    frame::{Codec, FrameType},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    ReadError, WriteError,
    compress::{self, Common},
    compressor,
    connection::Handle,
    shared::{Shared, State, StreamWaiters},
    task::CallGuard,
};

/// The sending half. Dropped without [`finish`](Self::finish), it resets the stream with code 0.
#[derive(Debug)]
pub struct SendStream {
    handle: Arc<Handle>,
    id: u32,
}

/// The receiving half. Dropped before the end, it stops the stream with code 0.
#[derive(Debug)]
pub struct RecvStream {
    handle: Arc<Handle>,
    id: u32,
    /// What [`AsyncRead`] has not handed out yet.
    rest: Bytes,
    /// A frame did not decode: nothing behind it may be taken for what comes next.
    corrupt: Option<ReadError>,
}

/// The handles of a stream that the core has just opened or accepted.
pub(crate) fn stream_pair(handle: &Arc<Handle>, state: &mut State, id: u32) -> (SendStream, RecvStream) {
    state.streams.insert(id, StreamWaiters { handles: 2, ..StreamWaiters::default() });
    let send = SendStream { handle: Arc::clone(handle), id };
    let recv = RecvStream { handle: Arc::clone(handle), id, rest: Bytes::new(), corrupt: None };
    (send, recv)
}

fn drop_handle(state: &mut State, id: u32) {
    if let Some(stream) = state.streams.get_mut(&id) {
        stream.handles -= 1;
        if stream.handles == 0 {
            state.streams.remove(&id);
        }
    }
}

impl SendStream {
    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Stream id, unique in its connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends all of `bytes` without copying them. Waits for credit and buffer space; if the future is dropped,
    /// a prefix has been accepted, in order.
    pub async fn write_bytes(&mut self, mut bytes: Bytes) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let reservation = std::future::poll_fn(|cx| self.poll_reserve(cx, bytes.len())).await?;
            let raw = bytes.split_to(reservation.len as usize);
            self.count(raw.len());
            compressor::send(&self.handle, self.id, reservation, raw).await;
        }
        Ok(())
    }

    /// Copies `data` and sends it.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        while !data.is_empty() {
            let reservation = std::future::poll_fn(|cx| self.poll_reserve(cx, data.len())).await?;
            let (now, later) = data.split_at(reservation.len as usize);
            self.count(now.len());
            compressor::send(&self.handle, self.id, reservation, Bytes::copy_from_slice(now)).await;
            data = later;
        }
        Ok(())
    }

    fn poll_reserve(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<Reservation, WriteError>> {
        let _guard = CallGuard::new(self.shared());
        let mut state = self.shared().lock();
        match state.core.stream_reserve(self.id, want) {
            Ok(reservation) => Poll::Ready(Ok(reservation)),
            Err(SendError::Blocked) => {
                if let Some(stream) = state.streams.get_mut(&self.id) {
                    stream.writer = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(self.write_error(&state, error))),
        }
    }

    fn write_error(&self, state: &State, error: SendError) -> WriteError {
        let stopped = state.streams.get(&self.id).and_then(|stream| stream.stopped);
        match (stopped, error) {
            (Some(code), _) | (None, SendError::Stopped(code)) => WriteError::Stopped(code),
            _ if state.core.closed().is_some() => WriteError::Connection(self.shared().error(state)),
            _ => WriteError::Finished,
        }
    }

    fn count(&self, raw_len: usize) {
        self.shared().bytes_sent.fetch_add(raw_len as u64, Ordering::Relaxed);
    }

    /// Says that no more comes. Returns at once.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.shared().with(|state, _| {
            state.core.stream_finish(self.id).map_err(|error| self.write_error(state, error))
        })
    }

    /// Waits until the peer's transport has acknowledged everything up to the finish. Acknowledged is not yet read:
    /// an answer of the peer's application says that.
    pub async fn acknowledged(&mut self) -> Result<(), WriteError> {
        std::future::poll_fn(|cx| {
            let mut state = self.shared().lock();
            let closed = state.core.closed().is_some().then(|| self.shared().error(&state));
            let Some(stream) = state.streams.get_mut(&self.id) else {
                return Poll::Ready(Err(WriteError::Finished));
            };
            if let Some(code) = stream.stopped {
                return Poll::Ready(Err(WriteError::Stopped(code)));
            }
            if stream.acknowledged {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = closed {
                return Poll::Ready(Err(WriteError::Connection(error)));
            }
            stream.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Abandons the stream: the peer's reader gets `code`.
    pub fn reset(&mut self, code: u32) {
        self.shared().with(|state, _| state.core.stream_reset(self.id, code));
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.shared().with(|state, _| {
            if state.core.stream_is_open(self.id) {
                state.core.stream_reset(self.id, 0);
            }
            drop_handle(state, self.id);
        });
    }
}

impl RecvStream {
    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Stream id, unique in its connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The next bytes in order, without copying; `None` at the end. Cancellation-safe.
    ///
    /// A frame that does not decode ([`ReadError::Corrupt`]) ends the stream here, as every later call says again, and the
    /// connection with PROTOCOL_ERROR.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        if let Some(error) = &self.corrupt {
            return Poll::Ready(Err(error.clone()));
        }
        let shared = self.shared();
        let read = shared.with(|state, now| {
            let read = state.core.stream_read(now, self.id);
            match (&read, state.streams.get_mut(&self.id)) {
                (Read::Blocked, Some(stream)) => stream.reader = Some(cx.waker().clone()),
                (Read::Closed, _) if state.core.closed().is_some() => {
                    return Err(ReadError::Connection(shared.error(state)));
                }
                _ => {}
            }
            Ok(read)
        })?;
        Poll::Ready(match read {
            Read::Chunk(chunk) => {
                let raw_len = u64::from(chunk.raw_len);
                let decoded =
                    decode(chunk, shared.common.as_deref()).inspect_err(|error| self.fail(error.clone()))?;
                self.shared().bytes_received.fetch_add(raw_len, Ordering::Relaxed);
                Ok(Some(decoded))
            }
            Read::Blocked => return Poll::Pending,
            Read::End | Read::Closed => Ok(None),
            Read::Reset(code) => Err(ReadError::Reset(code)),
        })
    }

    /// Its checksum was right, so the peer's encoder is not: the peer broke the protocol (DWCP-3.7).
    fn fail(&mut self, error: ReadError) {
        tracing::warn!(parent: &self.shared().span, stream = self.id, %error, "the peer broke the protocol");
        let what = "its payload does not decode";
        self.shared().with(|state, _| {
            state.core.fail(ProtocolError::Invalid { ty: FrameType::Data, what });
        });
        self.corrupt = Some(error);
    }

    /// Tells the sender that no more is wanted.
    pub fn stop(&mut self, code: u32) {
        self.shared().with(|state, _| state.core.stream_stop(self.id, code));
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.shared().with(|state, _| {
            state.core.stream_stop(self.id, 0); // does nothing after the end
            drop_handle(state, self.id);
        });
    }
}

fn decode(chunk: Chunk, common: Option<&Common>) -> Result<Bytes, ReadError> {
    if chunk.codec == Codec::Identity {
        return Ok(chunk.payload);
    }
    compress::decode(chunk.codec, &chunk.payload, chunk.raw_len as usize, common).map_err(|error| {
        metrics::counter!("dwcp_compression_errors_total").increment(1);
        ReadError::Corrupt { offset: chunk.offset, reason: error.to_string() }
    })
}

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let this = self.get_mut();
        let reservation = ready!(this.poll_reserve(cx, buf.len()))?;
        let len = reservation.len as usize;
        this.count(len);
        compressor::send_now(&this.handle, this.id, reservation, Bytes::copy_from_slice(&buf[..len]));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // nothing is held back
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().finish() {
            Ok(()) | Err(WriteError::Finished) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            this.rest = ready!(this.poll_chunk(cx))?.unwrap_or_default();
        }
        let len = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..len]);
        this.rest.advance(len);
        Poll::Ready(Ok(()))
    }
}
