//! A connection that sends no faster than it is told to.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{Connection, RecvStream, SendStream};
use dwcp_transfer::{ByteSink, Transport};
use tokio::time::Instant;

/// Sends on a connection with at most so many bytes a second.
#[derive(Clone)]
pub(super) struct Throttled {
    connection: Connection,
    pace: Option<Arc<Pace>>,
}

/// When the next bytes may go.
struct Pace {
    bytes_per_second: u64,
    next: Mutex<Instant>,
}

pub(super) struct ThrottledSink {
    stream: SendStream,
    pace: Option<Arc<Pace>>,
}

impl Throttled {
    pub(super) fn new(connection: Connection, bytes_per_second: Option<u64>) -> Self {
        let pace = |bytes_per_second: u64| {
            Arc::new(Pace { bytes_per_second: bytes_per_second.max(1), next: Mutex::new(Instant::now()) })
        };
        Self { connection, pace: bytes_per_second.map(pace) }
    }

    fn sink(&self, (stream, source): (SendStream, RecvStream)) -> (ThrottledSink, RecvStream) {
        (ThrottledSink { stream, pace: self.pace.clone() }, source)
    }
}

impl Pace {
    /// When these bytes may go; what comes after them waits for as long as they take.
    fn turn(&self, bytes: usize) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        turn
    }
}

impl Transport for Throttled {
    type Sink = ThrottledSink;
    type Source = RecvStream;

    async fn open_stream(&self) -> io::Result<(ThrottledSink, RecvStream)> {
        Ok(self.sink(Transport::open_stream(&self.connection).await?))
    }

    async fn accept_stream(&self) -> io::Result<(ThrottledSink, RecvStream)> {
        Ok(self.sink(Transport::accept_stream(&self.connection).await?))
    }
}

impl ByteSink for ThrottledSink {
    async fn write_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        if let Some(pace) = &self.pace {
            tokio::time::sleep_until(pace.turn(bytes.len())).await;
        }
        ByteSink::write_bytes(&mut self.stream, bytes).await
    }

    fn finish(&mut self) -> io::Result<()> {
        ByteSink::finish(&mut self.stream)
    }
}
