//! A receiver that does not read: what it holds stays within its window, the writers wait, and streams that are read
//! go on beside it. A file of its own, because it looks at the memory of the whole process.
//!
//! All senders write the same memory and nothing is compressed, so what the process grows by is what receivers hold.

use std::time::Duration;

use bytes::Bytes;
use dwcp_core::{CompressionConfig, Connection, Endpoint, EndpointConfig, RecvStream};
use dwcp_proto::limits::CONNECTION_UNSENT_BYTES_MAX;

const STREAMS: usize = 256;
const WINDOW: u64 = 4 << 20;
/// What the requirement allows beside the window.
const ALLOWANCE: u64 = 32 << 20;
const PER_STREAM: usize = 1 << 20;
const FRAME_BYTES: u32 = 64 << 10;

fn config(name: &str) -> EndpointConfig {
    let mut config = EndpointConfig::new(name);
    config.compression = CompressionConfig::NONE;
    config.transport.streams.initial = 4;
    config.transport.connection_window_bytes = WINDOW;
    config.transport.frame_bytes_max = FRAME_BYTES;
    config
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

async fn pair() -> (Connection, Connection) {
    let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config("server")).await.unwrap();
    let client = Endpoint::client(config("client")).unwrap();
    let (a, b) = tokio::join!(client.connect(server.local_addr().unwrap(), "localhost"), server.accept());
    (a.unwrap(), b.unwrap())
}

/// Begins with the number of its writer, so that streams cannot be taken for each other.
async fn write(connection: Connection, number: usize, data: Bytes) {
    let (mut send, _recv) = connection.open_stream().await.unwrap();
    send.write_all(&(number as u64).to_le_bytes()).await.unwrap();
    send.write_bytes(data.slice(number..)).await.unwrap();
    send.finish().unwrap();
    send.acknowledged().await.unwrap();
}

async fn read(mut recv: RecvStream, data: Bytes) -> usize {
    let mut all = Vec::new();
    while let Some(chunk) = recv.read_chunk().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    let (number, content) = all.split_first_chunk::<8>().unwrap();
    let number = u64::from_le_bytes(*number) as usize;
    assert!(content == &data[number..], "stream of writer {number} is damaged");
    number
}

/// The bytes accepted from writers once that number stays the same.
async fn settled(connection: &Connection) -> u64 {
    let mut last = 0;
    let mut same = 0;
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sent = connection.stats().bytes_sent;
        same = if sent == last && sent >= WINDOW { same + 1 } else { 0 };
        last = sent;
    }
    last
}

fn pattern(len: usize) -> Bytes {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_read_holds_no_more_than_its_window() {
    let data = pattern(PER_STREAM);
    let (a, b) = pair().await;
    let before = resident();
    let writers: Vec<_> =
        (0..STREAMS).map(|number| tokio::spawn(write(a.clone(), number, data.clone()))).collect();
    let accepted = settled(&a).await;
    let grown = resident().saturating_sub(before);
    println!("{STREAMS} unread streams: {accepted} bytes accepted, the process grew by {grown}");
    // The first few fit into the window as a whole; all others wait.
    let finished = writers.iter().filter(|writer| writer.is_finished()).count();
    assert!(finished <= WINDOW as usize / PER_STREAM, "{finished} writers did not wait");
    let bound = WINDOW + CONNECTION_UNSENT_BYTES_MAX as u64 + u64::from(FRAME_BYTES);
    assert!(accepted <= bound, "{accepted} bytes accepted, bound {bound}");
    assert!(grown <= WINDOW + ALLOWANCE, "{grown} bytes more memory");

    // Now it reads, and everything is there.
    let mut readers = Vec::new();
    for _ in 0..STREAMS {
        let (_, recv) = b.accept_stream().await.unwrap();
        readers.push(tokio::spawn(read(recv, data.clone())));
    }
    let mut numbers = Vec::new();
    for reader in readers {
        numbers.push(reader.await.unwrap());
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..STREAMS));
    for writer in writers {
        writer.await.unwrap();
    }

    others_go_on_beside_unread_streams(&data).await;
}

/// As long as the unread streams hold less than the window, the rest of it serves the others.
async fn others_go_on_beside_unread_streams(data: &Bytes) {
    const UNREAD: usize = STREAMS - 1;
    const EACH: usize = 8 << 10;
    let (a, b) = pair().await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        let (mut send, recv) = a.open_stream().await.unwrap();
        send.write_bytes(data.slice(..EACH)).await.unwrap();
        let (answer, incoming) = b.accept_stream().await.unwrap();
        unread.push((send, recv, answer, incoming));
    }
    for number in 0..32 {
        let writer = tokio::spawn(write(a.clone(), number, data.clone()));
        let (_, recv) = b.accept_stream().await.unwrap();
        assert_eq!(read(recv, data.clone()).await, number);
        writer.await.unwrap();
    }
    for (mut send, _, _, mut incoming) in unread {
        send.finish().unwrap();
        let mut len = 0;
        while let Some(chunk) = incoming.read_chunk().await.unwrap() {
            assert!(chunk == data[len..len + chunk.len()]);
            len += chunk.len();
        }
        assert_eq!(len, EACH);
    }
}
