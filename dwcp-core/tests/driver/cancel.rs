//! Futures that are dropped at any `await`: what was accepted is an exact prefix, what was read is never lost, and a
//! request that nobody waits for is cancelled.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use dwcp_core::{CompressionConfig, Connection, MessageError, Priority, sample_data::SampleData};
use tokio::io::AsyncReadExt;

use crate::{
    links::{DEADLINE, Random, seed},
    support::{config, connect, listen},
};

/// Runs `future` until it is done or has been pending `polls` times; then it is dropped.
async fn drop_after<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Frames and windows are small, so that everybody has to wait often.
async fn pair(compression: CompressionConfig) -> (Connection, Connection) {
    let settings = |name| {
        let mut config = config(name, 2);
        config.compression = compression;
        config.transport.frame_bytes_max = 16 << 10;
        config.transport.connection_window_bytes = 64 << 10;
        config
    };
    let (server, addr) = listen(settings("server")).await;
    connect(&server, addr, settings("client")).await
}

/// Writes all of `data` with futures of which many are dropped. Returns how many.
async fn write_and_give_up(a: Connection, data: Bytes, mut random: Random) -> u64 {
    let (mut send, _recv) = a.open_stream().await.unwrap();
    let mut dropped = 0;
    let mut at = 0;
    while at < data.len() {
        let end = data.len().min(at + 1 + random.next() as usize % (200 << 10));
        let piece = data.slice(at..end);
        let done = match random.next() % 2 {
            0 => drop_after(random.next() % 3, send.write_bytes(piece)).await,
            _ => drop_after(random.next() % 3, send.write_all(&piece)).await,
        };
        dropped += u64::from(done.is_none());
        // How much was accepted: this is the connection's only stream.
        let accepted = a.stats().bytes_sent as usize;
        assert!((at..=end).contains(&accepted), "{accepted} of {at}..{end}");
        if let Some(result) = done {
            result.unwrap();
            assert_eq!(accepted, end);
        }
        at = accepted;
    }
    send.finish().unwrap();
    while drop_after(random.next() % 3, send.acknowledged()).await.is_none() {
        tokio::task::yield_now().await;
    }
    dropped
}

async fn read_and_give_up(b: Connection, mut random: Random) -> (Vec<u8>, u64) {
    let mut accepted = None;
    let (_send, mut recv) = loop {
        match accepted.take() {
            Some(pair) => break pair,
            None => accepted = drop_after(random.next() % 2, b.accept_stream()).await.map(Result::unwrap),
        }
        tokio::task::yield_now().await;
    };
    let (mut all, mut dropped) = (Vec::new(), 0);
    loop {
        let mut buffer = vec![0; 1 + random.next() as usize % 20_000];
        let read = match random.next() % 2 {
            0 => drop_after(random.next() % 2, recv.read_chunk())
                .await
                .map(|chunk| chunk.unwrap().unwrap_or_default()),
            _ => drop_after(random.next() % 2, recv.read(&mut buffer))
                .await
                .map(|len| Bytes::copy_from_slice(&buffer[..len.unwrap()])),
        };
        match read {
            Some(chunk) if chunk.is_empty() => return (all, dropped),
            Some(chunk) => all.extend_from_slice(&chunk),
            None => {
                dropped += 1;
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_write_has_accepted_a_prefix_and_a_dropped_read_loses_nothing() {
    let seed = seed();
    println!("DWCP_TEST_SEED={seed}");
    let mut random = Random(seed);
    for compression in [CompressionConfig::NONE, CompressionConfig::default()] {
        for round in 0..4 {
            let data = Bytes::from(SampleData::Vm.generate(round, 4 << 20));
            let (a, b) = pair(compression).await;
            let mut fork = || Random(random.next() | 1);
            let writing = tokio::spawn(write_and_give_up(a, data.clone(), fork()));
            let (read, dropped_reads) = read_and_give_up(b, fork()).await;
            assert!(read == data, "{compression:?}: {} of {} bytes, or others", read.len(), data.len());
            let dropped_writes = writing.await.unwrap();
            println!("{dropped_writes} writes and {dropped_reads} reads dropped");
            assert!(dropped_writes > 0 && dropped_reads > 0, "the test drops futures");
        }
    }
}

/// First byte of a request: to be answered, or held until it is cancelled.
const ANSWER: u8 = 0;
const HOLD: u8 = 1;

/// Takes requests, now and then late, so that some are cancelled while they still wait to be received. `seen` are the
/// ids of those to be held, `cancelled` those of which the responder learned that nobody waits.
async fn respond(b: Connection, mut random: Random, seen: Ids, cancelled: Ids) {
    let messages = b.messages();
    loop {
        if random.next().is_multiple_of(8) {
            tokio::time::sleep(Duration::from_micros(random.next() % 2000)).await;
        }
        let Some(received) = drop_after(random.next() % 2, messages.recv()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let Ok(message) = received else { return };
        let responder = message.responder.unwrap();
        if message.payload[0] == ANSWER {
            let _ = responder.respond(message.payload);
            continue;
        }
        let id = u32::from_le_bytes(message.payload[1..5].try_into().unwrap());
        assert!(seen.lock().unwrap().insert(id), "request {id} came twice");
        let cancelled = Arc::clone(&cancelled);
        tokio::spawn(async move {
            responder.cancelled().await;
            responder.cancelled().await; // whoever asks again hears it again
            cancelled.lock().unwrap().insert(id);
        });
    }
}

type Ids = Arc<Mutex<BTreeSet<u32>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_request_is_cancelled_wherever_it_is() {
    const REQUESTS: u32 = 3000;
    let seed = seed();
    println!("DWCP_TEST_SEED={seed}");
    let mut random = Random(seed);
    for compression in [CompressionConfig::NONE, CompressionConfig::default()] {
        let (a, b) = pair(compression).await;
        let (seen, cancelled) = (Ids::default(), Ids::default());
        let fork = Random(random.next() | 1);
        let responding = tokio::spawn(respond(b.clone(), fork, Arc::clone(&seen), Arc::clone(&cancelled)));
        let messages = a.messages();
        for id in 0..REQUESTS {
            let hold = random.next().is_multiple_of(2);
            let kind = if hold { HOLD } else { ANSWER };
            let mut payload = vec![kind];
            payload.extend_from_slice(&id.to_le_bytes());
            payload.resize(5 + random.next() as usize % 3000, 0);
            let payload = Bytes::from(payload);
            let priority = Priority::ALL[random.next() as usize % 3];
            let asking = messages.request(priority, payload.clone(), 10 * DEADLINE);
            let answer = match random.next() % 3 {
                0 if !hold => Some(asking.await),
                // Dropped after some turns, or while it sleeps: a held one has no answer that would wake it.
                polls => {
                    let time = Duration::from_micros(random.next() % 3000);
                    tokio::time::timeout(time, drop_after(polls, asking)).await.ok().flatten()
                }
            };
            if let Some(answer) = answer {
                assert!(!hold, "a held request is not answered: {answer:?}");
                assert_eq!(answer.unwrap(), payload);
            }
        }
        // All that arrive are cancelled. A last one is answered: both directions still work.
        let last = messages.request(Priority::Bulk, Bytes::from_static(&[ANSWER]), DEADLINE).await;
        assert_eq!(last.unwrap(), Bytes::from_static(&[ANSWER]));
        let all_cancelled = async {
            while *seen.lock().unwrap() != *cancelled.lock().unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, all_cancelled).await;
        let (seen, cancelled) = (seen.lock().unwrap().clone(), cancelled.lock().unwrap().clone());
        let missing: Vec<_> = seen.difference(&cancelled).collect();
        assert!(in_time.is_ok(), "never cancelled: {missing:?} of {}", seen.len());
        println!("{} held requests arrived, all were cancelled", seen.len());
        assert!(!seen.is_empty(), "some requests arrive before they are cancelled");
        a.close(0, "");
        responding.await.unwrap();
    }
}

/// A request that was cancelled before anybody received it.
#[tokio::test]
async fn a_request_that_is_received_late_says_that_nobody_waits() {
    let (a, b) = pair(CompressionConfig::NONE).await;
    let [messages, at_peer] = [a.messages(), b.messages()];
    let asked = messages.request(Priority::Normal, "never mind".into(), Duration::from_millis(50)).await;
    assert_eq!(asked, Err(MessageError::DeadlineExceeded));
    // All that was sent is handled before anything is received: the request, its cancellation and another request.
    let before = a.stats().wire_bytes_sent;
    let asking = tokio::spawn(async move { messages.request(Priority::Normal, "?".into(), DEADLINE).await });
    let moved = || (a.stats().wire_bytes_sent, b.stats().wire_bytes_received);
    while moved().0 == before || moved().0 != moved().1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = at_peer.recv().await.unwrap();
    let second = at_peer.recv().await.unwrap();
    assert_eq!((&first.payload[..], &second.payload[..]), (&b"never mind"[..], &b"?"[..]));
    let responder = first.responder.unwrap();
    tokio::time::timeout(DEADLINE, responder.cancelled())
        .await
        .expect("it was cancelled before it was received");
    second.responder.unwrap().respond("!".into()).unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), "!");
}
