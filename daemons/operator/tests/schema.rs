//! The definitions of the custom resources: the files that are shipped are those of the types, and their rules do what they say.

use std::path::PathBuf;

use kube::{
    CustomResourceExt,
    core::cel::{Validator, validate_cel_update},
};
use novacron_operator::{
    api::{self, DWCPFederation, NovaCronCluster, NovaCronRegion},
    plan::{role, sample},
    yaml,
};
use serde_json::{Value, json};

/// Set: files are written instead of compared.
const UPDATE: &str = "UPDATE_GOLDEN";

fn compare(path: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shipped == text, "{} is not up to date: {UPDATE}=1 cargo test writes it", path.display());
}

#[test]
fn shipped_definitions_are_those_of_the_types() {
    compare("crds/novacron.yaml", &api::crds_yaml().unwrap());
    compare("operator/role.yaml", &yaml::text(&role::role()).unwrap());
    compare("operator/federated-role.yaml", &yaml::text(&role::federated_role()).unwrap());
}

/// What is wrong with an object, by the rules of its schema and by its plain bounds.
fn wrong<K: CustomResourceExt>(object: &Value) -> Vec<String> {
    let crd = serde_json::to_value(K::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = Vec::new();
    if let Err(errors) = Validator::new().validate(schema, object, None) {
        found.extend(errors.iter().map(|error| error.message.clone()));
    }
    bounds(schema, object, "", &mut found);
    found
}

/// The few of the schema's words that bounds are written with.
fn bounds(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let number = |key: &str| schema[key].as_f64();
    if let Some(is) = value.as_f64()
        && (number("minimum").is_some_and(|least| is < least)
            || number("maximum").is_some_and(|most| is > most))
    {
        found.push(format!("{path}: {is} is out of bounds"));
    }
    let size = value.as_str().map(str::len).or(value.as_array().map(Vec::len));
    let (least, most) = if value.is_array() { ("minItems", "maxItems") } else { ("minLength", "maxLength") };
    if let Some(size) = size.map(|size| size as f64)
        && (number(least).is_some_and(|least| size < least) || number(most).is_some_and(|most| size > most))
    {
        found.push(format!("{path}: its size {size} is out of bounds"));
    }
    if let (Some(allowed), false) = (schema["enum"].as_array(), value.is_null())
        && !allowed.contains(value)
    {
        found.push(format!("{path}: {value} is none of {allowed:?}"));
    }
    for (key, below) in value.as_object().into_iter().flatten() {
        bounds(&schema["properties"][key], below, &format!("{path}.{key}"), found);
    }
    for below in value.as_array().into_iter().flatten() {
        bounds(&schema["items"], below, path, found);
    }
}

fn changed(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"))[key] = value;
    object
}

#[test]
fn samples_are_as_the_schema_wants_them() {
    for (region, cluster) in [sample::dev(), sample::production(), sample::restored(), sample::replicated()] {
        assert_eq!(wrong::<NovaCronCluster>(&serde_json::to_value(&cluster).unwrap()), Vec::<String>::new());
        assert_eq!(wrong::<NovaCronRegion>(&serde_json::to_value(&region).unwrap()), Vec::<String>::new());
    }
}

#[test]
fn what_the_schema_refuses() {
    let (region, cluster) = sample::production();
    let cluster = serde_json::to_value(&cluster).unwrap();
    for (pointer, value) in [
        ("/metadata/name", json!("a-name-of-more-than-20-characters")),
        ("/spec/regions/0/voters", json!(4)),
        ("/spec/regions/0/voters", json!(13)),
        ("/spec/regions/0/voters", json!(0)),
        ("/spec/regions", json!([])),
        ("/spec/dwcp/amst/minStreams", json!(300)),
        ("/spec/dwcp/amst/initialStreams", json!(300)),
        ("/spec/dwcp/amst/maxStreams", json!(2000)),
        ("/spec/dwcp/hde/level", json!(20)),
        ("/spec/dwcp/hde/algorithm", json!("gzip")),
        ("/spec/dwcp/acp/profile", json!("sea")),
        ("/spec/storage/size", json!("much")),
        ("/spec/storage/size", json!("0")),
        ("/spec/storage/claims", json!("Lose")),
        ("/spec/regions/0/api/min", json!(101)),
        ("/spec/regions/0/resources/api/requests/cpu", json!("3")),
        ("/spec/regions/0/resources/api/requests/memory", json!("5Gi")),
        ("/spec/regions/0/resources/api/limits/memory", json!("lots")),
        ("/spec/version", json!("1")),
        ("/spec/security/tls/secretName", json!("other")),
        ("/spec/security/tls/managed/renewBeforeHours", json!(2160)),
        ("/spec/security/tls/managed/authorityValidityHours", json!(6000)),
        ("/spec/security/tls/managed/settleSeconds", json!(59)),
    ] {
        let object = changed(cluster.clone(), pointer, value.clone());
        assert_ne!(wrong::<NovaCronCluster>(&object), Vec::<String>::new(), "{pointer}: {value}");
    }
    let region = serde_json::to_value(&region).unwrap();
    let even = changed(region, "/spec/voters", json!(2));
    assert_ne!(wrong::<NovaCronRegion>(&even), Vec::<String>::new());
}

#[test]
fn what_the_schema_refuses_of_federations() {
    let federation = serde_json::to_value(sample::federation().0).unwrap();
    assert_eq!(wrong::<DWCPFederation>(&federation), Vec::<String>::new());
    let with_hub = changed(federation.clone(), "/spec/hub", json!("us"));
    assert_eq!(
        wrong::<DWCPFederation>(&changed(with_hub.clone(), "/spec/topology", json!("hub-spoke"))),
        Vec::<String>::new()
    );
    let mut tree = changed(with_hub, "/spec/topology", json!("hierarchical"));
    assert_ne!(wrong::<DWCPFederation>(&tree), Vec::<String>::new(), "without parents");
    for (at, parent) in [(1, "us"), (2, "eu")] {
        tree = changed(tree, &format!("/spec/clusters/{at}/parent"), json!(parent));
    }
    assert_eq!(wrong::<DWCPFederation>(&tree), Vec::<String>::new());
    for (pointer, value) in [
        ("/metadata/name", json!("a-name-of-more-than-20-characters")),
        ("/spec/topology", json!("hub-spoke")),
        ("/spec/routing/strategy", json!("luck")),
        ("/spec/clusters", json!([])),
        ("/spec/clusters/0/number", json!(2)),
        ("/spec/clusters/0/number", json!(0)),
        ("/spec/clusters/0/weight", json!(101)),
        ("/spec/clusters/0/replicas", json!(101)),
        ("/spec/clusters/0/voters", json!(2)),
        ("/spec/clusters/0/expose", json!({ "kind": "ClusterIP", "hosts": [] })),
        ("/spec/clusters/0/expose", json!({ "kind": "NodePort", "hosts": [] })),
        ("/spec/replicas", json!(1601)),
        ("/spec/failover/afterSeconds", json!(4)),
        ("/spec/dns/ttlSeconds", json!(0)),
        ("/spec/template/voters", json!(2)),
        ("/spec/onDelete", json!("Forget")),
    ] {
        let object = changed(federation.clone(), pointer, value.clone());
        assert_ne!(wrong::<DWCPFederation>(&object), Vec::<String>::new(), "{pointer}: {value}");
    }
    let replicated = serde_json::to_value(sample::replicated().1).unwrap();
    let no_hub = changed(replicated, "/spec/replication/hub", json!("mars"));
    assert_ne!(wrong::<NovaCronCluster>(&no_hub), Vec::<String>::new());
}

#[test]
fn what_cannot_be_changed() {
    let (region, cluster) = sample::production();
    for change in [
        |c: &mut NovaCronCluster| c.spec.storage.class_name = "other".to_owned(),
        |c: &mut NovaCronCluster| c.spec.storage.size = "1Gi".to_owned(),
        |c: &mut NovaCronCluster| c.spec.networking.cluster_domain = "other".to_owned(),
        |c: &mut NovaCronCluster| c.spec.security.tls.mode = api::TlsMode::Plaintext,
        |c: &mut NovaCronCluster| c.spec.security.tls.managed.authority = 0,
        |c: &mut NovaCronCluster| c.spec.storage.restore = sample::restored().1.spec.storage.restore,
    ] {
        let mut new = cluster.clone();
        change(&mut new);
        assert!(validate_cel_update(&new, &cluster).is_err(), "{:?}", new.spec);
    }
    let mut allowed = cluster.clone();
    allowed.spec.regions[0].voters = 9;
    allowed.spec.version = "1.3.0".to_owned();
    allowed.spec.security.tls.managed.authority = 2;
    allowed.spec.storage.backup = None;
    assert!(validate_cel_update(&allowed, &cluster).is_ok());
    for change in [
        |r: &mut NovaCronRegion| r.spec.region = "other".to_owned(),
        |r: &mut NovaCronRegion| r.spec.cluster_ref.name = "other".to_owned(),
    ] {
        let mut new = region.clone();
        change(&mut new);
        assert!(validate_cel_update(&new, &region).is_err(), "{:?}", new.spec);
    }
}

#[test]
fn what_cannot_be_changed_of_federations() {
    let (federation, _) = sample::federation();
    for change in [
        |f: &mut DWCPFederation| f.spec.clusters[0].number = 9,
        |f: &mut DWCPFederation| f.spec.clusters[0].namespace = "other".to_owned(),
        |f: &mut DWCPFederation| f.spec.template.storage.size = "1Gi".to_owned(),
    ] {
        let mut new = federation.clone();
        change(&mut new);
        assert!(validate_cel_update(&new, &federation).is_err(), "{:?}", new.spec);
    }
    let mut fewer = federation.clone();
    fewer.spec.clusters.remove(0);
    assert!(validate_cel_update(&fewer, &federation).is_ok());
}

#[test]
fn definitions_are_structural_and_say_what_people_see() {
    for crd in api::crds() {
        let crd = serde_json::to_value(&crd).unwrap();
        let names = &crd["spec"]["names"];
        assert_eq!(names["categories"], json!(["novacron"]));
        assert_eq!(names["shortNames"].as_array().map(Vec::len), Some(1), "{names}");
        let version = &crd["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        assert!(version["additionalPrinterColumns"].as_array().is_some_and(|all| all.len() >= 5));
        structural(&version["schema"]["openAPIV3Schema"], "");
        let text = version.to_string();
        assert!(!text.contains("\"$ref\"") && !text.contains("\"format\":\"uint"), "{text}");
    }
}

/// As far as the API server's rules for structural schemas are about what schemars could get wrong.
fn structural(schema: &Value, path: &str) {
    let Some(fields) = schema.as_object() else { return };
    let is_typed = fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string");
    assert!(
        is_typed || fields.contains_key("x-kubernetes-preserve-unknown-fields"),
        "{path}: no type: {schema}"
    );
    assert!(!fields.contains_key("anyOf") && !fields.contains_key("oneOf"), "{path}: {schema}");
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        structural(below, &format!("{path}.{key}"));
    }
    if schema["type"] == "array" {
        structural(&schema["items"], &format!("{path}[]"));
    }
}
