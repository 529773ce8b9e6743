//! What `cargo bench --bench allocations --bench memory` counted, read from what it printed.

use dwcp_benches::report::{Must, Requirement};

/// Lines of the output, and the words behind their numbers.
const ALLOCATIONS: [&str; 2] = ["header encode and decode", "parse, payloads as slices of the buffer"];
const UNREAD: &str = "256 unread streams";

pub(crate) fn requirements(counted: &str) -> Vec<Requirement> {
    let allocations = ALLOCATIONS.map(|what| Requirement {
        what: format!("{what}: allocations for 1024 frames"),
        value: number_before(counted, what, "allocations"),
        must: Must::AtMost(0.0),
    });
    let grown = number_before(counted, UNREAD, "bytes of memory");
    let memory = Requirement {
        what: format!("{UNREAD}: memory of the receiver / (window + 32 MiB)"),
        value: grown.zip(number_before(counted, UNREAD, "bytes allowed")).map(|(grown, bound)| grown / bound),
        must: Must::AtMost(1.0),
    };
    allocations.into_iter().chain([memory]).collect()
}

/// The number before these words, in the line that begins with `line`.
fn number_before(text: &str, line: &str, words: &str) -> Option<f64> {
    let rest = text.lines().find_map(|found| found.trim().strip_prefix(line))?;
    let (before, _) = rest.split_once(words)?;
    before.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_words_behind_them() {
        let text = "header encode and decode: 0 allocations for 1024 frames, 0 bytes\n\
                    256 unread streams: 70000 bytes came, 80000 bytes of memory, 100000 bytes allowed\n";
        let values: Vec<_> = requirements(text).into_iter().map(|requirement| requirement.value).collect();
        assert_eq!(values, [Some(0.0), None, Some(0.8)]);
    }
}
