//! Agents and the files in which they record what they did to the node: another's, damaged ones (root, a network namespace).

mod support;

use std::{fs, path::Path};

use dwcp_lab::namespace::Namespace;
use novacron_control::schema::{Capability, Tuned, TunedState};
use support::{Agent, wait_until};

/// A namespace with forwarding off, which tuning turns on.
fn place() -> Option<Namespace> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return None;
    }
    let place = Namespace::create().expect("a namespace");
    place.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("set"));
    Some(place)
}

fn forwards(place: &Namespace) -> bool {
    place.enter(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read")).trim() == "1"
}

/// An agent whose records are in the folder.
fn start(folder: &Path, place: &Namespace, name: &str, tune: &str) -> Agent {
    let file = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let settings = [
        ("listen", "127.0.0.1:0"),
        ("datagrams.listen", "off"),
        ("node.tune", tune),
        ("node.tune_state", &file("tune.json")),
        ("node.mtu_state", &file("mtu.json")),
    ];
    Agent::start_with(folder, name, &settings, |command| place.confine(command))
}

fn says(agent: &Agent, what: &str) -> bool {
    let tuned: Vec<Tuned> = agent.get("/v1/tune");
    tuned.iter().any(|tuned| tuned.state == TunedState::Cannot && tuned.detail.contains(what))
}

#[test]
fn what_an_agent_that_runs_has_set_is_not_put_back_by_another() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let first = start(folder.path(), &place, "a", "true");
    assert!(forwards(&place));
    for (name, tune) in [("b", "false"), ("c", "true")] {
        let second = start(folder.path(), &place, name, tune);
        assert!(forwards(&place), "{name}: it is the first one's");
        assert!(says(&second, "another process keeps"), "{name}");
        second.signal(nix::sys::signal::Signal::SIGTERM);
        let mut second = second;
        second.wait();
        assert!(forwards(&place), "{name}: still");
    }
    first.kill();
    let next = start(folder.path(), &place, "d", "false");
    wait_until("what a killed one has left is put back", || !forwards(&place));
    assert!(!says(&next, "another process"));
}

#[test]
fn a_damaged_record_is_told_of() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["tune.json", "mtu.json"] {
        fs::write(folder.path().join(file), "nonsense").expect("written");
    }
    for (name, tune) in [("a", "false"), ("b", "true")] {
        let agent = start(folder.path(), &place, name, tune);
        for file in ["tune.json is damaged", "mtu.json is damaged"] {
            assert!(says(&agent, file), "{name}: {file}: {:?}", agent.get::<Vec<Tuned>>("/v1/tune"));
        }
        let capabilities: Vec<Capability> = agent.get("/v1/capabilities");
        let mtu = capabilities.iter().find(|one| one.name == "larger MTU").expect("it is told");
        assert!(mtu.detail.contains("is damaged"), "{mtu:?}");
        assert!(!forwards(&place), "what could not be put back is not set");
    }
}
