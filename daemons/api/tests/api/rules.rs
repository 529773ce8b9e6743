//! Every operation, asked by everybody: a new one without a line here fails the test.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    identity::Provider,
    schedules::schedule,
    support::{Replica, Store, vm},
};

/// Who asks. Each may do what those before it in its region may.
const PRINCIPALS: [(&str, &[&str]); 8] = [
    ("nobody", &[]),
    ("no role", &[]),
    ("viewer@eu", &["viewer@eu"]),
    ("operator@eu", &["operator@eu"]),
    ("admin@eu", &["admin@eu"]),
    ("viewer@*", &["viewer@*"]),
    ("operator@*", &["operator@*"]),
    ("admin@*", &["admin@*"]),
];

/// For each operation, which of them are let on: a `1` each. What is asked for is in the region eu.
const TABLE: &[(&str, &str, &str)] = &[
    //                                       nobody, no role, eu: viewer, operator, admin; all: viewer, operator, admin
    ("GET", "/api/v1/vms", "00111111"),
    ("POST", "/api/v1/vms", "00011011"),
    ("GET", "/api/v1/vms/{name}", "00111111"),
    ("PUT", "/api/v1/vms/{name}", "00011011"),
    ("DELETE", "/api/v1/vms/{name}", "00011011"),
    ("GET", "/api/v1/jobs", "00111111"),
    ("POST", "/api/v1/jobs", "00000011"),
    ("GET", "/api/v1/jobs/{id}", "00111111"),
    ("GET", "/api/v1/jobs/{id}/events", "00111111"),
    ("POST", "/api/v1/jobs/{id}/cancel", "00011011"),
    ("GET", "/api/v1/dwcp/migrations", "00111111"),
    ("POST", "/api/v1/dwcp/migrations", "00011011"),
    ("GET", "/api/v1/dwcp/migrations/{id}", "00111111"),
    ("GET", "/api/v1/dwcp/migrations/{id}/events", "00111111"),
    ("POST", "/api/v1/dwcp/migrations/{id}/cancel", "00011011"),
    ("GET", "/api/v1/schedules", "00111111"),
    ("POST", "/api/v1/schedules", "00011011"),
    ("GET", "/api/v1/schedules/{name}", "00111111"),
    ("PUT", "/api/v1/schedules/{name}", "00011011"),
    ("DELETE", "/api/v1/schedules/{name}", "00011011"),
    ("GET", "/api/v1/nodes", "00111111"),
    ("GET", "/api/v1/nodes/{name}", "00111111"),
    ("GET", "/api/v1/nodes/{name}/paths", "00111111"),
    ("GET", "/api/v1/nodes/{name}/transfers", "00111111"),
    ("GET", "/api/v1/nodes/{name}/capabilities", "00111111"),
    ("POST", "/api/v1/nodes/{name}/transfers/{id}/cancel", "00011011"),
    ("GET", "/api/v1/transfers", "00111111"),
    ("GET", "/api/v1/paths", "00111111"),
    ("GET", "/api/v1/regions", "00111111"),
    // Of a region the name says which one it is.
    ("GET", "/api/v1/regions/{name}", "00111111"),
    ("GET", "/api/v1/consensus/members", "00000111"),
    ("GET", "/api/v1/tokens", "00001001"),
    ("POST", "/api/v1/tokens", "00001001"),
    ("GET", "/api/v1/tokens/{id}", "00001001"),
    ("DELETE", "/api/v1/tokens/{id}", "00001001"),
    ("GET", "/api/v1/audit", "00000001"),
    ("GET", "/api/v1/health", "00111111"),
    ("GET", "/healthz", "11111111"),
    ("GET", "/ready", "11111111"),
    ("GET", "/startup", "11111111"),
    ("GET", "/openapi.json", "11111111"),
    ("GET", "/", "11111111"),
    ("GET", "/page.js", "11111111"),
    ("GET", "/page.css", "11111111"),
    ("GET", "/icon.svg", "11111111"),
    ("GET", "/api/vms", "00111111"),
    ("POST", "/api/vms", "00011011"),
    ("GET", "/api/vms/{name}", "00111111"),
    ("PUT", "/api/vms/{name}", "00011011"),
    ("DELETE", "/api/vms/{name}", "00011011"),
    ("GET", "/api/health", "00111111"),
];

#[test]
fn every_operation_is_for_whom_the_table_says() {
    let Some(store) = Store::start() else { return };
    let provider = Provider::new();
    let flags = [provider.flags(), vec!["--auth-tokens".to_owned(), "true".to_owned()]].concat();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let replica = Replica::ready("a", &store, &flags);
    let document = replica.get("/openapi.json").json();
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.insert((method.to_uppercase(), path.clone()), operation.clone());
        }
    }
    for (method, path, allowed) in TABLE {
        let operation = operations.remove(&((*method).to_owned(), (*path).to_owned()));
        let operation = operation.unwrap_or_else(|| panic!("there is no {method} {path}"));
        describes(&operation, allowed.starts_with('1'), &format!("{method} {path}"));
        for ((name, roles), allowed) in PRINCIPALS.iter().zip(allowed.chars()) {
            let bearer = provider.bearer(roles);
            let headers = [("If-Match", "*"), ("Authorization", bearer.as_str())];
            let headers = if *name == "nobody" { &headers[..1] } else { &headers[..] };
            let named = if path.contains("/regions/") { "eu" } else { "absent" };
            let concrete = path.replace("{name}", named).replace("{id}", "absent");
            let answer = replica.ask(method, &concrete, headers, body(method, path).as_ref());
            let is_let_on = ![401, 403].contains(&answer.status);
            assert_eq!(is_let_on, allowed == '1', "{name}: {method} {path}: {answer:?}");
            if !is_let_on {
                let problem = if *name == "nobody" { "unauthenticated" } else { "forbidden" };
                assert_eq!(answer.problem(), problem, "{name}: {method} {path}");
            }
        }
    }
    assert!(operations.is_empty(), "these need a line in the table: {:?}", operations.keys());
    no_operation(&replica, &provider);
}

/// What the document says of a login.
fn describes(operation: &Value, is_public: bool, name: &str) {
    let security = operation["security"].as_array().unwrap_or_else(|| panic!("{name}"));
    assert_eq!(security.is_empty(), is_public, "{name}");
    for status in ["401", "403", "429"] {
        assert_eq!(operation["responses"].get(status).is_none(), is_public, "{name}: {status}");
    }
}

/// Something to ask for that is well-formed, and comes to nothing.
fn body(method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("POST", "/api/v1/vms" | "/api/vms") => {
            let mut taken = vm("taken", "eu");
            taken["cpus"] = json!(1);
            Some(taken)
        }
        ("POST", "/api/v1/schedules") => Some(schedule("taken", &["eu"])),
        ("PUT", "/api/v1/schedules/{name}") => Some(schedule("absent", &["eu"])),
        ("PUT", _) => Some(vm("absent", "eu")),
        // Two regions: no role in eu is enough.
        ("POST", "/api/v1/jobs") => Some(json!({ "kind": "move_region", "from": "eu", "to": "us" })),
        ("POST", "/api/v1/dwcp/migrations") => Some(json!({ "vm": "absent", "to": "absent" })),
        ("POST", "/api/v1/tokens") => {
            Some(json!({ "name": "n", "grants": [{ "role": "viewer", "region": "eu" }] }))
        }
        _ => None,
    }
}

/// What is not there is not there for those who have logged in, and nothing is told to others.
fn no_operation(replica: &Replica, provider: &Provider) {
    let bearer = provider.bearer(&["viewer@eu"]);
    for (method, path, status) in [
        ("GET", "/api", 404),
        ("GET", "/api/v2/vms", 404),
        ("PATCH", "/api/v1/vms/a", 405),
        ("TRACE", "/api/v1/vms", 405),
        ("OPTIONS", "/api/v1/vms", 405),
        ("POST", "/healthz", 405),
        ("DELETE", "/api/v1/audit", 405),
    ] {
        assert_eq!(replica.ask(method, path, &[], None).status, 401, "{method} {path}");
        let answer = replica.ask(method, path, &[("Authorization", &bearer)], None);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("allow").is_empty(), status == 404, "{method} {path}");
    }
    let head = replica.ask("HEAD", "/api/v1/vms", &[], None);
    assert_eq!(head.status, 401);
    assert_eq!(replica.ask("HEAD", "/api/v1/vms", &[("Authorization", &bearer)], None).status, 200);
}
