//! Reconciliations against an API server and a store in the process.

mod certificates;
mod federation;
mod server;
mod stale;
mod world;

use kube::Api;
use novacron_operator::{
    lease::{Election, Fence, NotHeld},
    membership::Step,
    plan::role,
};
use serde_json::{Value, json};
use server::Fault;
use world::{CLUSTER, DEPLOYMENT, REGION, SET, World};

/// Enough for everything that is asked for here.
const ROUNDS: usize = 40;
/// So many writes the way from three members to five takes, and after each of so many of them it is cut.
const WRITES: usize = 200;
const WRITES_STEP: usize = 23;

async fn ready(voters: u16) -> World {
    let world = World::new(voters);
    world.rounds(ROUNDS).await;
    assert!(
        world.is_ready(),
        "{:?} {:?}",
        world.condition(CLUSTER, "Ready"),
        world.condition(REGION, "Ready")
    );
    world
}

#[tokio::test]
async fn a_cluster_comes_to_be_and_stays_as_it_is() {
    let world = ready(3).await;
    assert_eq!(world.voters(), [0, 1, 2]);
    let region = world.server.get(REGION).unwrap();
    assert_eq!(region["status"]["bootstrapped"], 3);
    assert_eq!(region["status"]["version"], "0.1.0");
    assert_eq!(region["status"]["members"].as_array().map(Vec::len), Some(3));
    let cluster = world.server.get(CLUSTER).unwrap();
    assert_eq!(
        (&cluster["status"]["regionsReady"], &cluster["status"]["version"]),
        (&json!("1/1"), &json!("0.1.0"))
    );
    let gates = world.pod(0).unwrap()["status"]["conditions"].to_string();
    assert!(gates.contains("novacron.io/consensus-caught-up"), "{gates}");
    let map = world.server.get("api/v1/namespaces/novacron/configmaps/c-r-consensus").unwrap();
    assert!(
        map["data"]["config.yaml"].as_str().unwrap().contains("initial_cluster_state: existing"),
        "{map}"
    );
    let version = |path: &str| world.server.get(path).unwrap()["metadata"]["resourceVersion"].clone();
    let before = [CLUSTER, REGION, SET, DEPLOYMENT].map(version);
    world.rounds(5).await;
    assert_eq!(
        before,
        [CLUSTER, REGION, SET, DEPLOYMENT].map(version),
        "nothing changes that is as it should be"
    );
}

#[tokio::test]
async fn drift_is_repaired_and_what_is_not_planned_goes() {
    let world = ready(1).await;
    let service = "api/v1/namespaces/novacron/services/c-r-api";
    world.server.change(service, |service| service["spec"]["ports"][0]["port"] = json!(1));
    world.server.change(SET, |set| set["spec"]["serviceName"] = json!("other"));
    world.rounds(2).await;
    assert_eq!(world.server.get(service).unwrap()["spec"]["ports"][0]["port"], 8080);
    assert_eq!(world.server.get(SET).unwrap()["spec"]["serviceName"], "c-r-consensus");

    let policy = "apis/networking.k8s.io/v1/namespaces/novacron/networkpolicies/c-r-api";
    assert!(world.server.get(policy).is_some());
    world.set_spec("/spec", {
        let mut spec = world.server.get(CLUSTER).unwrap()["spec"].clone();
        spec["networking"] = json!({ "networkPolicies": false });
        spec
    });
    world.rounds(2).await;
    assert_eq!(world.server.get(policy), None, "what is not planned any more is gone");
    assert!(world.server.get(service).is_some());
}

#[tokio::test]
async fn replicas_go_to_the_autoscaler_and_come_back() {
    let world = ready(1).await;
    let replicas = || world.server.get(DEPLOYMENT).unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas(), 2);
    world.set_spec("/spec/regions/0/api/autoscaling", json!(true));
    world.rounds(2).await;
    assert_eq!(replicas(), 2, "nobody has said anything else");
    world.server.change(DEPLOYMENT, |deployment| deployment["spec"]["replicas"] = json!(4));
    world.rounds(3).await;
    assert_eq!(replicas(), 4, "the autoscaler's word holds");
    world.set_spec("/spec/regions/0/api/autoscaling", json!(false));
    world.rounds(2).await;
    assert_eq!(replicas(), 2);
    assert_eq!(
        world.server.get("apis/autoscaling/v2/namespaces/novacron/horizontalpodautoscalers/c-r-api"),
        None
    );
}

#[tokio::test]
async fn members_come_and_go_one_at_a_time() {
    let world = ready(3).await;
    world.store.0.lock().unwrap().steps.clear();
    world.set_spec("/spec/regions/0/voters", json!(5));
    world.cluster().await.unwrap();
    assert_eq!(world.condition(CLUSTER, "Ready").0, "False", "the region has not even seen it yet");
    world.rounds(ROUNDS).await;
    assert!(world.is_ready());
    assert_eq!(world.voters(), [0, 1, 2, 3, 4]);
    let steps = std::mem::take(&mut world.store.0.lock().unwrap().steps);
    let [Step::AddLearner(3), Step::Promote(one), Step::AddLearner(4), Step::Promote(other)] = steps[..]
    else {
        panic!("{steps:?}")
    };
    assert_ne!(one, other);
    world.set_spec("/spec/regions/0/voters", json!(3));
    world.rounds(ROUNDS).await;
    assert!(world.is_ready());
    assert_eq!(world.voters(), [0, 1, 2]);
    assert_eq!(world.server.get(SET).unwrap()["spec"]["replicas"], 3);
    let steps = std::mem::take(&mut world.store.0.lock().unwrap().steps);
    assert_eq!(steps, [Step::Remove(other), Step::Remove(one)]);
}

#[tokio::test]
async fn a_member_whose_volume_is_gone_is_replaced() {
    let world = ready(3).await;
    let old = world.store.0.lock().unwrap().all[1].id;
    world.store.0.lock().unwrap().steps.clear();
    world.lose_volume(1);
    world.kubernetes();
    world.rounds(ROUNDS).await;
    assert!(world.is_ready(), "{:?}", world.condition(REGION, "Ready"));
    assert_eq!(world.voters(), [0, 1, 2]);
    let steps = world.store.0.lock().unwrap().steps.clone();
    let [Step::Remove(removed), Step::AddLearner(1), Step::Promote(new)] = steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(removed, old);
    assert_ne!(new, old);
}

#[tokio::test]
async fn a_member_whose_data_is_gone_while_its_claim_stays_is_replaced() {
    let world = ready(3).await;
    let old = world.store.0.lock().unwrap().all[1].id;
    let claim = "api/v1/namespaces/novacron/persistentvolumeclaims/data-c-r-consensus-1";
    let uid = world.server.get(claim).unwrap()["metadata"]["uid"].clone();
    world.store.0.lock().unwrap().steps.clear();
    world.wipe(1);
    world.rounds(ROUNDS).await;
    assert!(world.is_ready(), "{:?}", world.condition(REGION, "Ready"));
    let steps = world.store.0.lock().unwrap().steps.clone();
    let [Step::Remove(removed), Step::AddLearner(1), Step::Promote(new)] = steps[..] else {
        panic!("{steps:?}")
    };
    assert!(removed == old && new != old);
    assert_eq!(
        world.server.get(claim).unwrap()["metadata"]["uid"],
        uid,
        "nobody deletes what may still be wanted"
    );
}

#[tokio::test]
async fn nobody_is_replaced_without_a_quorum() {
    let world = ready(3).await;
    world.store.0.lock().unwrap().steps.clear();
    world.wipe(1);
    world.wipe(2);
    world.rounds(ROUNDS).await;
    assert_eq!(world.condition(REGION, "Degraded"), ("True".to_owned(), "QuorumLost".to_owned()));
    assert_eq!(world.store.0.lock().unwrap().steps, []);
    assert_eq!(world.voters(), [0, 1, 2]);
}

#[tokio::test]
async fn a_version_goes_to_one_pod_after_the_other() {
    let world = ready(3).await;
    let uid = |ordinal| world.pod(ordinal).map(|pod| pod["metadata"]["uid"].clone());
    let before = [0, 1, 2].map(uid);
    world.set_spec("/spec/version", json!("0.2.0"));
    let mut order = Vec::new();
    for _ in 0..ROUNDS {
        world.round().await;
        let changed: Vec<_> = (0..3_u16).filter(|n| uid(*n) != before[usize::from(*n)]).collect();
        order.extend(changed.into_iter().filter(|n| !order.contains(n)).collect::<Vec<_>>());
    }
    assert!(world.is_ready());
    assert_eq!(order, [2, 1, 0], "the leader is the last one");
    let steps = world.store.0.lock().unwrap().steps.clone();
    assert!(matches!(steps[..], [Step::MoveLeader { from: 1, .. }]), "{steps:?}");
    assert_eq!(world.server.get(CLUSTER).unwrap()["status"]["version"], "0.2.0");

    world.set_spec("/spec/version", json!("0.9.0"));
    world.rounds(ROUNDS).await;
    assert_eq!(world.condition(REGION, "Degraded"), ("True".to_owned(), "VersionSkew".to_owned()));
    assert_eq!(world.server.get(CLUSTER).unwrap()["status"]["version"], "0.2.0");
    let image = &world.server.get(SET).unwrap()["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "novacron/consensus:0.2.0", "what is not allowed is not begun");
}

#[tokio::test]
async fn it_goes_on_wherever_it_was_killed() {
    // Writes all along the way fail, before they are done and after; every round is another process. Every state and step is the
    // simulation's, which has no API server.
    for is_done in [false, true] {
        for after in (0..WRITES).step_by(WRITES_STEP) {
            let world = ready(3).await;
            world.server.take_writes();
            world.set_spec("/spec/regions/0/voters", json!(5));
            world.server.0.lock().unwrap().faults.push(Fault { after, code: 500, is_done });
            for _ in 0..ROUNDS {
                world.killed().round().await;
            }
            assert!(
                world.is_ready(),
                "write {after}, done: {is_done}: {:?}",
                world.condition(REGION, "Ready")
            );
            assert_eq!(world.voters(), [0, 1, 2, 3, 4], "write {after}, done: {is_done}");
            let mut steps = world.store.0.lock().unwrap().steps.clone();
            steps.dedup();
            assert_eq!(steps.len(), 4, "write {after}, done: {is_done}: {steps:?}");
        }
    }
}

#[tokio::test]
async fn paused_objects_are_left_alone() {
    let world = ready(3).await;
    let annotate = |value: Value| {
        world.server.change(CLUSTER, |cluster| {
            cluster["metadata"]["annotations"] = json!({ "novacron.io/paused": value })
        });
    };
    annotate(json!("true"));
    world.set_spec("/spec/regions/0/voters", json!(5));
    world.server.change(SET, |set| set["spec"]["serviceName"] = json!("mine"));
    world.rounds(5).await;
    assert_eq!(world.server.get(SET).unwrap()["spec"]["serviceName"], "mine");
    assert_eq!(world.condition(CLUSTER, "Ready").1, "Paused");
    assert_eq!(world.condition(REGION, "Ready").1, "Paused");
    annotate(json!("false"));
    world.rounds(ROUNDS).await;
    assert!(world.is_ready());
    assert_eq!(world.voters().len(), 5);
}

#[tokio::test]
async fn what_cannot_be_read_or_done_says_so() {
    let world = ready(1).await;
    world.server.take_writes();
    world.set_spec("/spec/regions/0/voters", json!("many"));
    world.cluster().await.unwrap();
    assert_eq!(world.condition(CLUSTER, "Degraded"), ("True".to_owned(), "Invalid".to_owned()));
    let status = &world.server.get(CLUSTER).unwrap()["status"];
    assert_eq!(status["version"], "0.1.0", "what was known stays");
    assert!(world.server.take_writes().contains(&"create events ".to_owned()));
    assert!(world.server.get(SET).is_some());

    world.set_spec("/spec/regions/0/voters", json!(1));
    world.rounds(3).await;
    assert!(world.is_ready());
    world.set_spec("/spec/regions/0/voters", json!(2));
    world.rounds(3).await;
    assert_eq!(world.condition(REGION, "Degraded"), ("True".to_owned(), "Invalid".to_owned()));
    world.store.0.lock().unwrap().is_silent = true;
    world.set_spec("/spec/regions/0/voters", json!(1));
    world.rounds(3).await;
    assert_eq!(world.condition(REGION, "Degraded"), ("True".to_owned(), "StoreUnreachable".to_owned()));
}

#[tokio::test]
async fn claims_stay_or_go_as_the_policy_says() {
    for (policy, left) in [("Keep", 3), ("Delete", 0)] {
        let world = ready(3).await;
        world.set_spec("/spec", {
            let mut spec = world.server.get(CLUSTER).unwrap()["spec"].clone();
            spec["storage"] = json!({ "claims": policy });
            spec
        });
        world.rounds(3).await;
        world.server.change(CLUSTER, |cluster| {
            cluster["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        world.rounds(10).await;
        assert_eq!(world.server.get(CLUSTER), None, "{policy}");
        assert_eq!(world.server.get(REGION), None, "{policy}");
        assert_eq!(world.server.get(SET), None, "{policy}");
        assert_eq!(world.claims(), left, "{policy}");
    }
}

#[tokio::test]
async fn nothing_is_done_that_the_role_does_not_have() {
    let world = ready(3).await;
    world.set_spec("/spec/regions/0/voters", json!(5));
    world.rounds(ROUNDS).await;
    world.set_spec("/spec/version", json!("0.1.1"));
    world.set_spec("/spec/regions/0/api/autoscaling", json!(true));
    world.rounds(ROUNDS).await;
    world
        .server
        .change(CLUSTER, |cluster| cluster["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    world.rounds(10).await;
    assert_eq!(world.server.get(CLUSTER), None);
    let asked = world.server.0.lock().unwrap().asked.clone();
    assert!(asked.len() > 30, "{asked:?}");
    for (group, resource, verb) in asked {
        assert!(role::may(&verb, &group, &resource), "{verb} {group} {resource}");
    }
}

#[tokio::test]
async fn one_of_two_operators_works_and_the_other_follows() {
    let server = server::Server::default();
    let operator = |identity: &str| Election {
        api: Api::namespaced(server.client(), "novacron"),
        name: "novacron-operator".to_owned(),
        identity: identity.to_owned(),
        fence: Fence::default(),
    };
    let (first, second) = (operator("a"), operator("b"));
    first.win().await;
    assert_eq!((first.fence.check(), second.fence.check()), (Ok(()), Err(NotHeld)));
    first.give_up().await;
    second.win().await;
    assert_eq!((first.fence.check(), second.fence.check()), (Err(NotHeld), Ok(())));
    let lease =
        server.get("apis/coordination.k8s.io/v1/namespaces/novacron/leases/novacron-operator").unwrap();
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!("b"), &json!(2))
    );
    for (group, resource, verb) in server.0.lock().unwrap().asked.clone() {
        assert!(role::may(&verb, &group, &resource), "{verb} {group} {resource}");
    }
}

#[tokio::test]
async fn without_the_lease_nothing_is_written() {
    let world = ready(1).await;
    world.server.take_writes();
    world.set_spec("/spec/regions/0/voters", json!(3));
    let fenced = world.fenced(Fence::default());
    for _ in 0..3 {
        fenced.cluster().await.unwrap_err();
        fenced.region().await.unwrap_err();
    }
    assert_eq!(world.server.take_writes(), Vec::<String>::new());
    assert_eq!(world.voters(), [0]);
}
