//! TLS links over real loopback sockets, against ourselves, `tokio-rustls` and OpenSSL.

mod files;
mod handshake;
mod link;
mod openssl;
mod pki;
