//! How another cluster is asked: by the kubeconfig of a Secret, which may say where it is and who asks, and nothing that would be run
//! or read where the operator is.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Until another cluster's API server takes a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Until it says something.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Clients that are kept; with more, all are made anew.
const CLIENTS_MAX: usize = 64;

/// A kubeconfig that is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// It asks for something that is not done.
    #[error(
        "the kubeconfig has `{0}`, which is not used here: certificates, keys and tokens have to be in it, as their data"
    )]
    Refused(&'static str),
    /// It is none.
    #[error("the kubeconfig cannot be used: {0}")]
    Config(#[from] KubeconfigError),
    /// No client can be made of it.
    #[error("the kubeconfig cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// Makes clients of kubeconfigs.
pub trait Clusters: Send + Sync {
    /// A client for this kubeconfig; nothing is asked yet.
    fn client<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<Client, ClusterError>>;
}

/// Over the network. Clients are kept, with their connections.
#[derive(Default)]
pub struct Kubeconfigs {
    clients: Mutex<HashMap<String, Client>>,
}

impl Clusters for Kubeconfigs {
    fn client<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<Client, ClusterError>> {
        async move {
            let known = |clients: &HashMap<String, Client>| clients.get(kubeconfig).cloned();
            if let Some(client) = known(&self.clients.lock().unwrap_or_else(PoisonError::into_inner)) {
                return Ok(client);
            }
            let client = connect(kubeconfig).await?;
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            if clients.len() >= CLIENTS_MAX {
                clients.clear();
            }
            clients.insert(kubeconfig.to_owned(), client.clone());
            Ok(client)
        }
        .boxed()
    }
}

async fn connect(text: &str) -> Result<Client, ClusterError> {
    let kubeconfig = Kubeconfig::from_yaml(text)?;
    check(&kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(CONNECT_MAX);
    config.read_timeout = Some(ANSWER_MAX);
    config.write_timeout = Some(ANSWER_MAX);
    Ok(Client::try_from(config)?)
}

/// Files would be the operator's own: its token, for one, and whoever writes the Secret says where it is sent.
fn check(kubeconfig: &Kubeconfig) -> Result<(), ClusterError> {
    for cluster in kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        for (key, is) in [
            ("certificate-authority", cluster.certificate_authority.is_some()),
            ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify == Some(true)),
            ("proxy-url", cluster.proxy_url.is_some()),
        ] {
            refuse(key, is)?;
        }
    }
    for user in kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        for (key, is) in [
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
            ("tokenFile", user.token_file.is_some()),
            ("client-certificate", user.client_certificate.is_some()),
            ("client-key", user.client_key.is_some()),
        ] {
            refuse(key, is)?;
        }
    }
    Ok(())
}

fn refuse(key: &'static str, is: bool) -> Result<(), ClusterError> {
    if is { Err(ClusterError::Refused(key)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(cluster: &str, user: &str) -> Result<(), ClusterError> {
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: x, contexts: [{{name: x, context: {{cluster: x, user: x}}}}], \
             clusters: [{{name: x, cluster: {{server: \"https://192.0.2.1\", {cluster}}}}}], users: [{{name: x, user: {{{user}}}}}]}}"
        );
        check(&Kubeconfig::from_yaml(&text)?)
    }

    #[test]
    fn nothing_is_run_or_read_for_it() {
        assert!(checked("certificate-authority-data: AAAA", "token: x").is_ok());
        for (cluster, user, says) in [
            ("certificate-authority: /x", "", "certificate-authority"),
            ("insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify"),
            ("proxy-url: \"http://192.0.2.2\"", "", "proxy-url"),
            ("", "exec: {command: sh, apiVersion: client.authentication.k8s.io/v1}", "exec"),
            ("", "auth-provider: {name: gcp, config: {}}", "auth-provider"),
            ("", "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token", "tokenFile"),
            ("", "client-certificate: /x", "client-certificate"),
            ("", "client-key: /x", "client-key"),
        ] {
            let error = checked(cluster, user).unwrap_err().to_string();
            assert!(error.contains(&format!("`{says}`")), "{cluster} {user}: {error}");
        }
    }
}
