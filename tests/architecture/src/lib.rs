//! What the tests of the workspace's shape share: its root, its crates, its text files.
//!
//! Reads the repository and asks `cargo metadata`; changes nothing and knows nothing of what the crates do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Folders that hold no sources of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "corpus"];

/// The repository's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository exists")
}

/// What `cargo metadata` says of the workspace, all dependencies included.
pub fn metadata() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    // Not `--offline`: it needs the packages of all platforms, of which a build here has fetched only some.
    cargo.args(["metadata", "--locked", "--format-version", "1"]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// The packages of the workspace.
pub fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    packages(metadata).filter(|package| package["source"].is_null())
}

/// All packages, those of others included.
pub fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().expect("packages").iter()
}

/// A field that is a string.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is not text in {value}"))
}

/// The folder of a package, from the root.
pub fn folder(package: &Value) -> PathBuf {
    let manifest = Path::new(text(package, "manifest_path"));
    let folder = manifest.parent().expect("a manifest is in a folder");
    folder.strip_prefix(root()).expect("members are below the root").to_path_buf()
}

/// Every file below the root that ends in `.extension`, with its content.
pub fn files(extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&root(), extension, &mut found);
    found
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_symlink() || SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let content = fs::read_to_string(&path).expect("a readable file");
            found.push((path, content));
        }
    }
}

/// Its example of the library is a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
