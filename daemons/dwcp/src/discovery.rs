//! Which peers there should be: by configuration, by a headless service, by the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};

use crate::{dial, hub::Hub, peers::PEERS_MAX, settings::Discovery, store::Register, target::Target};

/// A source that does not answer keeps what it has said for so many intervals: it may be what is ill, not the peers.
const PATIENCE: u32 = 6;

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
            headless.update(resolve(service).await, discovery.interval, "the headless service");
        }
        if let Some(register) = &mut register {
            stored.update(register.exchange().await, discovery.interval, "the store");
        }
        let all = fixed.iter().chain(&headless.targets).chain(&stored.targets);
        looking.at(&hub, all.take(PEERS_MAX).cloned().collect());
    }
    if let Some(register) = &mut register {
        register.leave().await;
    }
}

/// What a source has said.
#[derive(Default)]
struct Found {
    targets: BTreeSet<Target>,
    said: Option<Instant>,
}

impl Found {
    fn update(&mut self, found: Result<BTreeSet<Target>, String>, interval: Duration, source: &str) {
        match found {
            Ok(targets) => *self = Self { targets, said: Some(Instant::now()) },
            Err(error) => {
                tracing::warn!(error, "{source} does not tell peers");
                if self.said.is_some_and(|said| said.elapsed() > interval * PATIENCE) {
                    *self = Self::default();
                }
            }
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
