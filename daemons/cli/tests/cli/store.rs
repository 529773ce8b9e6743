//! `novacron kv`, `lease`, `member` and `cluster` against our members and against Debian's etcd, which have to answer alike.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::{
    Process, errors, novacron,
    store::{
        Etcd, Following, Members, all_documented, etcdctl, fails, is_installed, json, ok, run, run_with,
        servers, store, until_ok, up,
    },
    wait_until,
};
use serde_json::Value;

/// Arguments, standard input, what is printed, exit code.
type Case = (&'static [&'static str], &'static str, &'static str, i32);

/// Against an empty store. Revisions are part of it, so no line may be left out.
const CONVERSATION: &[Case] = &[
    (&["kv", "get", "a"], "", "", 1),
    (&["kv", "put", "a", "1"], "", "", 0),
    (&["kv", "put", "b/x", "-"], "two\nlines", "", 0),
    (&["kv", "put", "b/y", "3", "--prev-kv"], "", "", 0),
    (&["kv", "put", "b/y", "4", "--prev-kv"], "", "b/y 3\n", 0),
    (&["kv", "get", "a"], "", "1\n", 0),
    (&["kv", "get", "b/", "--prefix"], "", "b/x two\nlines\nb/y 4\n", 0),
    (&["kv", "get", "b/", "--prefix", "--print-value-only"], "", "two\nlines\n4\n", 0),
    (&["kv", "get", "a", "--range-end", "b/y", "--keys-only"], "", "a\nb/x\n", 0),
    (&["kv", "get", "", "--prefix", "--count-only"], "", "3\n", 0),
    (
        &["kv", "get", "b", "--from-key", "--keys-only", "--consistency", "s", "--limit", "9"],
        "",
        "b/x\nb/y\n",
        0,
    ),
    (
        &["kv", "get", "a", "--from-key", "--sort-by", "MODIFY", "--order", "descend", "--limit", "1"],
        "",
        "b/y 4\n",
        0,
    ),
    (&["kv", "get", "a", "--from-key", "--sort-by", "value", "--keys-only"], "", "a\nb/y\nb/x\n", 0),
    (&["kv", "get", "b/y", "--rev", "4"], "", "3\n", 0),
    (
        &["kv", "txn"],
        "ver(\"a\") = \"1\"\nval(\"b/y\") = \"4\"\n\nput a 2 --prev-kv\nget b/ --prefix --keys-only\ndel b/x\n\n",
        "SUCCESS\n\nOK\na 1\n\nb/x\nb/y\n\n1\n",
        0,
    ),
    (&["kv", "txn"], "compares:\nmod(a) < 6\nfailure:\nget a\n", "FAILURE\n\n2\n", 0),
    (&["kv", "txn", "-"], "\nput a", "", 2),
    (&["kv", "del", "a", "--prev-kv"], "", "1\na 2\n", 0),
    (&["kv", "del", "b", "--prefix"], "", "1\n", 0),
    (&["kv", "del", "b", "--from-key"], "", "0\n", 0),
    (&["kv", "put", "", "no key"], "", "", 1),
    (&["kv", "get", "a", "--rev", "99"], "", "", 1),
    (&["kv", "get", "a", "--prefix", "--from-key"], "", "", 2),
    (&["lease", "grant", "1000", "--id", "7b"], "", "lease 000000000000007b granted, ttl 1000 s\n", 0),
    (&["kv", "put", "leased", "x", "--lease", "7b"], "", "", 0),
    (&["lease", "keep-alive", "0x7b", "--once"], "", "lease 000000000000007b renewed, ttl 1000 s\n", 0),
    (&["lease", "list"], "", "000000000000007b\n", 0),
    (&["lease", "revoke", "7b"], "", "lease 000000000000007b revoked\n", 0),
    (&["kv", "get", "leased"], "", "", 1),
    (&["lease", "ttl", "7b"], "", "lease 000000000000007b: there is none, or it is over\n", 1),
    (&["lease", "revoke", "7b"], "", "", 1),
    (&["lease", "keep-alive", "7b"], "", "", 1),
    (&["kv", "put", "k", "v", "--lease", "7b"], "", "", 1),
    (&["cluster", "alarm", "list"], "", "no alarms\n", 0),
];

#[track_caller]
fn converse(endpoints: &str) {
    for (args, input, expected, code) in CONVERSATION {
        let output = run_with(store(endpoints).args(*args), input.as_bytes());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), *expected, "{args:?}: {said}");
    }
    let bytes = b"\xff\x00\x1b[2J\n";
    assert!(run_with(store(endpoints).args(["kv", "put", "bytes", "-"]), bytes).status.success());
    assert_eq!(
        run(endpoints, &["kv", "get", "bytes", "--print-value-only"]).stdout,
        [&bytes[..], b"\n"].concat()
    );
    assert_eq!(ok(endpoints, &["kv", "get", "bytes"]), "\\xff\\x00\\x1b[2J\\n\n");
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), b"from a file").expect("written");
    ok(endpoints, &["kv", "put", "file", "--file", file.path().to_str().expect("text")]);
    assert_eq!(ok(endpoints, &["kv", "get", "file"]), "from a file\n");
    watch_the_past(endpoints);
    leases_are_kept_alive(endpoints);
}

fn watch_the_past(endpoints: &str) {
    let mut watch =
        Following::start(endpoints, &["kv", "watch", "a", "--rev", "1", "--prev-kv", "--progress"]);
    let lines: Vec<_> = (0..6).map(|_| watch.line()).collect();
    assert_eq!(lines[..5], ["PUT a 1", "PUT a 2", "WAS 1", "DELETE a", "WAS 2"]);
    assert!(lines[5].starts_with("PROGRESS "), "{lines:?}");
    ok(endpoints, &["kv", "compact", "4"]);
    let said = fails(endpoints, &["kv", "watch", "a", "--rev", "2"], 1);
    assert!(said.contains("revision 2 has been compacted") && said.contains("--rev 4"), "{said}");
    let said = fails(endpoints, &["kv", "get", "a", "--rev", "2"], 1);
    assert!(said.contains("compacted") && said.contains("without --rev"), "{said}");
    // A reader that went away has seen enough.
    let mut watch = Process::spawn(store(endpoints).args(["kv", "watch", "a", "--rev", "4"]));
    drop(watch.output_reader());
    assert_eq!(watch.wait(), Some(0));
}

fn leases_are_kept_alive(endpoints: &str) {
    ok(endpoints, &["lease", "grant", "2", "--id", "5"]);
    ok(endpoints, &["kv", "put", "kept", "x", "--lease", "5"]);
    let mut keeper = Following::start(endpoints, &["lease", "keep-alive", "5"]);
    // Three renewals a ttl: so many are three times the ttl.
    (0..10).for_each(|_| assert_eq!(keeper.line(), "lease 0000000000000005 renewed, ttl 2 s"));
    assert_eq!(ok(endpoints, &["kv", "get", "kept"]), "x\n");
    let left = ok(endpoints, &["lease", "ttl", "5", "--keys"]);
    assert!(left.ends_with("left of 2 s\nkept\n"), "{left}");
    drop(keeper);
    wait_until("the lease is over", || ok(endpoints, &["kv", "get", "kept", "--count-only"]) == "0\n");
}

#[test]
fn our_members_answer() {
    let Some(members) = Members::start() else { return };
    converse(&members.endpoints());
}

#[test]
fn etcd_answers_alike() {
    let Some(etcd) = Etcd::start() else { return };
    converse(&etcd.endpoint);
}

/// Commands whose JSON both stores have; what they print, with the fields checked against the document.
fn documented_json(endpoints: &str) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "\nput k v\nget k\ndel b --prev-kv\n\n").expect("written");
    let txn = file.path().to_str().expect("text");
    assert!(run_with(store(endpoints).args(["kv", "put", "b", "-"]), b"\xff").status.success());
    let commands: &[&[&str]] = &[
        &["lease", "grant", "1000", "--id", "ab"],
        &["kv", "put", "k", "v", "--lease", "ab", "--prev-kv"],
        &["kv", "get", "", "--prefix"],
        &["kv", "txn", txn],
        &["kv", "del", "k", "--prev-kv"],
        &["lease", "ttl", "ab", "--keys"],
        &["lease", "keep-alive", "ab", "--once"],
        &["lease", "list"],
        &["lease", "revoke", "ab"],
        &["kv", "compact", "2"],
        &["member", "list"],
        &["cluster", "status"],
        &["cluster", "health"],
        &["cluster", "alarm", "list"],
    ];
    let mut values: Vec<_> = commands.iter().map(|args| json(endpoints, args)).collect();
    let mut watch =
        Following::start(endpoints, &["kv", "watch", "k", "--rev", "2", "--prev-kv", "--progress", "--json"]);
    values.extend((0..4).map(|_| serde_json::from_str(&watch.line()).expect("JSON")));
    all_documented(&values);
    values
}

/// What differs from store to store, and from run to run.
fn mask(value: &mut Value) {
    const MASKED: [&str; 3] = ["cluster_id", "member_id", "raft_term"];
    match value {
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::Object(object) => {
            for (name, value) in object.iter_mut() {
                if MASKED.contains(&name.as_str()) { *value = "masked".into() } else { mask(value) }
            }
        }
        _ => {}
    }
}

#[test]
fn both_stores_give_the_same_json_which_is_documented() {
    let Some(members) = Members::start() else { return };
    let mut ours = documented_json(&members.endpoints());
    let key = &ours[2]["kvs"][1];
    assert_eq!(
        (&key["key"], &key["value"], &key["lease"]),
        (&"k".into(), &"v".into(), &"00000000000000ab".into())
    );
    assert_eq!(ours[2]["kvs"][0]["value"]["base64"], "/w==");
    let id = ours[2]["header"]["member_id"].as_str().expect("an id");
    assert!(id.len() == 16 && u64::from_str_radix(id, 16).is_ok(), "{id}");
    let Some(etcd) = Etcd::start() else { return };
    let mut theirs = documented_json(&etcd.endpoint);
    // Members and how they do are their own; etcd 3.4 gives no header with alarms.
    let alike = |values: &mut Vec<Value>| {
        values.drain(10..14);
        values.iter_mut().for_each(mask);
    };
    alike(&mut ours);
    alike(&mut theirs);
    assert_eq!(ours, theirs);
}

/// (key, revision) of each line that a watch printed as JSON.
fn events(watch: &mut Following, until: &str) -> Vec<(String, i64)> {
    let mut events = Vec::new();
    loop {
        let event: Value = serde_json::from_str(&watch.line()).expect("JSON");
        let key = event["kv"]["key"].as_str().expect("a key").to_owned();
        let is_last = key == until;
        events.push((key, event["kv"]["mod_revision"].as_i64().expect("a revision")));
        if is_last {
            return events;
        }
    }
}

#[test]
fn a_watch_goes_on_at_the_next_member_without_loss_or_repetition() {
    let Some(mut members) = Members::start() else { return };
    let all = members.endpoints();
    let mut watch = Following::start(&all, &["kv", "watch", "n/", "--prefix", "--rev", "1", "--json"]);
    let mut connected = 0;
    for round in 0..3 {
        for n in 0..10 {
            until_ok(&all, &["kv", "put", &format!("n/{round}/{n}"), "x"]);
        }
        // While nobody is connected, and while there may be no leader.
        members.kill(connected);
        for n in 10..20 {
            until_ok(&all, &["kv", "put", &format!("n/{round}/{n}"), "x"]);
        }
        let next = watch.said(" goes on at revision");
        members.restart(connected);
        connected = (0..3).find(|n| next.contains(&members.endpoint(*n))).expect("one of the members");
    }
    until_ok(&all, &["kv", "put", "n/end", "x"]);
    let seen = events(&mut watch, "n/end");
    let mut again = Following::start(&all, &["kv", "watch", "n/", "--prefix", "--rev", "1", "--json"]);
    // A put that was repeated because nobody knew whether it was done is in the history twice: it is what is right.
    assert_eq!(seen, events(&mut again, "n/end"));
    let keys: BTreeSet<_> = seen.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 61);
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{seen:?}");
    assert!(watch.is_running());
}

#[test]
fn requests_go_to_the_next_member_and_errors_say_what_where_and_what_to_do() {
    let Some(mut members) = Members::start() else { return };
    let nobody = format!("127.0.0.1:{}", ports::free(1)[0]);
    let list = format!("{nobody},{}", members.endpoints());
    ok(&list, &["kv", "put", "a", "1"]);
    assert_eq!(ok(&list, &["kv", "get", "a"]), "1\n");
    let said = fails(&nobody, &["kv", "get", "a"], 1);
    assert!(
        said.starts_with("novacron: get: ") && said.contains(&nobody) && said.contains("--endpoints"),
        "{said}"
    );
    for wrong in ["https://127.0.0.1:1", "ftp://127.0.0.1:1", "a b", ","] {
        fails("", &["kv", "get", "a", "--endpoints", wrong], 2);
    }
    fails(&list, &["kv", "get", "a", "--cert", "/nonexistent"], 2);
    fails(&list, &["kv", "get", "a", "--user", "nobody"], 2);
    fails(&list, &["kv", "get", "a", "--timeout", "soon"], 2);
    // ETCDCTL_ENDPOINTS is for those who have set it already.
    let output = novacron().args(["kv", "get", "a"]).env("ETCDCTL_ENDPOINTS", members.endpoint(0)).output();
    assert_eq!(output.expect("it runs").stdout, b"1\n");

    // One member of three has no leader and says so: it is asked again until the time is over.
    members.kill(1);
    members.kill(2);
    let alone = members.endpoint(0);
    wait_until("it has noticed", || {
        run(&alone, &["cluster", "status"]).stdout.windows(9).any(|w| w == b"no leader")
    });
    let began = std::time::Instant::now();
    let said = fails(&alone, &["kv", "put", "a", "2", "--timeout", "1s"], 1);
    assert!(said.contains("no leader") && began.elapsed().as_millis() >= 700, "{said}");
    assert_eq!(ok(&alone, &["kv", "get", "a", "--consistency", "s"]), "1\n");
    // And a request that waits for the election is done when there is a leader.
    let waiting = Process::spawn(store(&alone).args(["kv", "put", "a", "3", "--timeout", "60s"]));
    members.restart(1);
    assert_eq!(waiting.output().status.code(), Some(0));
    assert_eq!(ok(&alone, &["kv", "get", "a"]), "3\n");
}

#[test]
fn the_cluster_is_told_of_and_keeps_its_quorum() {
    let Some(mut members) = Members::start() else { return };
    let all = members.endpoints();
    let statuses = until_led(&all);
    let leader = statuses.iter().position(|status| status["is_leader"] == true).expect("a leader");
    let target = statuses[(leader + 1) % 3]["header"]["member_id"].as_str().expect("an id").to_owned();
    let moved = ok(&all, &["cluster", "move-leader", &target]);
    assert!(moved.ends_with(&format!(" to {target}\n")), "{moved}");
    wait_until("it leads", || json(&all, &["cluster", "status"])[0]["leader_id"] == target.as_str());
    // Only one that does not lead is named: the leader is found, once it has said where.
    wait_until("all have said where clients find them", || {
        let list = json(&all, &["member", "list"]);
        let members = list["members"].as_array().expect("members");
        members.iter().all(|member| !member["client_urls"][0].is_null())
    });
    let back = statuses[leader]["header"]["member_id"].as_str().expect("an id");
    ok(&members.endpoint(leader), &["cluster", "move-leader", back]);

    members.kill(2);
    let output = run(&all, &["cluster", "status"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), table.lines().count()), (Some(1), 4), "{table}");
    let dead = table.lines().find(|line| line.starts_with(&members.endpoint(2))).expect("a row");
    assert!(dead.contains("Connection refused"), "{table}");
    assert_eq!(run(&all, &["cluster", "health"]).status.code(), Some(1));

    let list = json(&members.endpoint(0), &["member", "list"]);
    let id = |name: &str| {
        let of = list["members"].as_array().expect("members").iter().find(|member| member["name"] == name);
        of.expect("a member")["id"].as_str().expect("an id").to_owned()
    };
    // They may elect first.
    until_ok(&all, &["kv", "put", "a", "1"]);
    let said = fails(&all, &["member", "remove", &id("m1")], 4);
    assert!(
        said.contains("2 voters, of which 2 must answer, and 1 do") && said.contains("--force"),
        "{said}"
    );
    let said = fails(&all, &["member", "remove", "1234"], 1);
    assert!(said.contains("there is no member 0000000000001234"), "{said}");
    // The one that is down is no loss.
    ok(&all, &["member", "remove", &id("m2")]);
    assert_eq!(ok(&members.endpoint(0), &["member", "list"]).lines().count(), 3);
}

/// The statuses of members, all of which know a leader.
fn until_led(endpoints: &str) -> Vec<Value> {
    let mut found = Vec::new();
    wait_until("there is a leader", || {
        found = json(endpoints, &["cluster", "status"]).as_array().expect("an array").clone();
        let first = found[0]["leader_id"].clone();
        !first.is_null() && found.iter().all(|status| status["leader_id"] == first)
    });
    found
}

#[test]
fn members_come_and_go() {
    servers().iter().for_each(|server| members_come_and_go_of(server));
}

fn members_come_and_go_of(server: &Path) {
    let etcd = Etcd::start_with(server, "http", ports::free(1)[0], &[]);
    let peer_port = ports::free(1)[0];
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    // Until the only member has been there for five seconds, etcd takes no other.
    let added = until_ok(&etcd.endpoint, &["member", "add", "second", "--learner", "--peer-urls", &peer_url]);
    let mut lines = added.lines();
    let id = lines.next().and_then(|line| line.split(' ').nth(1)).expect("an id").to_owned();
    let args: Vec<_> =
        lines.flat_map(|line| line.split_once(' ').map(|(flag, value)| [flag, value])).flatten().collect();
    assert!(args.contains(&"--initial-cluster-state"), "{added}");
    let second = Etcd::start_with(server, "http", peer_port, &args);
    let both = format!("{},{}", etcd.endpoint, second.endpoint);
    until_ok(&etcd.endpoint, &["member", "promote", &id]);
    let members = json(&etcd.endpoint, &["member", "list"]);
    assert_eq!(members["members"].as_array().map(Vec::len), Some(2));
    let updated = json(&etcd.endpoint, &["member", "update", &id, "--peer-urls", &peer_url]);
    until_led(&both);
    ok(&both, &["cluster", "move-leader", &id]);
    assert_eq!(ok(&etcd.endpoint, &["cluster", "defrag", "--cluster"]).lines().count(), 2);
    let defragged = json(&both, &["cluster", "defrag"]);
    // The leader comes last.
    assert_eq!(defragged[1]["endpoint"], second.endpoint.as_str());
    let first =
        members["members"].as_array().expect("members").iter().find(|member| member["name"] == "first");
    let first = first.expect("a member")["id"].as_str().expect("an id");
    // One member that answers is a quorum of one.
    let removed = json(&both, &["member", "remove", first]);
    assert_eq!(removed["members"].as_array().map(Vec::len), Some(1));
    let said = fails(&second.endpoint, &["member", "remove", &id], 4);
    assert!(said.contains("0 voters"), "{said}");
    all_documented(&[members, updated, defragged, removed]);
}

#[test]
fn a_full_store_is_told_of_and_its_alarm_disarmed() {
    servers().iter().for_each(|server| a_full_store_of(server));
}

fn a_full_store_of(server: &Path) {
    let etcd = Etcd::start_with(server, "http", ports::free(1)[0], &["--quota-backend-bytes", "200000"]);
    let value = "x".repeat(50_000);
    let full = || run(&etcd.endpoint, &["kv", "put", "a", &value]).status.code() != Some(0);
    wait_until("it is full", full);
    let said = fails(&etcd.endpoint, &["kv", "put", "a", &value], 1);
    assert!(said.contains("space exceeded") && said.contains("novacron cluster alarm disarm"), "{said}");
    let alarms = ok(&etcd.endpoint, &["cluster", "alarm", "list"]);
    assert!(
        alarms.starts_with("MEMBER            ALARM\n") && alarms.trim_end().ends_with("nospace"),
        "{alarms}"
    );
    let health = run(&etcd.endpoint, &["cluster", "health"]);
    assert!(
        health.status.code() == Some(1) && String::from_utf8_lossy(&health.stdout).contains("alarm: nospace")
    );
    let revision = json(&etcd.endpoint, &["kv", "del", "a"])["header"]["revision"].to_string();
    ok(&etcd.endpoint, &["kv", "compact", &revision]);
    // What has been compacted is freed in the background.
    wait_until("there is room", || {
        ok(&etcd.endpoint, &["cluster", "defrag"]);
        json(&etcd.endpoint, &["cluster", "status"])[0]["db_size_bytes"].as_i64() < Some(100_000)
    });
    all_documented(&[json(&etcd.endpoint, &["cluster", "alarm", "disarm"])]);
    assert_eq!(ok(&etcd.endpoint, &["cluster", "alarm", "list"]), "no alarms\n");
    ok(&etcd.endpoint, &["kv", "put", "a", "1"]);
    ok(&etcd.endpoint, &["cluster", "health"]);
}

#[test]
fn stores_are_talked_to_over_tls_by_users_who_log_in() {
    if is_installed("etcdctl") {
        servers().iter().for_each(|server| users_log_in_to(server));
    }
}

fn users_log_in_to(server_program: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = ["certs", "--node", "server", "--node", "client", "--san", "127.0.0.1", "--out"];
    assert!(novacron().args(nodes).arg(folder.path()).status().expect("it runs").success());
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let server =
        ["--cert-file", &path("server.pem"), "--key-file", &path("server.key"), "--trusted-ca-file", &ca];
    let args = [&server[..], &["--client-cert-auth"]].concat();
    let etcd = Etcd::start_with(server_program, "https", ports::free(1)[0], &args);
    let tls = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let url = format!("https://{}", etcd.endpoint);
    fn joined<'a>(parts: [&[&'a str]; 3]) -> Vec<&'a str> {
        parts.concat()
    }

    // With --cacert, an endpoint without a scheme is https.
    ok(&etcd.endpoint, &joined([&["kv", "put", "a", "1"], &tls, &[]]));
    assert_eq!(ok(&url, &joined([&["kv", "get", "a"], &tls, &[]])), "1\n");
    let said = fails(&url, &["kv", "get", "a"], 2);
    assert!(said.contains("--cacert"), "{said}");
    fails(&url, &["kv", "get", "a", "--cacert", &ca, "--timeout", "2s"], 1);
    fails(&etcd.endpoint, &["kv", "get", "a", "--timeout", "2s"], 1);

    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "reader:word"],
        &["role", "add", "readers"],
        &["role", "grant-permission", "readers", "read", "a"],
        &["user", "grant-role", "reader", "readers"],
        &["auth", "enable"],
    ] {
        etcdctl(&url, &joined([&tls, args, &[]]));
    }
    let reader = ["--user", "reader:word"];
    assert_eq!(ok(&url, &joined([&["kv", "get", "a"], &tls, &reader])), "1\n");
    let said = fails(&url, &joined([&["kv", "put", "a", "2"], &tls, &reader]), 4);
    assert!(said.contains("permission denied"), "{said}");
    let said = fails(&url, &joined([&["kv", "get", "a"], &tls, &["--user", "reader:wrong"]]), 4);
    assert!(said.contains("authentication failed"), "{said}");
    ok(&url, &joined([&["kv", "put", "a", "2"], &tls, &["--user", "root:secret"]]));
    let root = store(&url)
        .args(joined([&["cluster", "status"], &tls, &[]]))
        .env("ETCDCTL_USER", "root:secret")
        .output();
    assert!(root.expect("it runs").status.success());
}

#[test]
fn up_says_where_its_members_are() {
    let folder = tempfile::tempdir().expect("a folder");
    // Its ports are 0, 1, 100, 101, 200 and 201 above this one.
    let port = ports::free(202)[0];
    let (up, endpoints) = up(folder.path(), port);
    let get =
        |args: &[&str]| novacron().env("ETCDCTL_ENDPOINTS", &endpoints).args(args).output().expect("it runs");
    assert!(get(&["kv", "put", "greeting", "hello"]).status.success());
    assert_eq!(get(&["kv", "get", "greeting"]).stdout, b"hello\n");
    assert_eq!(get(&["member", "list"]).stdout.iter().filter(|byte| **byte == b'\n').count(), 4);

    let socket = folder.path().join("agent-1/agent.sock");
    let node = |args: &[&str]| {
        let output =
            novacron().arg("node").arg("--socket").arg(&socket).args(args).output().expect("it runs");
        String::from_utf8(output.stdout).expect("text")
    };
    wait_until("the agents have found each other", || node(&["peers"]).contains("agent-2"));
    let sent = folder.path().join("sent");
    std::fs::write(&sent, "hello").expect("a file");
    let told = node(&["send", sent.to_str().expect("UTF-8"), "agent-2"]);
    assert!(told.contains("done"), "{told}");
    assert_eq!(std::fs::read(folder.path().join("agent-2/vms/sent")).expect("received"), b"hello");
    drop(up);
}
