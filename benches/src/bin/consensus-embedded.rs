//! Three embedded nodes against their log store alone: what replication costs, without gRPC.
//!
//! All sides have the same proposers, which each wait for an answer before they ask again, and synced writes on the same
//! disk. The log store alone writes all requests that wait as one entry, as a member does. Three of them at once, of which two
//! have to have a request, are what this disk gives three nodes that share it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Parser;
use consensus_core::{
    Job, MemberInfo, Membership, Node, NodeConfig, Request, Role, Start, StateMachine, StateMachineError,
};
use consensus_disk::{Batch, Disk as _, Durability, Space};
use consensus_rocks::{Kind, RocksDisk};
use dwcp_benches::report::{Machine, Section, median, update};
use hdrhistogram::Histogram;
use tokio::sync::{mpsc, oneshot};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Before what counts: RocksDB's first write-ahead logs are new files, later ones use their room again.
const WARM_UP: Duration = Duration::from_secs(1);
/// Requests that share a write, at most.
const REQUESTS_MAX: usize = 4096;

/// Three nodes beside their log store alone.
#[derive(Parser)]
struct Args {
    /// Where the logs are, on the disk to be measured.
    #[arg(long)]
    folder: PathBuf,
    /// Rounds, of both sides in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each side in a round.
    #[arg(long, default_value_t = 2.0)]
    time: f64,
    /// Seconds without load before each side: disks in clouds have a budget that fills slowly.
    #[arg(long, default_value_t = 3.0)]
    rest: f64,
    /// Requests on their way at a time.
    #[arg(long, default_value_t = 64)]
    proposers: usize,
    /// Bytes of a request.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// The document to update.
    #[arg(long)]
    doc: Option<PathBuf>,
}

/// What a side did.
struct Outcome {
    per_second: f64,
    latency: Histogram<u64>,
}

/// Keeps nothing: what is measured is what is below it.
struct Nothing(u64);

impl StateMachine for Nothing {
    type Response = ();

    fn applied(&self) -> u64 {
        self.0
    }

    fn apply(&mut self, index: u64, requests: &[Request]) -> Result<Vec<()>, StateMachineError> {
        self.0 = index;
        Ok(vec![(); requests.len()])
    }

    fn save(&mut self) -> Job {
        let index = self.0;
        Box::new(move || Ok(index))
    }

    fn copy(&mut self, _: PathBuf) -> Job {
        Box::new(|| Err("there is nothing to copy".into()))
    }

    fn restore(&mut self, _: &Path) -> Result<(), StateMachineError> {
        Err("there is nothing to restore".into())
    }
}

/// Has `proposers` tasks ask again and again for a while.
async fn drive<F>(args: &Args, propose: impl Fn(Bytes) -> F) -> Result<Outcome>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let propose = &propose;
    let began = Instant::now() + WARM_UP;
    let until = began + Duration::from_secs_f64(args.time);
    let one = |_| async move {
        let mut latency = Histogram::<u64>::new(3)?;
        while Instant::now() < until {
            let asked = Instant::now();
            propose(vec![7; args.bytes].into()).await?;
            if asked >= began {
                latency.record(asked.elapsed().as_micros() as u64)?;
            }
        }
        anyhow::Ok(latency)
    };
    let all = futures_util::future::try_join_all((0..args.proposers).map(one)).await?;
    let took = began.elapsed().as_secs_f64();
    let mut latency = Histogram::new(3)?;
    for one in all {
        latency.add(one)?;
    }
    Ok(Outcome { per_second: latency.len() as f64 / took, latency })
}

/// A request that waits for a majority of the logs.
struct Waiting {
    request: Bytes,
    left: AtomicUsize,
    answer: Mutex<Option<oneshot::Sender<()>>>,
}

impl Waiting {
    /// One more log has it.
    fn written(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(answer) = self.answer.lock().expect("nobody panics with it").take()
        {
            // Who asked has gone: the time is over.
            let _ = answer.send(());
        }
    }
}

/// Writes all requests that wait as one entry, again and again.
fn write_log(folder: &Path, mut waiting: mpsc::Receiver<Arc<Waiting>>) -> Result<()> {
    let disk = RocksDisk::open(folder, Kind::Log, 2)?;
    let mut index = 0_u64;
    let mut all = Vec::new();
    while waiting.blocking_recv_many(&mut all, REQUESTS_MAX) > 0 {
        let entry = all.iter().flat_map(|one| one.request.iter().copied()).collect::<Vec<u8>>();
        let mut batch = Batch::default();
        index += 1;
        batch.put(Space(0), index.to_be_bytes(), entry);
        disk.write(batch, Durability::Synced)?;
        all.drain(..).for_each(|one| one.written());
    }
    Ok(())
}

/// So many log stores, each with everything; a request is answered when a majority has it.
async fn logs(args: &Args, folder: &Path, count: usize) -> Result<Outcome> {
    let (mut senders, mut writers) = (Vec::new(), Vec::new());
    for n in 0..count {
        let (sender, waiting) = mpsc::channel(2 * args.proposers);
        let folder = folder.join(n.to_string());
        senders.push(sender);
        writers.push(std::thread::spawn(move || write_log(&folder, waiting)));
    }
    let outcome = drive(args, |request| {
        let senders = senders.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let left = AtomicUsize::new(count / 2 + 1);
            let waiting = Arc::new(Waiting { request, left, answer: Mutex::new(Some(answer)) });
            for sender in senders {
                sender.send(Arc::clone(&waiting)).await?;
            }
            Ok(answered.await?)
        }
    })
    .await;
    drop(senders);
    for writer in writers {
        writer.join().expect("it does not panic")?;
    }
    outcome
}

async fn three_nodes(args: &Args, folder: &Path) -> Result<Outcome> {
    let mut members = BTreeMap::new();
    for (id, port) in (1..).zip(ports::free(3)) {
        let url = format!("dwcp://127.0.0.1:{port}");
        members.insert(id, MemberInfo { peer_urls: vec![url], ..MemberInfo::default() });
    }
    let mut nodes = Vec::new();
    for (id, info) in &members {
        let at = info.peer_urls[0].trim_start_matches("dwcp://").parse()?;
        let mut config = NodeConfig::new(1, *id, folder.join(id.to_string()).join("log"), at);
        config.start = Start::Bootstrap(Membership::of_voters(members.clone()));
        nodes.push(Node::start(config, Nothing(0)).await?.0);
    }
    nodes[0].watch_status().wait_for(|status| status.leader.is_some()).await?;
    let leader = loop {
        if let Some(leader) = nodes.iter().find(|node| node.status().role == Role::Leader) {
            break leader.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let outcome = drive(args, |request| {
        let leader = leader.clone();
        async move { Ok(leader.propose(request, Duration::from_secs(10)).await?) }
    })
    .await;
    for node in &nodes {
        node.stop().await;
    }
    outcome
}

/// What the sides are called, in the order in which they are measured.
const SIDES: [&str; 3] = ["one log", "three logs", "three nodes"];

/// The section of the document: medians over the rounds.
fn section(args: &Args, rounds: &[[Outcome; 3]]) -> Section {
    let of = |value: &dyn Fn(&[Outcome; 3]) -> f64| {
        median(&rounds.iter().map(value).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let mut text =
        "| | requests per second | p50 µs | p99 µs | nodes / this |\n|---|---:|---:|---:|---:|\n".to_owned();
    for (n, name) in SIDES.into_iter().enumerate() {
        let quantile = |q: f64| of(&move |sides| sides[n].latency.value_at_quantile(q) as f64);
        let per_second = of(&move |sides| sides[n].per_second);
        let ratio = of(&move |sides| sides[2].per_second / sides[n].per_second);
        let (p50, p99) = (quantile(0.5), quantile(0.99));
        let _ = writeln!(text, "| {name} | {per_second:.0} | {p50:.0} | {p99:.0} | {ratio:.2} |");
    }
    let machine = Machine::current("consensus-embedded");
    let _ = write!(
        text,
        "\n{} proposers, {} bytes, {} rounds of {} s. {} cores of {}, Linux {}, commit {}, {}, `{}`.",
        args.proposers,
        args.bytes,
        rounds.len(),
        args.time,
        machine.processors,
        machine.processor,
        machine.kernel,
        machine.commit,
        machine.date,
        machine.command,
    );
    Section { name: "store_embedded", text }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let folder = tempfile::tempdir_in(&args.folder).context("making a folder for the logs")?;
        let rest = || tokio::time::sleep(Duration::from_secs_f64(args.rest));
        rest().await;
        let one = logs(&args, &folder.path().join("one"), 1).await?;
        rest().await;
        let three = logs(&args, &folder.path().join("three"), 3).await?;
        rest().await;
        let sides = [one, three, three_nodes(&args, folder.path()).await?];
        for (name, side) in SIDES.iter().zip(&sides) {
            eprintln!("round {round}: {name}: {:.0}/s", side.per_second);
        }
        rounds.push(sides);
    }
    let section = section(&args, &rounds);
    println!("{}", section.text);
    match &args.doc {
        Some(path) => update(path, &[section]),
        None => Ok(()),
    }
}
