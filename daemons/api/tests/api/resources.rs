//! Resources and their conventions, at two replicas of one store.

use serde_json::{Value, json};

use crate::support::{Answer, Replica, Store, vm, wait_until};

const VMS: &str = "/api/v1/vms";

#[test]
fn resources_at_two_replicas() {
    let Some(store) = Store::start() else { return };
    let (a, b) = (Replica::ready("a", &store, &[]), Replica::ready("b", &store, &[]));
    etags(&a, &b);
    idempotency(&a, &b);
    // One for each replica, however many answers are kept.
    let leases = store.leases("/novacron/idempotency/");
    assert!(leases.len() <= 2 && !leases.contains(&0), "{leases:?}");
    pages(&a, &b);
    problems(&a);
    cluster(&a);
    documents(&a);
    cancelled(&a);
}

fn etags(a: &Replica, b: &Replica) {
    let one = vm("one", "eu");
    let made = a.post(VMS, &one);
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/vms/one"), "{made:?}");
    assert_eq!(made.json(), one);
    assert_eq!(b.post("/api/vms", &one).problem(), "exists");
    let path = "/api/v1/vms/one";
    let found = b.get(path);
    assert_eq!((found.status, found.header("etag")), (200, made.header("etag")));
    assert_eq!(b.get("/api/vms/one").body, found.body);
    let etag = found.header("etag");
    assert_eq!(b.ask("GET", path, &[("If-None-Match", etag)], None).status, 304);

    let mut more = one.clone();
    more["cpus"] = json!(4);
    let put = |replica: &Replica, headers: &[(&str, &str)]| replica.ask("PUT", path, headers, Some(&more));
    assert_eq!(put(a, &[]).problem(), "condition-missing");
    assert_eq!(put(a, &[("If-None-Match", "*")]).problem(), "condition-failed");
    let replaced = put(a, &[("If-Match", etag)]);
    assert_eq!(replaced.status, 200, "{replaced:?}");
    // Whoever comes second with the same ETag would undo what the first did.
    let stale = put(b, &[("If-Match", etag)]);
    assert_eq!((stale.status, stale.problem().as_str()), (412, "condition-failed"));
    assert_eq!(put(b, &[("If-Match", "*")]).status, 200);
    assert_eq!(b.get(path).json()["cpus"], 4);
    assert_eq!(b.ask("PUT", "/api/v1/vms/two", &[("If-Match", "*")], Some(&more)).problem(), "invalid");

    assert_eq!(a.ask("DELETE", path, &[], None).problem(), "condition-missing");
    assert_eq!(a.ask("DELETE", path, &[("If-Match", etag)], None).problem(), "condition-failed");
    let last = a.get(path).header("etag").to_owned();
    assert_eq!(a.ask("DELETE", path, &[("If-Match", &last)], None).status, 204);
    assert_eq!(a.ask("DELETE", path, &[("If-Match", "*")], None).problem(), "not-found");
    assert_eq!(put(a, &[("If-Match", "*")]).problem(), "not-found");
    for none in ["\"0\"", "\"1\""] {
        assert_eq!(put(a, &[("If-Match", none)]).problem(), "not-found", "{none}");
        assert_eq!(a.ask("DELETE", path, &[("If-Match", none)], None).problem(), "not-found", "{none}");
    }
    let again = put(a, &[("If-None-Match", "*")]);
    assert_eq!((again.status, again.header("location")), (201, path));
}

fn idempotency(a: &Replica, b: &Replica) {
    let key = [("Idempotency-Key", "0b2c-1")];
    let body = vm("keyed", "eu");
    let post = |replica: &Replica, body: &Value| replica.ask("POST", VMS, &key, Some(body));
    let first = post(a, &body);
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""), "{first:?}");
    for replica in [a, b, a] {
        let again = post(replica, &body);
        assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"), "{again:?}");
        for header in ["etag", "location", "content-type"] {
            assert_eq!(again.header(header), first.header(header));
        }
        assert_eq!(again.body, first.body);
    }
    let other = post(b, &vm("other", "eu"));
    assert_eq!((other.status, other.problem().as_str()), (422, "key-reused"));
    assert_eq!(b.get("/api/v1/vms/other").problem(), "not-found");
    // What failed is not kept: the key is free.
    let taken = [("Idempotency-Key", "0b2c-2")];
    assert_eq!(a.ask("POST", VMS, &taken, Some(&body)).problem(), "exists");
    assert_eq!(a.ask("POST", VMS, &taken, Some(&vm("free", "eu"))).status, 201);
    // Many at once, at both: one is done, and all say the same.
    let at_once = [("Idempotency-Key", "0b2c-3")];
    let body = json!({ "kind": "move_region", "from": "nowhere", "to": "elsewhere" });
    let ask = |n: usize| {
        let replica = if n.is_multiple_of(2) { a } else { b };
        replica.ask("POST", "/api/v1/jobs", &at_once, Some(&body))
    };
    let ask = &ask;
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(n))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (202, &answers[0].body));
    }
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
    assert_eq!(replayed, answers.len() - 1);
}

fn names(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
}

fn pages(a: &Replica, b: &Replica) {
    let made: Vec<_> = (0..60).map(|n| format!("p-{n:02}")).collect();
    for (n, name) in made.iter().enumerate() {
        assert_eq!(a.post(VMS, &vm(name, if n % 3 == 0 { "us" } else { "asia" })).status, 201);
    }
    let all = names(&a.get("/api/v1/vms?limit=500").json());
    assert!(all.is_sorted() && made.iter().all(|name| all.contains(name)));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for round in 0.. {
        let replica = if round % 2 == 0 { a } else { b };
        let page = replica.get(&format!("/api/v1/vms?limit=7{cursor}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let found = names(&page);
        assert!(found.len() <= 7);
        seen.extend(found);
        // What is written meanwhile, behind the cursor and before it, is of another moment.
        let gone = format!("/api/v1/vms/p-{:02}", 59 - round);
        assert_eq!(a.ask("DELETE", &gone, &[("If-Match", "*")], None).status, 204);
        assert_eq!(a.post(VMS, &vm(&format!("p-{round:02}x"), "us")).status, 201);
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
    let us = a.get("/api/v1/vms?region=us&limit=500").json();
    assert!(us["items"].as_array().unwrap().iter().all(|vm| vm["region"] == "us"));
    let exact = a.get("/api/v1/vms?region=us&limit=5").json();
    assert_eq!(names(&exact), names(&us)[..5]);
    assert!(exact["next"].is_string());
}

fn problems(a: &Replica) {
    let good = vm("good", "eu");
    let with = |field: &str, value: Value| {
        let mut vm = good.clone();
        vm[field] = value;
        vm
    };
    for (method, path, body, status, problem) in [
        ("GET", "/nothing", None, 404, "no-route"),
        ("GET", "/api/v1/vms/", None, 404, "no-route"),
        ("GET", "/api/v1/vms/absent", None, 404, "not-found"),
        ("GET", "/api/v1/vms/%2e%2e%2fnodes", None, 404, "not-found"),
        ("GET", "/api/v1/vms/%ff", None, 400, "malformed"),
        ("GET", "/api/v1/jobs/absent", None, 404, "not-found"),
        ("GET", "/api/v1/nodes/absent", None, 404, "not-found"),
        ("POST", "/api/v1/jobs/absent/cancel", None, 404, "not-found"),
        ("PATCH", "/api/v1/vms", None, 405, "method-not-allowed"),
        ("DELETE", "/healthz", None, 405, "method-not-allowed"),
        ("GET", "/api/v1/vms?limit=0", None, 400, "malformed"),
        ("GET", "/api/v1/vms?limit=x", None, 400, "malformed"),
        ("GET", "/api/v1/vms?nonsense=1", None, 400, "malformed"),
        ("GET", "/api/v1/vms?cursor=nonsense", None, 400, "malformed"),
        ("POST", VMS, None, 415, "media-type"),
        ("POST", VMS, Some(json!([])), 422, "invalid"),
        ("POST", VMS, Some(json!({})), 422, "invalid"),
        ("POST", VMS, Some(with("name", json!("UPPER"))), 422, "invalid"),
        ("POST", VMS, Some(with("cpus", json!(0))), 422, "invalid"),
        ("POST", VMS, Some(with("cpus", json!("2"))), 422, "invalid"),
        ("POST", VMS, Some(with("desired_state", json!("paused"))), 422, "invalid"),
        ("POST", VMS, Some(with("unknown", json!(1))), 422, "invalid"),
        ("POST", "/api/v1/jobs", Some(json!({ "kind": "nonsense" })), 422, "invalid"),
        (
            "POST",
            "/api/v1/jobs",
            Some(json!({ "kind": "move_region", "from": "a", "to": "a" })),
            422,
            "invalid",
        ),
    ] {
        let answer = a.ask(method, path, &[], body.as_ref());
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{method} {path} {body:?}");
    }
    let answer = a.ask("PATCH", VMS, &[], None);
    assert!(answer.header("allow").contains("POST"), "{answer:?}");
    let fields = a.post(VMS, &with("cpus", json!(5000))).json();
    assert_eq!(fields["errors"][0]["field"], "cpus");
    let text = a.ask("POST", VMS, &[("Content-Type", "text/plain")], Some(&good));
    assert_eq!(text.problem(), "media-type");
    let broken = format!(
        "POST {VMS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{{\"na"
    );
    assert_eq!(crate::support::raw(a.port, &broken).unwrap().problem(), "malformed");
    for (headers, problem) in [
        ([("If-Match", "\"1\""), ("If-None-Match", "*")], "malformed"),
        ([("If-Match", "W/\"1\""), ("X-Other", "1")], "condition-failed"),
        ([("Sec-Fetch-Site", "cross-site"), ("If-Match", "*")], "cross-site"),
    ] {
        let answer = a.ask("PUT", "/api/v1/vms/good", &headers, Some(&good));
        assert_eq!(answer.problem(), problem, "{headers:?}");
    }
    assert_eq!(a.ask("POST", VMS, &[("Idempotency-Key", "a b")], Some(&good)).problem(), "malformed");
    let named = a.ask("GET", "/nothing", &[("X-Request-Id", "mine-1")], None);
    assert_eq!((named.header("x-request-id"), named.problem().as_str()), ("mine-1", "no-route"));
    assert_eq!(named.json()["instance"], "/nothing");
    assert_eq!(a.get("/api/v1/vms/good").problem(), "not-found", "nothing of all that was done");
    assert_eq!(named.header("access-control-allow-origin"), "");
}

fn cluster(a: &Replica) {
    let members = a.get("/api/v1/consensus/members").json();
    let members = members["items"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert_eq!(
        members.iter().filter(|member| member["status"]["is_leader"] == true).count(),
        1,
        "{members:?}"
    );
    let names: Vec<_> = members.iter().map(|member| member["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["m1", "m2", "m3"]);
    let nodes = wait_until("both agents", || {
        let nodes = a.get("/api/v1/nodes").json();
        (nodes["items"].as_array().unwrap().len() == 2).then_some(nodes)
    });
    assert_eq!(nodes["items"][0]["name"], "agent-1");
    assert_eq!(a.get("/api/v1/nodes/agent-1").json(), nodes["items"][0]);
}

fn documents(a: &Replica) {
    let document = a.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{name}", "absent").replace("{id}", "absent");
        for method in item.as_object().unwrap().keys() {
            let answer = a.ask(&method.to_uppercase(), &concrete, &[], None);
            let problem = answer.problem();
            assert!(!["no-route", "method-not-allowed"].contains(&problem.as_str()), "{method} {path}");
        }
    }
    let health = a.get("/api/health").json();
    assert_eq!((&health["ready"], &health["replica"]), (&json!(true), &json!("a")));
    assert_eq!(a.get("/api/v1/health").json(), health);
    let (status, metrics) = {
        let answer = crate::support::ask(a.metrics, "GET", "/metrics", &[], None).unwrap();
        (answer.status, answer.body)
    };
    assert_eq!(status, 200);
    for line in [
        "http_requests_total{method=\"GET\",route=\"/api/v1/vms/{name}\",status=\"404\"}",
        "http_requests_total{method=\"GET\",route=\"none\",status=\"404\"}",
        "http_request_duration_seconds_bucket{method=\"POST\",route=\"/api/v1/vms\"",
        "queue_depth 0",
        "active_connections ",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("absent"), "names are no labels");
}

/// Whatever is of a job that nobody may run.
fn cancelled(a: &Replica) {
    let made = a.post("/api/v1/jobs", &json!({ "kind": "move_region", "from": "empty", "to": "full" }));
    let path = made.header("location").to_owned();
    let done = wait_until("the end of the job", || {
        let job = a.get(&path).json();
        (job["state"] == "done").then_some(job)
    });
    assert_eq!(done["progress"], json!({ "done": 0, "total": 0 }));
    assert_eq!(a.ask("POST", &format!("{path}/cancel"), &[], None).problem(), "ended");
    let jobs = a.get("/api/v1/jobs").json();
    assert!(jobs["items"].as_array().unwrap().contains(&done));
}
