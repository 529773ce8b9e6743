//! The plan: golden files, and settings that the daemons take.

use std::{collections::BTreeMap, path::PathBuf};

use kube::{ResourceExt as _, api::DynamicObject};
use novacron_operator::{
    api::{NovaCronCluster, NovaCronRegion, RestoreStatus},
    federation,
    plan::{Seen, plan, sample},
    yaml,
};
use novacron_settings::Sources;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What that table knows of the store: a bound of a key that is not written here. Without it the operator would be built with the
/// store's database.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 20;
extern crate self as consensus_core;

// The table of the store's members, which are a program: no crate can use it.
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../consensus/src/settings.rs"]
mod consensus_settings;

/// Set: files are written instead of compared.
const UPDATE: &str = "UPDATE_GOLDEN";

fn golden(case: &str, objects: &[DynamicObject]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    let name = |object: &DynamicObject| {
        let kind = object.types.as_ref().unwrap().kind.to_lowercase();
        format!("{kind}-{}.yaml", object.name_any())
    };
    let made: BTreeMap<_, _> =
        objects.iter().map(|object| (name(object), yaml::text(object).unwrap())).collect();
    assert_eq!(made.len(), objects.len(), "no two objects are the same");
    if std::env::var_os(UPDATE).is_some() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        made.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    }
    let files = std::fs::read_dir(&folder).into_iter().flatten().map(|file| file.unwrap());
    let files: BTreeMap<_, _> = files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap()))
        .collect();
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&made), names(&files), "{UPDATE}=1 cargo test writes them");
    for (name, text) in &made {
        assert!(*text == files[name], "{case}/{name} is another: {UPDATE}=1 cargo test writes it\n{text}");
    }
}

fn planned((region, cluster): &(NovaCronRegion, NovaCronCluster), seen: &Seen) -> Vec<DynamicObject> {
    plan(region, cluster, seen).unwrap()
}

#[test]
fn dev_is_as_it_was() {
    golden("dev", &planned(&sample::dev(), &Seen::default()));
}

#[test]
fn production_is_as_it_was() {
    let seen = Seen { pods: Some(7), bootstrapped: Some(5), service_monitors: true, restore: None };
    golden("production", &planned(&sample::production(), &seen));
}

#[test]
fn a_restored_region_is_as_it_was() {
    let sample = sample::restored();
    golden("restore-first", &planned(&sample, &Seen::default()));
    let restore = RestoreStatus {
        backup: "novacron.nova-here/20260101T000000Z".to_owned(),
        revision: 1234,
        digest: "5".repeat(64),
        verified: false,
    };
    golden("restore-begins", &planned(&sample, &Seen { restore: Some(restore.clone()), ..Seen::default() }));
    let template = |seen: &Seen| {
        let objects = planned(&sample, seen);
        find(&objects, "StatefulSet", "again-here-consensus").data["spec"]["template"].clone()
    };
    let begins = Seen { restore: Some(restore.clone()), ..Seen::default() };
    let compared = Seen { bootstrapped: Some(3), ..begins.clone() };
    let names = |seen| planned(&sample, seen).iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>();
    assert!(names(&compared).contains(&"again-here-restored".to_owned()));
    let done = Seen { restore: Some(RestoreStatus { verified: true, ..restore }), ..compared.clone() };
    assert!(!names(&done).contains(&"again-here-restored".to_owned()));
    assert_eq!(template(&begins), template(&done), "nobody is restarted for it");
}

#[test]
fn a_region_that_replicates_is_as_it_was() {
    golden("replicated", &planned(&sample::replicated(), &Seen::default()));
}

#[test]
fn a_federation_is_as_it_was() {
    let (federation, known) = sample::federation();
    for (at, cluster) in federation.spec.clusters.iter().enumerate() {
        let mut objects = federation::plan::ways_in(&federation, at).unwrap();
        objects.extend(federation::plan::plan(&federation, &known, at).unwrap());
        objects.extend(federation::plan::records(&federation, &known).filter(|_| at == 0));
        golden(&format!("federation-{}", cluster.name), &objects);
    }
}

/// What a federation makes of a template, the API server takes, and the cluster's own operator makes a region of it.
#[test]
fn a_federation_makes_clusters_that_there_can_be() {
    let (federation, known) = sample::federation();
    for at in 0..known.len() {
        let objects = federation::plan::plan(&federation, &known, at).unwrap();
        let cluster: NovaCronCluster = find(&objects, "NovaCronCluster", "all").clone().try_parse().unwrap();
        let region = novacron_operator::reconcile::region_of(&cluster, &cluster.spec.regions[0], None);
        let made = plan(&region, &cluster, &Seen::default()).unwrap();
        let map = find(&made, "ConfigMap", &format!("all-{}-consensus", known[at].name));
        let text = map.data["data"]["config.yaml"].as_str().unwrap();
        assert_eq!(check(text), Ok(()), "{text}");
        for other in known.iter().filter(|other| other.name != known[at].name) {
            assert!(text.contains(&format!("{}=https://{}", other.name, other.regions[0])), "{text}");
        }
    }
}

fn find<'a>(objects: &'a [DynamicObject], kind: &str, name: &str) -> &'a DynamicObject {
    let is =
        |object: &&DynamicObject| object.types.as_ref().unwrap().kind == kind && object.name_any() == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn who_the_first_members_were_restarts_nobody() {
    let sample = sample::production();
    let template = |seen: &Seen| {
        let objects = planned(&sample, seen);
        find(&objects, "StatefulSet", "nova-eu-west-consensus").data["spec"]["template"].clone()
    };
    let began = template(&Seen::default());
    assert_eq!(
        began,
        template(&Seen { pods: Some(9), bootstrapped: Some(7), service_monitors: true, restore: None })
    );
    let mut other = sample.clone();
    other.1.spec.dwcp.acp.snapshot_entries = 5;
    let objects = planned(&other, &Seen::default());
    assert_ne!(began, find(&objects, "StatefulSet", "nova-eu-west-consensus").data["spec"]["template"]);
}

#[test]
fn replicas_are_the_autoscalers_where_there_is_one() {
    let mut sample = sample::production();
    let replicas = |objects: &[DynamicObject]| {
        find(objects, "Deployment", "nova-eu-west-api").data["spec"]["replicas"].clone()
    };
    assert_eq!(replicas(&planned(&sample, &Seen::default())), Value::Null);
    sample.0.spec.api.autoscaling = false;
    let objects = planned(&sample, &Seen::default());
    assert_eq!(replicas(&objects), json!(20));
    assert!(objects.iter().all(|object| object.types.as_ref().unwrap().kind != "HorizontalPodAutoscaler"));
}

#[test]
fn pods_are_restricted_but_for_the_agents() {
    let objects = planned(&sample::production(), &Seen::default());
    for (kind, component) in [("StatefulSet", "consensus"), ("Deployment", "api"), ("DaemonSet", "dwcp")] {
        let object = find(&objects, kind, &format!("nova-eu-west-{component}"));
        let pod = &object.data["spec"]["template"]["spec"];
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["privileged"], Value::Null);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let is_agent = component == "dwcp";
        assert_eq!(container["capabilities"]["add"].is_array(), is_agent);
        assert_eq!(pod["hostNetwork"] == true, is_agent);
    }
}

#[test]
fn a_spec_that_cannot_be_done_is_named() {
    let mut sample = sample::production();
    sample.0.spec.voters = 4;
    let error = plan(&sample.0, &sample.1, &Seen::default()).unwrap_err();
    assert_eq!(error.to_string(), "voters: 4: expected an odd number of 1 to 11");
}

/// Reads a settings file of the store's members as they do, but for what settings mean together.
fn check(text: &str) -> Result<(), String> {
    let mut sources = Sources::new(consensus_settings::KEYS, consensus_settings::Settings::default());
    sources.file("config.yaml", text).map_err(|error| error.to_string())
}

fn spec() -> impl Strategy<Value = (Value, Seen)> {
    let voters = (0_u16..6).prop_map(|n| 2 * n + 1);
    let streams = (1_u16..=1024, 0_u16..=1024, 0_u16..=1024);
    let acp = (any::<bool>(), 1_u32..=2_592_000, 10_u32..=100_000_000);
    let hde = (0_usize..3, proptest::option::of(1_u8..=19));
    let tls = 0_usize..3;
    let rate = proptest::option::of(1024_u64..=1_000_000_000_000);
    let seen = (proptest::option::of(1_u16..12), proptest::option::of(1_u16..12));
    (voters, streams, acp, hde, tls, rate, seen).prop_map(|(voters, streams, acp, hde, tls, rate, seen)| {
        let min = streams.0;
        let max = min.saturating_add(streams.1).min(1024);
        let initial = min.saturating_add(streams.2).min(max);
        let spec = json!({
            "version": "0.1.0",
            "regions": [{ "name": "r", "voters": voters }],
            "dwcp": {
                "amst": {
                    "minStreams": min, "maxStreams": max, "initialStreams": initial,
                    "pacingBytesPerSecond": rate,
                },
                "hde": { "algorithm": (["zstd", "lz4", "none"][hde.0]), "level": hde.1 },
                "acp": {
                    "profile": if acp.0 { "lan" } else { "wan" },
                    "snapshotIntervalSeconds": acp.1, "snapshotEntries": acp.2,
                },
            },
            "agent": { "xdpInterfaces": if acp.0 { vec!["eth0", "eth1"] } else { Vec::new() } },
            "security": { "tls": { "mode": (["Managed", "Secret", "Plaintext"][tls]) } },
        });
        (spec, Seen { pods: seen.0, bootstrapped: seen.1, service_monitors: false, restore: None })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a spec says that the schema lets through: members take the file that is made of it.
    #[test]
    fn members_take_their_settings((spec, seen) in spec()) {
        let mut cluster = NovaCronCluster::new("c", serde_json::from_value(spec).unwrap());
        cluster.metadata.namespace = Some("n".to_owned());
        let region = novacron_operator::reconcile::region_of(&cluster, &cluster.spec.regions[0], None);
        let objects = plan(&region, &cluster, &seen).unwrap();
        let map = find(&objects, "ConfigMap", "c-r-consensus");
        let text = map.data["data"]["config.yaml"].as_str().unwrap();
        prop_assert_eq!(check(text), Ok(()), "{}", text);
    }
}
