//! Certificates of the operator's own: everybody trusts everybody after each write, wherever it was cut.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use novacron_operator::certificates::{Facts, Held, secret};
use serde_json::{Value, json};

use crate::{
    ROUNDS,
    server::Fault,
    world::{CLUSTER, REGION, SET, World},
};

const SECRETS: &str = "api/v1/namespaces/novacron/secrets";
const HOLDERS: [&str; 3] = ["consensus", "api", "client"];
/// Writes that a change of authorities takes, with those beside it, and after each of so many of them it is cut.
const WRITES: usize = 112;
const WRITES_STEP: usize = 7;
/// Rounds until everything is there.
const BEGIN: usize = 12;
/// Rounds until another authority is alone, when it is cut in between.
const CHANGE: usize = 20;

fn tls() -> Value {
    json!({ "mode": "Managed", "managed": { "settleSeconds": 0 } })
}

async fn ready() -> World {
    let world = World::with_tls(3, tls());
    world.rounds(BEGIN).await;
    assert!(world.is_ready(), "{:?}", world.condition(REGION, "Ready"));
    world
}

fn kept(world: &World, name: &str) -> Option<Secret> {
    world.server.get(&format!("{SECRETS}/{name}")).map(|secret| serde_json::from_value(secret).unwrap())
}

fn held(world: &World) -> BTreeMap<&'static str, Held> {
    let held = |holder| Some((holder, secret::leaf(&kept(world, &format!("c-r-{holder}-tls"))?)?));
    HOLDERS.into_iter().filter_map(held).collect()
}

fn trusted(bundle: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let all =
        bundle.split(BEGIN).skip(1).map(|rest| Facts::of_pem(&format!("{BEGIN}{rest}")).unwrap().subject);
    all.collect()
}

/// Whoever is shown a certificate knows who has issued it.
fn check(world: &World) {
    let all = held(world);
    for (shows, one) in &all {
        for (sees, other) in &all {
            let issuer = &one.facts.as_ref().unwrap().issuer;
            assert!(
                trusted(&other.bundle).contains(issuer),
                "{sees} does not know {issuer}, which {shows} shows"
            );
        }
    }
}

#[tokio::test]
async fn each_component_has_its_own() {
    let world = ready().await;
    let all = held(&world);
    assert_eq!(all.len(), HOLDERS.len());
    check(&world);
    let status = world.server.get(CLUSTER).unwrap()["status"]["authority"].clone();
    assert_eq!(status["issuing"].as_str(), all["api"].facts.as_ref().map(|facts| &*facts.issuer));
    assert!(world.server.get(REGION).unwrap()["status"]["certificatesNotAfter"].is_string());
    let mounted = world.server.get(SET).unwrap()["spec"]["template"]["spec"]["volumes"].to_string();
    assert!(mounted.contains("\"c-r-consensus-tls\""), "{mounted}");
    let owner = |name: &str| kept(&world, name).unwrap().metadata.owner_references.unwrap()[0].kind.clone();
    assert_eq!((&*owner("c-authority"), &*owner("c-r-api-tls")), ("NovaCronCluster", "NovaCronRegion"));
    let before = world.server.take_writes().len();
    world.rounds(3).await;
    assert_eq!(held(&world), all, "what is good is kept");
    assert!(before > 0);
    // What somebody has spoiled is made anew.
    world.server.change(&format!("{SECRETS}/c-r-api-tls"), |secret| secret["data"]["tls.key"] = json!(""));
    world.rounds(2).await;
    assert!(held(&world)["api"].facts.is_some());
    assert_eq!(held(&world)["client"], all["client"]);
}

#[tokio::test]
async fn a_certificate_that_would_end_is_replaced_and_nobody_restarted() {
    let world = ready().await;
    let (before, set) = (held(&world), world.server.get(SET).unwrap());
    world.set_spec(
        "/spec/security/tls/managed",
        json!({ "settleSeconds": 0, "validityHours": 10_000, "renewBeforeHours": 3_000 }),
    );
    world.rounds(3).await;
    let after = held(&world);
    for holder in HOLDERS {
        let ends = |all: &BTreeMap<_, Held>| all[holder].facts.as_ref().unwrap().not_after;
        assert!(ends(&after) > ends(&before) && after[holder].key != before[holder].key, "{holder}");
    }
    world.rounds(3).await;
    assert_eq!(held(&world), after);
    assert_eq!(world.server.get(SET), Some(set));
}

#[tokio::test]
async fn another_authority_takes_the_place_of_the_first_wherever_it_is_cut() {
    for after in (0..WRITES).step_by(WRITES_STEP) {
        let is_done = after % 2 == 0;
        let mut world = ready().await;
        let first = trusted(&held(&world)["api"].bundle);
        world.set_spec("/spec/security/tls/managed", json!({ "settleSeconds": 0, "authority": 2 }));
        world.server.0.lock().unwrap().faults.push(Fault { after, code: 500, is_done });
        for _ in 0..CHANGE {
            let _ = world.cluster().await;
            check(&world);
            let _ = world.region().await;
            check(&world);
            world.kubernetes();
            world = world.killed();
        }
        let at = format!("write {after}, done: {is_done}");
        let last = trusted(&held(&world)["api"].bundle);
        assert!(last.len() == 1 && last != first, "{at}: {first:?} -> {last:?}");
        assert!(world.is_ready(), "{at}");
        let kept = kept(&world, "c-authority").unwrap().data.unwrap();
        assert_eq!(kept.keys().map(String::as_str).collect::<Vec<_>>(), ["ca.crt", "ca.key"], "{at}");
    }
}

#[tokio::test]
async fn somebody_elses_secret_is_left_as_it_is() {
    let world = World::with_tls(3, tls());
    let path = format!("{SECRETS}/c-authority");
    let theirs = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "c-authority", "namespace": "novacron" } });
    world.server.put(&path, theirs);
    world.rounds(ROUNDS).await;
    assert_eq!(world.condition(CLUSTER, "Degraded"), ("True".to_owned(), "SecretMissing".to_owned()));
    assert_eq!(world.server.get(&path).unwrap()["data"], Value::Null);
}
