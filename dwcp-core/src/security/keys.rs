//! The key schedule after the handshake: AEADs for both directions, and their successors.
//!
//! All derivation is rustls' (`rustls::kernel`, made for kernel TLS, which wants the same split); ring encrypts, which is
//! what rustls' decrypters are made of, too.

use std::sync::Mutex;

use ring::aead;
use rustls::{
    ConnectionTrafficSecrets, Error, ExtractedSecrets, Tls13CipherSuite,
    client::{ClientConnectionData, UnbufferedClientConnection},
    crypto::cipher::{AeadKey, Iv, MessageDecrypter, Nonce},
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

/// Encrypts what we send, with its next sequence number.
pub(super) struct SealingKey {
    aead: aead::LessSafeKey,
    iv: Iv,
    pub(super) sequence: u64,
}

impl SealingKey {
    /// Encrypts in place; returns the tag.
    pub(super) fn seal(&mut self, header: &[u8], plain: &mut [u8]) -> Result<aead::Tag, Error> {
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, self.sequence).0);
        // Never used twice, not even after an error.
        self.sequence += 1;
        let tag = self.aead.seal_in_place_separate_tag(nonce, aead::Aad::from(header), plain);
        tag.map_err(|_| Error::EncryptError)
    }
}

/// Decrypts what we receive, with the next sequence number.
pub(super) struct OpeningKey {
    pub(super) aead: Box<dyn MessageDecrypter>,
    pub(super) sequence: u64,
}

/// What a handshake leaves behind.
pub(super) struct Established {
    pub(super) schedule: KeySchedule,
    pub(super) write: SealingKey,
    pub(super) read: OpeningKey,
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
        let write = sealing_key(secrets.tx)?;
        let read = schedule.opening_key(secrets.rx)?;
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

    pub(super) fn next_sealing_key(&self) -> Result<SealingKey, Error> {
        let secret = match &mut *self.schedule.lock().expect("key derivation does not panic") {
            Schedule::Client(kernel) => kernel.update_tx_secret(),
            Schedule::Server(kernel) => kernel.update_tx_secret(),
        };
        sealing_key(secret?)
    }

    pub(super) fn next_opening_key(&self) -> Result<OpeningKey, Error> {
        let secret = match &mut *self.schedule.lock().expect("key derivation does not panic") {
            Schedule::Client(kernel) => kernel.update_rx_secret(),
            Schedule::Server(kernel) => kernel.update_rx_secret(),
        };
        self.opening_key(secret?)
    }

    fn opening_key(&self, (sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<OpeningKey, Error> {
        let (_, key, iv) = parts(secrets)?;
        Ok(OpeningKey { aead: self.suite.aead_alg.decrypter(key, iv), sequence })
    }
}

fn sealing_key((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<SealingKey, Error> {
    let (algorithm, key, iv) = parts(secrets)?;
    let key = aead::UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
    Ok(SealingKey { aead: aead::LessSafeKey::new(key), iv, sequence })
}

fn parts(secrets: ConnectionTrafficSecrets) -> Result<(&'static aead::Algorithm, AeadKey, Iv), Error> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Ok((&aead::AES_128_GCM, key, iv)),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => Ok((&aead::AES_256_GCM, key, iv)),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((&aead::CHACHA20_POLY1305, key, iv)),
        _ => Err(Error::General("cipher suite of an unknown kind".to_owned())),
    }
}
