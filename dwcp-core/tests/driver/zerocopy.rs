//! Payloads by reference: the same bytes arrive, and buffers are let go of when the kernel has, not before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{Connection, EndpointConfig, Zerocopy};

use crate::{
    proxy::{Cut, Proxy},
    support::{assert_requests_work_beside_bulk, assert_works, config, connect, listen, pattern, read_all},
};

const BUFFER: usize = 300_000;

/// A buffer that is overwritten when it is let go of, as an application or an allocator would.
struct Reused {
    data: Vec<u8>,
    live: Arc<AtomicUsize>,
}

impl Reused {
    fn bytes(data: &[u8], live: &Arc<AtomicUsize>) -> Bytes {
        live.fetch_add(1, Ordering::SeqCst);
        Bytes::from_owner(Self { data: data.to_vec(), live: Arc::clone(live) })
    }
}

impl AsRef<[u8]> for Reused {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Reused {
    fn drop(&mut self) {
        self.data.fill(0xee);
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

fn by_reference(name: &str, links: u16) -> EndpointConfig {
    let mut config = config(name, links);
    config.transport.zerocopy = Zerocopy::On;
    config
}

/// Sends `data` from buffers that are overwritten when they are let go of.
async fn write_reused(connection: Connection, data: Bytes, live: Arc<AtomicUsize>) {
    let (mut send, _recv) = connection.open_stream().await.unwrap();
    for part in data.chunks(BUFFER) {
        send.write_bytes(Reused::bytes(part, &live)).await.unwrap();
    }
    send.finish().unwrap();
    send.acknowledged().await.unwrap();
}

/// Frames are held until they are acknowledged and the kernel is done: then by nobody.
async fn all_let_go(live: &AtomicUsize) {
    let let_go = async {
        while live.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), let_go).await.expect("buffers leak");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buffers_may_be_reused_once_they_are_dropped() {
    for links in [1, 3] {
        let (server, addr) = listen(config("server", links)).await;
        let (a, b) = connect(&server, addr, by_reference("client", links)).await;
        let live = Arc::new(AtomicUsize::new(0));
        let data = pattern(64 << 20);
        let writing = tokio::spawn(write_reused(a.clone(), data.clone(), Arc::clone(&live)));
        let (_send, mut recv) = b.accept_stream().await.unwrap();
        // Now and then slower than the sender: sockets fill.
        let mut at = 0;
        while let Some(chunk) = recv.read_chunk().await.unwrap() {
            assert!(chunk == data[at..at + chunk.len()], "{links} links: damaged in {at}..");
            at += chunk.len();
            if at % (8 << 20) < chunk.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert_eq!(at, data.len());
        writing.await.unwrap();
        assert!(a.stats().links.iter().all(|link| link.zerocopy == "on: set"), "{:?}", a.stats().links);
        all_let_go(&live).await;
        assert_works(&a, &b).await;
    }
}

/// What a dead link was sending is sent again by the others, from the same buffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_dies_with_buffers_under_way_damages_nothing() {
    let (server, addr) = listen(config("server", 2)).await;
    let proxy = Proxy::start(addr).await;
    let (a, b) = connect(&server, proxy.addr, by_reference("client", 2)).await;
    let live = Arc::new(AtomicUsize::new(0));
    let data = pattern(64 << 20);
    let writing = tokio::spawn(write_reused(a.clone(), data.clone(), Arc::clone(&live)));
    let (_send, mut recv) = b.accept_stream().await.unwrap();
    let reading = tokio::spawn(async move { read_all(&mut recv).await.unwrap() });
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        proxy.cut_one(round, Cut::Reset);
    }
    writing.await.unwrap();
    assert!(reading.await.unwrap() == data);
    all_let_go(&live).await;
}

/// Whoever takes note of completions holds the link's writer for a moment: what others want to send then must not wait
/// for the next sign of life. Nothing else wakes anybody here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beside_completions_are_not_forgotten() {
    let quiet = |mut config: EndpointConfig| {
        config.transport.keepalive_interval = Duration::from_secs(60);
        config
    };
    let (server, addr) = listen(quiet(by_reference("server", 1))).await;
    let (a, b) = connect(&server, addr, quiet(by_reference("client", 1))).await;
    let asking = assert_requests_work_beside_bulk(&a, &b);
    tokio::time::timeout(Duration::from_secs(50), asking).await.expect("a wake-up was lost");
}
