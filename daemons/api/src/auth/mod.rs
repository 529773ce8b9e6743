//! Who may do what. A request is of a [principal](principal::Principal), which has [roles](role::Role) in regions; a
//! [table](rules) says which role each operation needs, and what has no line there is done for nobody.
//!
//! What always holds:
//! - What proves who somebody is comes from the TLS handshake or from the one `Authorization` header, nothing else. A header
//!   that proves nothing is refused, and the certificate beside it does not help.
//! - A token's secret is neither kept nor logged; what is kept does not tell it.
//! - Nobody gives a role that they have not.

pub(crate) mod certificate;
pub(crate) mod gate;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod login;
pub(crate) mod principal;
pub(crate) mod role;
pub(crate) mod rules;
pub(crate) mod signatures;
pub(crate) mod token;
