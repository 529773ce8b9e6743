//! Clients at work while something else happens, and the reads when all is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use linearizability::{EtcdKeyInput, History};
use tokio::task::JoinSet;

use crate::{
    KEYS, MEMBERS, ROUNDS_MAX, Recording,
    client::{Client, Reads},
    cluster::Cluster,
};

/// For the members to serve again when nothing is wrong any more. Only what hangs reaches it.
const RECOVERY: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);
/// Turns of a client. A round lasts two to three seconds on average, a turn five milliseconds and more.
const TURNS_MAX: usize = 600 * ROUNDS_MAX as usize;

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many there are.
    pub clients: u64,
    /// What they ask comes from it.
    pub seed: u64,
    /// How they read.
    pub reads: Reads,
}

impl Load {
    /// Runs clients while `work` does, then reads every key from every member.
    pub(crate) fn during(
        &self,
        cluster: &mut Cluster,
        work: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<Recording> {
        let network = cluster.network().clone();
        let members: Vec<_> = (0..MEMBERS).map(|n| network.client_address(n)).collect();
        let clock = Instant::now();
        let client = |id| Client::new(id, self.seed, members.clone(), self.reads, clock);
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = std::thread::scope(|scope| {
            let beginning: Vec<_> = (0..self.clients).map(client).collect();
            let clients = scope.spawn(|| network.enter_clients(|| work_until(beginning, &stop)));
            let worked = work(cluster);
            stop.store(true, Ordering::Relaxed);
            let clients = clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            worked.and(clients)
        })?;
        cluster.ensure_alive()?;
        let last = client(self.clients);
        let last = network.enter_clients(|| runtime()?.block_on(read_everything(last)));
        cluster.ensure_alive()?;
        clients.push(last?);
        Ok(recording(clients))
    }
}

/// On the thread that it is made on: its sockets are in that thread's namespace.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn work_until(clients: Vec<Client>, stop: &Arc<AtomicBool>) -> Result<Vec<Client>> {
    runtime()?.block_on(async {
        let mut working = JoinSet::new();
        for mut client in clients {
            let stop = stop.clone();
            working.spawn(async move {
                for _ in 0..TURNS_MAX {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    client.turn().await;
                }
                client
            });
        }
        Ok(working.join_all().await)
    })
}

/// Asks every member for every key until it answers.
async fn read_everything(mut client: Client) -> Result<Client> {
    let until = Instant::now() + RECOVERY;
    for member in 0..MEMBERS {
        for key in 0..KEYS {
            while !client.ask(member, key, EtcdKeyInput::Get).await {
                let errors = &client.errors;
                ensure!(
                    Instant::now() < until,
                    "member {member} does not serve after {RECOVERY:?}: {errors:?}"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    Ok(client)
}

fn recording(clients: Vec<Client>) -> Recording {
    let (mut history, mut errors) = (History::default(), std::collections::BTreeMap::new());
    for client in clients {
        history.extend(client.history);
        for (error, count) in client.errors {
            *errors.entry(error).or_default() += count;
        }
    }
    let mut operations = history.into_operations();
    operations.sort_by_key(|operation| operation.call);
    Recording { operations, errors }
}
