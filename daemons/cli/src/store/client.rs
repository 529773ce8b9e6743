//! Which members a command asks, and how: flags and variables.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use novacron_store::{Client, Endpoint, EndpointError, Options, User};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::exit::Usage;

/// Where the store is, and how to talk to it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    /// Members, any of which may answer: HOST:PORT or a URL, several with commas [env: NOVACRON_ENDPOINTS, else
    /// ETCDCTL_ENDPOINTS] [default: 127.0.0.1:2379]
    #[arg(long, global = true, value_name = "LIST")]
    endpoints: Option<String>,
    /// The authority that signs the members' certificates (PEM); endpoints without a scheme are https then.
    #[arg(long, global = true, value_name = "FILE", env = "ETCDCTL_CACERT")]
    cacert: Option<PathBuf>,
    /// This client's certificate (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "ETCDCTL_CERT")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(id = "private_key", long = "key", global = true, value_name = "FILE", env = "ETCDCTL_KEY")]
    key: Option<PathBuf>,
    /// Logs in. Others on this machine can read a command line: the variable is the better place.
    #[arg(long, global = true, value_name = "NAME:PASSWORD", env = "ETCDCTL_USER", hide_env_values = true,
        value_parser = user)]
    user: Option<User>,
    /// How long a member may take to answer, and how long an election is waited for.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// Prints JSON; docs/store-commands.md has its fields.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

fn user(text: &str) -> Result<User, String> {
    let (name, password) = text.split_once(':').ok_or("expected NAME:PASSWORD")?;
    Ok(User { name: name.to_owned(), password: password.to_owned() })
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    novacron_settings::duration(text).ok_or_else(|| format!("expected {}", novacron_settings::DURATION))
}

impl StoreArgs {
    /// Nothing is connected yet.
    pub(crate) fn client(&self) -> Result<Client> {
        let options = Options { tls: tls(self)?, user: self.user.clone(), timeout: self.timeout };
        let set = |name: &&str| std::env::var(name).ok().filter(|list| !list.is_empty());
        let from_environment = ["NOVACRON_ENDPOINTS", "ETCDCTL_ENDPOINTS"].iter().find_map(set);
        let list = self.endpoints.clone().or(from_environment).unwrap_or_else(|| "127.0.0.1:2379".to_owned());
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        Client::new(names, options).map_err(|error| {
            let flag = match error {
                EndpointError::NoAuthority { .. } => "; --cacert names it",
                _ => "",
            };
            Usage(format!("--endpoints: {error}{flag}")).into()
        })
    }
}

fn tls(args: &StoreArgs) -> Result<Option<ClientTlsConfig>> {
    let read = |flag: &str, path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
    };
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(Identity::from_pem(read("--cert", cert)?, read("--key", key)?)),
        (None, None) => None,
        _ => bail!(Usage("--cert and --key belong together".to_owned())),
    };
    let Some(cacert) = &args.cacert else {
        if identity.is_some() {
            bail!(Usage("--cert needs --cacert, the authority of the members' certificates".to_owned()));
        }
        return Ok(None);
    };
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--cacert", cacert)?));
    Ok(Some(match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    }))
}

/// Asks all of these members at once; the answers are in their order.
pub(crate) async fn each<A: Send + 'static, F>(
    endpoints: &[Endpoint],
    ask: impl Fn(Endpoint) -> F,
) -> Result<Vec<A>>
where
    F: Future<Output = A> + Send + 'static,
{
    let asking: Vec<_> = endpoints.iter().map(|endpoint| tokio::spawn(ask(endpoint.clone()))).collect();
    let mut answers = Vec::with_capacity(asking.len());
    for asked in asking {
        answers.push(asked.await.context("a question ended abnormally")?);
    }
    Ok(answers)
}
