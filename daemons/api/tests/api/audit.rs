//! Records of changes, in SQLite and PostgreSQL.

use serde_json::{Value, json};

use crate::{
    identity::Provider,
    postgres::Postgres,
    support::{Answer, Replica, Store, run, vm, wait_until},
};

pub(crate) const AUDIT: &str = "/api/v1/audit";
/// Records that the database does not have yet.
pub(crate) const OUTBOX: &str = "/novacron/audit/";

#[test]
fn every_change_is_recorded_in_sqlite() {
    let Some(store) = Store::start() else { return };
    recorded(&store, &[]);
}

#[test]
fn every_change_is_recorded_in_postgresql() {
    let Some(postgres) = Postgres::start() else { return };
    let Some(store) = Store::start() else { return };
    recorded(&store, &["--database-url", &postgres.url()]);
    away(&store, &postgres);
}

fn recorded(store: &Store, more: &[&str]) {
    let provider = Provider::new();
    let flags = provider.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let replica = Replica::ready("a", store, &flags);
    let (admin, viewer) = (provider.bearer(&["admin@*"]), provider.bearer(&["viewer@eu"]));
    let ask = |who: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>| {
        let headers = [&[("Authorization", who)], headers].concat();
        replica.ask(method, path, &headers, body)
    };
    let first = vm("one", "eu");
    let made = ask(&admin, "POST", "/api/vms", &[("X-Request-Id", "r-1")], Some(&first));
    assert_eq!(made.status, 201, "{made:?}");
    let path = "/api/v1/vms/one";
    let replaced = ask(&admin, "PUT", path, &[("If-Match", made.header("etag"))], Some(&first));
    assert_eq!(replaced.status, 200);
    assert_eq!(ask(&admin, "PUT", path, &[("If-Match", "\"1\"")], Some(&first)).status, 412);
    assert_eq!(ask(&viewer, "DELETE", path, &[("If-Match", "*")], None).status, 403);
    assert_eq!(replica.ask("DELETE", path, &[("If-Match", "*")], None).status, 401);
    assert_eq!(ask(&admin, "DELETE", path, &[("If-Match", "*")], None).status, 204);
    assert_eq!(ask(&viewer, "GET", "/api/v1/vms", &[], None).status, 200);

    let list = |query: &str| -> Answer { ask(&admin, "GET", &format!("{AUDIT}{query}"), &[], None) };
    let all = list("").json();
    let items = all["items"].as_array().unwrap();
    let told: Vec<_> = items
        .iter()
        .rev()
        .map(|record| {
            let field = |name: &str| record[name].as_str().unwrap_or_else(|| panic!("{record}")).to_owned();
            (
                field("method"),
                record["status"].as_i64().unwrap(),
                field("outcome"),
                field("etag_before"),
                field("etag_after"),
            )
        })
        .collect();
    let (one, two) = (made.header("etag"), replaced.header("etag"));
    let expected = [
        ("POST", 201, "done", "", one),
        ("PUT", 200, "done", one, two),
        ("PUT", 412, "refused", "", ""),
        ("DELETE", 403, "refused", "", ""),
        ("DELETE", 204, "done", two, ""),
    ];
    let expected =
        expected.map(|(a, b, c, d, e)| (a.to_owned(), b, c.to_owned(), d.to_owned(), e.to_owned()));
    assert_eq!(told, expected, "{all}");
    let oldest = items.last().unwrap();
    assert_eq!(
        (
            &oldest["principal"],
            &oldest["route"],
            &oldest["resource"],
            &oldest["request_id"],
            &oldest["address"]
        ),
        (&json!("jwt:alice"), &json!("/api/vms"), &json!(path), &json!("r-1"), &json!("127.0.0.1")),
    );
    for (query, count) in [
        ("?outcome=done", 3),
        ("?outcome=refused&method=PUT", 1),
        ("?principal=jwt:alice", 5),
        ("?principal=jwt:nobody", 0),
        ("?resource=/api/v1/vms/one", 5),
        ("?principal=%27%20OR%201%3D1--", 0),
        ("?to_ms=1", 0),
        ("?from_ms=1&limit=2", 2),
    ] {
        assert_eq!(list(query).json()["items"].as_array().unwrap().len(), count, "{query}");
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("?limit=2{cursor}")).json();
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(&seen, items);
    for query in ["?limit=0", "?cursor=x", "?outcome=perhaps", "?nonsense=1", "?principal=%00", "?from_ms=x"]
    {
        assert_eq!(list(query).problem(), "malformed", "{query}");
    }
    assert_eq!(ask(&viewer, "GET", AUDIT, &[], None).json()["required"], "admin@*");
}

/// What is changed meanwhile is recorded, by whichever replica.
fn away(store: &Store, postgres: &Postgres) {
    let replica = Replica::ready("b", store, &["--database-url", &postgres.url()]);
    assert_eq!(replica.post("/api/v1/vms", &vm("before", "eu")).status, 201);
    postgres.stop();
    assert_eq!(replica.post("/api/v1/vms", &vm("during", "eu")).status, 201);
    assert_eq!(replica.get("/api/v1/vms/before").status, 200, "reads go on");
    let refused = replica.get(AUDIT);
    assert_eq!((refused.status, refused.problem().as_str()), (503, "audit-unavailable"));
    assert_eq!(refused.header("retry-after"), "1");
    let begun = Replica::ready("c", store, &["--database-url", &postgres.url()]);
    assert_eq!(begun.post("/api/v1/vms", &vm("begun", "eu")).status, 201);
    postgres.run();
    for replica in [&replica, &begun] {
        for name in ["before", "during", "begun"] {
            let found = wait_until("the database", || {
                let found = replica.get(&format!("{AUDIT}?resource=/api/v1/vms/{name}"));
                (found.status == 200).then(|| found.json())
            });
            let items = found["items"].as_array().unwrap();
            assert_eq!((items.len(), &items[0]["outcome"]), (1, &json!("done")), "{found}");
        }
    }
    wait_until("nothing that waits", || store.values(OUTBOX).is_empty().then_some(()));
}

#[test]
fn the_first_token_needs_no_database() {
    let Some(store) = Store::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (folder, endpoints) = (data.display().to_string(), store.endpoints.join(","));
    let args = ["--create-token", "x", "--store-endpoints", &endpoints, "--data-dir", &folder];
    // The members may not be there yet.
    wait_until("a token", || {
        let (code, said) = run(&args, None);
        assert!(code == Some(0) || said.contains("nothing was done"), "{said}");
        (code == Some(0)).then_some(())
    });
    assert!(!data.exists(), "a replica writes the record");
    assert_eq!((store.values("/novacron/tokens/").len(), store.values(OUTBOX).len()), (1, 1));
    let replica = Replica::ready("a", &store, &[]);
    wait_until("the record", || {
        let found = replica.get(&format!("{AUDIT}?principal=command")).json();
        let items = found["items"].as_array().unwrap();
        (items.len() == 1 && items[0]["outcome"] == "done" && items[0]["status"] == 201).then_some(())
    });
}
