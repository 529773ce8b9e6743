//! Logins, and attempts to do without one.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use ring::hmac;
use serde_json::{Value, json};

use crate::{
    identity::{Provider, encoded, now},
    support::{Answer, Replica, Store, ask, raw, run, vm, wait_until},
};

const HEALTH: &str = "/api/v1/health";

fn nowhere() -> Vec<String> {
    vec![format!("http://127.0.0.1:{}", ports::free(1)[0])]
}

fn get(replica: &Replica, path: &str, authorization: &str) -> Answer {
    replica.ask("GET", path, &[("Authorization", authorization)], None)
}

fn trusting(flags: &[String]) -> Replica {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Replica::spawn("a", &nowhere(), &flags)
}

#[test]
fn json_web_tokens_that_are_not_as_they_should_be() {
    let provider = Provider::new();
    let replica = trusting(&provider.flags());
    assert_eq!(get(&replica, HEALTH, &provider.bearer(&["viewer@eu"])).status, 200);
    assert_eq!(get(&replica, HEALTH, &provider.bearer(&[])).status, 403);

    let with = |field: &str, value: Value| {
        let mut claims = Provider::claims(&["admin@*"]);
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(field)),
            value => claims[field] = value,
        }
        claims
    };
    let good = with("x", json!(1));
    for (field, value) in [
        ("exp", json!(now() - 600)),
        ("exp", Value::Null),
        ("exp", json!("soon")),
        ("nbf", json!(now() + 600)),
        ("iss", json!("https://evil.example/")),
        ("iss", json!(["https://id.example/"])),
        ("iss", Value::Null),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("aud", Value::Null),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("sub", json!("s".repeat(256))),
    ] {
        let answer =
            get(&replica, HEALTH, &format!("Bearer {}", provider.token(&with(field, value.clone()))));
        assert_eq!(answer.problem(), "unauthenticated", "{field}: {value}");
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{answer:?}");
    }
    assert_eq!(
        get(&replica, HEALTH, &format!("Bearer {}", provider.token(&with("aud", json!(["x", "novacron"])))))
            .status,
        200
    );

    let parts: Vec<String> = provider.token(&good).split('.').map(str::to_owned).collect();
    let [header, payload, signature] = &parts[..] else { panic!("{parts:?}") };
    let admin = encoded(with("sub", json!("root")).to_string());
    // A public key that is taken for a secret.
    let confused = |algorithm: &str| {
        let head = encoded(json!({ "alg": algorithm, "kid": "k1", "typ": "JWT" }).to_string());
        let message = format!("{head}.{payload}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, provider.public_key());
        format!("{message}.{}", encoded(hmac::sign(&key, message.as_bytes())))
    };
    let stranger = Provider::new();
    let forged = [
        format!("{header}.{admin}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{}", encoded([0; 64])),
        format!("{header}.{payload}.{signature}A"),
        format!("{header}.{payload}.{signature}.x"),
        format!("{}.{payload}.", encoded(r#"{"alg":"none"}"#)),
        format!("{}.{payload}.{signature}", encoded(r#"{"alg":"nOnE","kid":"k1"}"#)),
        confused("HS256"),
        confused("HS512"),
        stranger.token(&good),
        provider.signed(&json!({ "alg": "ES384", "kid": "k1" }), &good),
        provider.signed(&json!({ "alg": "RS256", "kid": "k1" }), &good),
        provider.signed(&json!({ "alg": "ES256", "kid": "k2" }), &good),
        provider.signed(&json!({ "alg": "ES256", "kid": "../../../../dev/null" }), &good),
        provider.signed(&json!({ "alg": "ES256", "kid": "k1", "crit": ["x"], "x": 1 }), &good),
        // Keys that a token brings along are not looked at.
        stranger.signed(&json!({ "alg": "ES256", "kid": "k3", "jwk": stranger.set()["keys"][0] }), &good),
        stranger.signed(&json!({ "alg": "ES256", "jku": "http://127.0.0.1:1/", "kid": "k3" }), &good),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "\u{fc}".to_owned(),
    ];
    for token in &forged {
        let answer = get(&replica, HEALTH, &format!("Bearer {token}"));
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{token}");
    }
    // The same key without its name is the only one.
    assert_eq!(
        get(&replica, HEALTH, &format!("Bearer {}", provider.signed(&json!({ "alg": "ES256" }), &good)))
            .status,
        200
    );
}

#[test]
fn heads_that_would_smuggle_a_login() {
    let provider = Provider::new();
    let replica = trusting(&provider.flags());
    let good = provider.bearer(&["admin@*"]);
    let both = replica.ask("GET", HEALTH, &[("Authorization", &good), ("Authorization", "Bearer x")], None);
    assert_eq!((both.status, both.problem().as_str()), (400, "malformed"));
    for header in
        ["X-Forwarded-User", "X-Remote-User", "X-Auth-Request-User", "Proxy-Authorization", "Cookie"]
    {
        assert_eq!(replica.ask("GET", HEALTH, &[(header, &good)], None).status, 401, "{header}");
    }
    assert_eq!(replica.get(&format!("{HEALTH}?access_token={}", &good[7..])).status, 401);
    assert_eq!(get(&replica, HEALTH, &good[7..]).status, 401, "no scheme");
    assert_eq!(get(&replica, HEALTH, &good.replace("Bearer", "Basic")).status, 401);
    // A header that goes on in the next line, and one whose name ends with a space.
    for head in [
        format!("X: 1\r\n Authorization: {good}"),
        format!("Authorization : {good}"),
        format!("X: 1\nAuthorization: {good}\r"),
    ] {
        let text = format!("GET {HEALTH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n\r\n");
        if let Ok(answer) = raw(replica.port, &text) {
            assert_ne!(answer.status, 200, "{head:?}");
        }
    }
    // Two lengths: whatever becomes of the first request, there is no second one in its body.
    let inner = format!("GET {HEALTH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {good}\r\n\r\n");
    for lengths in [
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", inner.len() + 5),
        format!("Content-Length: 0\r\nContent-Length: {}", inner.len()),
        "Transfer-Encoding: xchunked".to_owned(),
    ] {
        let text =
            format!("POST /api/v1/vms HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n0\r\n\r\n{inner}");
        let answers = all_answers(replica.port, &text);
        assert!(!answers.contains("HTTP/1.1 200"), "{lengths}: {answers}");
    }
    // Paths that a router might take for others.
    for path in [
        "/healthz/../api/v1/health",
        "/healthz%2f..%2fapi/v1/health",
        "//api/v1/health",
        "/API/v1/health",
        "/api/v1/health/",
    ] {
        assert_eq!(replica.get(path).status, 401, "{path}");
    }
    let absolute =
        format!("GET http://localhost{HEALTH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(raw(replica.port, &absolute).unwrap().status, 401);
    // Too long to be one.
    let long = format!("Bearer {}.{}.x", &good[7..20], "A".repeat(9000));
    assert_eq!(get(&replica, HEALTH, &long).status, 401);
    let longer = format!("Bearer {}", "A".repeat(20_000));
    let answer = ask(replica.port, "GET", HEALTH, &[("Authorization", &longer)], None);
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 431), "{answer:?}");
}

/// What is answered until the server closes.
fn all_answers(port: u16, text: &str) -> String {
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Whoever waits for more is not given any.
    socket.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    socket.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = socket.read(&mut part) {
        bytes.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn keys_are_rotated_and_unknown_ones_are_not_looked_for_again_and_again() {
    let mut provider = Provider::new();
    let file = provider.file();
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve_keys(&file, &asked);
    let replica = trusting(&Provider::flags_for(Path::new(&url)));
    assert_eq!(get(&replica, HEALTH, &provider.bearer(&["viewer@*"])).status, 200);
    let old = provider.bearer(&["viewer@*"]);
    provider.rotate("k2");
    provider.publish();
    let before = asked.load(SeqCst);
    assert_eq!(get(&replica, HEALTH, &provider.bearer(&["viewer@*"])).status, 200, "looked for at once");
    assert_eq!(get(&replica, HEALTH, &old).status, 401, "withdrawn");
    provider.rotate("k3");
    for _ in 0..50 {
        assert_eq!(get(&replica, HEALTH, &provider.bearer(&["admin@*"])).status, 401);
    }
    let looks = asked.load(SeqCst) - before;
    assert!((1..=3).contains(&looks), "{looks} looks");
}

#[test]
fn without_keys_nobody_knows_who_asks() {
    let provider = Provider::new();
    let nothing = format!("http://127.0.0.1:{}/keys", ports::free(1)[0]);
    let replica = trusting(&Provider::flags_for(Path::new(&nothing)));
    let answer = get(&replica, HEALTH, &provider.bearer(&["admin@*"]));
    assert_eq!((answer.status, answer.problem().as_str()), (503, "login-unavailable"));
    let flags = Provider::flags_for(Path::new("/nowhere/keys.json"));
    let args: Vec<_> = ["--check-config"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let (code, said) = run(&args, None);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("auth.jwt.jwks"), "{said}");
}

/// Serves a file, and counts how often.
fn serve_keys(file: &Path, asked: &Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (file, asked) = (file.to_owned(), asked.clone());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            asked.fetch_add(1, SeqCst);
            let _ = socket.read(&mut [0; 4096]);
            let keys = std::fs::read_to_string(&file).unwrap();
            let _ = write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len());
        }
    });
    url
}

#[test]
fn pages_of_other_sites_that_name_this_machine() {
    let replica = Replica::spawn("a", &nowhere(), &[]);
    assert_eq!(replica.get(HEALTH).status, 200);
    let rebound = format!("GET {HEALTH} HTTP/1.1\r\nHost: evil.example:8080\r\nConnection: close\r\n\r\n");
    let answer = raw(replica.port, &rebound).unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (421, "misdirected"));
}

const TOKENS: &str = "/api/v1/tokens";

/// A token of these roles, made by this one.
fn token(replica: &Replica, by: &str, name: &str, grants: &[(&str, &str)]) -> Answer {
    let grants: Vec<_> =
        grants.iter().map(|(role, region)| json!({ "role": role, "region": region })).collect();
    let body = json!({ "name": name, "grants": grants });
    replica.ask("POST", TOKENS, &[("Authorization", by)], Some(&body))
}

fn bearer(made: &Answer) -> String {
    assert_eq!(made.status, 201, "{made:?}");
    format!("Bearer {}", made.json()["token"].as_str().unwrap())
}

/// The first token, as an operator makes it.
pub(crate) fn first_token(store: &Store, data: &Path) -> String {
    let data = data.display().to_string();
    let endpoints = store.endpoints.join(",");
    let args = [
        "--create-token",
        "first",
        "--store-endpoints",
        &endpoints,
        "--data-dir",
        &data,
        "--log-level",
        "error",
    ];
    let (code, said) = run(&args, None);
    assert_eq!(code, Some(0), "{said}");
    format!("Bearer {}", said.trim())
}

#[test]
fn tokens_at_two_replicas() {
    let Some(store) = Store::start() else { return };
    let more = ["--auth-tokens", "true"];
    let (a, b) = (Replica::ready("a", &store, &more), Replica::ready("b", &store, &more));
    assert_eq!(a.get("/api/v1/vms").problem(), "unauthenticated");
    let root = first_token(&store, a.data.path());
    assert_eq!(get(&b, "/api/v1/vms", &root).status, 200);
    lives(&a, &b, &root);
    guesses(&a, &root);
    regions(&a, &b, &root);
    idempotency(&a, &root);
    let secret = &root["Bearer nct_".len() + 17..];
    for entry in store.values("/novacron/") {
        assert!(!entry.contains(secret), "{entry}");
    }
}

/// From its making to its end.
fn lives(a: &Replica, b: &Replica, root: &str) {
    let made = token(a, root, "ci", &[("viewer", "eu")]);
    let ci = bearer(&made);
    assert_eq!(made.header("cache-control"), "no-store");
    let path = made.header("location").to_owned();
    let shown = get(b, &path, root);
    assert_eq!(shown.status, 200, "{shown:?}");
    assert_eq!((&shown.json()["name"], &shown.json()["token"]), (&json!("ci"), &Value::Null));
    assert_eq!(shown.header("etag"), made.header("etag"));
    let listed = get(b, TOKENS, root).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    assert!(!listed.to_string().contains("digest"));
    assert_eq!(get(b, "/api/v1/vms", &ci).status, 200);
    let revoked = a.ask("DELETE", &path, &[("Authorization", root)], None);
    assert_eq!(revoked.status, 204, "{revoked:?}");
    wait_until("its end at both", || {
        [a, b].iter().all(|replica| get(replica, "/api/v1/vms", &ci).status == 401).then_some(())
    });
    assert_eq!(a.ask("DELETE", &path, &[("Authorization", root)], None).problem(), "not-found");
    let body =
        json!({ "name": "brief", "grants": [{ "role": "viewer", "region": "*" }], "lasts_seconds": 1 });
    assert_eq!(a.ask("POST", TOKENS, &[("Authorization", root)], Some(&body)).problem(), "invalid");
}

/// What is nearly a token.
fn guesses(a: &Replica, root: &str) {
    let text = root.strip_prefix("Bearer ").unwrap();
    for n in 0..text.len() {
        assert_eq!(get(a, "/api/v1/vms", &format!("Bearer {}", &text[..n])).status, 401, "{n}");
    }
    let mut last = text.to_owned();
    let other = if last.pop() == Some('A') { 'B' } else { 'A' };
    for guess in [
        format!("{last}{other}"),
        format!("{text}A"),
        format!("{text}="),
        text.to_uppercase(),
        format!("nct_{}_{}", "0".repeat(16), &text[21..]),
        format!("{}{}", &text[..21], "A".repeat(43)),
        format!("nct_../vms/aaaaaaaa_{}", &text[21..]),
    ] {
        let answer = get(a, "/api/v1/vms", &format!("Bearer {guess}"));
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{guess}");
    }
}

/// Roles end at their region.
fn regions(a: &Replica, b: &Replica, root: &str) {
    let make = |name: &str, grants: &[(&str, &str)]| bearer(&token(a, root, name, grants));
    let viewer = make("viewer", &[("viewer", "eu")]);
    let operator = make("operator", &[("operator", "eu"), ("viewer", "us")]);
    let admin = make("admin", &[("admin", "eu")]);
    let ask = |who: &str, method: &str, path: &str, body: Option<&Value>| {
        b.ask(method, path, &[("Authorization", who), ("If-Match", "*")], body)
    };
    for (name, region) in [("e1", "eu"), ("u1", "us")] {
        assert_eq!(ask(root, "POST", "/api/v1/vms", Some(&vm(name, region))).status, 201);
    }
    let refused = |answer: Answer, required: &str| {
        assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"), "{answer:?}");
        assert_eq!(answer.json()["required"], required, "{answer:?}");
    };
    let names = |who: &str| {
        let listed = ask(who, "GET", "/api/v1/vms", None).json();
        let items = listed["items"].as_array().unwrap().iter();
        items.map(|vm| vm["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&viewer), ["e1"]);
    assert_eq!(names(&operator), ["e1", "u1"]);
    refused(ask(&viewer, "GET", "/api/v1/vms?region=us", None), "viewer@us");
    refused(ask(&viewer, "GET", "/api/v1/vms/u1", None), "viewer@us");
    // A viewer changes nothing.
    refused(ask(&viewer, "PUT", "/api/v1/vms/e1", Some(&vm("e1", "eu"))), "operator@some");
    refused(ask(&viewer, "DELETE", "/api/v1/vms/e1", None), "operator@some");
    // An operator of one region neither takes from another one, nor brings there.
    refused(ask(&operator, "PUT", "/api/v1/vms/u1", Some(&vm("u1", "eu"))), "operator@us");
    refused(ask(&operator, "PUT", "/api/v1/vms/e1", Some(&vm("e1", "us"))), "operator@us");
    refused(ask(&operator, "DELETE", "/api/v1/vms/u1", None), "operator@us");
    refused(ask(&operator, "POST", "/api/v1/vms", Some(&vm("u2", "us"))), "operator@us");
    let job = |from: &str, to: &str| json!({ "kind": "move_region", "from": from, "to": to });
    refused(ask(&operator, "POST", "/api/v1/jobs", Some(&job("us", "eu"))), "operator@us");
    refused(ask(&operator, "POST", "/api/v1/jobs", Some(&job("eu", "us"))), "operator@us");
    assert_eq!(ask(&operator, "PUT", "/api/v1/vms/e1", Some(&vm("e1", "eu"))).status, 200);
    let made = ask(root, "POST", "/api/v1/jobs", Some(&job("us", "void")));
    refused(ask(&operator, "GET", made.header("location"), None), "viewer@void");
    refused(ask(&operator, "POST", &format!("{}/cancel", made.header("location")), None), "operator@us");
    refused(ask(&operator, "GET", &format!("{}/events", made.header("location")), None), "viewer@void");
    // Nobody gives a role that they have not, and nobody takes one from another region's.
    refused(token(a, &operator, "x", &[("viewer", "eu")]), "admin@some");
    for grants in [
        &[("viewer", "us")][..],
        &[("viewer", "*")],
        &[("admin", "*")],
        &[("viewer", "eu"), ("viewer", "us")],
    ] {
        assert_eq!(token(a, &admin, "x", grants).problem(), "forbidden", "{grants:?}");
    }
    let own = token(a, &admin, "own", &[("operator", "eu")]);
    assert_eq!(own.status, 201);
    let listed = ask(&admin, "GET", TOKENS, None).json();
    let items = listed["items"].as_array().unwrap();
    assert!(
        items.iter().all(|token| token["grants"]
            .as_array()
            .unwrap()
            .iter()
            .all(|grant| grant["region"] == "eu")),
        "{listed}"
    );
    let foreign = token(a, root, "foreign", &[("viewer", "us")]);
    refused(ask(&admin, "GET", foreign.header("location"), None), "admin@us");
    refused(ask(&admin, "DELETE", foreign.header("location"), None), "admin@us");
    assert_eq!(ask(&admin, "DELETE", own.header("location"), None).status, 204);
}

/// One principal's keys are not another's.
fn idempotency(a: &Replica, root: &str) {
    let other = bearer(&token(a, root, "other", &[("operator", "eu")]));
    let post = |who: &str| {
        let headers = [("Authorization", who), ("Idempotency-Key", "shared")];
        a.ask("POST", "/api/v1/vms", &headers, Some(&vm("keyed", "eu")))
    };
    assert_eq!(post(root).status, 201);
    assert_eq!(post(root).header("idempotency-replayed"), "true");
    assert_eq!(post(&other).problem(), "exists");
}
