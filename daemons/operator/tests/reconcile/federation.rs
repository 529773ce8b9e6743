//! A federation of three clusters, each an API server in the process, that go and come back.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::events::{Recorder, Reporter},
};
use novacron_operator::{
    api::DWCPFederation,
    apply::Applier,
    federation::clusters::{ClusterError, Clusters},
    lease::Fence,
    plan::{digest, role},
    reconcile::{Context, reconcile_federation},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    server::{Fault, Server},
    world::Store,
};

const FEDERATION: &str = "apis/novacron.io/v1alpha1/dwcpfederations/f";
const RECORDS: &str = "apis/externaldns.k8s.io/v1alpha1/namespaces/novacron/dnsendpoints/f-api";
const CLUSTER: &str = "apis/novacron.io/v1alpha1/namespaces/novacron/novacronclusters/f";
const SERVICES: &str = "api/v1/namespaces/novacron/services";
const SLICES: &str = "apis/discovery.k8s.io/v1/namespaces/novacron/endpointslices";
/// Are there while a cluster has an API server and nothing else that works, and once it has another authority.
const AWAY: &str = "api/v1/namespaces/novacron/configmaps/away";
const ANOTHER: &str = "api/v1/namespaces/novacron/configmaps/another";
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Rounds until everything is as it should be.
const SETTLE: usize = 8;

#[derive(Clone)]
struct Members(BTreeMap<&'static str, Server>);

impl Clusters for Members {
    /// A kubeconfig here is a cluster's name.
    fn client<'a>(&'a self, kubeconfig: &'a str) -> BoxFuture<'a, Result<Client, ClusterError>> {
        let found = self.0.get(kubeconfig).map(Server::client).ok_or(ClusterError::Refused("exec"));
        async move { found }.boxed()
    }
}

struct World {
    home: Server,
    members: Members,
    context: Arc<Context>,
}

impl World {
    fn new() -> Self {
        let world =
            Self::with(Server::default(), Members(NAMES.map(|name| (name, Server::default())).into()));
        let cluster = |at: usize| {
            json!({
                "name": NAMES[at], "number": at + 1, "kubeconfigSecret": NAMES[at], "namespace": "novacron",
                "weight": 3 - at, "replicas": ([20, 15, 10][at]), "expose": {},
            })
        };
        for name in NAMES {
            let path = format!("api/v1/namespaces/novacron/secrets/{name}");
            let encoded = json!({ "a": "YQ==", "b": "Yg==", "c": "Yw==" })[name].clone();
            world.home.put(&path, json!({ "metadata": { "name": name }, "data": { "kubeconfig": encoded } }));
        }
        world.home.put(
            FEDERATION,
            json!({
                "apiVersion": "novacron.io/v1alpha1", "kind": "DWCPFederation",
                "metadata": { "name": "f", "uid": "federation" },
                "spec": {
                    "clusters": [cluster(0), cluster(1), cluster(2)],
                    "template": { "version": "0.1.0", "voters": 1 },
                    "failover": { "afterSeconds": 0, "returnAfterSeconds": 0 },
                    "dns": { "name": "api.example", "namespace": "novacron" },
                    "onDelete": "Delete",
                }
            }),
        );
        world
    }

    fn with(home: Server, members: Members) -> Self {
        let client = home.client();
        let reporter = Reporter { controller: "novacron-operator".to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        let applier = Applier::new(client, Fence::open());
        let clusters = Arc::new(members.clone());
        let context = Arc::new(Context::new(applier, Arc::new(Store::default()), clusters, recorder));
        Self { home, members, context }
    }

    async fn ready() -> Self {
        let world = Self::new();
        world.rounds(SETTLE).await;
        assert_eq!(world.reason(), "AsSpecified", "{}", world.status());
        world
    }

    async fn rounds(&self, count: usize) {
        for _ in 0..count {
            if let Some(object) = self.home.get(FEDERATION) {
                let object: DeserializeGuard<DWCPFederation> = serde_json::from_value(object).unwrap();
                // Another process each time.
                let world = Self::with(self.home.clone(), self.members.clone());
                let _ = reconcile_federation(Arc::new(object), Arc::clone(&world.context)).await;
            }
            NAMES.iter().for_each(|name| self.kubernetes(name));
        }
    }

    /// What there is in a cluster beside the federation, unless it is away.
    fn kubernetes(&self, name: &str) {
        let server = &self.members.0[name];
        if server.get(AWAY).is_some() {
            return;
        }
        let api = format!("{SERVICES}/f-{name}-api");
        if let Some(cluster) = server.get(CLUSTER) {
            self.operator(name, &cluster["spec"]["regions"][0]["api"]["min"]);
            let port = json!({ "spec": { "ports": [{ "port": 8080 }] } });
            server.get(&api).is_none().then(|| server.put(&api, port));
        }
        let number = NAMES.iter().position(|other| *other == name).unwrap();
        let is_open = |path: &String| path.ends_with("-regions") || *path == api;
        for path in server.paths().into_iter().filter(is_open) {
            let ip = format!("192.0.2.{}", number + 1);
            server.change(&path, |service| {
                service["status"]["loadBalancer"]["ingress"] = json!([{ "ip": ip }])
            });
        }
    }

    /// What the cluster's own operator makes of it.
    fn operator(&self, name: &str, replicas: &Value) {
        let server = &self.members.0[name];
        server.put(
            &format!("apis/apps/v1/namespaces/novacron/deployments/f-{name}-api"),
            json!({ "metadata": { "name": format!("f-{name}-api") }, "status": { "readyReplicas": replicas } }),
        );
        let bundle = self.bundle(name);
        server.change(CLUSTER, |cluster| {
            let condition = json!({
                "type": "Ready", "status": "True", "reason": "AsSpecified", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            cluster["status"] = json!({
                "observedGeneration": cluster["metadata"]["generation"], "conditions": [condition],
                "authority": {
                    "issuing": name, "notAfter": "2036-01-01T00:00:00Z", "bundle": bundle,
                    "others": cluster["spec"]["replication"]["trust"].as_str().map(digest),
                },
            });
        });
    }

    /// Its authorities' certificates.
    fn bundle(&self, name: &str) -> String {
        let another = self.members.0[name].get(ANOTHER);
        another.map_or(format!("{name}\n"), |_| format!("{name}\nanother of {name}\n"))
    }

    fn acknowledged(&self, name: &str) -> Value {
        self.members.0[name].get(CLUSTER).unwrap()["spec"]["replication"]["acknowledged"].clone()
    }

    fn set_down(&self, name: &str, is: bool) {
        self.members.0[name].0.lock().unwrap().is_down = is;
    }

    fn status(&self) -> Value {
        self.home.get(FEDERATION).unwrap_or_default()["status"].clone()
    }

    fn reason(&self) -> String {
        let all = self.status()["conditions"].as_array().cloned().unwrap_or_default();
        let ready = all.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
        ready["reason"].as_str().unwrap_or_default().to_owned()
    }

    fn serving(&self) -> Vec<&'static str> {
        let is = |name: &&&str| {
            let clusters = self.status()["clusters"].as_array().cloned().unwrap_or_default();
            let found = clusters.into_iter().find(|cluster| cluster["name"] == **name).unwrap_or_default();
            let all = found["conditions"].as_array().cloned().unwrap_or_default();
            all.iter().any(|condition| condition["type"] == "Serving" && condition["status"] == "True")
        };
        NAMES.iter().filter(is).copied().collect()
    }

    fn replicas(&self) -> Vec<Value> {
        let of = |name| {
            let cluster = self.members.0[name].get(CLUSTER).unwrap_or_default();
            cluster["spec"]["regions"][0]["api"]["min"].clone()
        };
        NAMES.iter().map(|name| of(*name)).collect()
    }

    fn named(&self) -> Vec<String> {
        let endpoints = self.home.get(RECORDS).unwrap_or_default()["spec"]["endpoints"].clone();
        let of = |one: &Value| one["setIdentifier"].as_str().unwrap_or_default().to_owned();
        endpoints.as_array().into_iter().flatten().map(of).collect()
    }
}

/// Written into the resource is not yet in the Secrets: that takes the operator there.
#[tokio::test]
async fn an_authority_is_not_acknowledged_while_an_operator_is_away() {
    let world = World::ready().await;
    world.members.0["c"].put(AWAY, json!({}));
    world.members.0["a"].put(ANOTHER, json!({}));
    world.rounds(SETTLE).await;
    let trust =
        |name: &str| world.members.0[name].get(CLUSTER).unwrap()["spec"]["replication"]["trust"].clone();
    assert!(trust("c").as_str().unwrap().contains("another of a"), "it is told");
    assert_ne!(world.acknowledged("a"), json!(digest(&world.bundle("a"))));
    world.members.0["c"].remove(AWAY);
    world.rounds(SETTLE).await;
    assert_eq!(world.acknowledged("a"), json!(digest(&world.bundle("a"))));
}

/// Until it is known where its members are, the others go on with the list of regions that they have, and fail over.
#[tokio::test]
async fn a_cluster_that_is_added_holds_nothing_up() {
    let world = World::new();
    let all = world.home.get(FEDERATION).unwrap()["spec"]["clusters"].clone();
    let two = |federation: &mut Value| federation["spec"]["clusters"].as_array_mut().unwrap().truncate(2);
    world.home.change(FEDERATION, two);
    world.rounds(SETTLE).await;
    let regions = |name: &str| {
        let cluster = world.members.0[name].get(CLUSTER).unwrap();
        cluster["spec"]["replication"]["regions"].as_array().unwrap().len()
    };
    assert_eq!(["a", "b"].map(regions), [2, 2]);
    world.members.0["c"].put(AWAY, json!({}));
    world.home.change(FEDERATION, |federation| federation["spec"]["clusters"] = all);
    world.set_down("b", true);
    world.rounds(SETTLE).await;
    assert_eq!(world.serving(), ["a"]);
    assert!(world.replicas()[0].as_u64().unwrap() > 20, "{:?}", world.replicas());
    assert_eq!(regions("a"), 2);
    assert!(world.members.0["c"].get(CLUSTER).is_none());
    world.members.0["c"].remove(AWAY);
    world.set_down("b", false);
    world.rounds(2 * SETTLE).await;
    assert_eq!(NAMES.map(regions), [3; 3]);
    assert_eq!(world.serving(), NAMES);
}

#[tokio::test]
async fn three_clusters_become_one() {
    let world = World::ready().await;
    assert_eq!(world.replicas(), [20, 15, 10]);
    assert_eq!(world.named(), NAMES);
    for (at, name) in NAMES.iter().enumerate() {
        let replication = &world.members.0[name].get(CLUSTER).unwrap()["spec"]["replication"];
        let others: String =
            NAMES.iter().filter(|other| *other != name).map(|other| format!("{other}\n")).collect();
        assert_eq!(replication["trust"], others, "{name}");
        assert_ne!(replication["acknowledged"], "", "{name}");
        let addresses: Vec<_> = (0..3).map(|at| replication["regions"][at]["addresses"][0].clone()).collect();
        assert_eq!(addresses, ["192.0.2.1:9091", "192.0.2.2:9091", "192.0.2.3:9091"]);
        let mirrors =
            world.members.0[name].paths().into_iter().filter(|path| path.starts_with(SLICES)).count();
        assert_eq!(mirrors, 2, "{at}");
    }
    world.members.0.values().for_each(|server| drop(server.take_writes()));
    let before: Vec<_> = world.members.0.values().map(|server| server.get(CLUSTER)).collect();
    let status = world.status();
    world.rounds(2).await;
    assert_eq!(before, world.members.0.values().map(|server| server.get(CLUSTER)).collect::<Vec<_>>());
    assert_eq!(world.status(), status, "nothing is written that is as it should be");
}

#[tokio::test]
async fn others_have_the_traffic_of_a_cluster_that_is_away_until_it_is_back() {
    let world = World::ready().await;
    world.set_down("a", true);
    world.rounds(2).await;
    assert_eq!((world.serving(), world.reason()), (vec!["b", "c"], "FailedOver".to_owned()));
    assert_eq!(world.replicas()[1..], [28, 17], "20 more, by 2 to 1");
    assert_eq!(world.named(), ["b", "c"]);
    let mirror = |of: &str| {
        world.members.0["b"].get(&format!("{SLICES}/f-{of}-api-ipv4")).unwrap()["endpoints"].clone()
    };
    assert_eq!(mirror("a"), json!([]));
    assert_eq!(mirror("c")[0]["addresses"], json!(["192.0.2.3"]));
    let regions = &world.members.0["b"].get(CLUSTER).unwrap()["spec"]["replication"]["regions"];
    assert_eq!(regions[0]["addresses"], json!(["192.0.2.1:9091"]), "stores go on looking for it");
    world.set_down("a", false);
    world.rounds(3).await;
    assert_eq!((world.serving(), world.reason()), (NAMES.to_vec(), "AsSpecified".to_owned()));
    assert_eq!(world.replicas(), [20, 15, 10]);
}

#[tokio::test]
async fn who_sees_one_of_three_moves_nothing() {
    let world = World::ready().await;
    world.set_down("a", true);
    world.set_down("b", true);
    world.rounds(3).await;
    assert_eq!((world.serving(), world.reason()), (NAMES.to_vec(), "TooFewReachable".to_owned()));
    assert_eq!(world.replicas()[2], 10);
    assert_eq!(world.named(), NAMES);
}

#[tokio::test]
async fn what_cannot_be_known_takes_nobody_out() {
    let world = World::ready().await;
    let secret = "api/v1/namespaces/novacron/secrets/b";
    world.home.change(secret, |secret| secret["data"]["kubeconfig"] = json!("eA=="));
    world.rounds(3).await;
    assert_eq!((world.serving(), world.reason()), (NAMES.to_vec(), "KubeconfigRefused".to_owned()));
    world.home.remove(secret);
    world.rounds(3).await;
    assert_eq!((world.serving(), world.reason()), (NAMES.to_vec(), "SecretMissing".to_owned()));
}

#[tokio::test]
async fn what_another_federation_has_made_is_left_alone() {
    let world = World::new();
    world.members.0["b"].put(CLUSTER, json!({ "metadata": { "name": "f", "namespace": "novacron" }, "spec": { "version": "9.9.9" , "regions": [] } }));
    world.rounds(SETTLE).await;
    assert_eq!(world.reason(), "Invalid");
    assert_eq!(world.members.0["b"].get(CLUSTER).unwrap()["spec"]["version"], "9.9.9");
}

fn left(world: &World, name: &str) -> Vec<String> {
    let ours = |path: &String| !path.contains("deployments") && !path.ends_with(&format!("f-{name}-api"));
    world.members.0[name].paths().into_iter().filter(ours).collect()
}

#[tokio::test]
async fn nothing_is_left_or_what_the_policy_keeps() {
    for (policy, kept) in [("Delete", 0), ("Keep", 2)] {
        let world = World::ready().await;
        world.home.change(FEDERATION, |federation| {
            federation["spec"]["onDelete"] = json!(policy);
            federation["metadata"]["deletionTimestamp"] = json!("2099-01-01T00:00:00Z");
        });
        world.set_down("b", true);
        world.rounds(3).await;
        assert!(world.home.get(FEDERATION).is_some(), "b has something, and does not answer");
        world.set_down("b", false);
        world.rounds(3).await;
        assert_eq!(world.home.get(FEDERATION), None, "{policy}");
        for name in NAMES {
            assert_eq!(left(&world, name).len(), kept, "{policy}: {:?}", left(&world, name));
        }
    }
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_holds_no_deletion_up() {
    let world = World::ready().await;
    world.set_down("b", true);
    world.home.change(FEDERATION, |federation| {
        federation["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
        federation["status"]["clusters"][1]["lastSeen"] = json!("2020-01-01T00:00:00Z");
    });
    world.rounds(3).await;
    assert_eq!(world.home.get(FEDERATION), None);
    assert!(left(&world, "a").is_empty());
    let events = world.home.paths().into_iter().filter(|path| path.contains("events"));
    let said = events
        .map(|path| world.home.get(&path).unwrap().to_string())
        .any(|event| event.contains("is given up"));
    assert!(said, "what is left is said");
}

#[tokio::test]
async fn a_cluster_that_is_taken_out_loses_what_it_had() {
    let world = World::ready().await;
    world.home.change(FEDERATION, |federation| {
        federation["spec"]["clusters"].as_array_mut().unwrap().remove(1);
    });
    world.rounds(SETTLE).await;
    assert_eq!(left(&world, "b"), Vec::<String>::new());
    assert_eq!(world.reason(), "AsSpecified");
    assert_eq!(world.status()["clusters"].as_array().map(Vec::len), Some(2));
    let mirrors = world.members.0["a"].paths().into_iter().filter(|path| path.starts_with(SLICES));
    assert_eq!(mirrors.collect::<Vec<_>>(), [format!("{SLICES}/f-c-api-ipv4")]);
}

#[tokio::test]
async fn nothing_is_done_that_the_roles_do_not_have() {
    let world = World::ready().await;
    world.set_down("a", true);
    world.rounds(3).await;
    world.set_down("a", false);
    world.rounds(3).await;
    world.home.change(FEDERATION, |federation| {
        federation["metadata"]["deletionTimestamp"] = json!("2099-01-01T00:00:00Z")
    });
    world.rounds(3).await;
    assert_eq!(world.home.get(FEDERATION), None);
    for (group, resource, verb) in world.home.0.lock().unwrap().asked.clone() {
        assert!(role::may(&verb, &group, &resource), "{verb} {group} {resource}");
    }
    for server in world.members.0.values() {
        let asked = server.0.lock().unwrap().asked.clone();
        assert!(asked.len() > 8, "{asked:?}");
        for (group, resource, verb) in asked {
            assert!(role::may_federated(&verb, &group, &resource), "{verb} {group} {resource}");
        }
    }
}

/// What happens between two rounds.
#[derive(Clone, Debug)]
enum Happens {
    Down(usize, bool),
    /// A write fails, before it is done or after: in a cluster, or where the federation is.
    Fault(usize, usize, bool),
    Nothing,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0..3_usize, any::<bool>()).prop_map(|(at, is)| Happens::Down(at, is)),
        (0..4_usize, 0..12_usize, any::<bool>())
            .prop_map(|(at, after, done)| Happens::Fault(at, after, done)),
        Just(Happens::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever comes and goes, from the first round on: somebody serves once somebody has, no members are changed by it, and when all is
    /// well again, so is the federation.
    #[test]
    fn it_comes_to_rest(all in proptest::collection::vec(happens(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut served = false;
            for one in &all {
                match *one {
                    Happens::Down(at, is) => world.set_down(NAMES[at], is),
                    Happens::Fault(at, after, is_done) => {
                        let server = NAMES.get(at).map_or(&world.home, |name| &world.members.0[name]);
                        server.0.lock().unwrap().faults.push(Fault { after, code: 500, is_done });
                    }
                    Happens::Nothing => {}
                }
                world.rounds(1).await;
                prop_assert!(!served || !world.serving().is_empty(), "nobody serves any more");
                served |= !world.serving().is_empty();
                for server in world.members.0.values() {
                    let Some(cluster) = server.get(CLUSTER) else { continue };
                    let region = &cluster["spec"]["regions"][0];
                    prop_assert_eq!(&region["voters"], &json!(1));
                    let addresses = cluster["spec"]["replication"]["regions"].as_array().unwrap();
                    prop_assert!(addresses.iter().all(|region| region["addresses"] != json!([])));
                }
            }
            for name in NAMES {
                world.set_down(name, false);
                world.members.0[name].0.lock().unwrap().faults.clear();
            }
            world.home.0.lock().unwrap().faults.clear();
            world.rounds(SETTLE).await;
            prop_assert_eq!(world.reason(), "AsSpecified", "{}", world.status());
            prop_assert_eq!(world.serving(), NAMES);
            prop_assert_eq!(world.replicas(), [20, 15, 10]);
            Ok(())
        })?;
    }
}
