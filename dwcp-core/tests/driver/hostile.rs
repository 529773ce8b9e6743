//! Peers that are no peers, against an endpoint that goes on serving honest ones.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use dwcp_core::{
    ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, MessageError, Priority, ReadError,
    TlsConfig, WriteError, security::LinkSocket,
};
use dwcp_proto::{
    CloseCode,
    frame::{Codec, Decoded, FrameHeader, FrameType, HEADER_LEN},
    hello::{Capabilities, ConnectionId, HELLO_LEN_MAX, Hello, JoinToken},
    limits::{MESSAGE_WINDOW_MIN, WINDOW_MIN},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    links::links_up,
    support::{assert_requests_work_beside_bulk, assert_works, config, connect, listen, pattern},
};

/// A frame with correct checksums; `change` may spoil its header.
pub(crate) fn frame(ty: FrameType, payload: &[u8], change: impl FnOnce(&mut FrameHeader)) -> Vec<u8> {
    let len = payload.len() as u32;
    let mut header = FrameHeader { wire_len: len, raw_len: len, ..FrameHeader::new(ty) };
    header.flags = header.flags.with_payload_crc(true);
    header.payload_crc = crc32fast::hash(payload);
    change(&mut header);
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn hello() -> Hello {
    Hello {
        minor: 0,
        link: 0,
        connection: ConnectionId::default(),
        token: JoinToken::default(),
        capabilities: Capabilities {
            node_id: "raw".into(),
            region: String::new(),
            codecs: 7,
            dictionaries: Vec::new(),
            links_max: 8,
            frame_bytes_max: 64 << 10,
            connection_window: WINDOW_MIN << 8,
            stream_window: WINDOW_MIN << 8,
            message_window: MESSAGE_WINDOW_MIN,
            streams_max: 8,
            payload_crc: true,
            resume_timeout_ms: 1000,
        },
        rdma: Vec::new(),
        datagram_port: 0,
    }
}

fn hello_frame(hello: &Hello) -> Vec<u8> {
    frame(FrameType::Hello, &hello.encode(), |_| {})
}

/// The next frame, or `None` at the end of the connection (in whatever manner).
async fn next_frame(socket: &mut TcpStream) -> Option<(FrameHeader, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head).await.ok()?;
    let Ok(Decoded::Frame(header)) = FrameHeader::decode(&head, 4 << 20) else {
        panic!("the endpoint sent a bad header")
    };
    let mut payload = vec![0; header.wire_len as usize];
    socket.read_exact(&mut payload).await.ok()?;
    Some((header, payload))
}

/// Reads to the end; the code of the CLOSE on the way, if there is one.
pub(crate) async fn close_code(socket: &mut TcpStream) -> Option<CloseCode> {
    let mut code = None;
    while let Some((header, payload)) = next_frame(socket).await {
        if header.ty == FrameType::Close {
            code = Some(CloseCode(u32::from_le_bytes(payload[..4].try_into().unwrap())));
        }
    }
    code
}

async fn send_and_read_close(addr: SocketAddr, bytes: &[u8]) -> Option<CloseCode> {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    close_code(&mut socket).await
}

/// A raw peer after its handshake, and the endpoint's side of the connection.
pub(crate) async fn shake_hands(server: &Endpoint, addr: SocketAddr) -> (TcpStream, Connection, Hello) {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(&hello_frame(&hello())).await.unwrap();
    let (header, payload) = next_frame(&mut socket).await.unwrap();
    assert_eq!(header.ty, FrameType::Hello);
    (socket, server.accept().await.unwrap(), Hello::decode(&payload).unwrap())
}

// DWCP-4.1: the first frame is HELLO, with a checksum.
#[tokio::test]
async fn bad_beginnings_are_refused_and_change_nothing() {
    let (server, addr) = listen(config("server", 1)).await;
    let (honest, honest_peer) = connect(&server, addr, config("early", 1)).await;

    let strangers: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 the beginning of a TLS ClientHello",
        &[0; 4096],
        b"SSH-2.0-OpenSSH_9.2 and then enough to fill a header",
    ];
    for bytes in strangers {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await; // a reset is as good as an end
        assert_eq!(answer, b"", "a stranger gets no bytes it cannot understand");
    }

    let mut other_version = hello_frame(&hello());
    other_version[1] = 2;
    assert_eq!(send_and_read_close(addr, &other_version).await, Some(CloseCode::VERSION_UNSUPPORTED));

    // Every bit of the header but those of magic and version.
    for bit in 16..HEADER_LEN * 8 {
        let mut flipped = hello_frame(&hello());
        flipped[bit / 8] ^= 1 << (bit % 8);
        let code = send_and_read_close(addr, &flipped).await;
        assert_eq!(code, Some(CloseCode::CHECKSUM_MISMATCH), "bit {bit}");
    }
    let mut flipped = hello_frame(&hello());
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(send_and_read_close(addr, &flipped).await, Some(CloseCode::CHECKSUM_MISMATCH));

    let four_gib = frame(FrameType::Hello, b"", |header| {
        header.wire_len = u32::MAX;
        header.raw_len = u32::MAX;
    });
    assert_eq!(send_and_read_close(addr, &four_gib).await, Some(CloseCode::FRAME_TOO_LARGE));
    let too_long = frame(FrameType::Hello, &vec![0; HELLO_LEN_MAX + 1], |_| {});
    assert_eq!(send_and_read_close(addr, &too_long).await, Some(CloseCode::FRAME_TOO_LARGE));
    let cut = frame(FrameType::Hello, &hello().encode()[..40], |_| {});
    assert_eq!(send_and_read_close(addr, &cut).await, Some(CloseCode::PROTOCOL_ERROR));
    let data_first = frame(FrameType::Data, b"hello?", |header| header.stream = 1);
    assert_eq!(send_and_read_close(addr, &data_first).await, Some(CloseCode::PROTOCOL_ERROR));

    assert_works(&honest, &honest_peer).await;
    let (a, b) = connect(&server, addr, config("late", 2)).await;
    assert_works(&a, &b).await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_only_their_connection() {
    let (server, addr) = listen(config("server", 1)).await;
    let (honest, honest_peer) = connect(&server, addr, config("honest", 1)).await;
    let mut bad_header = frame(FrameType::Ping, b"", |_| {});
    bad_header[20] ^= 1;
    let cases = [
        ("garbage", vec![0x55; 64], CloseCode::PROTOCOL_ERROR),
        ("bit flip", bad_header, CloseCode::CHECKSUM_MISMATCH),
        (
            "4 GiB",
            frame(FrameType::Data, b"", |header| {
                header.stream = 1;
                header.wire_len = u32::MAX;
                header.raw_len = u32::MAX;
            }),
            CloseCode::FRAME_TOO_LARGE,
        ),
        ("second HELLO", hello_frame(&hello()), CloseCode::PROTOCOL_ERROR),
        (
            "beyond credit",
            frame(FrameType::Data, b"x", |header| {
                header.stream = 1;
                header.offset = 1 << 40;
            }),
            CloseCode::CREDIT_EXCEEDED,
        ),
    ];
    for (what, bytes, code) in cases {
        let (mut socket, peer, _) = shake_hands(&server, addr).await;
        socket.write_all(&bytes).await.unwrap();
        let error = peer.closed().await;
        assert!(matches!(error, ConnectionError::Protocol(_)), "{what}: {error:?}");
        assert_eq!(close_code(&mut socket).await, Some(code), "{what}");
    }
    assert_works(&honest, &honest_peer).await;
}

// DWCP-4.1: the time for a handshake is bounded.
#[tokio::test]
async fn slow_and_silent_handshakes_time_out() {
    let mut settings = config("server", 1);
    settings.transport.handshake_timeout = Duration::from_secs(1);
    let (server, addr) = listen(settings).await;
    let mut silent = TcpStream::connect(addr).await.unwrap();
    let mut slow = TcpStream::connect(addr).await.unwrap();
    let trickle = async {
        for byte in hello_frame(&hello()) {
            if slow.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("a handshake of one byte in 50 ms was not given up");
    };
    let mut byte = [0];
    let (_, ended) = tokio::join!(trickle, silent.read(&mut byte));
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // On a busy machine an honest one may be too slow as well, but not every time.
    let client = Endpoint::client(config("honest", 1)).unwrap();
    for _ in 0..20 {
        if let Ok(a) = client.connect(addr, "localhost").await {
            return assert_works(&a, &server.accept().await.unwrap()).await;
        }
    }
    panic!("an honest client does not get in");
}

/// Its kernel takes what fits into a socket buffer, its program nothing: neither an answer nor a byte comes back.
#[tokio::test]
async fn a_peer_that_never_reads_is_given_up_and_nobody_else_waits() {
    let mut settings = config("server", 1);
    settings.transport.keepalive_interval = Duration::from_secs(1);
    settings.transport.resume_timeout = Duration::from_secs(1);
    let (server, addr) = listen(settings).await;
    let greedy = Hello {
        capabilities: Capabilities {
            connection_window: 1 << 40,
            stream_window: 1 << 40,
            ..hello().capabilities
        },
        ..hello()
    };
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(&hello_frame(&greedy)).await.unwrap();
    let peer = server.accept().await.unwrap();
    let writing = tokio::spawn({
        let peer = peer.clone();
        async move {
            let (mut send, _recv) = peer.open_stream().await.unwrap();
            send.write_bytes(pattern(256 << 20)).await
        }
    });
    let (a, b) = connect(&server, addr, config("honest", 1)).await;
    assert_works(&a, &b).await;
    let gone = ConnectionError::ResumeTimedOut(Duration::from_secs(1));
    assert_eq!(writing.await.unwrap(), Err(WriteError::Connection(gone)));
    assert!(peer.stats().bytes_sent < 64 << 20, "what waits is bounded: {:?}", peer.stats());
}

// DWCP-2.3, DWCP-4.5
#[tokio::test]
async fn links_join_only_with_the_right_id_and_token() {
    let mut settings = config("server", 1);
    settings.transport.streams.max = 2;
    let (server, addr) = listen(settings).await;
    let (_socket, peer, answer) = shake_hands(&server, addr).await;
    let (_other_socket, _other_peer, other) = shake_hands(&server, addr).await;
    assert!(answer.connection != ConnectionId::default() && answer.token != JoinToken::default());
    assert!(answer.connection != other.connection && answer.token != other.token);
    let join = |connection, token| Hello { link: 5, connection, token, ..hello() };
    let wrong_token = join(answer.connection, JoinToken([9; 16]));
    let wrong_id = join(ConnectionId([9; 16]), answer.token);
    for hello in [wrong_token, wrong_id] {
        let code = send_and_read_close(addr, &hello_frame(&hello)).await;
        assert_eq!(code, Some(CloseCode::UNKNOWN_CONNECTION));
    }
    let mut right = TcpStream::connect(addr).await.unwrap();
    let mut joining = join(answer.connection, answer.token);
    joining.capabilities.node_id = "somebody else".into();
    joining.capabilities.streams_max = 1;
    right.write_all(&hello_frame(&joining)).await.unwrap();
    let (header, payload) = next_frame(&mut right).await.unwrap();
    assert_eq!(header.ty, FrameType::Hello);
    let joined = Hello::decode(&payload).unwrap();
    assert_eq!((joined.link, joined.connection), (5, answer.connection));
    // The token is told once, to the one who made the connection.
    assert!(joined.token == JoinToken::default());
    links_up(&peer, 2).await;
    assert_eq!(peer.peer().node_id, "raw", "what a joining link says of itself does not count");
    let mut streams = Vec::new();
    for _ in 0..hello().capabilities.streams_max {
        streams.push(peer.open_stream().await.unwrap());
    }
    let third = Hello { link: 6, ..joining };
    assert_eq!(send_and_read_close(addr, &hello_frame(&third)).await, Some(CloseCode::BUSY));
    peer.close(0, "");
    drop(peer);
    let gone = send_and_read_close(addr, &hello_frame(&join(answer.connection, answer.token))).await;
    assert_eq!(gone, Some(CloseCode::UNKNOWN_CONNECTION));
}

/// Nodes of one authority, or of another that nobody trusts.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Issued here, trusting `trusted`.
    pub(crate) fn node(&self, name: &str, trusted: &Self) -> EndpointConfig {
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        let tls = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes(), trusted.pem.as_bytes(), None).unwrap();
        let mut config = config(name, 1);
        config.tls = Some(Arc::new(tls));
        config
    }
}

async fn refused(server: EndpointConfig, client: EndpointConfig) -> ConnectError {
    let (_server, addr) = listen(server).await;
    Endpoint::client(client).unwrap().connect(addr, "localhost").await.unwrap_err()
}

// DWCP-10.1, DWCP-10.3: neither side gives in.
#[tokio::test]
async fn a_mismatch_of_tls_and_plaintext_is_said_clearly() {
    let authority = Authority::new("ours");
    let tls = || authority.node("localhost", &authority);
    let error = refused(tls(), config("plain", 1)).await;
    assert!(matches!(error, ConnectError::PeerSpeaksTls { .. }), "{error:?}");
    let error = refused(config("plain", 1), tls()).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("plaintext"), "{error}");
}

/// The server judges our certificate when our side of the handshake is already over.
#[tokio::test]
async fn a_refused_client_certificate_is_said_clearly() {
    let ours = Authority::new("ours");
    for round in 0..20 {
        // One that is unknown, or one that claims to be ours and cannot sign as it.
        let other = Authority::new(if round % 2 == 0 { "other" } else { "ours" });
        let error = refused(ours.node("localhost", &ours), other.node("client", &ours)).await;
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("refused our certificate"), "{error}");
    }
}

/// Knowing id and token is not enough: with TLS the link must come from the same node (DWCP-10.1).
#[tokio::test]
async fn a_link_of_another_node_does_not_join() {
    let authority = Authority::new("ours");
    let (server, addr) = listen(authority.node("localhost", &authority)).await;
    let [owner, thief] = ["owner", "thief"].map(|name| authority.node(name, &authority).tls.unwrap());
    let mut owner_link = TlsPeer::connect(addr, &owner).await;
    let answer = owner_link.ask(&hello()).await.unwrap();
    let _connection = server.accept().await.unwrap();
    let join = Hello { link: 1, connection: answer.connection, token: answer.token, ..hello() };
    let refused = TlsPeer::connect(addr, &thief).await.ask(&join).await;
    assert_eq!(refused, Err(CloseCode::UNKNOWN_CONNECTION));
    let joined = TlsPeer::connect(addr, &owner).await.ask(&join).await;
    assert_eq!(joined.map(|hello| hello.link), Ok(1));
}

/// A raw peer behind TLS.
struct TlsPeer(LinkSocket);

impl TlsPeer {
    async fn connect(addr: SocketAddr, tls: &TlsConfig) -> Self {
        let tcp = TcpStream::connect(addr).await.unwrap();
        Self(LinkSocket::connect_tls(tcp, "localhost", tls).await.unwrap().0)
    }

    /// Sends a HELLO; the HELLO that answers it, or the code of the refusal.
    async fn ask(&mut self, hello: &Hello) -> Result<Hello, CloseCode> {
        self.0.try_write(&[IoSlice::new(&hello_frame(hello))]).unwrap();
        let mut head = [0; HEADER_LEN];
        self.read_exact(&mut head).await;
        let Ok(Decoded::Frame(header)) = FrameHeader::decode(&head, 4096) else { panic!("bad header") };
        let mut payload = vec![0; header.wire_len as usize];
        self.read_exact(&mut payload).await;
        match header.ty {
            FrameType::Hello => Ok(Hello::decode(&payload).unwrap()),
            _ => Err(CloseCode(u32::from_le_bytes(payload[..4].try_into().unwrap()))),
        }
    }

    async fn read_exact(&self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            match self.0.try_read(&mut [IoSliceMut::new(buffer)]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.0.readable().await.unwrap(),
                count => buffer = &mut buffer[count.unwrap()..],
            }
        }
    }
}

/// DWCP-10.4: what a frame says of its size is all that is decoded of it.
#[tokio::test]
async fn a_frame_that_decodes_to_more_than_it_says_is_refused() {
    const SAYS: u32 = 2000;
    let bombs = [
        (Codec::Zstd, zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap()),
        (Codec::Lz4, lz4_flex::block::compress(&vec![0; 256 << 10])),
    ];
    for (codec, bomb) in bombs {
        assert!(bomb.len() < SAYS as usize, "{codec:?}: {} bytes", bomb.len());
        let (server, addr) = listen(config("server", 1)).await;
        let (mut socket, connection, _) = shake_hands(&server, addr).await;
        let bomb = frame(FrameType::Data, &bomb, |header| {
            header.stream = 1;
            header.raw_len = SAYS;
            header.flags = header.flags.with_codec(codec);
        });
        socket.write_all(&bomb).await.unwrap();
        let (_send, mut recv) = connection.accept_stream().await.unwrap();
        let error = recv.read_chunk().await.unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { offset: 0, .. }), "{codec:?}: {error:?}");
    }
}

/// After a broken frame nothing is a frame any more, however much follows: it is thrown away, and the peer learns why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_without_end_after_a_large_frame_gets_one_close() {
    let (server, addr) = listen(config("server", 1)).await;
    let (socket, connection, _) = shake_hands(&server, addr).await;
    let (mut reading, mut writing) = socket.into_split();
    let large = frame(FrameType::Data, &[7; 60_000], |header| header.stream = 1);
    writing.write_all(&large).await.unwrap();
    let flood = tokio::spawn(async move {
        // Small pieces, so that many reads are needed; an error: the endpoint has closed.
        for _ in 0..500 {
            if writing.write_all(&[0xa5; 4096]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut answer = Vec::new();
    let _ = reading.read_to_end(&mut answer).await; // a reset is as good as an end
    flood.await.unwrap();
    let reason = connection.closed().await;
    assert!(matches!(reason, ConnectionError::Protocol(_)), "{reason}");
}

/// DWCP-10.5: who asked learns that there is no answer. The peer's CLOSE may come while he polls the socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_instead_of_answering_fails_the_request() {
    for _ in 0..50 {
        let (server, addr) = listen(config("server", 1)).await;
        let (a, b) = connect(&server, addr, config("client", 1)).await;
        let answering = tokio::spawn(async move {
            let question = b.messages().recv().await.unwrap();
            b.close(7, "no answer");
            drop(question);
        });
        let error =
            a.messages().request(Priority::Normal, "?".into(), Duration::from_secs(100)).await.unwrap_err();
        let MessageError::Connection(ConnectionError::ClosedByPeer(reason)) = error else {
            panic!("{error}")
        };
        assert_eq!(reason.code, CloseCode(0x1007)); // of the application
        answering.await.unwrap();
    }
}

// DWCP-10.1: who the peer is follows from its certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_connections_work_over_several_links() {
    let authority = Authority::new("ours");
    let (server, addr) = listen(authority.node("localhost", &authority)).await;
    let mut settings = authority.node("client", &authority);
    settings.transport.streams.initial = 3;
    let (a, b) = connect(&server, addr, settings).await;
    assert_eq!(
        (&a.peer().names[..], &b.peer().names[..]),
        (&["localhost".into()][..], &["client".into()][..])
    );
    while b.stats().links.len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_works(&a, &b).await;
    assert_requests_work_beside_bulk(&a, &b).await;
}
