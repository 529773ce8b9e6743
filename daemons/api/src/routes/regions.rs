//! Regions: what the inventory, the agents and the store's replication know of each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State};
use consensus_proto::regions::{StatusRequest, StatusResponse};
use novacron_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{nodes, vms};
use crate::{
    app::App,
    auth::{principal::Principal, role::Role},
    cache::Question,
    http::{extract::Name, problem::Problem},
    store::{Store, name_of},
};

/// Entries that are read at once, and how many VMs and nodes are counted at most.
const READ_ENTRIES: usize = 500;
const COUNTED_MAX: usize = 10_000;
/// How old what is known of regions may be: it takes a look at all VMs.
const AGE_MAX: Duration = Duration::from_secs(2);

/// Regions, all of those that the caller may look at.
#[derive(Serialize, ToSchema)]
pub(crate) struct Regions {
    /// In the order of their names.
    items: Vec<Region>,
}

/// A region.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Region {
    /// What it is called.
    name: String,
    /// VMs of the inventory that belong to it; null if there are more than 10,000 VMs in all.
    vms: Option<u64>,
    /// Nodes whose agent runs; null if there are more than 10,000 in all.
    nodes: Option<u64>,
    /// What the store that was asked says of its replication with it; null if it has none.
    replication: Option<Replication>,
}

/// Replication between the region of the store that was asked and another one.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Replication {
    /// The region's number, which no other ever has.
    number: u32,
    /// It is that of the store that was asked.
    is_this_one: bool,
    /// It takes a snapshot, and does not write yet; null for other regions, of which that is not known.
    joining: Option<bool>,
    /// It was removed for good.
    removed: bool,
    /// There is a connection to its leader.
    connected: bool,
    /// Where its members listen for other regions.
    urls: Vec<String>,
    /// How many of its changes are known here.
    changes_known: u64,
    /// For how long it has not heard of the oldest change from here that it is not known to know.
    lag_ms: u64,
    /// What was found that should not be, since the leader here began.
    alarms: Vec<RegionAlarm>,
}

/// What should not be.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RegionAlarm {
    /// Which kind it is, as in docs/regions.md.
    kind: String,
    /// How often it was found.
    count: u64,
    /// The last one, in words.
    text: String,
}

/// Lists regions
///
/// Those to which a VM or a node belongs, or that the store replicates with; of these those that the caller may look at.
#[utoipa::path(get, path = "/api/v1/regions", operation_id = "list_regions", tag = "cluster",
    responses((status = 200, body = Regions)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
) -> Result<Json<Regions>, Problem> {
    let all = known(&app).await?.into_values();
    Ok(Json(Regions { items: all.filter(|region| principal.sees(Some(&region.name))).collect() }))
}

/// One region
#[utoipa::path(get, path = "/api/v1/regions/{name}", operation_id = "get_region", tag = "cluster",
    params(("name" = String, Path)), responses((status = 200, body = Region)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Arc<Principal>>,
    Name(name): Name,
) -> Result<Json<Region>, Problem> {
    principal.require(Role::Viewer, &name)?;
    let found = known(&app).await?.remove(&name);
    found.map(Json).ok_or_else(|| Problem::not_found("region", &name))
}

/// All of them, as they are or were a moment ago.
async fn known(app: &App) -> Result<BTreeMap<String, Region>, StoreError> {
    app.cache.answer(&app.store, Question::new("regions", "", AGE_MAX), all(app)).await
}

async fn all(app: &App) -> Result<BTreeMap<String, Region>, StoreError> {
    let store = &app.store;
    let vms = counted(store, vms::PREFIX, |_, kv| vms::parsed(kv).map(|vm| vm.region)).await?;
    let nodes = counted(store, nodes::PREFIX, |name, kv| nodes::parsed(name, kv)?.region).await?;
    let mut all: BTreeMap<String, Region> = BTreeMap::new();
    let names = vms.counts.keys().chain(nodes.counts.keys()).cloned();
    for name in names {
        all.entry(name).or_default();
    }
    if let Some(status) = replication(store).await? {
        for (name, replication) in described(status) {
            all.entry(name).or_default().replication = Some(replication);
        }
    }
    for (name, region) in &mut all {
        name.clone_into(&mut region.name);
        (region.vms, region.nodes) = (vms.of(name), nodes.of(name));
    }
    Ok(all)
}

/// Entries by region.
struct Counted {
    counts: BTreeMap<String, u64>,
    /// There are no others.
    is_all: bool,
}

impl Counted {
    fn of(&self, region: &str) -> Option<u64> {
        self.is_all.then(|| self.counts.get(region).copied().unwrap_or_default())
    }
}

async fn counted(
    store: &Store,
    prefix: &str,
    region: impl Fn(&str, &consensus_proto::mvccpb::KeyValue) -> Option<String>,
) -> Result<Counted, StoreError> {
    let (mut counts, mut after, mut revision) = (BTreeMap::new(), String::new(), 0);
    for _ in 0..COUNTED_MAX / READ_ENTRIES {
        let answer = store.list(prefix, &after, READ_ENTRIES, revision).await?;
        // All of one moment.
        revision = answer.header.as_ref().map_or(revision, |header| header.revision.max(revision));
        for kv in &answer.kvs {
            let Some(name) = name_of(prefix, &kv.key) else { continue };
            name.clone_into(&mut after);
            if let Some(region) = region(name, kv) {
                *counts.entry(region).or_default() += 1;
            }
        }
        if !answer.more {
            return Ok(Counted { counts, is_all: true });
        }
    }
    Ok(Counted { counts, is_all: false })
}

/// What the store says; `None`: it does not replicate, or is one that knows nothing of it.
async fn replication(store: &Store) -> Result<Option<StatusResponse>, StoreError> {
    let ask = store.client().read("region status", StatusRequest {}, |link, request| async move {
        link.regions().status(request).await
    });
    match ask.await {
        Ok(status) => Ok(Some(status)),
        Err(StoreError::Refused { failure, .. }) => {
            tracing::debug!(%failure, "replication between regions");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn described(status: StatusResponse) -> impl Iterator<Item = (String, Replication)> {
    let StatusResponse { region: this, joining, regions, alarms, .. } = status;
    regions.into_iter().map(move |region| {
        let number = region.region;
        let alarms = alarms.iter().filter(|alarm| alarm.region == number).map(|alarm| RegionAlarm {
            kind: alarm.kind.clone(),
            count: alarm.count,
            text: alarm.text.clone(),
        });
        let replication = Replication {
            number,
            is_this_one: number == this,
            joining: (number == this).then_some(joining),
            removed: region.removed,
            connected: region.connected,
            urls: region.urls,
            changes_known: region.known,
            lag_ms: region.lag_ms,
            alarms: alarms.collect(),
        };
        (region.name, replication)
    })
}

#[cfg(test)]
mod tests {
    use consensus_proto::regions::{Alarm, Region as Told};

    use super::*;

    #[test]
    fn alarms_are_of_their_region() {
        let told = |region, name: &str| Told { region, name: name.to_owned(), ..Told::default() };
        let alarm = Alarm { kind: "forgotten".to_owned(), region: 2, count: 3, text: "t".to_owned() };
        let status = StatusResponse {
            region: 1,
            regions: vec![told(1, "eu"), told(2, "us")],
            alarms: vec![alarm],
            ..StatusResponse::default()
        };
        let found: BTreeMap<_, _> = described(status).collect();
        assert!(found["eu"].is_this_one && found["eu"].alarms.is_empty());
        assert_eq!((found["eu"].joining, found["us"].joining), (Some(false), None));
        assert_eq!((found["us"].alarms[0].count, found["us"].number), (3, 2));
    }
}
