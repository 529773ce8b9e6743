//! The compressing side of a connection: which encoding a frame gets, and the way through the worker pool.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use dwcp_proto::{
    conn::{Reservation, StreamFrame},
    frame::Codec,
    hello::Capabilities,
};
use tokio::sync::Notify;

use crate::{
    CompressionConfig,
    compress::{CompressPool, CompressionController, Encoded, Encoding, Feedback, Probe, Wire},
    connection::Handle,
    shared::Shared,
    task::{CallGuard, PanicGuard},
};

/// This much ready for the sockets keeps a slow wire busy for longer than a few frames take to be compressed.
const BACKLOG: usize = 512 << 10;

/// Chooses encodings for the outgoing frames of one connection.
#[derive(Debug)]
pub(crate) struct Compressor {
    controller: Mutex<CompressionController>,
    /// Told while frames wait for a wire of which nothing is known.
    backlog: Notify,
    pool: Arc<CompressPool>,
}

/// A frame on its way through the pool.
struct Job {
    handle: Arc<Handle>,
    stream: u32,
    reservation: Reservation,
    raw: Bytes,
    /// `None`: it was not looked at.
    probe: Option<Probe>,
    encoding: Encoding,
}

impl Compressor {
    pub(crate) fn new(config: CompressionConfig, peer: &Capabilities, pool: Arc<CompressPool>) -> Self {
        let (zstd, lz4) = (peer.decodes(Codec::Zstd), peer.decodes(Codec::Lz4));
        let controller = Mutex::new(CompressionController::new(config, zstd, lz4, pool.workers()));
        Self { controller, backlog: Notify::new(), pool }
    }

    fn controller(&self) -> MutexGuard<'_, CompressionController> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn on_tick(&self, elapsed: Duration, wire_bytes: u64, network_limited: bool) {
        self.controller().on_tick(Feedback { elapsed, wire_bytes, network_limited });
    }

    /// A wire of which nothing is known may be slow: a tick soon would be worth it.
    pub(crate) async fn backlog(&self) {
        self.backlog.notified().await;
    }

    /// Why frames are encoded as they are.
    pub(crate) fn decision(&self) -> String {
        self.controller().decision()
    }

    fn choose(&self, shared: &Shared, raw: &Bytes) -> (Option<Probe>, Encoding) {
        let _guard = CallGuard::new(shared);
        let mut controller = self.controller();
        let probe = controller.probe(raw);
        let pool_full = !self.pool.has_room();
        let awaits_wire = controller.awaits_wire();
        let wire = if pool_full || awaits_wire {
            let unsent = shared.lock().core.unsent_bytes();
            match unsent {
                0 if pool_full => Wire::Idle,
                BACKLOG.. => Wire::Backlog,
                _ => Wire::Busy,
            }
        } else {
            Wire::Busy
        };
        if awaits_wire && wire == Wire::Backlog {
            self.backlog.notify_one();
        }
        let encoding = controller.choose(probe.as_ref(), raw.len(), wire);
        (probe, encoding)
    }
}

/// Sends `raw` at `reservation`, compressed if that pays. Waits for room in the pool; if the future is dropped
/// meanwhile, the frame goes out as it is.
pub(crate) async fn send(handle: &Arc<Handle>, stream: u32, reservation: Reservation, raw: Bytes) {
    /// Keeps the promise of a reservation when the caller goes away.
    struct Unsent<'a>(Option<(&'a Shared, u32, Reservation, Bytes)>);
    impl Drop for Unsent<'_> {
        fn drop(&mut self) {
            if let Some((shared, stream, reservation, raw)) = self.0.take() {
                submit(shared, stream, reservation, Codec::Identity, raw);
            }
        }
    }

    let shared = &handle.shared;
    let Some(compressor) = &shared.compressor else {
        return submit(shared, stream, reservation, Codec::Identity, raw);
    };
    let (probe, encoding) = compressor.choose(shared, &raw);
    if encoding == Encoding::Identity {
        return submit(shared, stream, reservation, Codec::Identity, raw);
    }
    let mut unsent = Unsent(Some((shared, stream, reservation, raw.clone())));
    let Ok(encoded) = compressor.pool.submit(encoding, raw.clone(), shared.common.clone()).await else {
        return;
    };
    unsent.0 = None;
    Job { handle: Arc::clone(handle), stream, reservation, raw, probe, encoding }.run(encoded);
}

/// Like [`send`], for callers that cannot wait: without room in the pool the frame goes out as it is.
pub(crate) fn send_now(handle: &Arc<Handle>, stream: u32, reservation: Reservation, raw: Bytes) {
    let shared = &handle.shared;
    if let Some(compressor) = &shared.compressor {
        let (probe, encoding) = compressor.choose(shared, &raw);
        if encoding != Encoding::Identity
            && let Ok(encoded) = compressor.pool.try_submit(encoding, raw.clone(), shared.common.clone())
        {
            let handle = Arc::clone(handle);
            return Job { handle, stream, reservation, raw, probe, encoding }.run(encoded);
        }
    }
    submit(shared, stream, reservation, Codec::Identity, raw);
}

impl Job {
    fn run(self, encoded: tokio::sync::oneshot::Receiver<Encoded>) {
        tokio::spawn(async move {
            let _guard = PanicGuard::new(&self.handle.shared, "compressor");
            let Self { handle, stream, reservation, raw, probe, encoding } = self;
            let shared = &handle.shared;
            let Some(compressor) = &shared.compressor else { return };
            // An error: the pool is gone, and the frame goes out as it is.
            let encoded = encoded.await.unwrap_or(Encoded { wire: None, took: Duration::ZERO });
            let (codec, wire) = match encoded.wire {
                Some(wire) => (encoding.codec(), wire),
                None => (Codec::Identity, raw.clone()),
            };
            if let (Some(probe), false) = (&probe, encoded.took.is_zero()) {
                compressor.controller().on_frame_compressed(
                    probe,
                    encoding,
                    raw.len(),
                    wire.len(),
                    encoded.took,
                );
            }
            submit(shared, stream, reservation, codec, wire);
        });
    }
}

fn submit(shared: &Shared, stream: u32, reservation: Reservation, codec: Codec, payload: Bytes) {
    // The checksum is computed before the lock is taken.
    let payload_crc = shared.payload_crc.then(|| crc32fast::hash(&payload));
    let Reservation { offset, len } = reservation;
    let frame = StreamFrame { offset, raw_len: len, codec, payload, payload_crc };
    shared.with(|state, now| state.core.stream_submit(now, stream, frame));
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{CompressionAlgorithm, CompressionLevel, Endpoint, EndpointConfig, sample_data::SampleData};

    /// `AsyncWrite` cannot wait for the pool. While others keep it full, frames go out as they are, none is lost, and
    /// their order holds beside those that are compressed again afterwards.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn with_a_full_pool_async_writes_go_out_as_they_are() {
        const LEN: usize = 8 << 20;
        let mut client = EndpointConfig::new("client");
        client.compression =
            CompressionConfig { algorithm: CompressionAlgorithm::Zstd, level: CompressionLevel::Fixed(1) };
        let server =
            Endpoint::listen("127.0.0.1:0".parse().unwrap(), EndpointConfig::new("server")).await.unwrap();
        let addr = server.local_addr().unwrap();
        let client = Endpoint::client(client).unwrap();
        let (connected, accepted) = tokio::join!(client.connect(addr, "server"), server.accept());
        let (a, b) = (connected.unwrap(), accepted.unwrap());

        // A job takes most of a second; its place is taken again at once.
        let busy = Arc::clone(a.shared());
        let filling = tokio::spawn(async move {
            let slow = Bytes::from(SampleData::Vm.generate(1, 4 << 20));
            let mut waiting = Vec::new();
            loop {
                while let Ok(job) =
                    busy.compressor.as_ref().unwrap().pool.try_submit(Encoding::Zstd(19), slow.clone(), None)
                {
                    waiting.push(job);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let pool = &a.shared().compressor.as_ref().unwrap().pool;
        while pool.has_room() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        let data = Bytes::from(SampleData::Text.generate(3, LEN));
        let (mut send, _recv) = a.open_stream().await.unwrap();
        let sent = data.clone();
        let writing = tokio::spawn(async move {
            let (full, free) = sent.split_at(LEN / 2);
            tokio::io::copy(&mut &full[..], &mut send).await.unwrap();
            filling.abort();
            assert!(filling.await.unwrap_err().is_cancelled());
            tokio::io::copy(&mut &free[..], &mut send).await.unwrap();
            send.shutdown().await.unwrap();
            send.acknowledged().await.unwrap();
        });
        let (_answer, mut recv) = b.accept_stream().await.unwrap();
        let mut half = vec![0; LEN / 2];
        recv.read_exact(&mut half).await.unwrap();
        assert!(half == data[..LEN / 2]);
        let mut rest = Vec::new();
        recv.read_to_end(&mut rest).await.unwrap();
        assert!(rest == data[LEN / 2..]);
        writing.await.unwrap();
        // Compressed, the text would be a fraction of this.
        let wire = a.stats().wire_bytes_sent;
        assert!(wire > LEN as u64 / 2, "{wire} bytes on the wire: the pool was not full");
    }
}
