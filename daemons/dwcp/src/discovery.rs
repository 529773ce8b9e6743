//! Which peers there should be: by configuration, by a headless service, by the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use novacron_control::Target;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::MissedTickBehavior,
};

use crate::{dial, hub::Hub, peers::PEERS_MAX, settings::Discovery, store::Register};

/// For the store to answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Looks for peers until it is told to stop, when it takes back what it has entered.
pub(crate) async fn run(
    hub: Arc<Hub>,
    fixed: Vec<Target>,
    discovery: Discovery,
    mut register: Option<Register>,
    mut stop: watch::Receiver<bool>,
) {
    let mut looking = Looking::default();
    let mut headless = Found::default();
    let mut stored = Found::default();
    let mut ticks = tokio::time::interval(discovery.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        if let Some(service) = &discovery.headless {
            headless.update(resolve(service).await, "the headless service");
        }
        if let Some(register) = &mut register {
            let exchanged = tokio::select! {
                exchanged = tokio::time::timeout(EXCHANGE_TIMEOUT, register.exchange()) => exchanged,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let told = exchanged.unwrap_or_else(|_| Err(format!("no answer within {EXCHANGE_TIMEOUT:?}")));
            stored.update(told, "the store");
        }
        let all = fixed.iter().chain(&headless.targets).chain(&stored.targets);
        looking.at(&hub, all.take(PEERS_MAX).cloned().collect());
    }
    if let Some(register) = &mut register {
        register.leave().await;
    }
}

/// What a source has said at last: one that does not answer may be ill itself, and its peers are not.
#[derive(Default)]
struct Found {
    targets: BTreeSet<Target>,
}

impl Found {
    fn update(&mut self, found: Result<BTreeSet<Target>, String>, source: &str) {
        match found {
            Ok(targets) => self.targets = targets,
            Err(error) => tracing::warn!(error, "{source} does not tell peers"),
        }
    }
}

/// Every address of a name.
async fn resolve(service: &Target) -> Result<BTreeSet<Target>, String> {
    let addresses = tokio::net::lookup_host((&*service.host, service.port))
        .await
        .map_err(|error| format!("resolving {}: {error}", service.host))?;
    // Certificates of pods carry the name of their service.
    let name = service.server_name().to_owned();
    Ok(addresses.map(|address| Target { name: Some(name.clone()), ..Target::from(address) }).collect())
}

/// The addresses that are looked at, a task each.
#[derive(Default)]
struct Looking {
    tasks: JoinSet<()>,
    at: BTreeMap<Target, AbortHandle>,
}

impl Looking {
    fn at(&mut self, hub: &Arc<Hub>, targets: BTreeSet<Target>) {
        self.at.retain(|target, task| {
            let stays = targets.contains(target);
            if !stays {
                task.abort();
                hub.unwant(target);
            }
            stays
        });
        for target in targets {
            self.at.entry(target).or_insert_with_key(|target| {
                hub.want(target);
                self.tasks.spawn(dial::look(hub.clone(), target.clone()))
            });
        }
        while self.tasks.try_join_next().is_some() {}
    }
}
