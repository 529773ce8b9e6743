//! Streams behind tokio's traits: `AsyncRead` and `AsyncWrite`.

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use dwcp_core::{
    CompressionAlgorithm, CompressionConfig, CompressionLevel, Connection, sample_data::SampleData,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{config, connect, listen, pattern};

const LEN: usize = 12 << 20;

async fn pair(compression: CompressionConfig) -> (Connection, Connection) {
    let settings = |name| {
        let mut config = config(name, 2);
        config.compression = compression;
        // Windows close often: writers and readers have to wait.
        config.transport.connection_window_bytes = 1 << 20;
        config
    };
    let (server, addr) = listen(settings("server")).await;
    connect(&server, addr, settings("client")).await
}

fn compressions() -> [CompressionConfig; 4] {
    let with = |algorithm, level| CompressionConfig { algorithm, level };
    [
        CompressionConfig::NONE,
        CompressionConfig::default(),
        with(CompressionAlgorithm::Zstd, CompressionLevel::Fixed(3)),
        with(CompressionAlgorithm::Lz4, CompressionLevel::Auto),
    ]
}

/// `copy` writes a file's content into the stream and ends it; the peer copies what it reads back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_through_both_ways_with_and_without_compression() {
    for compression in compressions() {
        for data in [pattern(LEN), Bytes::from(SampleData::Text.generate(7, LEN))] {
            let (a, b) = pair(compression).await;
            let (mut send, mut recv) = a.open_stream().await.unwrap();
            let sent = data.clone();
            let writing = tokio::spawn(async move {
                let copied = tokio::io::copy(&mut &sent[..], &mut send).await.unwrap();
                send.flush().await.unwrap();
                send.shutdown().await.unwrap();
                send.shutdown().await.unwrap(); // again is no error
                let late = send.write(b"late").await.unwrap_err();
                assert_eq!(late.kind(), ErrorKind::NotConnected);
                send.acknowledged().await.unwrap();
                copied
            });
            let (mut back, mut incoming) = b.accept_stream().await.unwrap();
            let echoing = tokio::spawn(async move {
                let copied = tokio::io::copy(&mut incoming, &mut back).await.unwrap();
                back.shutdown().await.unwrap();
                back.acknowledged().await.unwrap();
                copied
            });
            let mut all = Vec::new();
            let read = recv.read_to_end(&mut all).await.unwrap();
            assert!(all == data, "{compression:?}: {read} bytes, or others");
            assert_eq!(recv.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
            assert_eq!((writing.await.unwrap(), echoing.await.unwrap()), (LEN as u64, LEN as u64));
            assert_eq!(a.stats().bytes_sent, LEN as u64);
        }
    }
}

#[tokio::test]
async fn odd_reads_and_chunks_mix() {
    let (a, b) = pair(CompressionConfig::NONE).await;
    let data = pattern(200_000);
    let (mut send, _recv) = a.open_stream().await.unwrap();
    assert_eq!(send.write(&[]).await.unwrap(), 0);
    send.write_all(&data).await.unwrap();
    send.shutdown().await.unwrap();
    let (_send, mut recv) = b.accept_stream().await.unwrap();
    let mut all = vec![0; 33];
    assert_eq!(recv.read_exact(&mut all).await.unwrap(), 33);
    assert_eq!(recv.read(&mut []).await.unwrap(), 0);
    // What `AsyncRead` has not handed out yet comes first.
    all.extend_from_slice(&recv.read_chunk().await.unwrap().unwrap());
    recv.read_to_end(&mut all).await.unwrap();
    assert!(all == data);
}

/// Each error of a stream has a kind of its own.
#[tokio::test]
async fn ends_other_than_the_end_are_errors_with_a_kind() {
    let (a, b) = pair(CompressionConfig::NONE).await;
    let (mut send, mut recv) = a.open_stream().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let (mut answer, mut incoming) = b.accept_stream().await.unwrap();
    assert_eq!(incoming.read_u8().await.unwrap(), b'x');

    answer.reset(5);
    let error = recv.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    incoming.stop(6);
    let stopped = async {
        loop {
            match send.write_all(b"more").await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => break error,
            }
        }
    };
    assert!(matches!(stopped.await, dwcp_core::WriteError::Stopped(6)));
    assert_eq!(AsyncWriteExt::write(&mut send, b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(send.shutdown().await.unwrap_err().kind(), ErrorKind::BrokenPipe);

    let (mut send, mut recv) = a.open_stream().await.unwrap();
    a.close(0, "");
    assert_eq!(recv.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(AsyncWriteExt::write(&mut send, b"x").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}
