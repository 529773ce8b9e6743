//! `novacron forward`: sockets of this node to sockets of another.

use std::{collections::BTreeMap, io, sync::Arc};

use anyhow::Result;
use clap::Args;
use dwcp_core::{Connection, Endpoint};
use dwcp_forward::{Address, Allowed, Dial, Dialing, serve, take};
use novacron_process::{Signals, raise_open_files};
use tokio::task::JoinSet;

use crate::{
    exit::{self, Usage},
    observe::Observable,
    settings::SettingsArgs,
};

/// Where the other node listens, if nothing else is said.
const PORT: u16 = 8888;
/// Connections of peers that are served at once.
const PEERS_MAX: usize = 64;

/// Carries any byte stream to a socket of another node, and back.
///
/// One node listens: `novacron forward --listen unix:/run/a.sock --to node-b:unix:/run/b.sock`. The other connects to what it
/// allows: `novacron forward --serve 0.0.0.0:8888 --permit unix:/run/b.sock`. Many connections at once; the end of a half and
/// resets arrive as such, and lost links are not noticed by either end.
#[derive(Args, Debug)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct ForwardArgs {
    /// Where to take connections: unix:/PATH or tcp:HOST:PORT; for each, a --to.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Address>,
    /// Where they go: the other node, its port if that is not 8888, and the address as that node knows it.
    #[arg(long, value_name = "NODE[:PORT]:ADDRESS")]
    to: Vec<String>,
    /// Where to serve peers that forward to this node; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    serve: Option<String>,
    /// What peers may connect to: unix:/PATH or tcp:HOST:PORT. Nothing else is connected to.
    #[arg(long, value_name = "ADDRESS")]
    permit: Vec<Address>,
    /// Name that the other node's certificate must carry [default: NODE].
    #[arg(long, value_name = "NAME", help_heading = "Security")]
    server_name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Forwards until it is told to stop; returns the exit code.
pub(crate) async fn run(args: ForwardArgs) -> Result<u8> {
    let listen = ("--serve", "listen", args.serve.clone());
    let Some(node) = args.settings.load([listen])? else { return Ok(exit::OK) };
    let ways = ways(&args)?;
    let serves = !args.permit.is_empty();
    raise_open_files();
    let mut signals = Signals::listen()?;
    let observable = Observable::prepare(&node.settings.metrics).await?;
    let config = node.settings.endpoint.clone();
    let endpoint = match serves {
        true => Endpoint::listen(node.settings.listen, config).await?,
        false => Endpoint::client(config)?,
    };
    node.keep_fresh(&endpoint);
    if let Some(address) = endpoint.local_addr().filter(|_| serves) {
        eprintln!("listening on {address}");
    }
    let _observed = observable.serve("novacron forward", &node.settings, &endpoint, signals.draining());
    let work = forward(&endpoint, &args, ways, serves);
    // Both ends of what is forwarded decide when it is over: a drain waits for nobody.
    signals.unless(work).await.unwrap_or(Ok(exit::OK))
}

async fn forward(endpoint: &Endpoint, args: &ForwardArgs, ways: Vec<Way>, serves: bool) -> Result<u8> {
    let mut nodes: BTreeMap<(String, u16), Arc<Dialing<Node>>> = BTreeMap::new();
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for Way { listen, host, port, target } in ways {
        let server_name = args.server_name.clone().unwrap_or_else(|| host.clone());
        let node = Node { endpoint: endpoint.clone(), host: host.clone(), port, server_name };
        let dialing = nodes.entry((host, port)).or_insert_with(|| Arc::new(Dialing::new(node))).clone();
        tasks.spawn(async move {
            let told = |address: Option<std::net::SocketAddr>| match address {
                Some(address) => eprintln!("forwarding tcp:{address}"),
                None => eprintln!("forwarding {listen}"),
            };
            Ok(take(&listen, target, dialing, told).await?)
        });
    }
    if serves {
        let (endpoint, allowed) = (endpoint.clone(), Allowed::new(args.permit.iter().cloned()));
        tasks.spawn(async move {
            peers(&endpoint, &allowed).await;
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(exit::OK)
}

async fn peers(endpoint: &Endpoint, allowed: &Allowed) {
    let mut peers = JoinSet::new();
    loop {
        tokio::select! {
            connection = endpoint.accept(), if peers.len() < PEERS_MAX => match connection {
                Some(connection) => {
                    let allowed = allowed.clone();
                    peers.spawn(async move { serve(&connection, &allowed).await });
                }
                None => return,
            },
            Some(_) = peers.join_next() => {}
        }
    }
}

/// The other node.
struct Node {
    endpoint: Endpoint,
    host: String,
    port: u16,
    server_name: String,
}

impl Dial for Node {
    async fn dial(&self) -> io::Result<Connection> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the node has no address");
        for address in tokio::net::lookup_host((&*self.host, self.port)).await? {
            match self.endpoint.connect(address, &self.server_name).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = io::Error::other(error),
            }
        }
        Err(failed)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Way {
    listen: Address,
    host: String,
    port: u16,
    target: Address,
}

fn ways(args: &ForwardArgs) -> Result<Vec<Way>> {
    if args.listen.len() != args.to.len() {
        return Err(Usage("each --listen needs its --to".into()).into());
    }
    if args.listen.is_empty() && args.permit.is_empty() {
        return Err(Usage("what to forward: --listen and --to, or --permit".into()).into());
    }
    let ways = args.listen.iter().zip(&args.to).map(|(listen, to)| {
        let (host, port, target) = parse(to)
            .ok_or_else(|| Usage(format!("{to}: expected NODE:unix:/PATH or NODE:tcp:HOST:PORT")))?;
        Ok(Way { listen: listen.clone(), host, port, target })
    });
    ways.collect()
}

fn parse(to: &str) -> Option<(String, u16, Address)> {
    let (host, rest) = match to.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':')?)
        }
        None => to.split_once(':')?,
    };
    let (port, target) = match rest.split_once(':')? {
        ("unix" | "tcp", _) => (PORT, rest),
        (port, target) => (port.parse().ok()?, target),
    };
    let target = target.parse().ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_forward() {
        let parsed = |to: &str| parse(to).map(|(host, port, target)| format!("{host} {port} {target}"));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parsed("node-b:unix:/run/b.sock"), some("node-b 8888 unix:/run/b.sock"));
        assert_eq!(parsed("node-b:9000:tcp:[::1]:80"), some("node-b 9000 tcp:[::1]:80"));
        assert_eq!(parsed("[fe80::1]:unix:/b"), some("fe80::1 8888 unix:/b"));
        for bad in
            ["node-b", "node-b:", ":unix:/b", "node-b:unix:b", "node-b:x:unix:/b", "node-b:80", "unix:/b"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
