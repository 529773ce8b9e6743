//! Rules of the house that the compiler does not know by itself: where `unsafe` may be, and that clippy is told what
//! libraries must not do.

use std::fs;

use architecture::{folder, members, metadata, root, text};

/// Crates that may contain `unsafe`: system calls, and the lab's TUN devices and namespaces.
const UNSAFE_ALLOWED: [&str; 3] = ["dwcp-sys", "dwcp-ebpf", "dwcp-lab"];

/// What only daemons do.
const DAEMONS_ONLY: [&str; 6] = [
    "std::env::var",
    "std::env::var_os",
    "std::env::vars",
    "std::process::exit",
    "tokio::signal::ctrl_c",
    "tokio::signal::unix::signal",
];

/// What the cores must not do.
const CORE_NEVER: [&str; 6] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::thread::spawn",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::fs::File",
];

#[test]
fn unsafe_code_is_forbidden_but_in_named_crates() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(workspace.contains("unsafe_code = \"forbid\""), "the workspace forbids unsafe code");
    for package in members(&metadata()) {
        let name = text(package, "name");
        let manifest = fs::read_to_string(text(package, "manifest_path")).expect("a manifest");
        let inherits = manifest.contains("[lints]\nworkspace = true");
        assert!(inherits || UNSAFE_ALLOWED.contains(&name), "{name} does not take the workspace's lints");
        if !inherits {
            let documented = manifest.contains("undocumented_unsafe_blocks");
            assert!(documented, "{name} does not check for SAFETY comments");
        }
    }
}

#[test]
fn clippy_keeps_libraries_from_what_daemons_do() {
    for package in members(&metadata()) {
        let folder = folder(package);
        if ["daemons", "benches", "tests"].iter().any(|programs| folder.starts_with(programs)) {
            continue;
        }
        let config = clippy_config(&folder);
        // The cores have no tokio, so its configuration cannot name tokio's methods.
        let pure = ["dwcp-proto", "consensus-bolt", "consensus-raft", "consensus-regions", "consensus-store"]
            .contains(&text(package, "name"));
        for method in DAEMONS_ONLY.iter().filter(|method| !pure || !method.starts_with("tokio")) {
            assert!(config.contains(&format!("\"{method}\"")), "{}: {method} is allowed", folder.display());
        }
        for name in CORE_NEVER.iter().filter(|_| pure) {
            assert!(config.contains(&format!("\"{name}\"")), "{}: {name} is allowed", folder.display());
        }
    }
}

/// The configuration that clippy takes for a crate: the first upwards.
fn clippy_config(folder: &std::path::Path) -> String {
    let folders = folder.ancestors().map(|ancestor| root().join(ancestor).join("clippy.toml"));
    let found = folders.into_iter().find_map(|path| fs::read_to_string(path).ok());
    found.unwrap_or_else(|| panic!("{}: no clippy.toml here or above", folder.display()))
}
