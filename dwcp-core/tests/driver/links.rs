//! Links die, return, are added and retired while data flows: nothing is lost and nothing comes twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{Connection, ConnectionError, EndpointConfig, Priority};
use tokio::task::JoinHandle;

use crate::{
    proxy::{Cut, Proxy},
    support::{config, connect, listen, pattern},
};

/// Long enough for the busiest machine: only a hang reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

fn restless(name: &str, links: u16) -> EndpointConfig {
    let mut config = config(name, links);
    config.transport.frame_bytes_max = 64 << 10;
    config.transport.connection_window_bytes = 4 << 20;
    // Finds blackholes soon. Taking a live link for dead on a busy machine is no harm here: that is the subject.
    config.transport.keepalive_interval = Duration::from_millis(400);
    // A blackhole may swallow a handshake.
    config.transport.handshake_timeout = Duration::from_secs(8);
    config.transport.resume_timeout = DEADLINE;
    config
}

/// Silence is no reason to give up a link: on a busy machine it means nothing.
fn patient(name: &str, links: u16) -> EndpointConfig {
    let mut config = restless(name, links);
    config.transport.keepalive_interval = DEADLINE;
    config
}

async fn through_proxy(
    config: fn(&str, u16) -> EndpointConfig,
    links: u16,
) -> (Proxy, Connection, Connection) {
    let (server, addr) = listen(config("server", links)).await;
    let proxy = Proxy::start(addr).await;
    let (a, b) = connect(&server, proxy.addr, config("client", links)).await;
    (proxy, a, b)
}

/// A stream, messages and requests at the same time, all checked.
pub(crate) struct Traffic {
    received: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(a: &Connection, b: &Connection, stream_len: usize, messages: u64) -> Self {
        let data = pattern(stream_len);
        let received = Arc::new(AtomicU64::new(0));
        let tasks = vec![
            tokio::spawn(write(a.clone(), data.clone())),
            tokio::spawn(read(b.clone(), data, Arc::clone(&received))),
            tokio::spawn(send_messages(a.clone(), messages)),
            tokio::spawn(receive_messages(b.clone(), messages)),
            tokio::spawn(requests(b.clone(), messages / 10)),
            tokio::spawn(answer(a.clone())),
        ];
        Self { received, tasks }
    }

    pub(crate) async fn received(&self, bytes: u64) {
        while self.received.load(Ordering::SeqCst) < bytes && !self.tasks[1].is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// All but the answering task, which ends with the connection.
    pub(crate) async fn finish(mut self) {
        self.tasks.pop();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn write(connection: Connection, data: Bytes) {
    let (mut send, _recv) = connection.open_stream().await.unwrap();
    send.write_bytes(data).await.unwrap();
    send.finish().unwrap();
    send.acknowledged().await.unwrap();
}

async fn read(connection: Connection, expected: Bytes, received: Arc<AtomicU64>) {
    let (_send, mut recv) = connection.accept_stream().await.unwrap();
    let mut at = 0;
    while let Some(chunk) = recv.read_chunk().await.unwrap() {
        assert!(chunk == expected[at..at + chunk.len()], "wrong bytes after {at}");
        at += chunk.len();
        received.store(at as u64, Ordering::SeqCst);
    }
    assert_eq!(at, expected.len());
}

async fn send_messages(connection: Connection, count: u64) {
    let messages = connection.messages();
    for i in 0..count {
        messages.send(Priority::Normal, Bytes::copy_from_slice(&i.to_le_bytes())).await.unwrap();
    }
}

async fn receive_messages(connection: Connection, count: u64) {
    let messages = connection.messages();
    let mut seen = vec![false; count as usize];
    for _ in 0..count {
        let message = messages.recv().await.unwrap();
        let i = u64::from_le_bytes(message.payload[..].try_into().unwrap());
        assert!(!std::mem::replace(&mut seen[i as usize], true), "message {i} came twice");
    }
}

async fn requests(connection: Connection, count: u64) {
    let messages = connection.messages();
    for i in 0..count {
        let payload = Bytes::copy_from_slice(&i.to_le_bytes());
        let answer = messages.request(Priority::Control, payload.clone(), DEADLINE).await.unwrap();
        assert_eq!(answer, payload);
    }
}

async fn answer(connection: Connection) {
    let messages = connection.messages();
    while let Ok(message) = messages.recv().await {
        let _ = message.responder.unwrap().respond(message.payload);
    }
}

/// xorshift64*: enough for picking victims.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

#[allow(clippy::disallowed_methods)] // tests may read the environment
pub(crate) fn seed() -> u64 {
    match std::env::var("DWCP_TEST_SEED") {
        Ok(seed) => seed.parse().expect("DWCP_TEST_SEED is a number"),
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1,
    }
}

// DWCP-2.4, DWCP-2.5: frames travel on any link, and the loss of a link loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_links_die_and_nothing_is_lost() {
    const ROUNDS: u64 = 30;
    const STREAM_LEN: u64 = 96 << 20;
    let seed = seed();
    println!("DWCP_TEST_SEED={seed}");
    let mut random = Random(seed);
    let (proxy, a, b) = through_proxy(restless, 4).await;
    let traffic = Traffic::start(&a, &b, STREAM_LEN as usize, 20_000);
    let mut cuts = 0;
    for round in 0..ROUNDS {
        traffic.received(round * STREAM_LEN / (ROUNDS + 1)).await;
        let cut = match random.next() % 8 {
            0 => Cut::Blackhole,
            n if n % 2 == 0 => Cut::Reset,
            _ => Cut::Close,
        };
        while !proxy.cut_one(random.next(), cut) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cuts += 1;
    }
    traffic.finish().await;
    assert_eq!(cuts, ROUNDS);
    assert!(proxy.accepted() > 4, "links were replaced");
    assert!(a.stats().resumes > 0);
    a.drain().await.unwrap();
}

// DWCP-2.5: nor does the loss of all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_any_link_resumes() {
    let (proxy, a, b) = through_proxy(restless, 3).await;
    let traffic = Traffic::start(&a, &b, 24 << 20, 2_000);
    for round in 1..=3_u64 {
        traffic.received(round * (6 << 20)).await;
        proxy.refuse(true);
        proxy.cut_all(Cut::Reset);
        let before = proxy.accepted();
        while proxy.accepted() < before + 3 {
            tokio::time::sleep(Duration::from_millis(1)).await; // the client tries in vain
        }
        proxy.refuse(false);
    }
    traffic.finish().await;
    a.drain().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_cannot_resume_ends_on_both_sides() {
    let timeout = Duration::from_millis(300);
    let with_timeout = |name| {
        let mut config = patient(name, 2);
        config.transport.resume_timeout = timeout;
        config
    };
    let (server, addr) = listen(with_timeout("server")).await;
    let proxy = Proxy::start(addr).await;
    let (a, b) = connect(&server, proxy.addr, with_timeout("client")).await;
    let (mut send, mut recv) = a.open_stream().await.unwrap();
    send.write_all(b"x").await.unwrap();
    proxy.refuse(true);
    proxy.cut_all(Cut::Reset);
    assert_eq!(a.closed().await, ConnectionError::ResumeTimedOut(timeout));
    assert_eq!(b.closed().await, ConnectionError::ResumeTimedOut(timeout));
    let read = recv.read_chunk().await.unwrap_err();
    assert_eq!(read, dwcp_core::ReadError::Connection(ConnectionError::ResumeTimedOut(timeout)));
    assert!(send.write_all(b"y").await.is_err());
}

// DWCP-2.2, DWCP-4.6: both sides retire links, the client makes new ones, and their numbers are new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_retired_and_added_while_data_flows() {
    const ROUNDS: u64 = 10;
    const STREAM_LEN: u64 = 64 << 20;
    let (proxy, a, b) = through_proxy(patient, 4).await;
    let traffic = Traffic::start(&a, &b, STREAM_LEN as usize, 10_000);
    for round in 0..ROUNDS as u32 {
        traffic.received(u64::from(round + 1) * STREAM_LEN / (ROUNDS + 2)).await;
        // Links are numbered in the order of their making.
        let side = if round % 2 == 0 { &a } else { &b };
        side.retire_link(round);
    }
    traffic.finish().await;
    assert!(proxy.accepted() > 4, "retired links were replaced");
    assert_eq!(a.stats().resumes, 0, "retiring is not losing");
    // Statistics are those of the last sample.
    let newest = || a.stats().links.iter().map(|link| link.id).max();
    let told = async {
        while newest() < Some(4) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, told).await;
    assert!(in_time.is_ok(), "{:?} is the highest number, and 0 to 3 were taken at first", newest());
    a.drain().await.unwrap();
}

/// Waits until `connection` has this many links.
pub(crate) async fn links_up(connection: &Connection, count: usize) {
    let up = async {
        while connection.stats().links.len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let links = || connection.stats().links.len();
    tokio::time::timeout(DEADLINE, up).await.unwrap_or_else(|_| panic!("{} of {count} links", links()));
}

#[tokio::test]
async fn a_handshake_that_hangs_delays_no_other_link() {
    const SWALLOWED: u64 = 2;
    let patient = |name| {
        let mut config = restless(name, 1);
        config.transport.handshake_timeout = 10 * DEADLINE;
        config
    };
    let (server, addr) = listen(patient("server")).await;
    let proxy = Proxy::start(addr).await;
    let mut client = patient("client");
    client.transport.streams.initial = 5;
    let client = dwcp_core::Endpoint::client(client).unwrap();
    // The first link makes the connection; two of the four that follow hang.
    let connecting = async {
        let connected = client.connect(proxy.addr, "localhost").await.unwrap();
        proxy.swallow(SWALLOWED); // the dialer has not run yet: one thread, and no await since
        connected
    };
    let (a, b) = tokio::join!(connecting, server.accept());
    links_up(&a, 3).await;
    links_up(&b.unwrap(), 3).await;
    assert_eq!(proxy.accepted(), 3 + SWALLOWED, "nothing was tried twice");
}

// DWCP-2.2: the server asks, the client makes them.
#[tokio::test]
async fn a_server_says_at_once_how_many_links_it_wants() {
    let (server, addr) = listen(restless("server", 5)).await;
    let (a, b) = connect(&server, addr, restless("client", 1)).await;
    links_up(&a, 5).await;
    links_up(&b, 5).await;
}

#[tokio::test]
async fn a_client_opens_no_more_links_than_its_own_bound() {
    let mut many = restless("server", 9);
    many.transport.streams.min = 9;
    let (server, addr) = listen(many).await;
    let proxy = Proxy::start(addr).await;
    let mut few = restless("client", 1);
    few.transport.streams.max = 3;
    let (a, b) = connect(&server, proxy.addr, few).await;
    links_up(&a, 3).await;
    links_up(&b, 3).await;
    assert_eq!(proxy.accepted(), 3);
}
