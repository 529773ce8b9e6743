//! The store as a register of agents: each keeps an entry there with a lease, and reads those of the others.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use consensus_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, kv_client::KvClient,
    lease_client::LeaseClient,
};
use novacron_control::Target;
use novacron_process::Watched;
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::settings::Discovery;

/// Entries of agents are below this, named after the node.
const PREFIX: &str = "/novacron/nodes/";
/// An agent that does not come back for so many intervals is forgotten, but not in less than a few seconds.
const LEASE_INTERVALS: u32 = 3;
const LEASE_MIN: Duration = Duration::from_secs(10);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What an agent enters.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// `HOST:PORT` at which peers reach it.
    address: String,
    /// Its region, if it has one.
    region: Option<String>,
}

/// The entry of one agent, and how to reach the store.
pub(crate) struct Register {
    channel: Channel,
    discovery: Discovery,
    /// The certificates' files.
    watched: Watched,
    key: String,
    entry: String,
    /// Seconds.
    ttl: i64,
    lease: Option<i64>,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A file that the settings name.
    #[error("reading {path}: {source}")]
    File {
        /// Which one.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A URL, or what a file says.
    #[error("{url}: {source}")]
    Url {
        /// Which one.
        url: String,
        /// What is wrong.
        source: tonic::transport::Error,
    },
}

/// The files with certificates for the store.
fn files(discovery: &Discovery) -> Vec<PathBuf> {
    let all = [&discovery.store_ca, &discovery.store_cert, &discovery.store_key];
    all.into_iter().filter(|path| !path.as_os_str().is_empty()).cloned().collect()
}

/// Connections to the store's members, which are made when they are first used.
fn channel(discovery: &Discovery) -> Result<Channel, RegisterError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| RegisterError::File { path: path.display().to_string(), source })
    };
    let mut tls = ClientTlsConfig::new();
    if !discovery.store_ca.as_os_str().is_empty() {
        tls = tls.ca_certificate(Certificate::from_pem(read(&discovery.store_ca)?));
    }
    if !discovery.store_cert.as_os_str().is_empty() {
        let (cert, key) = (read(&discovery.store_cert)?, read(&discovery.store_key)?);
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let endpoint = |url: &String| {
        let failed = |source| RegisterError::Url { url: url.clone(), source };
        let endpoint = Endpoint::from_shared(url.clone()).map_err(failed)?;
        let endpoint = endpoint.timeout(TIMEOUT).connect_timeout(TIMEOUT);
        match url.starts_with("https:") {
            true => endpoint.tls_config(tls.clone()).map_err(failed),
            false => Ok(endpoint),
        }
    };
    let endpoints: Result<Vec<_>, _> = discovery.store.iter().map(endpoint).collect();
    Ok(Channel::balance_list(endpoints?.into_iter()))
}

impl Register {
    /// Connects when it is first used. `None`: the settings name no store.
    pub(crate) fn new(
        discovery: &Discovery,
        node_id: &str,
        region: Option<String>,
        address: &Target,
    ) -> Result<Option<Self>, RegisterError> {
        if discovery.store.is_empty() {
            return Ok(None);
        }
        let entry = Entry { address: address.to_string(), region };
        let lasts = (discovery.interval * LEASE_INTERVALS).max(LEASE_MIN);
        Ok(Some(Self {
            channel: channel(discovery)?,
            watched: Watched::new(files(discovery)),
            discovery: discovery.clone(),
            key: format!("{PREFIX}{node_id}"),
            entry: serde_json::to_string(&entry).expect("texts are JSON"),
            ttl: lasts.as_secs() as i64,
            lease: None,
        }))
    }

    /// Keeps the own entry, and reads the others.
    pub(crate) async fn exchange(&mut self) -> Result<BTreeSet<Target>, String> {
        let words = |status: tonic::Status| format!("{}: {}", status.code(), status.message());
        self.follow_files();
        if !self.is_kept().await.map_err(words)? {
            self.enter().await.map_err(words)?;
        }
        self.others().await.map_err(words)
    }

    /// Connects anew if the certificates are others than before. Of files that are no good is told, and what was before stays in force.
    fn follow_files(&mut self) {
        if self.watched.have_changed() {
            match channel(&self.discovery) {
                Ok(channel) => {
                    self.channel = channel;
                    tracing::info!("certificates for the store read again");
                }
                Err(error) => {
                    tracing::error!(%error, "new certificates for the store are no good, the old ones stay in force");
                }
            }
        }
    }

    /// Prolongs the lease; whether there still is one.
    async fn is_kept(&mut self) -> Result<bool, tonic::Status> {
        let Some(id) = self.lease else { return Ok(false) };
        let request = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        let mut answers =
            LeaseClient::new(self.channel.clone()).lease_keep_alive(request).await?.into_inner();
        let kept = answers.message().await?.is_some_and(|answer| answer.ttl > 0);
        if !kept {
            self.lease = None;
        }
        Ok(kept)
    }

    async fn enter(&mut self) -> Result<(), tonic::Status> {
        let grant = LeaseGrantRequest { ttl: self.ttl, id: 0 };
        let lease = LeaseClient::new(self.channel.clone()).lease_grant(grant).await?.into_inner().id;
        let put = PutRequest {
            key: self.key.clone().into(),
            value: self.entry.clone().into(),
            lease,
            ..PutRequest::default()
        };
        KvClient::new(self.channel.clone()).put(put).await?;
        self.lease = Some(lease);
        Ok(())
    }

    async fn others(&mut self) -> Result<BTreeSet<Target>, tonic::Status> {
        let mut end = PREFIX.to_owned().into_bytes();
        *end.last_mut().expect("the prefix is not empty") += 1;
        let range = RangeRequest {
            key: PREFIX.into(),
            range_end: end.into(),
            limit: crate::peers::PEERS_MAX as i64,
            ..RangeRequest::default()
        };
        let answer = KvClient::new(self.channel.clone()).range(range).await?.into_inner();
        let is_there = answer.kvs.iter().any(|kv| kv.key == self.key.as_bytes());
        // Of more than are read nobody knows.
        if !is_there && !answer.more {
            tracing::warn!(key = self.key, "the own entry in the store is gone: it is made anew");
            self.lease = None;
        }
        let others = answer.kvs.iter().filter(|kv| kv.key != self.key.as_bytes());
        Ok(others
            .filter_map(|kv| {
                let read = serde_json::from_slice::<Entry>(&kv.value)
                    .map_err(|error| error.to_string())
                    .and_then(|entry| {
                        entry
                            .address
                            .parse()
                            .map_err(|error: novacron_control::TargetError| error.to_string())
                    });
                read.inspect_err(|error| {
                    tracing::warn!(key = %String::from_utf8_lossy(&kv.key), error, "an entry in the store");
                })
                .ok()
            })
            .collect())
    }

    /// Takes the own entry back.
    pub(crate) async fn leave(&mut self) {
        if let Some(id) = self.lease.take() {
            let revoke = consensus_proto::etcdserverpb::LeaseRevokeRequest { id };
            if let Err(status) = LeaseClient::new(self.channel.clone()).lease_revoke(revoke).await {
                tracing::warn!(%status, "the entry in the store stays until its lease ends");
            }
        }
    }
}
