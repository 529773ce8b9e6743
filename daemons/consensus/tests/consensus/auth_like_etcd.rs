//! The same commands of etcdctl to one etcd and to one of ours: outputs and exit codes are equal.

use std::{
    io::Read as _,
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

struct Process {
    child: Child,
    client: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIP: {program} is not installed (Debian's packages etcd-client and etcd-server)");
    }
    there
}

impl Process {
    /// Both take the same flags.
    fn start(program: &str) -> Self {
        let ports = ports::free(2);
        let (client, peer) = (ports[0], ports[1]);
        let folder = tempfile::tempdir().unwrap();
        let (clients, peers) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let child = Command::new(program)
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}"), "--bcrypt-cost", "4"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, client, _folder: folder };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", client)).is_err()
            || process.ctl(&["get", "x"], Duration::from_secs(10)).0 != Some(0)
        {
            assert!(Instant::now() < until, "{program} does not serve within 30 s");
            std::thread::sleep(Duration::from_millis(100));
        }
        process
    }

    /// Exit code and what is printed, without etcdctl's own log lines, which have times in them.
    fn ctl(&self, args: &[&str], time: Duration) -> (Option<i32>, String) {
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("127.0.0.1:{}", self.client)])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + time;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut bytes = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
        child.stderr.take().unwrap().read_to_end(&mut bytes).unwrap();
        let printed = String::from_utf8_lossy(&bytes).into_owned();
        let own = printed.lines().filter(|line| !line.starts_with("{\"level\""));
        let text = own.map(|line| line.to_owned() + "\n").collect::<String>();
        (child.wait().unwrap().code(), text.replace(&self.client.to_string(), "PORT"))
    }
}

/// One command a line; `root>` and `alice>` say who.
const SCRIPT: &str = r"
auth enable
user add root:rootpw
role get root
role add reader
role add reader
role add writer
role add
role list
role grant-permission reader read a c
role grant-permission reader read --prefix p/
role grant-permission reader read a b
role grant-permission reader readwrite one
role grant-permission reader nonsense one
role grant-permission missing read one
role grant-permission writer write --from-key w
role grant-permission writer readwrite a c
role grant-permission writer write --prefix lock/
role get reader
role get writer
role get missing
role revoke-permission writer q
role revoke-permission writer a c
role revoke-permission missing a c
role get writer
user add alice:alicepw
user add alice:other
user add bob --new-user-password bobpw
user add card --no-password
user add :x
user list
user get alice
user get missing
user grant-role alice reader
user grant-role alice reader
user grant-role alice writer
user grant-role alice missing
user grant-role missing reader
user revoke-role alice missing
user revoke-role missing reader
user grant-role bob reader
user get alice
user get alice --detail
user delete missing
put a 1
put p/x 2
put zzz 3
alice> get a
auth enable
auth enable
get a
put a 1
del a
user list
alice:wrong> get a
missing:x> get a
card:x> get a
alice> get a
alice> get a c
alice> get a d
alice> get --prefix p/
alice> get --prefix p
alice> get zzz
alice> get --from-key a
alice> get one
alice> put one 1
alice> put one 2 --prev-kv
alice> put w 1
alice> put w 2 --prev-kv
alice> put v 1
alice> del w
alice> del w --prev-kv
alice> del zzz
alice> put zzz 4
alice> del one --prev-kv
bob> put one 1
bob> put w 1
alice> user list
alice> user get alice
alice> user get bob
alice> user get missing
alice> role list
alice> role get reader
alice> role get root
alice> role get missing
alice> user add eve:x
alice> user delete bob
alice> user passwd alice --interactive=false
alice> user grant-role alice root
alice> user revoke-role bob reader
alice> role add more
alice> role delete reader
alice> role grant-permission reader read zzz
alice> role revoke-permission reader a c
alice> auth disable
alice> member remove 1
alice> member add x --peer-urls=http://127.0.0.1:1
alice> lease revoke 1234
alice> watch zzz
watch a
root> user list
root> role list
root> user get root
root> get --from-key a
root> user delete root
root> role delete root
root> user revoke-role root root
root> role revoke-permission reader a c
alice> get b
alice> get a
root> user revoke-role alice reader
alice> get --prefix p/
alice> put w 3
root> role delete writer
alice> put w 4
root> user get alice
root> user get alice --detail
root> user grant-role alice root
alice> get --from-key a
alice> user list
root> user delete alice
alice> get a
root> user delete card
root> auth disable
root> auth disable
get zzz
alice> get zzz
user delete root
auth enable
";

fn run(process: &Process, line: &str) -> (Option<i32>, String) {
    let (user, command) = match line.split_once("> ") {
        None => (None, line),
        Some(("root", command)) => (Some("root:rootpw"), command),
        Some(("alice", command)) => (Some("alice:alicepw"), command),
        Some(("bob", command)) => (Some("bob:bobpw"), command),
        Some((user, command)) => (Some(user), command),
    };
    let mut args: Vec<_> = command.split_whitespace().collect();
    if let Some(user) = user {
        args.extend(["--user", user]);
    }
    process.ctl(&args, Duration::from_secs(20))
}

#[test]
fn etcdctl_sees_no_difference() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let etcd = Process::start("etcd");
    let ours = Process::start(env!("CARGO_BIN_EXE_novacron-consensus"));
    let (mut refused, mut done) = (0, 0);
    let mut different = Vec::new();
    for line in SCRIPT.lines().filter(|line| !line.is_empty()) {
        let (expected, found) = (run(&etcd, line), run(&ours, line));
        assert!(expected.0.is_some(), "etcdctl {line} does not end");
        *if expected.0 == Some(0) { &mut done } else { &mut refused } += 1;
        if expected != found {
            different.push(format!("etcdctl {line}\netcd: {expected:?}\nours: {found:?}\n"));
        }
    }
    assert!(refused > 40 && done > 60, "the script has much of both: {refused} refused, {done} done");
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Where we refuse what etcd 3.4 lets anyone do, which its later versions refuse in part as well; and what they say of root.
#[test]
fn where_we_differ_from_etcd_3_4() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let etcd = Process::start("etcd");
    let ours = Process::start(env!("CARGO_BIN_EXE_novacron-consensus"));
    let setup = [
        "user add root:rootpw",
        "role add root",
        "user grant-role root root",
        "role add reader",
        "role grant-permission reader readwrite a",
        "user add alice:alicepw",
        "user grant-role alice reader",
    ];
    for line in setup.iter().chain(&["auth enable"]) {
        assert_eq!(run(&etcd, line), run(&ours, line));
    }
    let empty = "etcdserver: user name is empty";
    let denied = "etcdserver: permission denied";
    for (line, message) in [
        // Whoever is nobody could fill the memory with leases, and end anyone's.
        ("lease grant 100", empty),
        ("lease list", empty),
        // Addresses of members are not for everyone.
        ("member list", empty),
        // It takes the past of keys that alice may not even read.
        ("alice> compact 1", denied),
        // A range without keys, which no request can ever be inside of.
        ("root> role grant-permission reader read b a", "etcdserver: invalid auth management"),
    ] {
        let (expected, found) = (run(&etcd, line), run(&ours, line));
        assert_eq!(expected.0, Some(0), "etcdctl {line}: etcd refuses it too: {expected:?}");
        assert!(found.0 != Some(0) && found.1.contains(message), "etcdctl {line}: {found:?}");
    }
    // As etcd 3.5 tells it: its permissions, which are in no record.
    assert!(run(&ours, "root> role get root").1.contains("KV Write:\n\t[, <open ended>"));
}
