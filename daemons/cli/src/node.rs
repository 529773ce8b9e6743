//! `novacron node ...`: asks the agent of this node, over its control API.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::{Args, Subcommand};
use novacron_control::{
    Method, ask,
    schema::{
        Ability, Capability, Guarded, NewTransfer, Node, Peer, Row, Transfer, TransferState, Tuned, Tunnels,
        Vxlan, WireGuard,
    },
};
use novacron_dwcp::{SOCKET, doctor};
use serde::{Deserialize, Serialize};

use crate::{
    exit::{self, Ended},
    size,
    store::{Table, print},
};

/// How often a transfer is looked at that is waited for.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// Asks the agent of this node (novacron-dwcp), and has it do things.
#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
    /// The socket of the agent's control API.
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET, env = "NOVACRON_CONTROL_SOCKET")]
    socket: PathBuf,
    /// Prints what the agent answers, which is JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum NodeCommand {
    /// What the agent is, and what it does now.
    Status,
    /// Peers that are connected, and addresses at which nobody is.
    Peers,
    /// Who reaches whom, and how: round trips, jitter, loss.
    Paths,
    /// What this node can do and what not, and why. Works without an agent, too.
    Doctor,
    /// Transfers from and to this node.
    Transfers,
    /// Sends a file or a folder to a peer.
    Send(SendArgs),
    /// Ends a transfer, sent or received; what has arrived stays, and sending again goes on from there.
    Cancel {
        /// As `transfers` shows it.
        id: u64,
    },
    /// Sysctls and queueing disciplines: what is set, or would be.
    Tune,
    /// Guards in XDP, and what they count.
    Xdp {
        /// Takes the guards off their interfaces; the agent's next start attaches them again.
        #[arg(long)]
        detach: bool,
    },
    /// Tunnels to other nodes, and peers that have none.
    Tunnels {
        /// Takes their interfaces away; the agent's next start makes them again.
        #[arg(long)]
        remove: bool,
    },
    /// Takes on nothing new, and ends the agent when its transfers have ended.
    Drain,
}

#[derive(Args, Debug)]
struct SendArgs {
    /// Absolute path on this node.
    from: String,
    /// The name of a peer.
    peer: String,
    /// What it is called below the peer's folder [default: the last part of FROM].
    to: Option<String>,
    /// Compares content, not only size and time, before a file counts as there.
    #[arg(long)]
    checksum: bool,
    /// Returns when the transfer has begun.
    #[arg(long)]
    no_wait: bool,
}

/// Does it; returns the exit code.
pub(crate) async fn run(args: NodeArgs) -> Result<u8> {
    match &args.command {
        NodeCommand::Status => args.show("/v1/node", status).await,
        NodeCommand::Peers => args.show("/v1/peers", peers).await,
        NodeCommand::Paths => args.show("/v1/paths", paths).await,
        NodeCommand::Transfers => args.show("/v1/transfers", transfers).await,
        NodeCommand::Tune => args.show("/v1/tune", tuned).await,
        NodeCommand::Xdp { detach: false } => args.show("/v1/xdp", guarded).await,
        NodeCommand::Xdp { detach: true } => args.tell(Method::POST, "/v1/xdp/detach").await,
        NodeCommand::Tunnels { remove: false } => args.show("/v1/tunnels", tunnels).await,
        NodeCommand::Tunnels { remove: true } => args.tell(Method::POST, "/v1/tunnels/remove").await,
        NodeCommand::Drain => args.tell(Method::POST, "/v1/drain").await,
        NodeCommand::Cancel { id } => args.tell(Method::DELETE, &format!("/v1/transfers/{id}")).await,
        NodeCommand::Doctor => args.doctor().await,
        NodeCommand::Send(send) => args.send(send).await,
    }
}

impl NodeArgs {
    /// Asks for something and prints it.
    async fn show<T: for<'a> Deserialize<'a>>(&self, path: &str, table: fn(T) -> Table) -> Result<u8> {
        let answer = ask(&self.socket, Method::GET, path, None).await?;
        if self.json {
            print(String::from_utf8_lossy(&answer))?;
        } else {
            print(table(self.read(&answer)?))?;
        }
        Ok(exit::OK)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, answer: &Bytes) -> Result<T> {
        serde_json::from_slice(answer)
            .with_context(|| format!("{}: not the answer of an agent of this version", self.socket.display()))
    }

    /// Asks for something to be done.
    async fn tell(&self, method: Method, path: &str) -> Result<u8> {
        ask(&self.socket, method, path, None).await?;
        Ok(exit::OK)
    }

    /// Of the agent if there is one, which knows its guards; otherwise of this process.
    async fn doctor(&self) -> Result<u8> {
        let found: Vec<Capability> = match ask(&self.socket, Method::GET, "/v1/capabilities", None).await {
            Ok(answer) => self.read(&answer)?,
            Err(error) => {
                eprintln!("novacron: this process looks itself: {error}");
                tokio::task::spawn_blocking(|| {
                    doctor::examine(&[], &novacron_dwcp::Settings::new("").xdp.pins)
                })
                .await?
            }
        };
        if self.json {
            print(json(&found)?)?;
            return Ok(exit::OK);
        }
        let mut table = Table::new(["WHAT", "", "HOW, OR WHY NOT"]);
        for Capability { name, state, detail } in found {
            let state = match state {
                Ability::Yes => "yes",
                Ability::Degraded => "less",
                Ability::No => "no",
                Ability::Unknown => "?",
            };
            table.row([name, state.to_owned(), detail]);
        }
        print(table)?;
        Ok(exit::OK)
    }

    async fn send(&self, send: &SendArgs) -> Result<u8> {
        let new = NewTransfer {
            peer: send.peer.clone(),
            from: send.from.clone(),
            to: send.to.clone(),
            checksum: send.checksum,
            key: None,
        };
        let body = Bytes::from(serde_json::to_vec(&new)?);
        let answer = ask(&self.socket, Method::POST, "/v1/transfers", Some(body)).await?;
        let mut transfer: Transfer = self.read(&answer)?;
        while !send.no_wait && transfer.state == TransferState::Running {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let path = format!("/v1/transfers/{}", transfer.id);
            transfer = self.read(&ask(&self.socket, Method::GET, &path, None).await?)?;
        }
        let failed = matches!(transfer.state, TransferState::Failed | TransferState::Cancelled);
        let why = transfer.error.clone();
        if self.json {
            print(json(&transfer)?)?;
        } else {
            print(transfers(vec![transfer]))?;
        }
        match why {
            Some(why) if failed => Err(Ended::failed(why).into()),
            _ => Ok(exit::OK),
        }
    }
}

fn json(what: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(what)?)
}

fn status(node: Node) -> Table {
    let greeting = node.greeting;
    let mut table = Table::new(["NODE", &*greeting.node_id]);
    let seconds = node.uptime_seconds as u64;
    let uptime = format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let state = if greeting.draining { "draining" } else { "ready" };
    for (what, value) in [
        ("state", state.to_owned()),
        ("region", greeting.region.unwrap_or_default()),
        ("version", greeting.version),
        ("pid", node.pid.to_string()),
        ("up", uptime),
        ("listens on", node.listen),
        ("datagrams on", node.datagrams.unwrap_or_default()),
        ("peers connected", node.peers_connected.to_string()),
        ("peers missing", node.peers_missing.to_string()),
        ("transfers running", node.transfers_running.to_string()),
    ] {
        table.row([what.to_owned(), value]);
    }
    table
}

fn peers(peers: Vec<Peer>) -> Table {
    let mut table = Table::new(["PEER", "REGION", "ADDRESS", "RTT ms", "LOSS %", "LINKS", "STATE"]);
    for peer in peers {
        let greeting = peer.greeting.unwrap_or_default();
        let state = match (&peer.error, greeting.draining) {
            (Some(error), _) => error.clone(),
            (None, true) => "draining".to_owned(),
            (None, false) => "connected".to_owned(),
        };
        let path = peer.path.as_ref();
        table.row([
            greeting.node_id,
            greeting.region.unwrap_or_default(),
            peer.address.or(peer.target).unwrap_or_default(),
            path.map(|path| format!("{:.3}", path.rtt_ms)).unwrap_or_default(),
            path.map(|path| format!("{:.2}", path.loss_ratio * 100.0)).unwrap_or_default(),
            peer.links.join(","),
            state,
        ]);
    }
    table
}

fn paths(rows: Vec<Row>) -> Table {
    let mut table = Table::new(["FROM", "TO", "RTT ms", "LEAST ms", "JITTER ms", "LOSS %", "MTU", "AGE s"]);
    for Row { from, age_seconds, paths, .. } in rows {
        for path in paths {
            table.row([
                from.clone(),
                path.to,
                format!("{:.3}", path.rtt_ms),
                format!("{:.3}", path.rtt_min_ms),
                path.jitter_ms.map(|jitter| format!("{jitter:.3}")).unwrap_or_default(),
                format!("{:.2}", path.loss_ratio * 100.0),
                path.mtu_bytes.map(|mtu| mtu.to_string()).unwrap_or_default(),
                format!("{age_seconds:.0}"),
            ]);
        }
    }
    table
}

fn transfers(all: Vec<Transfer>) -> Table {
    let mut table = Table::new(["ID", "WAY", "PEER", "STATE", "DONE", "OF", "SECONDS", "WHAT", "ERROR"]);
    for transfer in all {
        table.row([
            transfer.id.to_string(),
            word(&transfer.direction),
            transfer.peer,
            word(&transfer.state),
            size::show(transfer.bytes_done),
            size::show(transfer.bytes_total),
            format!("{:.1}", transfer.seconds),
            transfer.from.or(transfer.to).unwrap_or_default(),
            transfer.error.unwrap_or_default(),
        ]);
    }
    table
}

fn tuned(items: Vec<Tuned>) -> Table {
    let mut table = Table::new(["WHAT", "STATE", "VALUE"]);
    for Tuned { item, state, detail } in items {
        table.row([item, word(&state), detail]);
    }
    table
}

fn guarded(guards: Vec<Guarded>) -> Table {
    let mut table = Table::new(["INTERFACE", "MODE", "PACKETS", "REASON"]);
    for guard in guards {
        let packets = guard.packets.iter().filter(|(_, count)| **count > 0);
        let packets: Vec<_> = packets.map(|(action, count)| format!("{action} {count}")).collect();
        let mode = guard.mode.unwrap_or_else(|| "off".to_owned());
        table.row([guard.interface, mode, packets.join(", "), guard.reason.unwrap_or_default()]);
    }
    table
}

fn tunnels(tunnels: Tunnels) -> Table {
    let mut table = Table::new(["INTERFACE", "PEER", "AT", "STATE"]);
    let text = ToString::to_string;
    if let Some(WireGuard { interface, implementation, error, end, next_key_in_seconds, peers }) =
        tunnels.wireguard
    {
        let by = implementation.map_or("it is not there".to_owned(), |by| format!("WireGuard by {by}"));
        let next = next_key_in_seconds.map(|seconds| format!("next key in {seconds:.0} s"));
        let state = [Some(by), next, error].into_iter().flatten().collect::<Vec<_>>().join("; ");
        table.row([interface.clone(), "(this node)".to_owned(), end.address.to_string(), state]);
        for peer in peers {
            let handshake = match peer.handshake_age_seconds {
                Some(age) => format!("handshake {age:.0} s ago"),
                None => "no handshake yet".to_owned(),
            };
            let state =
                format!("{handshake}, {} in, {} out", size::show(peer.rx_bytes), size::show(peer.tx_bytes));
            let at = peer.endpoint.as_ref().map(text).unwrap_or_default();
            table.row([interface.clone(), peer.name, at, state]);
        }
    }
    if let Some(Vxlan { interface, error, end, mtu_bytes, peers }) = tunnels.vxlan {
        let state = error.unwrap_or_else(|| format!("VXLAN {}, MTU {mtu_bytes}", end.vni));
        table.row([interface.clone(), "(this node)".to_owned(), end.address.to_string(), state]);
        for peer in peers {
            table.row([interface.clone(), String::new(), peer.to_string(), String::new()]);
        }
    }
    for peer in tunnels.refused {
        table.row(["-".to_owned(), peer.name, String::new(), format!("none: {}", peer.reason)]);
    }
    table
}

/// A word of the schema, as its JSON has it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
