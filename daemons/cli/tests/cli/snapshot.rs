//! `novacron cluster snapshot` against our members and etcd: a file is whole, or it is not there.

use std::{
    fs, io,
    io::Read as _,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
};

use crate::support::{
    errors, noise,
    store::{Etcd, Members, all_documented, etcdctl, fails, is_installed, json, ok, run, servers, until_ok},
};

#[test]
fn snapshots_are_whole_or_not_there() {
    servers().iter().for_each(|server| snapshots_are_whole_or_not_there_of(server));
}

fn snapshots_are_whole_or_not_there_of(server: &Path) {
    let etcd = Etcd::start_with(server, "http", ports::free(1)[0], &[]);
    ok(&etcd.endpoint, &["kv", "put", "a", &"x".repeat(100_000)]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("snapshot");
    let (path, part) = (file.to_str().expect("text"), folder.path().join("snapshot.part"));
    fs::write(&part, "of a run that was killed, and longer than nothing").expect("written");
    let saved = json(&etcd.endpoint, &["cluster", "snapshot", "save", path]);
    assert!(!part.exists());
    let metadata = fs::metadata(&file).expect("a file");
    assert_eq!(
        (saved["bytes"].as_u64(), metadata.permissions().mode() & 0o777),
        (Some(metadata.len()), 0o600)
    );
    assert_eq!(json("", &["cluster", "snapshot", "verify", path]), saved);
    all_documented(&[saved]);
    if is_installed("etcdctl") {
        let restored = folder.path().join("restored");
        etcdctl("", &["snapshot", "restore", path, "--data-dir", restored.to_str().expect("text")]);
    }

    let whole = fs::read(&file).expect("readable");
    for damage in
        [|bytes: &mut Vec<u8>| bytes[5000] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(9000), Vec::clear]
    {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&file, bytes).expect("written");
        fails("", &["cluster", "snapshot", "verify", path], 5);
    }
    fails("", &["cluster", "snapshot", "verify", "/nonexistent"], 1);
    // What was there stays if nobody answers.
    let nobody = format!("127.0.0.1:{}", ports::free(1)[0]);
    fs::write(&file, "before").expect("written");
    fails(&nobody, &["cluster", "snapshot", "save", path], 1);
    assert_eq!((fs::read(&file).expect("readable"), part.exists()), (b"before".to_vec(), false));
    // Two at a time would write over each other.
    let held = fs::File::create(&part).expect("a file");
    held.lock().expect("locked");
    let said = fails(&etcd.endpoint, &["cluster", "snapshot", "save", path], 4);
    assert!(said.contains("another process writes"), "{said}");
}

#[test]
fn a_snapshot_of_either_store_becomes_a_new_cluster_of_ours() {
    let Some(mut members) = Members::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("snapshot");
    let path = file.to_str().expect("text");
    ok(&members.endpoints(), &["kv", "put", "a", "ours"]);
    ok(&members.endpoints(), &["cluster", "snapshot", "save", path]);
    ok(&members.endpoints(), &["kv", "put", "a", "later"]);
    members.restore(path);
    assert_eq!(until_ok(&members.endpoints(), &["kv", "get", "a"]), "ours\n");

    let Some(etcd) = Etcd::start() else { return };
    ok(&etcd.endpoint, &["kv", "put", "a", "theirs"]);
    ok(&etcd.endpoint, &["cluster", "snapshot", "save", path]);
    members.restore(path);
    assert_eq!(until_ok(&members.endpoints(), &["kv", "get", "a"]), "theirs\n");

    let mut damaged = fs::read(&file).expect("readable");
    damaged[5000] ^= 1;
    fs::write(&file, damaged).expect("written");
    let new = folder.path().join("new");
    fails("", &["cluster", "snapshot", "restore", path, "--data-dir", new.to_str().expect("text")], 5);
    assert!(!new.exists());
}

/// A way to a member on which every connection ends after so many bytes of what it answers.
fn cut_off(member: String, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect(&member).expect("a member");
            let (mut questions, mut to_server) = (clone(&client), clone(&server));
            thread::spawn(move || io::copy(&mut questions, &mut to_server));
            thread::spawn(move || {
                let _ = io::copy(&mut server.take(bytes), &mut &client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    endpoint
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a second handle")
}

#[test]
fn a_snapshot_that_breaks_off_begins_anew_with_the_next_member() {
    let Some(members) = Members::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (value, file) = (folder.path().join("value"), folder.path().join("snapshot"));
    fs::write(&value, noise(1 << 20, 1)).expect("written");
    ok(&members.endpoints(), &["kv", "put", "a", "--file", value.to_str().expect("text")]);
    let save = ["cluster", "snapshot", "save", file.to_str().expect("text")];
    let part = folder.path().join("snapshot.part");
    let broken: Vec<_> = (0..2).map(|n| cut_off(members.endpoint(n), 300_000)).collect();

    let said = fails(&broken.join(","), &save, 1);
    assert!(
        broken.iter().all(|endpoint| said.matches(endpoint).count() >= 2),
        "broke off, and counted: {said}"
    );
    assert!(!file.exists() && !part.exists());

    let output = run(&[&broken[..], &[members.endpoint(2)]].concat().join(","), &save);
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(broken.iter().all(|endpoint| said.contains(endpoint)), "they were asked before: {said}");
    assert!(!part.exists());
    // Bytes of those before would break the hash.
    ok("", &["cluster", "snapshot", "verify", save[3]]);
}
