//! `novacron region` against two regions of one member each, which are processes of their own.

use std::path::Path;

use crate::support::{
    store::{Etcd, all_documented, fails, json, ok, servers, until_ok},
    wait_until,
};

/// A region; `regions` are all of them, with the ports where they listen for each other.
fn start(server: &Path, name: &str, regions: &[(&str, u16)], more: &[&str]) -> Etcd {
    let named: Vec<_> = (1..).zip(regions).map(|(number, (name, _))| format!("{number}={name}")).collect();
    let peers: Vec<_> =
        regions.iter().map(|(name, port)| format!("{name}=http://127.0.0.1:{port}")).collect();
    let (_, port) = regions.iter().find(|(known, _)| *known == name).expect("it is one of them");
    let (named, peers, listen) = (named.join(","), peers.join(","), format!("127.0.0.1:{port}"));
    let args = ["--region", name, "--replication-regions", &named, "--replication-peers", &peers];
    let args =
        [&args[..], &["--replication-listen", &listen, "--replication-interval", "200ms"], more].concat();
    let region = Etcd::start_with(server, "http", ports::free(1)[0], &args);
    until_ok(&region.endpoint, &["region", "status"]);
    region
}

#[test]
fn regions_are_asked_and_changed() {
    let Some(server) = servers().into_iter().find(|server| server.ends_with("novacron-consensus")) else {
        return;
    };
    let ports = ports::free(3);
    let first = [("eu", ports[0]), ("us", ports[1])];
    let (eu, us) = (start(&server, "eu", &first, &[]), start(&server, "us", &first, &[]));
    ok(&eu.endpoint, &["kv", "put", "/global/a", "1"]);
    assert_eq!(ok(&eu.endpoint, &["region", "count", "/global/n", "5"]), "changed\n");
    assert_eq!(ok(&us.endpoint, &["region", "count", "/global/n", "-2", "--urgent"]), "changed\n");
    assert_eq!(ok(&us.endpoint, &["region", "set-add", "/global/s", "a"]), "changed\n");
    assert_eq!(ok(&us.endpoint, &["region", "set-remove", "/global/s", "b"]), "nothing to change\n");
    assert_eq!(ok(&us.endpoint, &["region", "map-put", "/global/m", "f", "v"]), "changed\n");
    ok(&us.endpoint, &["region", "map-put", "/global/r", "f", "v", "--last-writer-wins"]);
    ok(&us.endpoint, &["region", "map-remove", "/global/r", "f", "--last-writer-wins"]);
    let expected = "/global/a 1\n/global/m {\"Zg==\":\"dg==\"}\n/global/n 3\n/global/s [\"YQ==\"]\n";
    for region in [&eu, &us] {
        wait_until("both have everything", || {
            ok(&region.endpoint, &["kv", "get", "/global/", "--prefix"]) == expected
        });
    }
    let said = fails(&eu.endpoint, &["region", "count", "elsewhere", "1"], 1);
    assert!(said.contains("not under the prefix"), "{said}");

    let status = json(&us.endpoint, &["region", "status"]);
    assert_eq!((&status["region"], &status["prefix"]), (&2.into(), &"/global/".into()));
    assert_eq!(status["regions"][0]["name"], "eu");
    let url = format!("http://127.0.0.1:{}", ports[2]);
    let added = json(&us.endpoint, &["region", "add", "3", "ap", "--urls", &url]);
    all_documented(&[status, added]);
    let ap = start(
        &server,
        "ap",
        &[first[0], first[1], ("ap", ports[2])],
        &["--replication-initial-state", "existing"],
    );
    wait_until("the late one has everything", || {
        ok(&ap.endpoint, &["kv", "get", "/global/", "--prefix"]) == expected
    });
    assert!(ok(&ap.endpoint, &["region", "list"]).contains("this one"));
    ok(&ap.endpoint, &["kv", "put", "/global/a", "2"]);
    wait_until("the first one has it", || {
        ok(&eu.endpoint, &["kv", "get", "/global/a", "--print-value-only"]) == "2\n"
    });
    drop(ap);
    ok(&eu.endpoint, &["region", "remove", "3"]);
    let said = fails(&eu.endpoint, &["region", "add", "3", "again"], 1);
    assert!(said.contains("was used"), "{said}");
}
