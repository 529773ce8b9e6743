//! The TLS handshake over a non-blocking socket, by rustls' unbuffered connections.
//!
//! Bounds memory, not time: the caller puts a timeout around the whole link handshake.

use std::{io, mem, sync::Arc};

use rustls::{
    ClientConfig, CommonState, Error, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus},
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use super::{
    HandshakeError,
    config::ALPN,
    hkdf::{Exporter, ExporterLog},
    keys::Established,
};

/// Unprocessed handshake bytes of a peer. rustls allows a certificate chain as much.
const INCOMING_BYTES_MAX: usize = 64 << 10;
/// Bytes read at once; a flight with one certificate fits.
const READ_BYTES: usize = 4 << 10;

/// What rustls does not send to a peer whose first bytes are not TLS: with it, a peer that was set to plaintext by
/// mistake knows (RFC 8446 section 6.2: fatal, unexpected_message).
const ALERT_UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// A finished handshake.
pub(super) struct Finished {
    pub(super) established: Established,
    pub(super) exporter: Option<Exporter>,
    pub(super) peer: Vec<CertificateDer<'static>>,
    /// Application data that was decrypted on the way.
    pub(super) early: Vec<u8>,
    /// Ciphertext read and not processed: the beginning of a record.
    pub(super) cipher: Vec<u8>,
    /// The peer's `close_notify` was among what was read.
    pub(super) peer_closed: bool,
}

pub(super) async fn connect(
    tcp: &TcpStream,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<Finished, HandshakeError> {
    let log = Arc::new(ExporterLog::default());
    let mut config = ClientConfig::clone(&config);
    config.key_log = log.clone();
    run(tcp, UnbufferedClientConnection::new(Arc::new(config), name)?, &log).await
}

pub(super) async fn accept(tcp: &TcpStream, config: Arc<ServerConfig>) -> Result<Finished, HandshakeError> {
    let log = Arc::new(ExporterLog::default());
    let mut config = ServerConfig::clone(&config);
    config.key_log = log.clone();
    run(tcp, UnbufferedServerConnection::new(Arc::new(config))?, &log).await
}

/// What rustls' two kinds of connection have in common, but not as a trait of its own.
trait Side: Send {
    type Data: Send;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    fn establish(self) -> Result<Established, Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn establish(self) -> Result<Established, Error> {
        Established::client(self)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn establish(self) -> Result<Established, Error> {
        Established::server(self)
    }
}

/// What goes through a handshake.
#[derive(Default)]
struct Exchange {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    early: Vec<u8>,
    peer_closed: bool,
}

/// What a step of the handshake asks for.
enum Need {
    NextStep,
    Send,
    Read,
}

async fn run<S: Side>(tcp: &TcpStream, mut side: S, log: &ExporterLog) -> Result<Finished, HandshakeError> {
    let mut exchange = Exchange::default();
    loop {
        match step(&mut side, &mut exchange) {
            Ok(Need::NextStep) => {}
            Ok(Need::Send) => send(tcp, &mut exchange.outgoing).await?,
            Ok(Need::Read) if side.state().is_handshaking() => read(tcp, &mut exchange.incoming).await?,
            Ok(Need::Read) => break,
            Err(error) => {
                // rustls has left an alert to be sent. The error is what counts, not its delivery.
                while let Ok(Need::NextStep) = step(&mut side, &mut exchange) {}
                let error = error.into();
                if matches!(error, HandshakeError::NotTls) {
                    exchange.outgoing.extend_from_slice(&ALERT_UNEXPECTED_MESSAGE);
                }
                let _ = send(tcp, &mut exchange.outgoing).await;
                return Err(error);
            }
        }
    }
    if side.state().alpn_protocol() != Some(ALPN) {
        return Err(HandshakeError::WrongProtocol);
    }
    // Both sides demand a certificate, so there is one.
    let peer = side.state().peer_certificates().unwrap_or_default();
    let peer = peer.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let Exchange { early, incoming: cipher, peer_closed, .. } = exchange;
    let exporter = log.take();
    Ok(Finished { established: side.establish()?, exporter, peer, early, cipher, peer_closed })
}

/// One state of rustls' machine: what it has to send is in `outgoing`, what it has consumed is gone
/// from `incoming`.
fn step<S: Side>(side: &mut S, exchange: &mut Exchange) -> Result<Need, Error> {
    let mut incoming = mem::take(&mut exchange.incoming);
    let UnbufferedStatus { mut discard, state } = side.process(&mut incoming);
    let need = state.and_then(|state| on_state(state, &mut discard, exchange));
    // After an error too: rustls remembers positions in what is left.
    incoming.drain(..discard);
    exchange.incoming = incoming;
    need
}

fn on_state<Data>(
    state: ConnectionState<'_, '_, Data>,
    discard: &mut usize,
    exchange: &mut Exchange,
) -> Result<Need, Error> {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let outgoing = &mut exchange.outgoing;
            let start = outgoing.len();
            let written = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    outgoing.resize(start + required_size, 0);
                    data.encode(&mut outgoing[start..])
                }
                other => other,
            };
            outgoing.truncate(start + written.map_err(|error| Error::General(error.to_string()))?);
            Ok(Need::NextStep)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Need::Send)
        }
        ConnectionState::ReadTraffic(mut data) => {
            while let Some(record) = data.next_record() {
                let record = record?;
                *discard += record.discard;
                exchange.early.extend_from_slice(record.payload);
            }
            Ok(Need::NextStep)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Need::Read),
        ConnectionState::PeerClosed => {
            exchange.peer_closed = true;
            Ok(Need::NextStep)
        }
        // Early data, which we do not offer, and the end of both directions, which we have not begun.
        _ => Err(Error::HandshakeNotComplete),
    }
}

async fn send(tcp: &TcpStream, outgoing: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let mut rest = outgoing.as_slice();
    while !rest.is_empty() {
        match tcp.try_write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tcp.writable().await.map_err(|source| HandshakeError::Io { call: "epoll_wait", source })?;
            }
            Err(source) => return Err(HandshakeError::Io { call: "write", source }),
        }
    }
    outgoing.clear();
    Ok(())
}

async fn read(tcp: &TcpStream, incoming: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let len = incoming.len();
    if len + READ_BYTES > INCOMING_BYTES_MAX {
        return Err(HandshakeError::TooLong { max: INCOMING_BYTES_MAX });
    }
    loop {
        tcp.readable().await.map_err(|source| HandshakeError::Io { call: "epoll_wait", source })?;
        incoming.resize(len + READ_BYTES, 0);
        let got = tcp.try_read(&mut incoming[len..]);
        incoming.truncate(len + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(0) => return Err(HandshakeError::Closed),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A peer that closes with our bytes unread resets.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(HandshakeError::Closed);
            }
            Err(source) => return Err(HandshakeError::Io { call: "read", source }),
        }
    }
}
