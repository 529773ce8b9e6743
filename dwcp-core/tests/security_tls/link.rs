//! Bytes through links: integrity, backpressure, ends and renewals of keys.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dwcp_core::security::{LinkSocket, RecordError};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::{Authority, VALID, plain_pair, tcp_pair, tls_pair};

/// Only against a test that would hang; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that do not repeat in steps of records or buffers.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn write_all(link: &LinkSocket, mut bytes: &[u8], slice: usize) {
    while !bytes.is_empty() {
        let slices: Vec<_> = bytes.chunks(slice).take(1000).map(IoSlice::new).collect();
        match link.try_write(&slices) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => link.writable().await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    flush(link).await;
}

async fn flush(link: &LinkSocket) {
    while let Err(error) = link.try_flush() {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        link.writable().await.unwrap();
    }
    assert!(!link.has_unflushed());
}

async fn shutdown(link: &LinkSocket) {
    while let Err(error) = link.shutdown_write() {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        link.writable().await.unwrap();
    }
}

async fn read(link: &LinkSocket, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    loop {
        match link.try_read(bufs) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                timeout(PATIENCE, link.readable()).await.expect("nothing to read")?;
            }
            other => return other,
        }
    }
}

/// Everything up to the end, in pieces of three odd sizes.
async fn read_to_end(link: &LinkSocket) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let (mut a, mut b, mut c) = ([0; 1000], [0; 33], vec![0; 70_001]);
    loop {
        let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b), IoSliceMut::new(&mut c)];
        let mut got = read(link, &mut bufs).await?;
        if got == 0 {
            return Ok(all);
        }
        for piece in [&a[..], &b[..], &c[..]] {
            let len = got.min(piece.len());
            all.extend_from_slice(&piece[..len]);
            got -= len;
        }
    }
}

async fn read_exact(link: &LinkSocket, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let got = read(link, &mut [IoSliceMut::new(&mut bytes[filled..])]).await.unwrap();
        assert_ne!(got, 0, "ended after {filled} of {len} bytes");
        filled += got;
    }
    bytes
}

fn record_error(error: &io::Error) -> &RecordError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_data_both_ways_at_once_arrives_unchanged() {
    const BYTES: usize = 48 << 20;
    let data = Arc::new(pattern(BYTES));
    for (client, server) in [tls_pair().await, plain_pair().await] {
        let (client, server) = (Arc::new(client), Arc::new(server));
        let mut tasks = Vec::new();
        for (link, slice) in [(client, 100_000), (server, 999)] {
            let (reader, writer, data) = (link.clone(), link, data.clone());
            tasks.push(tokio::spawn(async move { read_to_end(&reader).await.unwrap() }));
            tokio::spawn(async move {
                write_all(&writer, &data, slice).await;
                shutdown(&writer).await;
            });
        }
        for task in tasks {
            let got = timeout(PATIENCE, task).await.unwrap().unwrap();
            assert!(got == *data, "{} bytes arrived, or others", got.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_writes_arrive_in_order() {
    let data = pattern(500_000);
    for (client, server) in [tls_pair().await, plain_pair().await] {
        let writer = tokio::spawn({
            let data = data.clone();
            async move {
                let mut rest = data.as_slice();
                let mut len = 1;
                while !rest.is_empty() {
                    let (head, tail) = rest.split_at(len.min(rest.len()));
                    write_all(&client, head, 7).await;
                    rest = tail;
                    len = len % 64 + 1;
                }
                shutdown(&client).await;
            }
        });
        assert!(read_to_end(&server).await.unwrap() == data);
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn empty_writes_and_reads_move_nothing() {
    let (client, server) = tls_pair().await;
    assert_eq!(client.try_write(&[]).unwrap(), 0);
    assert_eq!(client.try_write(&[IoSlice::new(b""), IoSlice::new(b"")]).unwrap(), 0);
    assert!(!client.has_unflushed());
    assert_eq!(server.try_read(&mut []).unwrap(), 0);
    let slices = [b"".as_slice(), b"a", b"", b"b"].map(IoSlice::new);
    assert_eq!(client.try_write(&slices).unwrap(), 2);
    assert_eq!(read_exact(&server, 2).await, b"ab");
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer_and_loses_nothing() {
    // Far more than loopback sockets hold.
    const BYTES: usize = 256 << 20;
    for ((client, server), is_tls) in [(tls_pair().await, true), (plain_pair().await, false)] {
        let data = pattern(1 << 20);
        let mut taken = 0;
        let error = loop {
            match client.try_write(&[IoSlice::new(&data[taken % data.len()..])]) {
                Ok(more) => taken += more,
                // A fresh socket is "full" until tokio has seen it writable once.
                Err(_) if taken == 0 => client.writable().await.unwrap(),
                Err(error) => break error,
            }
            assert!(taken < BYTES);
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(client.has_unflushed(), is_tls);
        // Nothing more is taken, and the end cannot be announced yet.
        assert_eq!(client.try_write(&[IoSlice::new(b"x")]).unwrap_err().kind(), ErrorKind::WouldBlock);
        if is_tls {
            assert_eq!(client.try_flush().unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(client.shutdown_write().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        let (got, ()) = tokio::join!(read_to_end(&server), shutdown(&client));
        let got = got.unwrap();
        assert_eq!(got.len(), taken);
        for (i, chunk) in got.chunks(data.len()).enumerate() {
            assert!(*chunk == data[..chunk.len()], "chunk {i}");
        }
    }
}

#[tokio::test]
async fn readable_returns_at_once_while_decrypted_bytes_wait() {
    let (client, server) = tls_pair().await;
    write_all(&client, b"abc", 3).await;
    assert_eq!(read_exact(&server, 1).await, b"a");
    // All ciphertext is read, and tokio knows: it alone would wait for more.
    assert_eq!(server.tcp().try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    for expected in [b"b", b"c"] {
        timeout(PATIENCE, server.readable()).await.unwrap().unwrap();
        let mut byte = [0];
        assert_eq!(server.try_read(&mut [IoSliceMut::new(&mut byte)]).unwrap(), 1);
        assert_eq!(&byte, expected);
    }
    let error = server.try_read(&mut [IoSliceMut::new(&mut [0])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn one_direction_ends_in_order_and_the_other_goes_on() {
    for (client, server) in [tls_pair().await, plain_pair().await] {
        write_all(&client, b"last words", 3).await;
        shutdown(&client).await;
        assert_eq!(read_to_end(&server).await.unwrap(), b"last words");
        assert_eq!(read(&server, &mut [IoSliceMut::new(&mut [0])]).await.unwrap(), 0);
        let error = client.try_write(&[IoSlice::new(b"more")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        write_all(&server, b"still here", 100).await;
        shutdown(&server).await;
        assert_eq!(read_to_end(&client).await.unwrap(), b"still here");
    }
}

/// The client's last handshake message, its data and its end can reach the server in one read.
#[tokio::test]
async fn data_and_end_right_behind_the_handshake_are_not_lost() {
    let config = Authority::new().config(&["node.example"], &[]);
    for len in [0, 1, 10_000, 100_000] {
        let data = pattern(len);
        let (a, b) = tcp_pair().await;
        let client = async {
            let (link, _) = LinkSocket::connect_tls(a, "node.example", &config).await.unwrap();
            write_all(&link, &data, 1 << 14).await;
            shutdown(&link).await;
            link
        };
        let (_client, server) = tokio::join!(client, LinkSocket::accept_tls(b, &config));
        assert!(read_to_end(&server.unwrap().0).await.unwrap() == data, "{len} bytes");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_not_an_end() {
    let (client, server) = tls_pair().await;
    write_all(&client, b"complete", 100).await;
    drop(client);
    assert_eq!(read_exact(&server, 8).await, b"complete");
    for _ in 0..2 {
        let error = read(&server, &mut [IoSliceMut::new(&mut [0])]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(record_error(&error), &RecordError::Truncated);
    }
}

/// A link whose client-to-server bytes after the handshake go through `meddle`.
async fn with_meddler(meddle: fn(&[u8]) -> Vec<u8>) -> (LinkSocket, LinkSocket) {
    let config = Authority::new().config(&["node.example"], &[]);
    let (client, near) = tcp_pair().await;
    let (far, server) = tcp_pair().await;
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
        (near.into_split(), far.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
    let armed = Arc::new(AtomicBool::new(false));
    tokio::spawn({
        let armed = armed.clone();
        async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(got @ 1..) = near_read.read(&mut buffer).await {
                let bytes = &buffer[..got];
                let bytes = if armed.load(Ordering::SeqCst) { meddle(bytes) } else { bytes.to_vec() };
                far_write.write_all(&bytes).await.unwrap();
            }
        }
    });
    let (client, server) = tokio::join!(
        LinkSocket::connect_tls(client, "node.example", &config),
        LinkSocket::accept_tls(server, &config)
    );
    // Both are done, so all of the handshake has passed.
    armed.store(true, Ordering::SeqCst);
    (client.unwrap().0, server.unwrap().0)
}

#[tokio::test]
async fn an_altered_record_is_refused_and_the_sender_told() {
    let (client, server) = with_meddler(|bytes| {
        let mut bytes = bytes.to_vec();
        bytes[20] ^= 1;
        bytes
    })
    .await;
    write_all(&client, &pattern(100), 100).await;
    for _ in 0..2 {
        let error = read(&server, &mut [IoSliceMut::new(&mut [0; 100])]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(record_error(&error), &RecordError::Crypto(rustls::Error::DecryptError));
    }
    let error = read(&client, &mut [IoSliceMut::new(&mut [0])]).await.unwrap_err();
    assert_eq!(record_error(&error), &RecordError::Alert(rustls::AlertDescription::BadRecordMac));
}

#[tokio::test]
async fn a_repeated_record_is_refused() {
    let (client, server) = with_meddler(|bytes| bytes.repeat(2)).await;
    write_all(&client, b"pay 5", 100).await;
    assert_eq!(read_exact(&server, 5).await, b"pay 5");
    let error = read(&server, &mut [IoSliceMut::new(&mut [0; 100])]).await.unwrap_err();
    assert_eq!(record_error(&error), &RecordError::Crypto(rustls::Error::DecryptError));
}

#[tokio::test]
async fn unencrypted_and_oversized_records_are_refused() {
    type Expected = fn(&RecordError) -> bool;
    let table: [(&[u8], Expected); 3] = [
        (b"DWCP plaintext", |error| matches!(error, RecordError::Unexpected { .. })),
        (&[21, 3, 3, 0, 2, 1, 0], |error| matches!(error, RecordError::Unexpected { .. })),
        (&[23, 3, 3, 0xff, 0xff], |error| matches!(error, RecordError::TooLong { len: 0xffff, .. })),
    ];
    for (bytes, expected) in table {
        let (client, server) = tls_pair().await;
        client.tcp().writable().await.unwrap();
        assert_eq!(client.tcp().try_write(bytes).unwrap(), bytes.len());
        let error = read(&server, &mut [IoSliceMut::new(&mut [0; 100])]).await.unwrap_err();
        assert!(expected(record_error(&error)), "{error:?}");
    }
}

#[tokio::test]
async fn keys_are_renewed_when_the_peer_asks() {
    let ca = Authority::new();
    let (ours, node) = (ca.config(&["node.example"], &[]), ca.issue(&["node.example"], VALID));

    let (a, b) = tcp_pair().await;
    let connector = TlsConnector::from(Arc::new(node.raw_client(&ca.pem)));
    let name = ServerName::try_from("node.example").unwrap();
    let (raw, link) = tokio::join!(connector.connect(name, a), LinkSocket::accept_tls(b, &ours));
    let (mut raw, link) = (raw.unwrap(), link.unwrap().0);
    for round in 0..5 {
        raw.get_mut().1.refresh_traffic_keys().unwrap();
        raw.write_all(&[round; 100]).await.unwrap();
        assert_eq!(read_exact(&link, 100).await, [round; 100]);
        write_all(&link, &[round; 100], 100).await;
        let mut back = [0; 100];
        raw.read_exact(&mut back).await.unwrap();
        assert_eq!(back, [round; 100]);
    }

    let (a, b) = tcp_pair().await;
    // This server also sends session tickets, which we skip.
    let acceptor = TlsAcceptor::from(Arc::new(node.raw_server(&ca.pem)));
    let (link, raw) = tokio::join!(LinkSocket::connect_tls(a, "node.example", &ours), acceptor.accept(b));
    let (link, mut raw) = (link.unwrap().0, raw.unwrap());
    for round in 0..5 {
        write_all(&link, &[round; 100], 100).await;
        let mut back = [0; 100];
        raw.read_exact(&mut back).await.unwrap();
        assert_eq!(back, [round; 100]);
        raw.get_mut().1.refresh_traffic_keys().unwrap();
        raw.write_all(&[round; 100]).await.unwrap();
        assert_eq!(read_exact(&link, 100).await, [round; 100]);
    }
    raw.shutdown().await.unwrap();
    assert_eq!(read_to_end(&link).await.unwrap(), b"");
}
