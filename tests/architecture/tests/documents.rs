//! The commands that documents name exist.

use std::{collections::BTreeSet, fs};

use architecture::{files, root};

#[test]
fn make_targets_in_documents_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '.', '#']))
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(targets, _)| targets.split_whitespace())
        .collect();
    let documents = files("md");
    assert!(documents.iter().any(|(path, _)| *path == root().join("README.md")), "there is a README");
    let mut seen = 0;
    for (path, content) in documents {
        for target in commands(&content) {
            seen += 1;
            assert!(targets.contains(target), "{}: `make {target}` is not in the Makefile", path.display());
        }
    }
    assert!(seen > 0, "the search finds commands at all");
}

/// Targets of the `make` commands in a document: in code spans, or indented or fenced lines.
fn commands(content: &str) -> impl Iterator<Item = &str> {
    let span = content.match_indices("`make ").map(|(at, found)| at + found.len());
    let line = content.match_indices("make ").filter_map(|(at, found)| {
        let start = content[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = content[start..at].trim_start_matches("$ ");
        (before.trim().is_empty()).then_some(at + found.len())
    });
    span.chain(line).map(|at| {
        let end = content[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(0);
        &content[at..at + end]
    })
}

#[test]
fn commands_are_found_in_documents() {
    let text = "Run `make test`, then:\n\n    make lab SCENARIO=all\n\n$ make run\nthat would make sense";
    let found: Vec<_> = commands(text).collect();
    assert_eq!(found, ["test", "lab", "run"]);
}
