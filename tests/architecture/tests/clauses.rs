//! Every clause of the specifications is cited by a test, and every citation is of a clause that exists.
//!
//! A test cites `DWCP-5.3`, `DATAGRAM-2.3`, `REGIONS-4.1`, `DELTA-2.1`, `MIGRATE-1.3`, or `T5.3` of the transfer protocol, which may also stand in its name
//! (`t5_3_...`). Code cites as well, and `(clause 5.3` in the protocol core, which covers nothing. Nor does what a file of
//! tests says of itself (`//!`): a citation belongs to the test that checks the clause.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use architecture::{files, root};

/// Clauses that no test has to cite, and why.
const NOTHING_TO_TEST: [(&str, &str); 1] = [("DWCP-2.1", "defines links and connections")];

#[test]
fn every_clause_is_cited_by_a_test_and_every_citation_exists() {
    let clauses = clauses();
    assert!(clauses.len() > 90, "{clauses:?}");
    let mut covered = BTreeSet::new();
    for (path, content) in files("rs") {
        if path.ends_with(file!()) {
            continue;
        }
        let mut cited = citations(&content);
        if path.starts_with(root().join("dwcp-core/proto")) {
            cited.extend(numbers(&content, "(clause ").map(|clause| format!("DWCP-{clause}")));
        }
        for clause in cited {
            assert!(
                clauses.contains_key(&clause),
                "{} cites {clause}, which no document has",
                path.display()
            );
        }
        covered.extend(citations(&tests_of(&path, &content)));
    }
    for (clause, why) in NOTHING_TO_TEST {
        assert!(clauses.contains_key(clause), "{clause} is excused ({why}) and does not exist");
        assert!(!covered.contains(clause), "{clause} is excused ({why}) and cited by a test");
        covered.insert(clause.to_owned());
    }
    let untested: Vec<_> =
        clauses.iter().filter(|(clause, normative)| **normative && !covered.contains(*clause)).collect();
    assert!(untested.is_empty(), "no test cites {untested:?}");
}

/// Sections (`DWCP-5`, `T5`: not to be covered as such) and clauses of all documents.
fn clauses() -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let documents = [
        ("dwcp-1.md", "## ", "DWCP-"),
        ("datagram-1.md", "## ", "DATAGRAM-"),
        ("regions-1.md", "## ", "REGIONS-"),
        ("delta-1.md", "## ", "DELTA-"),
        ("forward-1.md", "## ", "FORWARD-"),
        ("migrate-1.md", "## ", "MIGRATE-"),
        ("transfer-1.md", "## T", "T"),
    ];
    for (document, section, prefix) in documents {
        let text = fs::read_to_string(root().join("docs/spec").join(document)).expect("a specification");
        for (before, normative) in [(section, false), ("- **", true)] {
            for line in text.lines().filter_map(|line| line.strip_prefix(before)) {
                let line = if normative { line.strip_prefix('T').unwrap_or(line) } else { line };
                let clause = format!("{prefix}{}", number(line));
                assert_eq!(found.insert(clause.clone(), normative), None, "{clause} is there twice");
            }
        }
    }
    found
}

/// What a file cites.
fn citations(content: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for prefix in ["DWCP-", "DATAGRAM-", "REGIONS-", "DELTA-", "FORWARD-", "MIGRATE-"] {
        found.extend(numbers(content, prefix).map(|clause| format!("{prefix}{clause}")));
    }
    let starts_a_word = |at: usize| !content[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    for (at, _) in content.match_indices('T').filter(|(at, _)| starts_a_word(*at)) {
        let clause = number(&content[at + 1..]);
        if clause.contains('.') {
            found.insert(format!("T{clause}"));
        }
    }
    for (at, before) in content.match_indices("fn t") {
        let mut words = content[at + before.len()..].split('_');
        if let (Some(Ok(section)), Some(clause)) = (words.next().map(str::parse::<u8>), words.next()) {
            // A name may be of a section only: `t6_any_kills_end_well`.
            found.insert(match clause.parse::<u8>() {
                Ok(clause) => format!("T{section}.{clause}"),
                Err(_) => format!("T{section}"),
            });
        }
    }
    found
}

/// The numbers behind each occurrence of `before`.
fn numbers<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(before)
        .map(move |(at, _)| number(&text[at + before.len()..]))
        .filter(|number| !number.is_empty())
}

/// The number that a text begins with, without a trailing point.
fn number(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

/// The part of a file that is tests, without what it says of itself.
fn tests_of(path: &Path, content: &str) -> String {
    let of_tests = path.components().any(|part| part.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    let begin = if of_tests { Some(0) } else { content.find("#[cfg(test)]\nmod tests {") };
    let tests = begin.map_or("", |begin| &content[begin..]);
    tests.lines().filter(|line| !line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

#[test]
fn citations_are_found_where_tests_are() {
    let source = "// T9.1\nfn f() {} // DWCP-5\n#[cfg(test)]\nmod tests {\n//! T9.2\n// DWCP-5.3, (T3.2).\nfn t4_7_x() {}";
    let found = |path: &str| citations(&tests_of(Path::new(path), source)).into_iter().collect::<Vec<_>>();
    assert_eq!(found("src/a.rs"), ["DWCP-5.3", "T3.2", "T4.7"]);
    assert_eq!(found("tests/a.rs"), ["DWCP-5", "DWCP-5.3", "T3.2", "T4.7", "T9.1"]);
    assert!(citations("RFC 8446, HTTP1.1, UTF-8, fn to_5()").is_empty());
}
