//! `novacron up`: a consensus cluster, two node agents and the API on this machine, with a VM that can be migrated.

mod sample;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use consensus_core::{NodeConfig, Start};
use consensus_etcd::{AutoCompaction, InitialCluster, Server, ServerConfig};
use novacron_api::AgentSocket;
use novacron_dwcp::{Agent, Settings};
use novacron_process::Signals;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::exit;

/// VMs' data of an agent, in its folder.
const VMS: &str = "vms";
const MEMBERS: u16 = 3;
const AGENTS: u16 = 2;
/// How soon agents find each other.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(1);
/// Between the ports of one member and of the next.
const PORT_STEP: u16 = 100;
/// Peers are one port above clients.
const PEER_OFFSET: u16 = 1;
/// How long the store keeps what was changed or removed, as a kube-apiserver has it: what reads have to pass over, and pages of
/// a list that somebody still reads.
const COMPACTION_RETENTION: Duration = Duration::from_secs(5 * 60);

/// Runs a consensus cluster of three members, two node agents and the API on this machine, until SIGTERM or SIGINT.
///
/// etcd's clients can use the cluster: `export` the line that is printed, and run etcdctl. The agents find each other in it;
/// `novacron node --socket DIR/agent-1/agent.sock peers` asks the first. The API's inventory begins with a VM, `sample`, whose
/// data is on agent-1.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Folder for the data; it is made if there is none. $XDG_DATA_HOME/novacron or ~/.local/share/novacron if not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Port of the first member for clients; the others have it plus 100 and 200, and each the next one for its peers.
    #[arg(long, value_name = "PORT", default_value_t = 2379,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - (MEMBERS - 1) * PORT_STEP - PEER_OFFSET)))]
    port: u16,
    /// Port of the first agent for DWCP; datagrams have the next one, and the second agent the two after these.
    #[arg(long, value_name = "PORT", default_value_t = 8888,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - 2 * AGENTS)))]
    agent_port: u16,
    /// Port of the API, for this machine alone and without a login.
    #[arg(long, value_name = "PORT", default_value_t = novacron_api::PORT)]
    api_port: u16,
    /// Without the API.
    #[arg(long, conflicts_with = "api_port")]
    no_api: bool,
}

fn default_data_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    Ok(base
        .context("neither XDG_DATA_HOME nor HOME is set: --data-dir says where the data goes")?
        .join("novacron"))
}

/// Runs the cluster; returns the exit code. `is_traced`: spans are exported.
pub(crate) async fn run(args: UpArgs, is_traced: bool) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let folder = args.data_dir.map_or_else(default_data_dir, Ok)?;
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let members: Vec<_> = (0..MEMBERS).map(|n| (format!("m{}", n + 1), args.port + n * PORT_STEP)).collect();
    let list: Vec<_> =
        members.iter().map(|(name, port)| format!("{name}=http://{}", at(port + PEER_OFFSET))).collect();
    let cluster = InitialCluster::parse(&list.join(","), "novacron-up")?;
    let (stop, stopping) = watch::channel(false);
    let mut serving = JoinSet::new();
    let mut servers = Vec::new();
    for (name, port) in &members {
        let data_dir = folder.join(name);
        std::fs::create_dir_all(&data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let mut node = NodeConfig::new(
            cluster.cluster_id(),
            cluster.member_id(name)?,
            data_dir.join("log"),
            at(port + PEER_OFFSET),
        );
        node.start = Start::Bootstrap(cluster.membership());
        let listener =
            TcpListener::bind(at(*port)).await.with_context(|| format!("listening on {}", at(*port)))?;
        let mut config = ServerConfig::new(node, data_dir.join("data"), name);
        config.client_urls = vec![format!("http://{}", at(*port))];
        config.auto_compaction = Some(AutoCompaction::Periodic(COMPACTION_RETENTION));
        config.request_span = is_traced.then_some(novacron_trace::request_span);
        let server = Server::start(config).await.with_context(|| format!("member {name}"))?;
        let (served, mut stopping) = (server.clone(), stopping.clone());
        serving.spawn(async move {
            let asked = async move { drop(stopping.wait_for(|stop| *stop).await) };
            served.serve(listener, asked).await
        });
        servers.push(server);
    }
    let led = async {
        for server in &servers {
            // The sender is in the member: an error means that it has stopped.
            server.node().watch_status().wait_for(|status| status.leader.is_some()).await?;
        }
        anyhow::Ok(())
    };
    let mut agents = Vec::new();
    let worked = async {
        let Some(led) = signals.unless(led).await else { return Ok(()) };
        led.context("the cluster did not start")?;
        let endpoints: Vec<_> = members.iter().map(|(_, port)| at(*port).to_string()).collect();
        for n in 0..AGENTS {
            agents.push(agent(&folder, n + 1, args.agent_port + 2 * n, &endpoints).await?);
        }
        eprintln!("three members are up, with their data in {}", folder.display());
        println!("ETCDCTL_API=3 ETCDCTL_ENDPOINTS={}", endpoints.join(","));
        let mut replica = match args.no_api {
            true => None,
            false => Some(api(&folder, args.api_port, &endpoints, &agents).await?),
        };
        if let Some(replica) = &replica {
            sample::prepare(&folder.join(agent_name(1)).join(VMS))?;
            replica
                .enter_vm(sample::NAME, &region(1), &agent_name(1))
                .await
                .context("entering the sample VM")?;
            eprintln!("the API is up: http://{}/api/v1/vms", replica.address());
        }
        for agent in &agents {
            eprintln!("an agent is up: novacron node --socket {} peers", agent.socket().display());
        }
        let mut asked = JoinSet::new();
        agents.iter().for_each(|agent| drop(asked.spawn(agent.drain_asked())));
        let ended = tokio::select! {
            ended = signals.unless(serving.join_next()) => match ended {
                Some(Some(ended)) => Ok(ended??),
                _ => Ok(()),
            },
            _ = asked.join_next() => Ok(()),
        };
        if let Some(replica) = &mut replica {
            replica.drain().await;
        }
        ended
    };
    let worked: Result<()> = worked.await;
    let drained = async {
        let mut all = true;
        for agent in &mut agents {
            all &= agent.drain().await;
        }
        all
    };
    let drained = tokio::select! {
        drained = drained => drained,
        () = signals.stop_now() => false,
    };
    let _ = stop.send(true);
    for server in &servers {
        server.stop().await;
    }
    serving.shutdown().await;
    worked.map(|()| if drained { exit::OK } else { exit::PARTIAL })
}

fn agent_name(n: u16) -> String {
    format!("agent-{n}")
}

fn region(n: u16) -> String {
    format!("region-{n}")
}

/// A replica of the API that asks these agents.
async fn api(
    folder: &Path,
    port: u16,
    members: &[String],
    agents: &[Agent],
) -> Result<novacron_api::Replica> {
    let mut settings = novacron_api::Settings::new("up");
    settings.listen = ([127, 0, 0, 1], port).into();
    settings.store.endpoints = members.iter().map(|member| format!("http://{member}")).collect();
    settings.database.data_dir = folder.join("api");
    let sockets = agents
        .iter()
        .zip(1..)
        .map(|(agent, n)| AgentSocket { node: agent_name(n), path: agent.socket().clone() });
    settings.agents.sockets = sockets.collect();
    settings.drain_delay = Duration::ZERO;
    novacron_api::Replica::start(settings).await.context("the API")
}

/// An agent that finds the others in the cluster, and takes transfers into a folder of its own.
async fn agent(folder: &Path, n: u16, port: u16, members: &[String]) -> Result<Agent> {
    let name = agent_name(n);
    let folder = folder.join(&name);
    std::fs::create_dir_all(folder.join(VMS)).with_context(|| format!("making {}", folder.display()))?;
    let mut settings = Settings::new(&name);
    settings.transport.listen = ([127, 0, 0, 1], port).into();
    settings.transport.endpoint.datagrams.listen = Some(([127, 0, 0, 1], port + 1).into());
    settings.discovery.store = members.iter().map(|member| format!("http://{member}")).collect();
    settings.discovery.interval = DISCOVERY_INTERVAL;
    settings.control_socket = folder.join("agent.sock");
    settings.transport.endpoint.region = Some(region(n));
    settings.transfers_into = folder.join(VMS);
    settings.transfers_from = folder.join(VMS);
    settings.transfers_overwrite = true;
    settings.tune_state = folder.join("tune.json");
    settings.mtu_state = folder.join("mtu.json");
    Agent::start(settings).await.with_context(|| format!("agent {name}"))
}
