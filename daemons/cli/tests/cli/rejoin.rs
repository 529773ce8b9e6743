//! A member whose data is damaged: it refuses to start, and the command that it names brings it back with all data.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::store::{Members, fails, json, ok, until_ok};
use consensus_proto::etcdserverpb::{HashKvRequest, maintenance_client::MaintenanceClient};

const KEYS: usize = 300;

fn with_data(env: &'static [(&'static str, &'static str)]) -> Option<Members> {
    let members = Members::start_with(env)?;
    for n in 0..KEYS / 100 {
        let puts: String = (n * 100..n * 100 + 100).map(|n| format!("put key{n} {n}\n")).collect();
        let txn = crate::support::store::run_with(
            crate::support::store::store(&members.endpoint(0)).args(["kv", "txn"]),
            format!("\n{puts}\n\n").as_bytes(),
        );
        assert!(txn.status.success(), "{}", crate::support::errors(&txn));
    }
    Some(members)
}

/// The command between quotes that begins like this, to be run as it is.
fn command(said: &str) -> Vec<String> {
    let begin = said.find("`novacron member rejoin").expect("it names the command");
    let command = said[begin + 1..].split('`').next().unwrap_or_default();
    command.split(' ').skip(1).map(str::to_owned).collect()
}

#[track_caller]
fn run_fails(args: &[String], more: &[&str], code: i32) -> String {
    let args: Vec<_> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    fails("", &args, code)
}

fn voters(endpoint: &str) -> Vec<(String, String)> {
    let list = json(endpoint, &["member", "list"]);
    let members = list["members"].as_array().expect("a list").iter();
    let voters = members.filter(|member| member["is_learner"] == false);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    voters.map(|member| (text(&member["name"]), text(&member["id"]))).collect()
}

/// The hash of all that a member has up to its newest revision, and that revision.
fn hash(endpoint: String) -> (u32, i64) {
    let asked = async {
        let mut client = MaintenanceClient::connect(format!("http://{endpoint}")).await.expect("connected");
        client.hash_kv(HashKvRequest::default()).await.expect("an answer").into_inner()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let answer = runtime.block_on(asked);
    (answer.hash, answer.header.expect("a header").revision)
}

fn largest(folder: &Path, extension: &str) -> PathBuf {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let of_kind = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    of_kind.max_by_key(|path| fs::metadata(path).expect("a file").len()).expect("a file of that kind")
}

/// Flips a bit in each of so many parts of a file.
fn flip(path: &Path, parts: usize) {
    let mut bytes = fs::read(path).expect("readable");
    let part = bytes.len() / parts;
    (0..parts).for_each(|n| bytes[n * part + part / 2] ^= 0x20);
    fs::write(path, bytes).expect("writable");
}

/// Brings the member back with the command that it named.
fn rejoin(members: &mut Members, n: usize, said: &str) {
    assert!(said.contains(members.data_dir(n).to_str().expect("text")), "{said}");
    let command = command(said);
    let before = voters(&members.endpoint(0));
    // Cut off: nobody has started the member yet.
    let waiting = run_fails(&command, &["--wait", "1s"], 1);
    assert!(waiting.contains("Run the same command again"), "{waiting}");
    assert_eq!(voters(&members.endpoint(0)).len(), 2);
    members.restart(n);
    let args: Vec<_> = command.iter().map(String::as_str).collect();
    ok("", &args);
    ok("", &args); // once more changes nothing
    let after = voters(&members.endpoint(0));
    let name = format!("m{n}");
    let id = |members: &[(String, String)]| members.iter().find(|(of, _)| *of == name).expect("it").1.clone();
    assert_eq!(after.len(), 3);
    assert_ne!(id(&before), id(&after), "it is another member");
    is_whole(members);
    // Its flags still say how the first one of its name began.
    members.kill(n);
    members.restart(n);
    is_whole(members);
}

fn keeps_what_was_damaged(members: &Members, n: usize) {
    let kept = fs::read_dir(members.data_dir(n)).expect("a folder").filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"))
    });
    assert!(kept.count() > 0, "the damaged data is kept");
}

fn is_whole(members: &Members) {
    until_ok(&members.endpoints(), &["kv", "put", "another", "one"]);
    for n in 0..3 {
        let count = until_ok(&members.endpoint(n), &["kv", "get", "key", "--prefix", "--count-only"]);
        assert_eq!(count.trim(), KEYS.to_string(), "member {n}");
    }
    // Of one revision: a member may be a little behind.
    crate::support::wait_until("all have the same", || {
        let hashes = [0, 1, 2].map(|n| hash(members.endpoint(n)));
        hashes.iter().all(|hash| *hash == hashes[0])
    });
}

#[test]
fn a_member_whose_log_is_flipped_refuses_and_comes_back_with_one_command() {
    let Some(mut members) = with_data(&[]) else { return };
    members.kill(2);
    flip(&largest(&members.data_dir(2).join("log"), "log"), 1);
    let said = members.refuses(2);
    assert!(said.contains("were synced and are not there any more"), "{said}");
    // It does not become better by trying.
    assert_eq!(command(&members.refuses(2)), command(&said));
    rejoin(&mut members, 2, &said);
    keeps_what_was_damaged(&members, 2);
    // And again, this time of a member that has come back before: its log is gone as a whole.
    members.kill(2);
    fs::remove_dir_all(members.data_dir(2).join("log")).expect("removed");
    let said = members.refuses(2);
    rejoin(&mut members, 2, &said);
}

#[test]
fn a_member_whose_data_rots_while_it_runs_stops_and_comes_back() {
    let often = &[("NOVACRON_CONSENSUS_SCRUB_INTERVAL", "1s")];
    let Some(mut members) = with_data(often) else { return };
    // So that there is something in its data's files.
    members.kill(1);
    members.restart(1);
    ok(&members.endpoint(1), &["cluster", "defrag"]);
    // In all of it: blocks that are in its cache are not read.
    flip(&largest(&members.data_dir(1).join("data/1"), "sst"), 20);
    assert_eq!(members.ended(1), Some(1), "it ends by itself");
    let said = members.refuses(1);
    assert!(said.contains("the state is damaged"), "{said}");
    rejoin(&mut members, 1, &said);
    keeps_what_was_damaged(&members, 1);
}

#[test]
fn a_member_whose_folder_is_gone_does_not_begin_anew() {
    let Some(mut members) = with_data(&[]) else { return };
    members.kill(2);
    fs::remove_dir_all(members.data_dir(2)).expect("removed");
    fs::create_dir(members.data_dir(2)).expect("an empty volume");
    let said = members.refuses(2);
    assert!(said.contains("is not there any more"), "{said}");
    rejoin(&mut members, 2, &said);
}

#[test]
fn without_a_quorum_nobody_is_removed() {
    let Some(mut members) = with_data(&[]) else { return };
    members.kill(2);
    fs::remove_file(members.data_dir(2).join("log/CURRENT")).expect("removed");
    let command = command(&members.refuses(2));
    members.kill(1);
    let refused = run_fails(&command, &["--timeout", "2s"], 1);
    assert!(refused.contains("no member does it") || refused.contains("must answer"), "{refused}");
    members.restart(1);
    let all = voters(&members.endpoints());
    assert_eq!(all.len(), 3);
    // One that works is left alone.
    let list = json(&members.endpoint(0), &["member", "list"]);
    let working = list["members"].as_array().expect("a list").iter().find(|member| member["name"] == "m0");
    let url = working.and_then(|member| member["peer_urls"][0].as_str()).expect("a URL");
    ok(&members.endpoint(0), &["member", "rejoin", "--peer-urls", url]);
    assert_eq!(voters(&members.endpoint(0)), all);
}
