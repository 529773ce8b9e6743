//! Dependencies point one way: daemons, then the transport, then the protocol core, which depends on nothing that
//! does I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use architecture::{members, metadata, packages, root, text};
use serde_json::Value;

/// For each crate of the workspace, which others it may use. A new crate has to be entered here.
const MAY_USE: &[(&str, &[&str])] = &[
    ("dwcp-proto", &[]),
    ("dwcp-sys", &[]),
    ("dwcp-core", &["dwcp-proto", "dwcp-sys"]),
    ("dwcp-delta", &[]),
    ("dwcp-forward", &["dwcp-core"]),
    ("dwcp-migrate", &["dwcp-core", "dwcp-delta", "dwcp-forward"]),
    ("dwcp-node", &["dwcp-sys"]),
    ("dwcp-transfer", &["dwcp-core", "dwcp-delta", "dwcp-sys"]),
    ("dwcp-ebpf", &[]),
    ("consensus-disk", &[]),
    ("consensus-proto", &[]),
    ("consensus-bolt", &["consensus-proto"]),
    ("consensus-raft", &["consensus-disk"]),
    ("consensus-regions", &[]),
    ("consensus-rocks", &["consensus-disk"]),
    ("consensus-store", &["consensus-disk", "consensus-proto", "consensus-regions"]),
    (
        "consensus-core",
        &["consensus-disk", "consensus-raft", "consensus-rocks", "dwcp-core", "dwcp-transfer"],
    ),
    (
        "consensus-etcd",
        &[
            "consensus-bolt",
            "consensus-core",
            "consensus-disk",
            "consensus-proto",
            "consensus-regions",
            "consensus-rocks",
            "consensus-store",
        ],
    ),
    (
        "novacron-consensus",
        &[
            "consensus-core",
            "consensus-etcd",
            "consensus-regions",
            "dwcp-core",
            "novacron-admin",
            "novacron-process",
            "novacron-settings",
            "novacron-trace",
        ],
    ),
    (
        "novacron-dwcp",
        &[
            "consensus-proto",
            "dwcp-core",
            "dwcp-ebpf",
            "dwcp-node",
            "dwcp-sys",
            "dwcp-transfer",
            "novacron-admin",
            "novacron-control",
            "novacron-process",
            "novacron-settings",
            "novacron-trace",
        ],
    ),
    (
        "novacron-api",
        &[
            "consensus-proto",
            "dwcp-core",
            "novacron-admin",
            "novacron-control",
            "novacron-process",
            "novacron-settings",
            "novacron-store",
            "novacron-trace",
        ],
    ),
    (
        "novacron-operator",
        &["consensus-proto", "novacron-admin", "novacron-process", "novacron-settings", "novacron-store"],
    ),
    ("novacron-process", &["dwcp-core", "novacron-settings", "novacron-trace"]),
    ("novacron-settings", &["dwcp-core"]),
    ("novacron-admin", &["dwcp-core"]),
    (
        "novacron",
        &[
            "consensus-core",
            "consensus-etcd",
            "consensus-proto",
            "dwcp-core",
            "dwcp-forward",
            "dwcp-migrate",
            "dwcp-transfer",
            "novacron-admin",
            "novacron-api",
            "novacron-control",
            "novacron-dwcp",
            "novacron-process",
            "novacron-settings",
            "novacron-store",
            "novacron-trace",
        ],
    ),
    ("novacron-store", &["consensus-proto", "novacron-trace"]),
    ("novacron-control", &["dwcp-core", "novacron-trace"]),
    ("novacron-trace", &[]),
    // Measures and checks, and is used by nothing.
    (
        "dwcp-benches",
        &[
            "consensus-core",
            "consensus-disk",
            "consensus-proto",
            "consensus-rocks",
            "novacron-store",
            "ports",
        ],
    ),
    ("collector", &[]),
    ("dwcp-lab", &[]),
    ("linearizability", &[]),
    ("migration", &["dwcp-lab", "dwcp-migrate"]),
    ("ports", &[]),
    ("chaos", &["consensus-proto", "dwcp-lab", "linearizability", "ports"]),
    (
        "sim",
        &[
            "consensus-core",
            "consensus-disk",
            "consensus-proto",
            "consensus-raft",
            "consensus-regions",
            "consensus-store",
            "linearizability",
        ],
    ),
    ("architecture", &[]),
];

/// What the protocol core and the core of replication between regions must not reach, not even through others.
const IMPURE: [&str; 11] = [
    "getrandom",
    "libc",
    "mio",
    "nix",
    "rand",
    "rustix",
    "rustls",
    "socket2",
    "tokio",
    "tracing-subscriber",
    "windows-sys",
];

/// Where `anyhow` is allowed: in programs, not in libraries.
const PROGRAMS: [&str; 3] = ["daemons/", "benches", "tests/"];

fn is_built_in(dependency: &Value) -> bool {
    dependency["kind"] != "dev"
}

#[test]
fn crates_use_only_what_is_below_them() {
    let metadata = metadata();
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let names: BTreeSet<_> = members(&metadata).map(|package| text(package, "name")).collect();
    for package in members(&metadata) {
        let name = text(package, "name");
        let allowed = table.get(name).unwrap_or_else(|| panic!("{name} is not in MAY_USE"));
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        for used in dependencies.iter().filter(|d| is_built_in(d)).map(|d| text(d, "name")) {
            assert!(!names.contains(used) || allowed.contains(&used), "{name} must not use {used}");
        }
    }
    for name in table.keys() {
        assert!(names.contains(name), "{name} is in MAY_USE and not in the workspace");
    }
}

#[test]
fn the_cores_reach_nothing_impure() {
    let metadata = metadata();
    // blake3 asks ARM's processors through libc what they can.
    for (core, excused) in [("dwcp-proto", ""), ("consensus-regions", "libc")] {
        let reached = reached(&metadata, core);
        assert!(reached.contains("bytes"), "the search finds dependencies at all: {reached:?}");
        for name in IMPURE.iter().filter(|name| **name != excused) {
            assert!(!reached.contains(*name), "{core} depends on {name}");
        }
    }
}

#[test]
fn libraries_have_typed_errors() {
    for package in members(&metadata()) {
        let folder = architecture::folder(package);
        if PROGRAMS.iter().any(|program| folder.starts_with(program)) {
            continue;
        }
        let mut dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        let anyhow = dependencies.any(|d| is_built_in(d) && d["name"] == "anyhow");
        assert!(!anyhow, "{} uses anyhow", text(package, "name"));
    }
}

#[test]
fn the_protocol_core_builds_where_there_is_no_operating_system() {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = String::from_utf8(sysroot.stdout).expect("a path");
    let target = "wasm32-unknown-unknown";
    if !std::path::Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir() {
        eprintln!("SKIP: {target} is not installed; dwcp-core/proto/clippy.toml keeps I/O out instead");
        return;
    }
    // A target folder of its own: cargo holds a lock on the one that this test was built in.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--locked", "--target", target, "-p", "dwcp-proto", "--target-dir"]);
    cargo.arg(root().join("target/wasm")).current_dir(root());
    assert!(cargo.status().expect("cargo runs").success(), "{cargo:?}");
}

/// Names of everything that is in a crate, procedural macros included; what builds it (blake3's assembler) is not in it.
fn reached(metadata: &Value, name: &str) -> BTreeSet<String> {
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let node = |id: &str| nodes.iter().find(|node| text(node, "id") == id).expect("a node for every id");
    let start = members(metadata).find(|package| text(package, "name") == name).expect("a member");
    let mut ids = BTreeSet::new();
    let mut open = vec![text(start, "id").to_owned()];
    while let Some(id) = open.pop() {
        for dependency in node(&id)["deps"].as_array().expect("deps") {
            let kinds = dependency["dep_kinds"].as_array().expect("kinds");
            // Targets other than Linux would count as well: wanted here.
            if kinds.iter().any(|kind| kind["kind"].is_null())
                && ids.insert(text(dependency, "pkg").to_owned())
            {
                open.push(text(dependency, "pkg").to_owned());
            }
        }
    }
    packages(metadata)
        .filter(|package| ids.contains(text(package, "id")))
        .map(|package| text(package, "name").to_owned())
        .collect()
}
