//! Stores of several regions in one process, with real disks and DWCP between them.

mod region;
mod tls;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use consensus_core::{RegionNetwork, RegionNetworkConfig, Role};
use consensus_disk::{Batch, Disk as _, Durability, Space};
use consensus_proto::regions::{AddRequest, Field, RemoveRequest, change_request::Change};
use consensus_regions::{Body, Message, Phase, RegionId, Stamp, Status, VersionVector, topology::Topology};
use consensus_rocks::Home;
use consensus_store::Store;
use region::{Region, World, until};

#[tokio::test(flavor = "multi_thread")]
async fn regions_converge_and_what_is_deleted_stays_so() {
    let mut world = World::new(3);
    for number in 1..=3 {
        world.start(number, 1, false).await;
    }
    let (eu, us, ap) = (world.region(1), world.region(2), world.region(3));
    eu.put("/global/a", "from eu").await;
    us.put("/global/b", "from us").await;
    ap.put("elsewhere", "is not told").await;
    for region in [eu, us, ap] {
        region.becomes("/global/a", Some("from eu")).await;
        region.becomes("/global/b", Some("from us")).await;
    }
    assert_eq!(eu.value("elsewhere").await, None);
    // Whatever is done at the same time has a result, which is the same everywhere.
    for (region, amount) in [(eu, 5), (us, -2), (ap, 10)] {
        region.change("/global/n", Change::CounterAdd(amount)).await;
        let element = Bytes::from(format!("of {}", region.number));
        region.change("/global/s", Change::SetAdd(element.clone())).await;
        region.change("/global/m", Change::MapPut(Field { field: element, value: "1".into() })).await;
        region.put("/global/a", &format!("last of {}", region.number)).await;
    }
    until("one state", async || {
        let states = [eu.state().await, us.state().await, ap.state().await];
        states.windows(2).all(|pair| pair[0] == pair[1])
            && states[0].get("/global/n").is_some_and(|sum| sum == "13")
            && states[0].get("/global/s").is_some_and(|set| set.matches(',').count() == 2)
    })
    .await;
    // Tombstones go when all have heard of them; nothing comes back.
    us.delete("/global/a").await;
    ap.delete("/global/n").await;
    for region in [eu, us, ap] {
        region.becomes("/global/a", None).await;
        region.becomes("/global/n", None).await;
        // The members, b, s and m.
        until("tombstones are collected", async || region.items() == 4).await;
    }
    world.restart(2).await;
    let (eu, us) = (world.region(1), world.region(2));
    eu.put("/global/c", "later").await;
    us.becomes("/global/c", Some("later")).await;
    assert_eq!((us.value("/global/a").await, us.items()), (None, 5));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_away_hears_of_everything_and_so_do_the_others_through_a_third() {
    let mut world = World::new(3);
    // 1 and 3 cannot find each other.
    world.apart = Some((1, 3));
    for number in 1..=3 {
        world.start(number, 1, false).await;
    }
    world.region(1).put("/global/a", "1").await;
    world.region(3).becomes("/global/a", Some("1")).await;
    world.region(3).change("/global/n", Change::CounterAdd(3)).await;
    world.region(1).becomes("/global/n", Some("3")).await;
    world.stop_region(2).await;
    world.region(1).put("/global/a", "2").await;
    world.region(1).change("/global/n", Change::CounterAdd(4)).await;
    world.region(3).delete("/global/a").await;
    world.region(3).put("/global/b", "new").await;
    world.start(2, 1, false).await;
    for number in 1..=3 {
        world.region(number).becomes("/global/n", Some("7")).await;
        world.region(number).becomes("/global/b", Some("new")).await;
    }
    until("one state", async || world.region(1).state().await == world.region(3).state().await).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_passes_on_what_spokes_change() {
    let mut world = World::new(3);
    world.topology = Topology::HubSpoke { hub: RegionId(2) };
    world.apart = Some((1, 3));
    for number in 1..=3 {
        world.start(number, 1, false).await;
    }
    world.region(1).put("/global/a", "1").await;
    world.region(3).becomes("/global/a", Some("1")).await;
    world.region(3).delete("/global/a").await;
    world.region(1).becomes("/global/a", None).await;
    for number in 1..=3 {
        until("the tombstone goes", async || world.region(number).items() == 1).await;
    }
    world.stop().await;
}

/// Data of a member that knew nothing of regions.
#[test]
fn data_without_regions_opens() {
    let folder = tempfile::tempdir().unwrap();
    let state = [&5_u64.to_le_bytes()[..], &1_i64.to_le_bytes(), &0_i64.to_le_bytes()].concat();
    {
        let (_, disk) = Home::open(folder.path(), 6).unwrap();
        let mut batch = Batch::default();
        batch.put(Space(2), *b"state", state);
        disk.write(batch, Durability::Synced).unwrap();
        disk.flush().unwrap();
    }
    let (_, disk) = Home::open(folder.path(), consensus_store::SPACES).unwrap();
    let store = Store::open(Arc::new(disk)).unwrap();
    assert_eq!((store.applied(), store.reader().is_region()), (5, false));
    assert_eq!(store.reader().region_items(), Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_region_catches_up_by_snapshot_and_one_that_is_removed_is_not_heard() {
    let mut world = World::new(3);
    for number in [1, 2] {
        world.founders = vec![1, 2];
        world.start(number, 1, false).await;
    }
    let eu = world.region(1);
    // More than one part of a snapshot.
    for number in 0..40 {
        eu.put(&format!("/global/k{number}"), &"x".repeat(20_000)).await;
    }
    world.region(2).becomes("/global/k39", Some(&"x".repeat(20_000))).await;
    eu.put("/global/gone", "x").await;
    eu.delete("/global/gone").await;
    world.start(3, 1, true).await;
    let (eu, late) = (world.region(1), world.region(3));
    until("it joins", async || late.phase() == Some(Phase::Joining)).await;
    let refused = late.try_put("/global/k0", "too early").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    let urls = vec![format!("http://{}", late.listen)];
    let add = AddRequest { region: 3, name: "ap".into(), urls };
    eu.regions().await.add(add.clone()).await.unwrap();
    let again = eu.regions().await.add(add).await.unwrap_err();
    assert_eq!(again.code(), tonic::Code::FailedPrecondition, "{again}");
    until("it is active", async || late.phase() == Some(Phase::Active)).await;
    until("one state", async || late.state().await == eu.state().await).await;
    late.put("/global/k0", "late").await;
    world.region(2).becomes("/global/k0", Some("late")).await;
    let status = eu.status().await;
    let names: Vec<_> = status.regions.iter().map(|region| (region.region, &region.name[..])).collect();
    assert_eq!(names, [(1, "r1"), (2, "r2"), (3, "ap")]);
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);

    eu.regions().await.remove(RemoveRequest { region: 3 }).await.unwrap();
    until("the others know", async || {
        let status = world.region(2).status().await;
        status.regions.iter().any(|region| region.region == 3 && region.removed)
    })
    .await;
    // Nobody tells it, and nobody hears it.
    late.put("/global/k1", "unheard").await;
    eu.put("/global/marker", "x").await;
    world.region(2).becomes("/global/marker", Some("x")).await;
    world.region(2).put("/global/marker", "y").await;
    eu.becomes("/global/marker", Some("y")).await;
    assert_ne!(eu.value("/global/k1").await.as_deref(), Some("unheard"));
    assert_ne!(world.region(2).value("/global/k1").await.as_deref(), Some("unheard"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leader_of_a_region_goes_on() {
    let mut world = World::new(2);
    world.start(1, 3, false).await;
    world.start(2, 1, false).await;
    world.region(1).put("/global/a", "1").await;
    world.region(2).becomes("/global/a", Some("1")).await;
    for round in 0..2 {
        let region = world.region(1);
        let leader = region.leader().await;
        let next =
            region.servers().find(|server| server.node().id() != leader.node().id()).unwrap().node().id();
        leader.node().transfer_leader(next, std::time::Duration::from_secs(10)).await.unwrap();
        until("another leads", async || {
            region
                .servers()
                .any(|server| server.node().id() == next && server.node().status().role == Role::Leader)
        })
        .await;
        region.change("/global/n", Change::CounterAdd(1)).await;
        let sum = (round + 1).to_string();
        world.region(2).becomes("/global/n", Some(&sum)).await;
        world.region(2).put("/global/b", &sum).await;
        region.becomes("/global/b", Some(&sum)).await;
        // All members have it.
        for server in region.servers() {
            until("every member has it", async || Region::items_of(server) == region.items()).await;
        }
    }
    world.stop().await;
}

/// A region that nobody has started, by hand.
async fn stranger(world: &World, number: u32) -> (RegionNetwork, tokio::sync::mpsc::Receiver<(u32, Bytes)>) {
    let config = RegionNetworkConfig {
        region: number,
        name: String::new(),
        listen: world.listen(number),
        tls: None,
        allow_plaintext: false,
    };
    let (network, messages) = RegionNetwork::listen(config).await.unwrap();
    network.set_speaking(true);
    network.set_peers(&[(1, vec![format!("http://{}", world.listen(1))])].into());
    (network, messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_ahead_is_refused_and_alarmed() {
    let mut world = World::new(2);
    world.start(1, 1, false).await;
    let region = world.region(1);
    let (network, _messages) = stranger(&world, 2).await;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let status = |ahead_ms: u64, known: u64| Message {
        from: RegionId(2),
        to: RegionId(1),
        body: Body::Status(Status {
            phase: Phase::Active,
            version: [(RegionId(2), known)].into_iter().filter(|(_, known)| *known > 0).collect(),
            horizon: VersionVector::default(),
            latest: Stamp::new(now_ms + ahead_ms, 0),
            sent_ms: now_ms,
            rows: Vec::new(),
        }),
    };
    until("the alarm", async || {
        network.send(1, status(3_600_000, 0).encode());
        let alarms = region.status().await.alarms;
        alarms.iter().any(|alarm| alarm.kind == "clock_ahead" && alarm.region == 2)
    })
    .await;
    // Nothing that it says counts: it is not even known to have spoken.
    region.put("/global/a", "1").await;
    let clock = region.look(|local| local.replica.latest());
    assert!(clock.millis() < now_ms + 3_000_000, "its clock is not taken over");
    // Whoever speaks in the name of another region is not heard either.
    let mut forged = status(0, 0);
    forged.from = RegionId(1);
    network.send(1, forged.encode());
    // Time has caught up.
    let before = region.status().await.alarms.iter().map(|alarm| alarm.count).sum::<u64>();
    network.send(1, status(0, 0).encode());
    network.send(1, Bytes::from_static(b"nonsense"));
    until("it is heard", async || region.status().await.regions.iter().any(|region| region.connected)).await;
    assert_eq!(region.status().await.alarms.iter().map(|alarm| alarm.count).sum::<u64>(), before);
    network.shutdown(std::time::Duration::from_millis(100)).await;
    world.stop().await;
}
