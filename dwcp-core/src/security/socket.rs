//! One connected TCP socket, plain or TLS, for several tasks; or an RDMA stream that has taken its place.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dwcp_sys::options;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::{
    HandshakeError, TlsConfig,
    handshake::{self, Finished},
    hkdf::Exporter,
    record_read::{Progress, RecordReader},
    record_write::RecordWriter,
};
use crate::rdma::RdmaSocket;

/// Between looks at a socket that cannot be waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A connected TCP socket, plain or TLS. All methods take `&self`; reading and writing do not wait for
/// each other. The `try_` methods do not block: they fail with `WouldBlock`, and then
/// [`readable`](Self::readable) or [`writable`](Self::writable) tells when to call again.
///
/// With TLS a socket that is dropped without [`shutdown_write`](Self::shutdown_write) looks cut off
/// to the peer, which is the truth.
pub struct LinkSocket {
    tcp: TcpStream,
    tls: Option<Tls>,
    /// Until it was asked for.
    exporter: Option<Exporter>,
    /// Carries all bytes, if it is there.
    rdma: Option<RdmaSocket>,
    /// Sends by reference are enabled: what the reactor knows of this socket's writing may be wrong.
    has_completions: AtomicBool,
    /// Another registration of the same socket, after the last completion.
    renewed: OnceLock<TcpStream>,
}

struct Tls {
    reader: Mutex<RecordReader>,
    /// Locked after `reader` where both are needed.
    writer: Mutex<RecordWriter>,
}

impl LinkSocket {
    /// Without encryption.
    pub fn plain(tcp: TcpStream) -> Self {
        Self {
            tcp,
            tls: None,
            exporter: None,
            rdma: None,
            has_completions: AtomicBool::new(false),
            renewed: OnceLock::new(),
        }
    }

    /// Performs the client's side of a TLS handshake; the peer's certificate must be for
    /// `server_name`, a DNS name or an IP address. Also returns the peer's subject alternative names.
    ///
    /// That the peer accepts *our* certificate is known only with the first byte it sends: if it does
    /// not, [`try_read`](Self::try_read) fails with its alert (RFC 8446 section 4.4.2.4).
    pub async fn connect_tls(
        tcp: TcpStream,
        server_name: &str,
        config: &TlsConfig,
    ) -> Result<(Self, Vec<String>), HandshakeError> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| HandshakeError::BadServerName { name: server_name.to_owned() })?;
        let finished = handshake::connect(&tcp, name, config.client_config()).await?;
        Self::tls(tcp, finished, config)
    }

    /// Performs the server's side of a TLS handshake. Also returns the peer's subject alternative names.
    pub async fn accept_tls(
        tcp: TcpStream,
        config: &TlsConfig,
    ) -> Result<(Self, Vec<String>), HandshakeError> {
        let finished = handshake::accept(&tcp, config.server_config()).await?;
        Self::tls(tcp, finished, config)
    }

    fn tls(
        tcp: TcpStream,
        finished: Finished,
        config: &TlsConfig,
    ) -> Result<(Self, Vec<String>), HandshakeError> {
        let names = config.check_peer(&finished.peer)?;
        let Finished { established, exporter, early, cipher, peer_closed, .. } = finished;
        let keys = Arc::new(established.schedule);
        let reader = RecordReader::new(keys.clone(), established.read, &early, &cipher, peer_closed);
        let writer = RecordWriter::new(keys, established.write);
        let tls = Tls { reader: Mutex::new(reader), writer: Mutex::new(writer) };
        Ok((
            Self {
                tcp,
                tls: Some(tls),
                exporter,
                rdma: None,
                has_completions: AtomicBool::new(false),
                renewed: OnceLock::new(),
            },
            names,
        ))
    }

    /// The TCP socket, for its options. Reading or writing through it breaks TLS.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What makes further secrets of the TLS handshake, once; `None` without TLS.
    pub(crate) fn take_exporter(&mut self) -> Option<Exporter> {
        self.exporter.take()
    }

    /// Reads and writes over RDMA from now on. TCP has to be silent, in both directions: its end is the socket's.
    pub(crate) fn go_over(&mut self, rdma: RdmaSocket) {
        self.rdma = Some(rdma);
    }

    /// The RDMA stream, if the socket has gone over to one.
    pub(crate) fn rdma(&self) -> Option<&RdmaSocket> {
        self.rdma.as_ref()
    }

    /// Whether the socket encrypts, or did until it went over to RDMA.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes bytes from the front of `bufs` and returns how many, with TLS at most 256 KiB.
    ///
    /// With TLS they count as taken when encrypted; what the kernel does not take at once
    /// [is left](Self::has_unflushed) for the next call or [`try_flush`](Self::try_flush). Nothing more
    /// is taken until then: what is queued here cannot be overtaken.
    pub fn try_write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(rdma) = &self.rdma {
            return rdma.try_write(bufs);
        }
        let Some(tls) = &self.tls else {
            return self.write(bufs);
        };
        let mut writer = tls.writer();
        self.flush(&mut writer)?;
        let taken = writer.encrypt(bufs)?;
        match self.flush(&mut writer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// As [`try_write`](Self::try_write), but the kernel may wait for what follows at once before it sends.
    /// Not with TLS.
    pub(crate) fn try_write_with_more_to_come(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(self.tls.is_none(), "records are sent by try_write");
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.write_with(bufs, |bufs| {
            Ok(sendmsg(&self.tcp, bufs, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    /// Prepares for [`try_write_by_reference`](Self::try_write_by_reference).
    pub(crate) fn enable_zerocopy(&self) -> io::Result<()> {
        options::set_zerocopy(&self.tcp, true).map_err(|error| error.source)?;
        self.has_completions.store(true, Ordering::Release);
        Ok(())
    }

    /// Hands `buf` to the kernel without copying it. It has to stay as it is until its completion
    /// (see [`dwcp_sys::zerocopy`]). Not with TLS.
    pub(crate) fn try_write_by_reference(&self, buf: &[u8]) -> io::Result<usize> {
        assert!(self.tls.is_none(), "what is sent would not be encrypted");
        self.write_with(&[IoSlice::new(buf)], |bufs| dwcp_sys::zerocopy::send_vectored(&self.tcp, bufs))
    }

    /// Encrypted bytes wait for the kernel. Never so without TLS.
    pub fn has_unflushed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.writer().has_pending())
    }

    /// Hands all encrypted bytes to the kernel, or fails with `WouldBlock`.
    pub fn try_flush(&self) -> io::Result<()> {
        match &self.tls {
            Some(tls) => self.flush(&mut tls.writer()),
            None => Ok(()),
        }
    }

    /// Fills `bufs` with what is there, at least one byte; 0 at the peer's orderly end, or if all of
    /// `bufs` are empty.
    ///
    /// # Errors
    /// `WouldBlock`; those of the kernel; with TLS a [`RecordError`](super::RecordError) inside, of kind
    /// `UnexpectedEof` if the connection was cut off, `ConnectionAborted` after an alert and
    /// `InvalidData` for what does not decrypt. They are final.
    pub fn try_read(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.try_read_with(bufs, |bufs| self.read(bufs))
    }

    /// As [`try_read`](Self::try_read), but asks the kernel even where the reactor has seen nothing come: for whoever
    /// polls. `WouldBlock` says nothing about [`readable`](Self::readable) then.
    pub(crate) fn try_read_directly(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.try_read_with(bufs, |bufs| match bufs {
            // A little faster, and this is called very often.
            [one] => Ok(rustix::net::recv(&self.tcp, &mut **one, rustix::net::RecvFlags::empty())?.0),
            _ => Ok(rustix::io::readv(&self.tcp, bufs)?),
        })
    }

    /// Decrypted bytes wait to be read. Never so without TLS.
    pub(crate) fn has_decrypted(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.reader().is_ready())
    }

    fn try_read_with(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        read: impl Fn(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if let Some(rdma) = &self.rdma {
            return rdma.try_read(bufs);
        }
        let Some(tls) = &self.tls else {
            return read(bufs);
        };
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let mut reader = tls.reader();
        loop {
            let progress = reader.read(bufs);
            if reader.take_key_update_request() {
                let mut writer = tls.writer();
                writer.update_key().map_err(io::Error::other)?;
                // If the kernel is full, the writing task finds it with `has_unflushed`.
                let _ = self.flush(&mut writer);
            }
            match progress {
                Ok(Progress::Data(copied)) => return Ok(copied),
                Ok(Progress::Closed) => return Ok(0),
                Ok(Progress::NeedsInput) => reader.fill(|buffer| read(&mut [IoSliceMut::new(buffer)]))?,
                Err(error) => {
                    if let Some(alert) = error.alert() {
                        let mut writer = tls.writer();
                        // A courtesy; the error is what counts.
                        let _ = writer.abort(alert);
                        let _ = self.flush(&mut writer);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Returns when [`try_read`](Self::try_read) has a chance: at once while decrypted bytes wait.
    /// Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        if let Some(rdma) = &self.rdma {
            return rdma.readable(&self.tcp).await;
        }
        if self.has_decrypted() {
            return Ok(());
        }
        self.tcp.readable().await
    }

    /// Returns when [`try_write`](Self::try_write) has a chance, or completions have come. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        if let Some(rdma) = &self.rdma {
            return rdma.writable().await;
        }
        let ready = self.writing().ready(Interest::WRITABLE).await?;
        if !self.has_completions() || !ready.is_write_closed() {
            return Ok(());
        }
        // Completions show as EPOLLERR. Beside EPOLLOUT tokio takes that for the end of writing and calls this
        // registration of the socket writable for ever after: whoever waits would spin. A new one knows nothing of it.
        match register_again(&self.tcp) {
            Ok(again) => again.writable().await,
            // No descriptor is free, say: the caller tries, and asks again.
            Err(error) => {
                tracing::debug!(%error, "waiting for room by looking");
                tokio::time::sleep(LOOK_INTERVAL).await;
                Ok(())
            }
        }
    }

    /// Nothing is sent by reference any more, and all completions are there: the reactor can be relied on again.
    pub(crate) fn end_zerocopy(&self) {
        if let Ok(again) = register_again(&self.tcp) {
            let _ = self.renewed.set(again); // an error: it is there already
            self.has_completions.store(false, Ordering::Release);
        }
    }

    /// Whether completions may come, or have come.
    pub(crate) fn has_completions(&self) -> bool {
        self.has_completions.load(Ordering::Acquire)
    }

    /// The registration of the socket that tells about writing.
    fn writing(&self) -> &TcpStream {
        self.renewed.get().unwrap_or(&self.tcp)
    }

    /// Lets the socket end with a reset when it is dropped, and what it still has to send be forgotten.
    pub(crate) fn abort_on_drop(&self) {
        // An error: it is gone already.
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    /// Ends our direction in order, after all that was taken: `close_notify` with TLS, then a TCP FIN.
    /// On `WouldBlock` call again when writable.
    pub fn shutdown_write(&self) -> io::Result<()> {
        if let Some(rdma) = &self.rdma {
            return rdma.shutdown_write();
        }
        if let Some(tls) = &self.tls {
            let mut writer = tls.writer();
            writer.close().map_err(io::Error::other)?;
            self.flush(&mut writer)?;
        }
        options::shutdown_write(&self.tcp).map_err(|error| error.source)
    }

    fn write(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(bufs, |bufs| SockRef::from(&self.tcp).send_vectored(bufs))
    }

    fn write_with(
        &self,
        bufs: &[IoSlice<'_>],
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.try_io(self.writing(), Interest::WRITABLE, bufs.iter().map(|buf| buf.len()).sum(), || {
            let count = write(bufs)?;
            #[cfg(test)]
            crate::copies::sent(bufs, count);
            Ok(count)
        })
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let want = bufs.iter().map(|buf| buf.len()).sum();
        self.try_io(&self.tcp, Interest::READABLE, want, || {
            let count = rustix::io::readv(&self.tcp, bufs)?;
            #[cfg(test)]
            crate::copies::read(bufs, count);
            Ok(count)
        })
    }

    /// A short count says that the socket is drained or full. Telling the reactor so at once saves the system call
    /// that would only answer "would block"; the end of the stream stays visible, it is a readiness of its own.
    fn try_io(
        &self,
        tcp: &TcpStream,
        interest: Interest,
        want: usize,
        io: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut short = None;
        let result = tcp.try_io(interest, || match io()? {
            count if 0 < count && count < want => {
                short = Some(count);
                Err(io::ErrorKind::WouldBlock.into())
            }
            count => Ok(count),
        });
        short.map_or(result, Ok)
    }

    fn flush(&self, writer: &mut RecordWriter) -> io::Result<()> {
        writer.flush(|bytes| self.write(&[IoSlice::new(bytes)]))
    }
}

/// A registration of its own of the same socket.
fn register_again(tcp: &TcpStream) -> io::Result<TcpStream> {
    tokio::runtime::Handle::try_current().map_err(io::Error::other)?; // the caller's thread may be any
    TcpStream::from_std(std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?))
}

impl Tls {
    fn reader(&self) -> MutexGuard<'_, RecordReader> {
        self.reader.lock().expect("a read of this link panicked before")
    }

    fn writer(&self) -> MutexGuard<'_, RecordWriter> {
        self.writer.lock().expect("a write of this link panicked before")
    }
}

impl fmt::Debug for LinkSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSocket").field("tcp", &self.tcp).field("tls", &self.is_tls()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustix::io::Errno;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;
    use crate::security::RecordError;

    async fn pair() -> (LinkSocket, LinkSocket) {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["node.example".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap().pem();
        let key = key.serialize_pem();
        let config = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes(), ca.as_bytes(), None).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (a, b) = tokio::join!(
            LinkSocket::connect_tls(a.unwrap(), "node.example", &config),
            LinkSocket::accept_tls(b.unwrap().0, &config)
        );
        (a.unwrap().0, b.unwrap().0)
    }

    async fn read(link: &LinkSocket, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match link.try_read(&mut [IoSliceMut::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.readable().await?,
                other => return other,
            }
        }
    }

    fn writer(link: &LinkSocket) -> MutexGuard<'_, RecordWriter> {
        link.tls.as_ref().unwrap().writer()
    }

    /// A key lasts for 2^24 records; here for five, so that most renewals happen inside one write.
    #[tokio::test]
    async fn worn_keys_are_replaced_in_the_middle_of_data() {
        let (client, server) = pair().await;
        writer(&client).set_records_per_key_max(5);
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let (mut sent, mut got) = (0, Vec::new());
        let mut buffer = vec![0; 100_000];
        while got.len() < data.len() {
            match client.try_write(&[IoSlice::new(&data[sent..])]) {
                Ok(taken) => sent += taken,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            assert!(writer(&client).records_with_this_key() <= 5);
            let len = read(&server, &mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..len]);
        }
        assert!(got == data);
    }

    #[tokio::test]
    async fn a_request_for_new_keys_is_answered_with_new_keys() {
        let (client, server) = pair().await;
        for round in 0..3 {
            writer(&server).set_records_per_key_max(1000);
            server.try_write(&[IoSlice::new(&[round])]).unwrap();
            let before = writer(&server).records_with_this_key();
            writer(&client).request_key_update().unwrap();
            client.try_flush().unwrap();
            client.try_write(&[IoSlice::new(&[round])]).unwrap();
            read(&server, &mut [0]).await.unwrap();
            assert!(before > 0 && writer(&server).records_with_this_key() == 0);
            server.try_write(&[IoSlice::new(&[round])]).unwrap();
            let mut bytes = [9; 2];
            let first = read(&client, &mut bytes).await.unwrap();
            let second = if first < 2 { read(&client, &mut bytes[first..]).await.unwrap() } else { 0 };
            assert_eq!((first + second, bytes), (2, [round; 2]));
        }
    }

    /// A kernel that takes little at a time ends inside the same record again and again.
    #[tokio::test]
    async fn a_trickle_of_partial_writes_is_the_same_stream() {
        let (client, server) = pair().await;
        let data: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
        let mut wire = Vec::new();
        {
            let mut writer = writer(&client);
            assert_eq!(writer.encrypt(&[IoSlice::new(&data)]).unwrap(), data.len());
            let mut calls = 0;
            while writer.has_pending() {
                let flushed = writer.flush(|bytes| {
                    calls += 1;
                    assert!(calls < 1000, "makes no progress");
                    if calls % 3 == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let taken = bytes.len().min(777);
                    wire.extend_from_slice(&bytes[..taken]);
                    Ok(taken)
                });
                assert_eq!(flushed.is_ok(), !writer.has_pending());
            }
        }
        client.tcp.writable().await.unwrap();
        assert_eq!(client.tcp.try_write(&wire).unwrap(), wire.len());
        let (mut got, mut buffer) = (Vec::new(), vec![0; 100_000]);
        while got.len() < data.len() {
            let len = read(&server, &mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..len]);
        }
        assert!(got == data);
    }

    #[tokio::test]
    async fn many_requests_for_new_keys_that_come_at_once_get_one_answer() {
        let (client, _server) = pair().await;
        let mut writer = writer(&client);
        for _ in 0..10 {
            writer.update_key().unwrap();
        }
        let mut sent = 0;
        writer
            .flush(|bytes| {
                sent += bytes.len();
                Ok(bytes.len())
            })
            .unwrap();
        // Header, message, inner type, tag.
        assert_eq!(sent, 5 + 5 + 1 + 16);
    }

    /// The reactor takes a completion for the end of writing; whoever waits for room must not take that for room.
    #[tokio::test]
    async fn a_full_socket_is_not_writable_after_completions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (link, mut peer) = (LinkSocket::plain(a.unwrap()), b.unwrap().0);
        link.enable_zerocopy().unwrap();
        let data = vec![7; 1 << 20];
        let mut sent = 0;
        let mut fill = || {
            let mut sends = 0;
            loop {
                match link.try_write_by_reference(&data) {
                    Ok(count) => (sent, sends) = (sent + count, sends + 1),
                    // Or no more memory may be pinned.
                    Err(error) => {
                        let no_memory = error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error());
                        assert!(no_memory || error.kind() == io::ErrorKind::WouldBlock, "{error}");
                        return sends;
                    }
                }
            }
        };
        let mut reaped = 0;
        let mut reap = || {
            while let Some(done) = dwcp_sys::zerocopy::next_completion(link.tcp()).unwrap() {
                reaped = done.last + 1;
            }
        };
        let mut sends = fill();
        // Room and completions at once, many times.
        let mut buffer = vec![0; 4 << 20];
        for _ in 0..20 {
            let read = async {
                loop {
                    assert!(peer.read(&mut buffer).await.unwrap() > 0);
                }
            };
            tokio::select! {
                ready = link.writable() => ready.unwrap(),
                () = read => {}
            }
            reap();
            sends += fill();
        }
        // Nobody reads: all there will be has come, and the socket stays full.
        let mut idle = 0;
        while idle < 3 {
            let waited = tokio::time::timeout(Duration::from_millis(50), link.writable()).await;
            idle = if waited.is_err() { idle + 1 } else { 0 };
            reap();
            sends += fill();
            assert!(sends < 100_000, "it is writable without end");
        }
    }

    /// As much as can wait: all data that is taken at once in records with a new key each, an answered request, an alert.
    #[tokio::test]
    async fn the_most_that_can_wait_has_room() {
        let (client, server) = pair().await;
        let data: Vec<u8> = (0..600_000_u32).map(|i| (i % 251) as u8).collect();
        let taken = {
            let mut writer = writer(&client);
            writer.set_records_per_key_max(2);
            let taken = writer.encrypt(&[IoSlice::new(&data)]).unwrap();
            writer.update_key().unwrap();
            writer.abort(rustls::AlertDescription::InternalError).unwrap();
            taken
        };
        assert_eq!(taken, 512 << 10);
        let (mut got, mut buffer) = (Vec::new(), vec![0; 100_000]);
        let error = loop {
            if let Err(error) = client.try_flush() {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            }
            match read(&server, &mut buffer).await {
                Ok(len) => got.extend_from_slice(&buffer[..len]),
                Err(error) => break error,
            }
        };
        assert!(got == data[..taken]);
        let error: &RecordError = error.get_ref().unwrap().downcast_ref().unwrap();
        assert!(matches!(error, RecordError::Alert(_)), "{error}");
    }

    /// Each request costs the peer a key derivation, so their number without data has a bound.
    #[tokio::test]
    async fn a_flood_of_key_updates_ends_the_link() {
        let (client, server) = pair().await;
        for _ in 0..1000 {
            let mut writer = writer(&client);
            writer.update_key().unwrap();
            if client.flush(&mut writer).is_err() {
                break;
            }
        }
        drop(client);
        let error = read(&server, &mut [0]).await.unwrap_err();
        let error: &RecordError = error.get_ref().unwrap().downcast_ref().unwrap();
        assert!(matches!(error, RecordError::Unexpected { what } if what.contains("flood")), "{error}");
    }
}
