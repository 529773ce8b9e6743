//! Who a member is to those that it connects to, and what it wants: its name says so. Not here: what is done for whom.

use std::{sync::Arc, time::Duration};

use dwcp_core::{CompressionConfig, EndpointConfig, StreamsConfig};

/// A connection without any link for this long is given up: Raft has better to do than to wait for what was in it.
const RESUME_TIMEOUT: Duration = Duration::from_secs(2);
/// Links of a connection for a snapshot, at most. Messages need one.
pub(super) const SNAPSHOT_LINKS: u16 = 16;

/// Who connects, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A member, with messages.
    Member(u64, u64),
    /// A member that fetches a snapshot.
    Fetcher(u64, u64),
    /// Somebody who wants to know who the members are.
    Stranger,
}

impl Caller {
    fn name(self) -> String {
        match self {
            Self::Member(cluster, id) => format!("consensus/{cluster:016x}/{id:016x}"),
            Self::Fetcher(cluster, id) => format!("consensus/{cluster:016x}/{id:016x}/snapshot"),
            Self::Stranger => "consensus".to_owned(),
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        if parts.next() != Some("consensus") {
            return None;
        }
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let Some(cluster) = number() else { return (name == "consensus").then_some(Self::Stranger) };
        let id = number()?;
        match parts.next() {
            None => Some(Self::Member(cluster, id)),
            Some("snapshot") => Some(Self::Fetcher(cluster, id)),
            Some(_) => None,
        }
    }

    /// An endpoint in this name.
    pub(super) fn config(
        self,
        tls: Option<&Arc<dwcp_core::TlsConfig>>,
        allow_plaintext: bool,
    ) -> EndpointConfig {
        let mut endpoint = EndpointConfig::new(self.name());
        endpoint.transport.streams = match self {
            Self::Fetcher(..) => StreamsConfig { min: 1, max: SNAPSHOT_LINKS, initial: 1 },
            _ => StreamsConfig { min: 1, max: 1, initial: 1 },
        };
        endpoint.transport.resume_timeout = RESUME_TIMEOUT;
        endpoint.compression = CompressionConfig::NONE;
        endpoint.tls = tls.cloned();
        endpoint.allow_plaintext = allow_plaintext;
        endpoint
    }
}
