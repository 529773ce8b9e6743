//! The key schedule after the handshake: AEADs for both directions, and their successors.
//!
//! All derivation is rustls' (`rustls::kernel`, made for kernel TLS, which wants the same split).

use std::sync::Mutex;

use rustls::{
    ConnectionTrafficSecrets, Error, ExtractedSecrets, Tls13CipherSuite,
    client::{ClientConnectionData, UnbufferedClientConnection},
    crypto::cipher::{AeadKey, Iv, MessageDecrypter, MessageEncrypter},
    kernel::KernelConnection,
    server::{ServerConnectionData, UnbufferedServerConnection},
};

enum Schedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// Makes the next keys of either direction. Shared by both, locked only for a key update.
pub(super) struct KeySchedule {
    schedule: Mutex<Schedule>,
    suite: &'static Tls13CipherSuite,
    is_client: bool,
}

/// The AEAD of one direction with its next sequence number.
pub(super) struct Keyed<T: ?Sized> {
    pub(super) aead: Box<T>,
    pub(super) sequence: u64,
}

/// What a handshake leaves behind.
pub(super) struct Established {
    pub(super) schedule: KeySchedule,
    pub(super) write: Keyed<dyn MessageEncrypter>,
    pub(super) read: Keyed<dyn MessageDecrypter>,
}

impl Established {
    pub(super) fn client(connection: UnbufferedClientConnection) -> Result<Self, Error> {
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        let suite = kernel.negotiated_cipher_suite();
        Self::new(secrets, Schedule::Client(kernel), suite.tls13(), true)
    }

    pub(super) fn server(connection: UnbufferedServerConnection) -> Result<Self, Error> {
        let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
        let suite = kernel.negotiated_cipher_suite();
        Self::new(secrets, Schedule::Server(kernel), suite.tls13(), false)
    }

    fn new(
        secrets: ExtractedSecrets,
        schedule: Schedule,
        suite: Option<&'static Tls13CipherSuite>,
        is_client: bool,
    ) -> Result<Self, Error> {
        // The configuration offers nothing but TLS 1.3.
        let suite = suite.ok_or(Error::HandshakeNotComplete)?;
        let schedule = KeySchedule { schedule: Mutex::new(schedule), suite, is_client };
        let write = schedule.encrypter(secrets.tx)?;
        let read = schedule.decrypter(secrets.rx)?;
        Ok(Self { schedule, write, read })
    }
}

impl KeySchedule {
    pub(super) fn is_client(&self) -> bool {
        self.is_client
    }

    /// Records one key may encrypt (for AES-GCM RFC 8446 section 5.5).
    pub(super) fn records_per_key_max(&self) -> u64 {
        self.suite.common.confidentiality_limit
    }

    pub(super) fn next_encrypter(&self) -> Result<Keyed<dyn MessageEncrypter>, Error> {
        let secret = match &mut *self.schedule.lock().expect("key derivation does not panic") {
            Schedule::Client(kernel) => kernel.update_tx_secret(),
            Schedule::Server(kernel) => kernel.update_tx_secret(),
        };
        self.encrypter(secret?)
    }

    pub(super) fn next_decrypter(&self) -> Result<Keyed<dyn MessageDecrypter>, Error> {
        let secret = match &mut *self.schedule.lock().expect("key derivation does not panic") {
            Schedule::Client(kernel) => kernel.update_rx_secret(),
            Schedule::Server(kernel) => kernel.update_rx_secret(),
        };
        self.decrypter(secret?)
    }

    fn encrypter(
        &self,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Keyed<dyn MessageEncrypter>, Error> {
        let (key, iv) = parts(secrets)?;
        Ok(Keyed { aead: self.suite.aead_alg.encrypter(key, iv), sequence })
    }

    fn decrypter(
        &self,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Keyed<dyn MessageDecrypter>, Error> {
        let (key, iv) = parts(secrets)?;
        Ok(Keyed { aead: self.suite.aead_alg.decrypter(key, iv), sequence })
    }
}

fn parts(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(Error::General("cipher suite of an unknown kind".to_owned())),
    }
}
