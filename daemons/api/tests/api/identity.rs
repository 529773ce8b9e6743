//! Who tests are: an authority of certificates, and a provider of JSON web tokens.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::support::{Answer, PATIENCE, exchange, request};

/// An authority, and what it has signed, in a folder.
pub(crate) struct Authority {
    pub(crate) folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn flag(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Signs a certificate of these names, as FILE.pem and FILE.key. Names with `://` are URIs.
    pub(crate) fn sign(&self, file: &str, names: &[&str]) {
        let mut params = CertificateParams::default();
        let san = |name: &&str| match name.contains("://") {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(san).collect();
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{file}.pem")), cert.pem()).unwrap();
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// Flags of a server whose certificate it has signed, and that knows it as the authority of clients.
    pub(crate) fn server_flags(&self) -> Vec<String> {
        self.sign("server", &["localhost"]);
        let files = [("--tls-cert", "server.pem"), ("--tls-key", "server.key"), ("--tls-ca", "ca.pem")];
        files.into_iter().flat_map(|(flag, file)| [flag.to_owned(), self.flag(file)]).collect()
    }

    /// One request over TLS, with a certificate if one is named, of a client that trusts this authority.
    pub(crate) fn ask(&self, port: u16, client: Option<&str>, text: &str) -> std::io::Result<Answer> {
        exchange(self.connect(port, client)?, text)
    }

    pub(crate) fn get(&self, port: u16, client: Option<&str>, path: &str) -> std::io::Result<Answer> {
        self.ask(port, client, &request("GET", path, &[], None))
    }

    /// The certificate that a server shows.
    pub(crate) fn shown(&self, port: u16) -> Option<Vec<u8>> {
        let mut stream = self.connect(port, None).ok()?;
        stream.conn.complete_io(&mut stream.sock).ok()?;
        Some(stream.conn.peer_certificates()?.first()?.to_vec())
    }

    fn connect(
        &self,
        port: u16,
        client: Option<&str>,
    ) -> std::io::Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(name) => {
                let cert = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                config.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        let socket = std::net::TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        Ok(StreamOwned::new(connection, socket))
    }
}

/// A provider of JSON web tokens, whose keys are in a file.
pub(crate) struct Provider {
    folder: tempfile::TempDir,
    key: EcdsaKeyPair,
    id: String,
}

pub(crate) const ISSUER: &str = "https://id.example/";
pub(crate) const AUDIENCE: &str = "novacron";

fn key_pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
}

pub(crate) fn encoded(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Provider {
    pub(crate) fn new() -> Self {
        let provider = Self { folder: tempfile::tempdir().unwrap(), key: key_pair(), id: "k1".to_owned() };
        provider.publish();
        provider
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }

    /// What its keys are to others.
    pub(crate) fn set(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": encoded(&point[1..33]), "y": encoded(&point[33..]),
        });
        json!({ "keys": [key] })
    }

    /// The public key as it is, which an attacker knows, too.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    pub(crate) fn publish(&self) {
        // Replaced whole, as whoever writes such files does.
        let new = self.folder.path().join("new.json");
        fs::write(&new, self.set().to_string()).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    /// Another key from now on, which nobody knows before it is published.
    pub(crate) fn rotate(&mut self, id: &str) {
        (self.key, self.id) = (key_pair(), id.to_owned());
    }

    /// Flags of a server that trusts it.
    pub(crate) fn flags(&self) -> Vec<String> {
        Self::flags_for(&self.file())
    }

    pub(crate) fn flags_for(keys: &Path) -> Vec<String> {
        let keys = keys.display().to_string();
        [
            ("--auth-jwt-issuer", ISSUER),
            ("--auth-jwt-audience", AUDIENCE),
            ("--auth-jwt-jwks", &keys),
            ("--auth-jwt-roles-claim", "roles"),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect()
    }

    /// Claims as they should be, for somebody with these roles.
    pub(crate) fn claims(roles: &[&str]) -> Value {
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now() + 600, "roles": roles })
    }

    /// A token of this header and these claims, signed with its key.
    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encoded(signature))
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.signed(&json!({ "alg": "ES256", "kid": self.id, "typ": "JWT" }), claims)
    }

    /// The header of somebody with these roles.
    pub(crate) fn bearer(&self, roles: &[&str]) -> String {
        format!("Bearer {}", self.token(&Self::claims(roles)))
    }
}
