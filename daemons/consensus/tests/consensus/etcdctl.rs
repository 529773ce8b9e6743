//! Three processes, used with Debian's etcdctl, which knows nothing of us.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// etcd's word for "I serve clients", which this prints too.
const READY: &str = "ready to serve client requests";

struct Cluster {
    folder: tempfile::TempDir,
    /// (client, peer) of each member.
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

fn etcdctl_is_there() -> bool {
    let there = Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().is_ok();
    if !there {
        eprintln!("SKIP: etcdctl is not installed (Debian's package etcd-client)");
    }
    there
}

impl Cluster {
    fn start(count: usize) -> Self {
        let ports = ports::free(2 * count as u16).chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let mut cluster = Self { folder: tempfile::tempdir().unwrap(), ports, members: Vec::new() };
        let started: Vec<_> = (0..count).map(|n| cluster.spawn(n)).collect();
        for (member, ready) in started {
            ready.recv_timeout(Duration::from_secs(30)).expect("the ready line within 30 s");
            cluster.members.push(Some(member));
        }
        cluster
    }

    fn spawn(&self, n: usize) -> (Child, mpsc::Receiver<()>) {
        let list: Vec<_> = self
            .ports
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let (client, peer) = self.ports[n];
        let folder: &Path = self.folder.path();
        let mut child = Command::new(env!("CARGO_BIN_EXE_novacron-consensus"))
            .args(["--name", &format!("m{n}"), "--initial-cluster", &list.join(",")])
            .args(["--listen-client-urls", &format!("http://127.0.0.1:{client}")])
            .args(["--advertise-client-urls", &format!("http://127.0.0.1:{client}")])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
            .arg("--data-dir")
            .arg(folder.join(format!("m{n}")))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, receiver) = mpsc::sync_channel(1);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains(READY) {
                    let _ = sender.try_send(());
                }
            }
        });
        (child, receiver)
    }

    fn kill(&mut self, n: usize) {
        let mut member = self.members[n].take().unwrap();
        member.kill().unwrap();
        member.wait().unwrap();
    }

    fn endpoints(&self) -> String {
        let all: Vec<_> = self.ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect();
        all.join(",")
    }

    fn ctl(&self, args: &[&str]) -> (bool, String) {
        Self::ctl_at(&self.endpoints(), args)
    }

    fn ctl_of(&self, n: usize, args: &[&str]) -> (bool, String) {
        Self::ctl_at(&format!("127.0.0.1:{}", self.ports[n].0), args)
    }

    fn ctl_at(endpoints: &str, args: &[&str]) -> (bool, String) {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoints, "--command-timeout", "20s"])
            .args(args)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// What a member says of itself: address, id, version, size, whether it leads, and more.
    fn status(&self, n: usize) -> Vec<String> {
        let (_, text) = self.ctl_of(n, &["endpoint", "status"]);
        text.split(", ").map(str::to_owned).collect()
    }

    /// Of the members that run, the one that leads.
    fn leader(&self) -> usize {
        let leads = |n: &usize| {
            self.members[*n].is_some() && self.status(*n).get(4).is_some_and(|leads| leads == "true")
        };
        for _ in 0..200 {
            if let Some(leader) = (0..self.ports.len()).find(leads) {
                return leader;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nobody leads");
    }

    /// A process that ends by itself.
    fn wait_for_end(&mut self, n: usize) {
        let mut member = self.members[n].take().unwrap();
        for _ in 0..600 {
            if member.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        member.kill().unwrap();
        panic!("m{n} still runs");
    }

    /// What was on its way to a leader that is killed fails, and whoever asked tries again.
    fn put_until_it_succeeds(&self, key: &str, value: &str) {
        for _ in 0..20 {
            let (success, text) = self.ctl(&["put", key, value]);
            if success {
                return;
            }
            assert!(
                text.contains("etcdserver: request timed out") || text.contains("etcdserver: no leader"),
                "{text}"
            );
        }
        panic!("put {key}: still not after 20 attempts");
    }

    /// The first lines that a watch prints.
    fn watched(&self, args: &[&str], lines: usize) -> String {
        let mut watching = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoints(), "watch"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(watching.stdout.take().unwrap());
        let text = output.lines().take(lines).map(|line| line.unwrap() + "\n").collect();
        watching.kill().unwrap();
        watching.wait().unwrap();
        text
    }

    fn ok(&self, args: &[&str]) -> String {
        let (success, text) = self.ctl(args);
        assert!(success, "etcdctl {args:?}: {text}");
        text
    }
}

#[test]
fn etcdctl_reads_and_writes() {
    if !etcdctl_is_there() {
        return;
    }
    let cluster = Cluster::start(3);
    assert_eq!(cluster.ok(&["put", "foo", "bar"]), "OK\n");
    assert_eq!(cluster.ok(&["put", "fop", "baz"]), "OK\n");
    assert_eq!(cluster.ok(&["get", "foo"]), "foo\nbar\n");
    assert_eq!(cluster.ok(&["get", "--prefix", "fo"]), "foo\nbar\nfop\nbaz\n");
    assert_eq!(cluster.ok(&["get", "--prefix", "fo", "--keys-only"]), "foo\n\nfop\n\n");
    assert_eq!(cluster.ok(&["get", "--prefix", "fo", "--order=DESCEND", "--limit=1"]), "fop\nbaz\n");
    assert_eq!(cluster.ok(&["get", "foo", "--rev=1"]), "");
    assert_eq!(cluster.ok(&["del", "--prev-kv", "fop"]), "1\nfop\nbaz\n");
    assert_eq!(cluster.ok(&["get", "fop", "--rev=3"]), "fop\nbaz\n");
    assert_eq!(cluster.watched(&["foo", "--rev=1"], 3), "PUT\nfoo\nbar\n");

    let granted = cluster.ok(&["lease", "grant", "100"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    cluster.ok(&["put", "leased", "x", "--lease", &id]);
    assert!(cluster.ok(&["lease", "timetolive", &id, "--keys"]).contains("attached keys([leased])"));
    assert!(cluster.ok(&["lease", "list"]).contains(&id));
    cluster.ok(&["lease", "revoke", &id]);
    assert_eq!(cluster.ok(&["get", "leased"]), "");

    let members = cluster.ok(&["member", "list"]);
    assert_eq!(members.lines().count(), 3, "{members}");
    assert!(cluster.ok(&["endpoint", "health"]).contains("is healthy"));
    assert_eq!(cluster.ok(&["endpoint", "status"]).lines().count(), 3);
    let revision = cluster.ok(&["compact", "4"]);
    assert_eq!(revision, "compacted revision 4\n");
    let (success, text) = cluster.ctl(&["get", "foo", "--rev=2"]);
    assert!(!success && text.contains("required revision has been compacted"), "{text}");
}

#[test]
fn killed_members_come_back_with_everything() {
    if !etcdctl_is_there() {
        return;
    }
    let mut cluster = Cluster::start(3);
    for round in 0..6 {
        let key = format!("key{round}");
        cluster.ok(&["put", &key, "value"]);
        let n = round % 3;
        cluster.kill(n);
        cluster.put_until_it_succeeds("meanwhile", &key);
        let (member, ready) = cluster.spawn(n);
        cluster.members[n] = Some(member);
        ready.recv_timeout(Duration::from_secs(30)).expect("it comes back");
    }
    // All at once: only what is on the disks remains.
    (0..3).for_each(|n| cluster.kill(n));
    let started: Vec<_> = (0..3).map(|n| cluster.spawn(n)).collect();
    for (n, (member, ready)) in started.into_iter().enumerate() {
        ready.recv_timeout(Duration::from_secs(30)).expect("it comes back");
        cluster.members[n] = Some(member);
    }
    for round in 0..6 {
        assert_eq!(cluster.ok(&["get", &format!("key{round}"), "--print-value-only"]), "value\n");
    }
    assert_eq!(cluster.ok(&["get", "meanwhile", "--print-value-only"]), "key5\n");
}

#[test]
fn members_that_are_removed_end_and_the_others_go_on() {
    if !etcdctl_is_there() {
        return;
    }
    let mut cluster = Cluster::start(4);
    for left in [3, 2, 1] {
        cluster.ok(&["put", "left", &format!("{left}")]);
        let leader = cluster.leader();
        // A follower, and then whoever leads.
        let removed = if left == 3 { (leader + 1) % 4 } else { leader };
        let id = cluster.status(removed).swap_remove(1);
        let (success, text) = cluster.ctl_of(leader, &["member", "remove", &id]);
        assert!(success && text.contains("removed from cluster"), "{text}");
        cluster.wait_for_end(removed);
        let next = cluster.leader();
        let (success, text) = cluster.ctl_of(next, &["member", "list"]);
        assert!(success && text.lines().count() == left, "{text}");
        let (success, text) = cluster.ctl_of(next, &["get", "left", "--print-value-only"]);
        assert!(success && text == format!("{left}\n"), "{text}");
    }
}

#[test]
fn bad_flags_are_said() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_novacron-consensus")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, words) in [
        (&["--initial-cluster", "a=b"][..], "--initial-cluster"),
        (&["--initial-cluster", "other=http://127.0.0.1:1"][..], "no member \"default\""),
        (&["--election-timeout", "100", "--heartbeat-interval", "50"][..], "five times"),
        (&["--listen-client-urls", "http://0.0.0.0:0"][..], "--allow-plaintext"),
        (&["--listen-client-urls", "nonsense"][..], "SCHEME://HOST:PORT"),
    ] {
        let (code, text) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
    }
}
