//! Settings as YAML.

use std::fmt::Write as _;

use crate::{Key, Origin};

/// Every setting, sections indented by two spaces, with a comment where there is an origin.
pub(crate) fn yaml<S>(keys: &[Key<S>], settings: &S, origin: impl Fn(&str) -> Option<Origin>) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for key in keys {
        let mut sections: Vec<&str> = key.name.split('.').collect();
        let name = sections.pop().unwrap_or(key.name);
        let same = open.iter().zip(&sections).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(same) {
            let _ = writeln!(out, "{:1$}{section}:", "", 2 * depth);
        }
        let value = key.shown((key.get)(settings));
        let value = match key.is_list {
            true => {
                let items: Vec<_> = value.split(',').filter(|item| !item.is_empty()).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            false => quoted(&value),
        };
        let _ = write!(out, "{:1$}{name}: {value}", "", 2 * sections.len());
        if let Some(origin) = origin(key.name) {
            // A file's name may have anything in it, and must not end the comment.
            let _ = write!(out, "  # {}", origin.to_string().replace(char::is_control, "?"));
        }
        out.push('\n');
        open = sections;
    }
    out
}

/// As it is if no YAML reader could take it for something else, otherwise in double quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ');
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    if starts && !text.ends_with(' ') && text != "null" && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
