//! The page is served with what keeps it its own, and what it asks of agents is answered.

use serde_json::Value;

use crate::support::{Replica, Store, wait_until};

#[test]
fn the_page_is_served_once_and_then_known() {
    let Some(store) = Store::start() else { return };
    let replica = Replica::ready("a", &store, &["--auth-tokens", "true"]);
    for (path, kind, part) in [
        ("/", "text/html; charset=utf-8", "<title>NovaCron</title>"),
        ("/page.js", "text/javascript; charset=utf-8", "sessionStorage"),
        ("/page.css", "text/css; charset=utf-8", "color-scheme"),
        ("/icon.svg", "image/svg+xml", "<svg"),
    ] {
        // It is for everybody: who has no login sees the question for one.
        let first = replica.get(path);
        assert_eq!((first.status, first.header("content-type")), (200, kind), "{path}");
        assert!(first.body.contains(part), "{path}");
        let policy = first.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{path}: {policy:?}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy:?}");
        assert_eq!(first.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(first.header("cache-control"), "no-cache", "{path}");
        let again = replica.ask("GET", path, &[("If-None-Match", first.header("etag"))], None);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(again.header("etag"), first.header("etag"), "{path}");
        let other = replica.ask("GET", path, &[("If-None-Match", "\"other\"")], None);
        assert_eq!(other.status, 200, "{path}");
    }
    assert_eq!(replica.ask("POST", "/", &[], None).problem(), "unauthenticated");
}

#[test]
fn what_agents_say_is_told() {
    let Some(store) = Store::start() else { return };
    let socket = store.folder.path().join("agent-1").join("agent.sock");
    let sockets = format!("agent-1={}", socket.display());
    let replica = Replica::ready("a", &store, &["--agents-sockets", &sockets]);
    wait_until("two agents", || {
        (replica.get("/api/v1/nodes").json()["items"].get(1).is_some()).then_some(())
    });
    let items = |path: &str| match replica.get(path).json()["items"].take() {
        Value::Array(items) => Some(items),
        _ => None,
    };
    // Agents tell each other: one of them knows of all.
    let rows = wait_until("rows of both", || items("/api/v1/paths").filter(|rows| rows.len() == 2));
    assert!(rows.iter().all(|row| row["region"].is_string()), "{rows:?}");
    let path = |rows: &[Value]| rows.first()?["paths"].get(0).cloned();
    let own = wait_until("a path", || path(&items("/api/v1/nodes/agent-1/paths")?));
    assert_eq!(own["to"], "agent-2");
    assert!(own["rtt_ms"].is_number() && own["loss_ratio"].is_number(), "{own}");
    assert_eq!(items("/api/v1/nodes/agent-1/transfers"), Some(Vec::new()));
    let able = items("/api/v1/nodes/agent-1/capabilities").unwrap();
    assert!(able.iter().all(|ability| ability["name"].is_string() && ability["state"].is_string()));
    for part in ["paths", "transfers", "capabilities"] {
        let away = replica.get(&format!("/api/v1/nodes/agent-2/{part}"));
        assert_eq!((away.status, away.problem().as_str()), (503, "agent-unavailable"), "{part}");
        assert_eq!(replica.get(&format!("/api/v1/nodes/agent-9/{part}")).problem(), "not-found", "{part}");
    }
    let blind = Replica::ready("b", &store, &[]);
    assert_eq!(blind.get("/api/v1/paths").problem(), "agent-unavailable");
}
