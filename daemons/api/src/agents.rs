//! Agents of nodes, as they are asked: over DWCP, where the store says they are, or over the socket of one on this machine.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use axum::body::Bytes;
use dwcp_core::{
    ConfigError, Endpoint, EndpointConfig,
    security::{RELOAD_INTERVAL, TlsError, TlsFiles, watch},
};
use novacron_control::{ControlError, Method, Remote, Target};
use novacron_store::StoreError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::Mutex, time::timeout};

use crate::{routes::nodes, settings::AgentSettings, store::Store};

/// Connections to agents that are kept; beyond that, one is given up for another.
const REMOTES_MAX: usize = 1024;
/// For an agent's answer to a question that somebody waits for.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why agents cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentsError {
    /// The certificates.
    #[error("agents: {0}")]
    Tls(#[from] TlsError),
    /// The name of this replica.
    #[error("agents: {0}")]
    Config(#[from] ConfigError),
}

/// Why an agent was not asked, or has not answered as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("no agent of {0} has entered itself into the store")]
    Unknown(String),
    #[error("{node} has entered {address:?} into the store, which is no address")]
    Address { node: String, address: String },
    #[error("this replica has no certificate for agents (agents.cert), and no socket of {0}")]
    Unset(String),
    #[error("{0}: no answer within {LOOK_TIMEOUT:?}")]
    Late(String),
    #[error("{node}: what it says cannot be read: {source}")]
    Unreadable { node: String, source: serde_json::Error },
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How this replica reaches agents.
pub(crate) struct Agents {
    sockets: HashMap<String, PathBuf>,
    files: Option<TlsFiles>,
    endpoint: Option<Endpoint>,
    remotes: Mutex<HashMap<String, Remote>>,
}

impl Agents {
    /// Reads the certificates.
    pub(crate) fn open(settings: &AgentSettings, replica: &str) -> Result<Self, AgentsError> {
        let AgentSettings { cert, key, ca, .. } = settings.clone();
        let files = (!cert.as_os_str().is_empty()).then_some(TlsFiles { cert, key, ca, allow: None });
        let endpoint = match &files {
            None => None,
            Some(files) => {
                let mut config = EndpointConfig::new(replica);
                config.tls = Some(Arc::new(files.load()?));
                Some(Endpoint::client(config)?)
            }
        };
        let sockets = settings.sockets.iter().map(|socket| (socket.node.clone(), socket.path.clone()));
        Ok(Self { sockets: sockets.collect(), files, endpoint, remotes: Mutex::default() })
    }

    /// Keeps the certificate like its files, until it is aborted.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        if let (Some(files), Some(endpoint)) = (self.files.clone(), self.endpoint.clone()) {
            watch(files, RELOAD_INTERVAL, move |tls| endpoint.reload_tls(tls)).await;
        }
    }

    /// Asks the agent of a node.
    pub(crate) async fn ask(
        &self,
        store: &Store,
        node: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, AskError> {
        if let Some(socket) = self.sockets.get(node) {
            let body = body.map(|body| Bytes::from(body.to_string()));
            let answer = novacron_control::ask(socket, method, path, body).await?;
            return Ok(serde_json::from_slice(&answer).unwrap_or_default());
        }
        let remote = self.remote(store, node).await?;
        let answer = remote.ask(method, path, body).await;
        if let Err(ControlError::Lost { .. }) = &answer {
            self.remotes.lock().await.remove(node);
        }
        Ok(answer?)
    }

    /// What the agent of a node says of something, soon or not at all.
    pub(crate) async fn look<T: DeserializeOwned>(
        &self,
        store: &Store,
        node: &str,
        path: &str,
    ) -> Result<T, AskError> {
        let asked = timeout(LOOK_TIMEOUT, self.ask(store, node, Method::GET, path, None)).await;
        let answer = asked.map_err(|_| AskError::Late(node.to_owned()))??;
        serde_json::from_value(answer)
            .map_err(|source| AskError::Unreadable { node: node.to_owned(), source })
    }

    async fn remote(&self, store: &Store, node: &str) -> Result<Remote, AskError> {
        let endpoint = self.endpoint.as_ref().ok_or_else(|| AskError::Unset(node.to_owned()))?;
        if let Some(remote) = self.remotes.lock().await.get(node) {
            return Ok(remote.clone());
        }
        let entry = nodes::found(store, node).await?.ok_or_else(|| AskError::Unknown(node.to_owned()))?;
        let address = || AskError::Address { node: node.to_owned(), address: entry.address.clone() };
        let target: Target = entry.address.parse().map_err(|_| address())?;
        let remote = Remote::connect(endpoint, &target, node).await?;
        let mut remotes = self.remotes.lock().await;
        if remotes.len() >= REMOTES_MAX
            && let Some(other) = remotes.keys().next().cloned()
        {
            remotes.remove(&other);
        }
        remotes.insert(node.to_owned(), remote.clone());
        Ok(remote)
    }
}

impl AskError {
    /// Asking again will be answered alike.
    pub(crate) fn is_for_good(&self) -> bool {
        match self {
            Self::Control(ControlError::Refused { status, .. }) => matches!(status.as_u16(), 400 | 403),
            Self::Unset(_) => true,
            _ => false,
        }
    }
}
