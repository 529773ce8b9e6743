//! What a control message finds before it, counted in bytes and not in time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dwcp_core::Priority;
use dwcp_proto::limits::BATCH_BYTES;

use crate::{
    proxy::{Proxy, RECEIVE_BUFFER},
    support::{assert_requests_work_beside_bulk, config, connect, listen, pair, pattern},
};

/// The smallest, one of the size of a batch, and the default.
const FRAME_BYTES: [u64; 3] = [4 << 10, 64 << 10, 256 << 10];

/// What the driver lets wait unsent in the kernel of a slow link.
const NOTSENT: u64 = 64 << 10;
/// What passes the proxy between two looks, and what the counters lag behind.
const SLACK: u64 = 128 << 10;
const STREAMS: usize = 8;

/// Eight streams want to send without end over links that pass bytes only as the test says. Megabytes wait in the
/// sender, and a request must not wait behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_request_waits_behind_one_frame_and_the_kernel_only() {
    for (links, frame_bytes) in
        [1_u16, 2].into_iter().flat_map(|links| FRAME_BYTES.map(|bytes| (links, bytes)))
    {
        let settings = |name| {
            let mut config = config(name, links);
            config.transport.streams.min = links;
            config.transport.streams.max = links;
            config.transport.frame_bytes_max = frame_bytes as u32;
            config.transport.keepalive_interval = Duration::from_secs(60);
            config
        };
        let (server, addr) = listen(settings("server")).await;
        let proxy = Arc::new(Proxy::gated(addr).await);
        proxy.release(usize::from(links) * 4096); // the handshakes
        let (a, b) = connect(&server, proxy.addr, settings("client")).await;
        while a.stats().links.len() < links.into() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        let data = pattern(64 << 20);
        for _ in 0..STREAMS {
            let (a, data) = (a.clone(), data.clone());
            tokio::spawn(async move {
                let (mut send, _recv) = a.open_stream().await.unwrap();
                let _ = send.write_bytes(data).await; // until the test ends
            });
        }
        let reader = b.clone();
        tokio::spawn(async move {
            while let Ok((_send, mut recv)) = reader.accept_stream().await {
                tokio::spawn(async move { while let Ok(Some(_)) = recv.read_chunk().await {} });
            }
        });
        let arrived_at = Arc::new(AtomicU64::new(0));
        let (messages, arrived, counter) = (b.messages(), Arc::clone(&arrived_at), Arc::clone(&proxy));
        tokio::spawn(async move {
            while let Ok(message) = messages.recv().await {
                arrived.store(counter.forwarded(), Ordering::SeqCst);
                message.responder.unwrap().respond(message.payload).unwrap();
            }
        });
        // Several megabytes wait before the request: were it queued behind them, it would show.
        let per_link = BATCH_BYTES as u64 + frame_bytes + NOTSENT + 2 * u64::from(RECEIVE_BUFFER);
        let bound = u64::from(links) * per_link + SLACK;
        while a.stats().bytes_sent < 3 * bound {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        // Handshakes are not among what the server counts.
        let uncounted = proxy.forwarded() - b.stats().wire_bytes_received;
        for _ in 0..5 {
            let before = proxy.forwarded();
            let request = a.messages();
            let waiting = tokio::spawn(async move {
                request.request(Priority::Control, "ping".into(), Duration::from_secs(100)).await
            });
            while !waiting.is_finished() {
                // In step with the server, or a busy machine would let bytes pass behind the request before it is seen.
                if b.stats().wire_bytes_received + uncounted >= proxy.forwarded() {
                    proxy.release(16 << 10);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(waiting.await.unwrap().unwrap(), "ping");
            let waited = arrived_at.load(Ordering::SeqCst) - before;
            println!(
                "{links} links, frames of {frame_bytes}: {waited} bytes before the request, bound {bound}"
            );
            assert!(waited <= bound, "{waited} bytes before the request, bound {bound}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_pause_work_beside_a_busy_stream() {
    for links in [1, 3] {
        let (a, b) = pair(links).await;
        assert_requests_work_beside_bulk(&a, &b).await;
    }
}

/// With one thread nobody is left to answer whoever polls.
#[tokio::test]
async fn requests_work_on_one_thread() {
    let (a, b) = pair(1).await;
    assert_requests_work_beside_bulk(&a, &b).await;
}
