//! Members that are known by their URLs only: connecting to one, and asking one who the members are.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use consensus_raft::Membership;
use dwcp_core::{ConfigError, Connection, Endpoint, Priority};

use super::{INTRODUCTION, caller::Caller};

/// A connection to the first address of a URL that answers.
pub(crate) async fn connect_to(endpoint: &Endpoint, url: &str) -> Option<Connection> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    let addresses = match tokio::net::lookup_host(authority).await {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::debug!(url, %error, "name of a peer");
            return None;
        }
    };
    for addr in addresses {
        match endpoint.connect(addr, host).await {
            Ok(connection) => return Some(connection),
            Err(error) => tracing::debug!(url, %addr, %error, "connecting to a peer"),
        }
    }
    None
}

/// A cluster, as one of its members describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundCluster {
    /// Its id.
    pub cluster: u64,
    /// Its members, as that member knows them.
    pub membership: Membership,
}

/// Asks those who may be members of a cluster, one after the other, who its members are. `None`: none of them answers.
pub async fn find_cluster(
    peer_urls: &[String],
    tls: Option<&Arc<dwcp_core::TlsConfig>>,
    allow_plaintext: bool,
) -> Result<Option<FoundCluster>, ConfigError> {
    let endpoint = Endpoint::client(Caller::Stranger.config(tls, allow_plaintext))?;
    for url in peer_urls {
        let Some(connection) = connect_to(&endpoint, url).await else { continue };
        let asked = Bytes::from_static(b"members");
        let answer = connection.messages().request(Priority::Control, asked, INTRODUCTION).await;
        let found = answer.ok().and_then(|mut answer| {
            let cluster = answer.try_get_u64_le().ok()?;
            Some(FoundCluster { cluster, membership: Membership::decode(answer).ok()? })
        });
        connection.close(0, "");
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
