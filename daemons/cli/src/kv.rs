//! `novacron kv`: keys and values of a consensus cluster.

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use consensus_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, kv_client::KvClient};
use tonic::transport::Channel;

use crate::exit;

/// How long one endpoint may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads and writes keys of a consensus cluster.
#[derive(Args, Debug)]
pub(crate) struct KvArgs {
    /// Members, any of which may answer.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        env = "ETCDCTL_ENDPOINTS",
        default_value = "127.0.0.1:2379"
    )]
    endpoints: String,
    #[command(subcommand)]
    command: KvCommand,
}

#[derive(Subcommand, Debug)]
enum KvCommand {
    /// Prints the value of a key; exit code 1 if there is none.
    Get {
        /// The key.
        key: String,
        /// All keys that begin with KEY, as lines KEY VALUE.
        #[arg(long)]
        prefix: bool,
    },
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Deletes a key, and prints how many there were.
    Del {
        /// The key.
        key: String,
        /// All keys that begin with KEY.
        #[arg(long)]
        prefix: bool,
    },
}

/// The key after all that begin with `prefix`, as requests say it.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn range_end(key: &str, prefix: bool) -> Vec<u8> {
    if prefix { end_of_prefix(key.as_bytes()) } else { Vec::new() }
}

async fn connect(endpoints: &str) -> Result<KvClient<Channel>> {
    let mut last = None;
    for endpoint in endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty()) {
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let channel = Channel::from_shared(url)
            .with_context(|| format!("--endpoints: {endpoint}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT);
        match channel.connect().await {
            Ok(channel) => return Ok(KvClient::new(channel)),
            Err(error) => last = Some(anyhow::Error::new(error).context(format!("connecting to {endpoint}"))),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("--endpoints: none is given")))
}

/// Does it; returns the exit code.
pub(crate) async fn run(args: KvArgs) -> Result<u8> {
    let mut client = connect(&args.endpoints).await?;
    let mut out = std::io::stdout();
    match args.command {
        KvCommand::Get { key, prefix } => {
            let range_end = range_end(&key, prefix).into();
            let request = RangeRequest { key: key.into(), range_end, ..Default::default() };
            let found = client.range(request).await.context("get")?.into_inner().kvs;
            for kv in &found {
                if prefix {
                    out.write_all(&kv.key)?;
                    out.write_all(b" ")?;
                }
                out.write_all(&kv.value)?;
                out.write_all(b"\n")?;
            }
            Ok(if found.is_empty() && !prefix { exit::FAILURE } else { exit::OK })
        }
        KvCommand::Put { key, value } => {
            let request = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
            client.put(request).await.context("put")?;
            Ok(exit::OK)
        }
        KvCommand::Del { key, prefix } => {
            let range_end = range_end(&key, prefix).into();
            let request = DeleteRangeRequest { key: key.into(), range_end, ..Default::default() };
            let deleted = client.delete_range(request).await.context("del")?.into_inner().deleted;
            writeln!(out, "{deleted}")?;
            Ok(exit::OK)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::end_of_prefix;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        assert_eq!(end_of_prefix(b"a"), b"b");
        assert_eq!(end_of_prefix(&[1, 0xff]), [2]);
        assert_eq!(end_of_prefix(&[0xff]), [0], "to the end");
        assert_eq!(end_of_prefix(b""), [0], "everything");
    }
}
