//! What an agent has made and its next start is not told of any more: guards in XDP and tunnels (root, a network namespace).

mod support;

use std::{path::Path, process::Command};

use dwcp_lab::namespace::Namespace;
use novacron_control::{
    ControlError, Method,
    schema::{Guarded, Node, Tunnels},
};
use support::{Agent, wait_until};

/// A namespace with one interface, which has an address.
fn place() -> Option<Namespace> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return None;
    }
    let place = Namespace::create().expect("a namespace");
    let wire = [
        "link add near type veth peer name far",
        "link set near up",
        "link set far up",
        "addr add 192.0.2.1/24 dev near",
    ];
    place.ip(&wire).expect("a veth pair");
    Some(place)
}

fn start(folder: &Path, place: &Namespace, settings: &[(&str, &str)]) -> Agent {
    let settings =
        [&[("listen", "127.0.0.1:8888"), ("datagrams.listen", "127.0.0.1:8889")], settings].concat();
    Agent::start_with(folder, "a", &settings, |command| place.confine(command))
}

/// What `ip link show` says of an interface; empty if there is none.
fn link(place: &Namespace, interface: &str) -> String {
    let mut command = Command::new("ip");
    place.confine(command.args(["-d", "link", "show", "dev", interface]));
    String::from_utf8_lossy(&command.output().expect("it runs").stdout).into_owned()
}

fn is_refused(agent: &Agent, path: &str) -> bool {
    match agent.ask(Method::POST, path, None) {
        Ok(_) => false,
        Err(ControlError::Refused { status, .. }) => status.as_u16() == 409,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_guard_whose_interface_is_not_named_any_more_is_taken_off() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let bpf = folder.path().join("bpf");
    std::fs::create_dir(&bpf).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf).status().expect("mount runs");
    if !mounted.success() {
        println!("SKIP: no BPF file system");
        return;
    }
    let root = bpf.join("guard");
    let pins = ("xdp.pins", root.to_str().expect("UTF-8"));
    let agent = start(folder.path(), &place, &[pins, ("xdp.interfaces", "near"), ("xdp.sockets", "false")]);
    let guards = || agent.get::<Vec<Guarded>>("/v1/xdp");
    wait_until("it tells of its guard", || !guards().is_empty());
    if guards().iter().any(|guard| guard.mode.is_none()) {
        println!("SKIP: {:?}", guards());
    } else {
        // A veth is better off so than in native mode, which is what it would take.
        assert_eq!(guards()[0].mode.as_deref(), Some("generic"));
        agent.kill();
        assert!(link(&place, "near").contains("xdp"), "it goes on");
        let agent = start(folder.path(), &place, &[pins]);
        assert!(!link(&place, "near").contains("xdp"), "it is taken off");
        assert!(!root.join("near").exists(), "with its pins");
        assert!(is_refused(&agent, "/v1/xdp/detach"), "there is nothing to detach");
    }
    let _ = Command::new("umount").arg("--lazy").arg(&bpf).status();
}

#[test]
fn a_tunnel_that_is_not_wanted_any_more_is_removed_and_those_of_others_are_not() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (ours, others) = (file("tunnels.json"), file("others.json"));
    let agent = start(folder.path(), &place, &[("tunnels.state", &ours), ("vxlan.local", "192.0.2.1")]);
    wait_until("it tells of VXLAN", || agent.get::<Tunnels>("/v1/tunnels").vxlan.is_some());
    if let Some(why) = agent.get::<Tunnels>("/v1/tunnels").vxlan.and_then(|vxlan| vxlan.error) {
        println!("SKIP: {why}");
        return;
    }
    agent.kill();
    let is_there = || !link(&place, "dwcp-vx100").is_empty();
    assert!(is_there(), "it goes on");
    let agent = start(folder.path(), &place, &[("tunnels.state", &others)]);
    assert!(is_there(), "another agent has made it");
    assert!(is_refused(&agent, "/v1/tunnels/remove"));
    agent.kill();
    let agent = start(folder.path(), &place, &[("tunnels.state", &ours)]);
    assert!(!is_there(), "it is not wanted any more");
    assert!(is_refused(&agent, "/v1/tunnels/remove"), "there is nothing to remove");
}

#[test]
fn tunnels_that_another_agent_keeps_are_left_to_it() {
    let Some(place) = place() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (state, keys) = (file("tunnels.json"), file("keys.json"));
    let first = start(folder.path(), &place, &[("tunnels.state", &state), ("vxlan.local", "192.0.2.1")]);
    wait_until("it tells of VXLAN", || first.get::<Tunnels>("/v1/tunnels").vxlan.is_some());
    if let Some(why) = first.get::<Tunnels>("/v1/tunnels").vxlan.and_then(|vxlan| vxlan.error) {
        println!("SKIP: {why}");
        return;
    }
    let settings = [
        ("listen", "127.0.0.1:8890"),
        ("datagrams.listen", "127.0.0.1:8891"),
        ("tunnels.state", &state),
        ("wireguard.address", "10.99.0.1/24"),
        ("wireguard.keys", &keys),
        ("vxlan.local", "192.0.2.1"),
        ("vxlan.vni", "7"),
    ];
    let second = Agent::start_with(folder.path(), "b", &settings, |command| place.confine(command));
    let told: Tunnels = second.get("/v1/tunnels");
    let errors = [told.wireguard.and_then(|one| one.error), told.vxlan.and_then(|one| one.error)];
    for error in errors {
        assert!(error.as_ref().is_some_and(|why| why.contains("another process keeps")), "{error:?}");
    }
    assert!(link(&place, "dwcp-vx100").contains("vxlan id 100 "), "it is as the first one has made it");
    assert!(link(&place, "dwcp-wg0").is_empty());
    let said = second.get::<Node>("/v1/node").greeting.tunnels;
    assert!(said.wireguard.is_none() && said.vxlan.is_none(), "nobody is told of them: {said:?}");
    assert!(is_refused(&second, "/v1/tunnels/remove"), "they are not its");
}
