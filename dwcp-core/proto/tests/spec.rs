//! Every clause that a test or the code cites is in the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

fn sources(dir: &Path, out: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The number behind each occurrence of `before`, without a trailing point.
fn numbers<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let number = |rest: &'a str| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].trim_end_matches('.')
    };
    text.match_indices(before)
        .map(|(at, _)| number(&text[at + before.len()..]))
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn cited_clauses_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spec = fs::read_to_string(root.join("../../docs/spec/dwcp-1.md")).expect("the specification");
    let clauses: BTreeSet<&str> = numbers(&spec, "- **").into_iter().chain(numbers(&spec, "\n## ")).collect();
    assert!(clauses.len() > 50, "{clauses:?}");
    let mut texts = Vec::new();
    sources(&root.join("src"), &mut texts);
    sources(&root.join("tests"), &mut texts);
    let mut cited: BTreeMap<&str, usize> = BTreeMap::new();
    for text in &texts {
        for before in ["DWCP-", "(clause ", "section "] {
            for clause in numbers(text, before) {
                assert!(clauses.contains(clause), "clause {clause} is cited and not in the specification");
                *cited.entry(clause).or_default() += 1;
            }
        }
    }
    assert!(cited.len() > 30, "{cited:?}");
    let quiet: Vec<_> = clauses.iter().filter(|clause| !cited.contains_key(*clause)).collect();
    println!("clauses that nothing cites: {quiet:?}");
}
