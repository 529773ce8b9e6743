//! TLS 1.3 with certificates on both sides, and the sockets that carry it.
//!
//! Owns: certificates, trust anchors and the allow rule of an endpoint ([`TlsConfig`]), their reload
//! ([`TlsStore`], [`watch`]), and [`LinkSocket`], one connected TCP socket with or without TLS that
//! several tasks use through `&self`. Deliberately not here: when to connect, what plaintext is
//! allowed where, and anything of the DWCP wire format.
//!
//! Handshake, certificate verification and key schedule are rustls'. After the handshake the record
//! layer is ours (`record_read`, `record_write`), over the same AEADs (rustls' to decrypt, ring's, which those are made of, to encrypt): rustls' buffered interface
//! allocates and copies each record on the way in, allocates each on the way out, reads in steps of
//! 4 KiB, and needs one lock for both directions.

mod allow;
mod config;
mod error;
mod handshake;
mod hkdf;
mod keys;
mod record;
mod record_read;
mod record_write;
mod reload;
mod socket;
mod verify;

pub use allow::{AllowRule, PatternError};
pub use config::{ALPN, TlsConfig, TlsFiles};
pub use error::{HandshakeError, NotAllowed, PemSource, TlsError};
pub(crate) use hkdf::{Exporter, expand_label};
pub use record::RecordError;
pub(crate) use record::is_altered;
pub use reload::{RELOAD_INTERVAL, TlsStore, watch};
pub use socket::LinkSocket;
