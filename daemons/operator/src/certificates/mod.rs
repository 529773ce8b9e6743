//! The certificates of a cluster: an authority of its own, and what it issues to the components of each region.
//!
//! [`authority`] decides who issues and who is trusted, [`leaf`] when a component gets another certificate; both are functions of what
//! there is and of the time, which is an argument. [`issue`] makes keys and certificates, [`secret`] is how they are kept. Deliberately
//! not here: reading and writing Secrets ([`reconcile`](crate::reconcile)), and where they are mounted ([`plan`](crate::plan)).
//!
//! What holds:
//!
//! - nothing is issued by an authority before everybody trusts it, and no authority ceases to be trusted while anything that it has
//!   issued is in use;
//! - a certificate ends no later than the authority that has issued it;
//! - keys are in Secrets and in this process, and are never printed.

pub mod authority;
pub mod facts;
pub mod issue;
pub mod leaf;
pub mod secret;

use jiff::SignedDuration;

pub use authority::{Authorities, Authority, Move, Spread};
pub use facts::Facts;
pub use leaf::{Change, Held, Wanted};

use crate::api::ManagedTls;

/// How long things are good, and when there are new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A certificate.
    pub validity: SignedDuration,
    /// So long before its end there is a new one.
    pub renew_before: SignedDuration,
    /// An authority.
    pub authority_validity: SignedDuration,
    /// Until every daemon trusts a new one.
    pub settle: SignedDuration,
    /// Which authority is asked for.
    pub number: u32,
}

impl From<&ManagedTls> for Policy {
    fn from(managed: &ManagedTls) -> Self {
        let hours = |count: u32| SignedDuration::from_hours(count.into());
        Self {
            validity: hours(managed.validity_hours),
            renew_before: hours(managed.renew_before_hours),
            authority_validity: hours(managed.authority_validity_hours),
            settle: SignedDuration::from_secs(managed.settle_seconds.into()),
            number: managed.authority,
        }
    }
}

/// Certificates that cannot be made or read. No variant has anything of a key in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A part of a Secret is missing, or no text.
    #[error("Secret {secret}: {part} is missing, or no text")]
    Part {
        /// Which Secret.
        secret: String,
        /// Which part.
        part: &'static str,
    },
    /// It is no certificate.
    #[error("no certificate: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
    /// It cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
    /// Before the year 1 or after 9999.
    #[error("{seconds} s is no time of a certificate")]
    Time {
        /// Since 1970.
        seconds: i64,
    },
}
