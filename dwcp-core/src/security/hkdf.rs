//! HKDF-Expand-Label (RFC 8446 section 7.1), and the exporter made of it (section 7.5).
//!
//! rustls has an exporter, but not on the connections that [`handshake`](super::handshake) uses. What it does for them is
//! to write their exporter secret to a key log: each handshake has a log of its own, which keeps that secret and nothing
//! else.

use std::sync::{Mutex, PoisonError};

use ring::{
    digest,
    hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk},
};

/// Fills `out` with what follows from `secret`, a label (at most 249 bytes) and a context (at most 255).
pub(crate) fn expand_label(secret: &Prk, label: &str, context: &[u8], out: &mut [u8]) {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    const PREFIX: &str = "tls13 ";
    let byte = |len: usize| [u8::try_from(len).expect("labels and contexts are short")];
    let len = u16::try_from(out.len()).expect("keys are short").to_be_bytes();
    let (label_len, context_len) = (byte(PREFIX.len() + label.len()), byte(context.len()));
    let info = [&len[..], &label_len, PREFIX.as_bytes(), label.as_bytes(), &context_len, context];
    let filled = secret.expand(&info, Len(out.len())).and_then(|okm| okm.fill(out));
    filled.expect("HKDF makes up to 255 hashes");
}

/// Makes secrets that only the two ends of one TLS connection know.
pub(crate) struct Exporter {
    /// `exporter_master_secret`.
    secret: Vec<u8>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter(..)")
    }
}

impl Exporter {
    /// 32 bytes for a label and a context.
    pub(crate) fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        // The secret is as long as the hash of the cipher suite.
        let (hkdf, hash) = match self.secret.len() {
            48 => (HKDF_SHA384, &digest::SHA384),
            _ => (HKDF_SHA256, &digest::SHA256),
        };
        let mut derived = vec![0; self.secret.len()];
        let empty = digest::digest(hash, b"");
        expand_label(&Prk::new_less_safe(hkdf, &self.secret), label, empty.as_ref(), &mut derived);
        let mut out = [0; 32];
        let context = digest::digest(hash, context);
        expand_label(&Prk::new_less_safe(hkdf, &derived), "exporter", context.as_ref(), &mut out);
        out
    }
}

/// The key log of one handshake.
#[derive(Debug, Default)]
pub(super) struct ExporterLog(Mutex<Option<Exporter>>);

/// As `SSLKEYLOGFILE` calls it.
const EXPORTER_SECRET: &str = "EXPORTER_SECRET";

impl rustls::KeyLog for ExporterLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == EXPORTER_SECRET {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Exporter { secret: secret.to_vec() });
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER_SECRET
    }
}

impl ExporterLog {
    /// The exporter of the handshake, once it is finished.
    pub(super) fn take(&self) -> Option<Exporter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::crypto::ring::cipher_suite;
    use tokio::net::{TcpListener, TcpStream};

    use crate::{TlsConfig, security::LinkSocket};

    /// One end is ours, the other tokio-rustls' with rustls' own exporter.
    // DATAGRAM-6.5
    #[tokio::test]
    async fn what_is_exported_is_what_rustls_exports() {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new([]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let mut node = CertificateParams::new(["localhost".to_owned()]).unwrap();
        node.distinguished_name.push(rcgen::DnType::CommonName, "node");
        let cert = node.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem();
        let key = key.serialize_pem();
        let ours = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes(), ca_pem.as_bytes(), None).unwrap();
        for suite in [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384] {
            let provider = rustls::crypto::CryptoProvider {
                cipher_suites: vec![suite],
                ..rustls::crypto::ring::default_provider()
            };
            let theirs = server(provider, &cert, &key);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let accepting = async {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(theirs)).accept(tcp).await.unwrap()
            };
            let connecting = async {
                let tcp = TcpStream::connect(addr).await.unwrap();
                LinkSocket::connect_tls(tcp, "localhost", &ours).await.unwrap().0
            };
            let (theirs, mut socket) = tokio::join!(accepting, connecting);
            let exporter = socket.take_exporter().unwrap();
            assert!(socket.take_exporter().is_none(), "it is forgotten");
            for (label, context) in [("EXPERIMENTAL a", &[][..]), ("EXPERIMENTAL b", &[7; 300])] {
                let expected =
                    theirs.get_ref().1.export_keying_material([0; 32], label.as_bytes(), Some(context));
                assert_eq!(exporter.export(label, context), expected.unwrap(), "{label}");
            }
        }
    }

    fn server(provider: rustls::crypto::CryptoProvider, cert: &str, key: &str) -> rustls::ServerConfig {
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![crate::security::ALPN.to_vec()];
        config
    }
}
