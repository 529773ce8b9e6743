//! `novacron node` against real agents, and without one.

use std::{fs, path::Path, process::Output};

use crate::support::{Process, beside, errors, novacron, wait_until};
use serde_json::Value;

/// An agent, and where it is asked.
struct Agent {
    process: Process,
    socket: String,
}

impl Agent {
    fn start(program: &Path, folder: &Path, name: &str, port: u16, more: &[&str]) -> Self {
        let socket = folder.join(format!("{name}.sock")).display().to_string();
        let mut command = std::process::Command::new(program);
        crate::support::clean(&mut command);
        let (listen, datagrams) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        command.args(["--node-id", name, "--listen", &listen, "--datagrams-listen", &datagrams]);
        command.args(["--metrics-listen", "off", "--control-socket", &socket]).args(more);
        let agent = Self { process: Process::spawn(&mut command), socket };
        wait_until("the agent answers", || agent.run(&["status"]).status.success());
        agent
    }

    fn run(&self, args: &[&str]) -> Output {
        node(&self.socket, args)
    }

    fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", errors(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.text(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }
}

fn node(socket: &str, args: &[&str]) -> Output {
    novacron().args(["node", "--socket", socket]).args(args).output().expect("it runs")
}

/// The abilities that a list tells of, by name.
fn abilities(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|ability| ability["name"].as_str().expect("a name")).collect()
}

#[test]
fn an_agent_is_asked_and_told() {
    let Some(program) = beside("novacron-dwcp") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let port = ports::free(4)[0];
    let (into, from) = (folder.path().join("into"), folder.path().join("file"));
    fs::write(&from, "content").expect("written");
    let b = Agent::start(
        &program,
        folder.path(),
        "b",
        port + 2,
        &["--region", "eu", "--transfers-into", into.to_str().expect("UTF-8")],
    );
    let peers = format!("b=127.0.0.1:{},c=127.0.0.1:1", port + 2);
    let mut a = Agent::start(&program, folder.path(), "a", port, &["--peers", &peers]);

    // Peers: who is connected, and at which address nobody is, and why.
    let is_connected = |peers: &Value| {
        let peers = peers.as_array().expect("a list");
        peers.iter().any(|peer| peer["greeting"]["node_id"] == "b" && peer["connected_seconds"].is_number())
    };
    wait_until("they are connected", || is_connected(&a.json(&["peers"])));
    let (text, peers) = (a.text(&["peers"]), a.json(&["peers"]));
    assert!(text.contains("PEER") && text.contains("eu") && text.contains("connected"), "{text}");
    let missing = peers.as_array().expect("a list").iter().find(|peer| peer["target"] == "c=127.0.0.1:1");
    assert!(missing.expect("nobody is there")["error"].is_string(), "{peers}");
    assert_eq!(a.json(&["status"])["peers_connected"], 1);

    // What the node can do, asked of the agent and looked at by the command itself.
    let told = a.json(&["doctor"]);
    let (own, errors) = {
        let output = node("/nowhere/agent.sock", &["doctor", "--json"]);
        assert_eq!(output.status.code(), Some(0));
        (serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), errors(&output))
    };
    assert!(errors.contains("this process looks itself"), "{errors}");
    for list in [&told, &own] {
        for ability in list.as_array().expect("a list") {
            let states = ["yes", "degraded", "no", "unknown"];
            assert!(states.contains(&ability["state"].as_str().expect("a state")), "{ability}");
            assert!(!ability["detail"].as_str().expect("a reason").is_empty(), "{ability}");
        }
    }
    // Not all of them: interfaces come and go.
    let table = a.text(&["doctor"]);
    for wanted in ["BBR", "RDMA", "WireGuard in user space", "AF_XDP", "clock"] {
        let has = |list: &Value| abilities(list).contains(&wanted);
        assert!(has(&told) && has(&own), "{wanted}: {:?} {:?}", abilities(&told), abilities(&own));
        assert!(table.contains(wanted), "{table}");
    }

    // The rest of what is only looked at.
    wait_until("paths are measured", || a.text(&["paths"]).contains("b "));
    for (what, heading) in
        [("tune", "WHAT"), ("xdp", "INTERFACE"), ("tunnels", "INTERFACE"), ("transfers", "ID")]
    {
        assert!(a.text(&[what]).starts_with(heading), "{what}");
        a.json(&[what]);
    }

    // A transfer, to its end; and one that cannot be.
    let sent = a.json(&["send", from.to_str().expect("UTF-8"), "b"]);
    assert_eq!(sent["state"], "done", "{sent}");
    assert_eq!(fs::read(into.join("file")).expect("it has arrived"), b"content");
    assert!(b.text(&["transfers"]).contains("receive"), "{}", b.text(&["transfers"]));
    for (args, code) in
        [(&["send", "/nowhere", "b"][..], 1), (&["send", "/tmp", "d"], 1), (&["cancel", "99"], 1)]
    {
        let output = a.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", crate::support::errors(&output));
    }

    // The end.
    a.text(&["drain"]);
    assert_eq!(a.process.wait(), Some(0));
    let output = a.run(&["status"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(crate::support::errors(&output).contains("a.sock"), "{}", crate::support::errors(&output));
    wait_until("the other one notices", || b.json(&["status"])["peers_connected"] == 0);
}
