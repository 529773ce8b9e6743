//! The text of a transaction: what is compared, and the requests of both outcomes, a line each.
//!
//! etcdctl's format, with comments, headings and this command's flags. Deliberately not here: who reads the text, and what
//! becomes of it.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt as _};

use clap::Parser;
use consensus_proto::etcdserverpb::{
    Compare,
    compare::{CompareResult, CompareTarget, TargetUnion},
};

use super::{
    kv::{DelArgs, PutArgs, RangeArgs},
    output::Id,
};

/// A transaction as it is written.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) compare: Vec<Compare>,
    pub(crate) success: Vec<Operation>,
    pub(crate) failure: Vec<Operation>,
}

/// One request. It has the flags that the command of its name has.
#[derive(Parser, Debug)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
pub(crate) enum Operation {
    Get(RangeArgs),
    Put(PutArgs),
    Del(DelArgs),
}

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextError {
    line: usize,
    why: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Compares,
    Success,
    Failure,
    End,
}

impl Part {
    fn next(self) -> Self {
        match self {
            Self::Compares => Self::Success,
            Self::Success => Self::Failure,
            Self::Failure | Self::End => Self::End,
        }
    }

    /// The part that a line begins, if it is a heading. etcdctl's own prompts are headings, too.
    fn of_heading(line: &str) -> Option<Self> {
        let heading = line.strip_suffix(':')?;
        [("compares", Self::Compares), ("success", Self::Success), ("failure", Self::Failure)]
            .into_iter()
            .find_map(|(word, part)| heading.starts_with(word).then_some(part))
    }
}

impl Script {
    pub(crate) fn parse(text: &str) -> Result<Self, TextError> {
        let mut script = Self::default();
        let (mut part, mut has_headings) = (Part::Compares, false);
        for (n, line) in text.lines().map(str::trim).enumerate() {
            if line.starts_with('#') {
                continue;
            }
            if let Some(begun) = Part::of_heading(line) {
                (part, has_headings) = (begun, true);
                continue;
            }
            if line.is_empty() {
                part = if has_headings { part } else { part.next() };
                continue;
            }
            let wrong = |why| TextError { line: n + 1, why };
            match part {
                Part::Compares => script.compare.push(compare(line).map_err(wrong)?),
                Part::Success => script.success.push(operation(line).map_err(wrong)?),
                Part::Failure => script.failure.push(operation(line).map_err(wrong)?),
                Part::End => {
                    return Err(wrong("after the requests of both outcomes nothing may follow".into()));
                }
            }
        }
        Ok(script)
    }
}

fn operation(line: &str) -> Result<Operation, String> {
    let mut words = Words(line);
    let mut arguments = Vec::new();
    while let Some(word) = words.next("")? {
        arguments.push(OsString::from_vec(word));
    }
    let operation = Operation::try_parse_from(arguments).map_err(|error| {
        // What comes after an empty line is how the whole command is used.
        let text = error.to_string();
        let said = text.split("\n\n").next().unwrap_or_default();
        let words: Vec<_> = said.trim_start_matches("error: ").split_whitespace().collect();
        words.join(" ")
    })?;
    match &operation {
        Operation::Put(put) if put.reads_standard_input() => {
            Err("in a transaction, a value is in its line or in a file".to_owned())
        }
        _ => Ok(operation),
    }
}

/// `TARGET("KEY") OPERATOR "VALUE"`.
fn compare(line: &str) -> Result<Compare, String> {
    const SHAPE: &str = "expected TARGET(\"KEY\") OPERATOR \"VALUE\"";
    let (target, rest) = line.split_once('(').ok_or(SHAPE)?;
    let mut words = Words(rest);
    let key = words.next(")")?.ok_or(SHAPE)?;
    let rest = words.0.trim_start().strip_prefix(')').ok_or(SHAPE)?.trim_start();
    let operators = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ];
    let (rest, result) = operators
        .into_iter()
        .find_map(|(sign, result)| Some((rest.strip_prefix(sign)?, result)))
        .ok_or("expected one of = != > < after the target")?;
    let mut words = Words(rest);
    let value = words.next("")?.ok_or(SHAPE)?;
    if words.next("")?.is_some() {
        return Err(SHAPE.to_owned());
    }
    let (target, union) = against(target.trim(), value)?;
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Default::default()
    })
}

/// What of a key is compared, and with what.
fn against(target: &str, value: Vec<u8>) -> Result<(CompareTarget, TargetUnion), String> {
    let text = || String::from_utf8_lossy(&value).into_owned();
    let number = || text().parse::<i64>().map_err(|_| format!("expected a number, not {:?}", text()));
    Ok(match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "lease" => {
            (CompareTarget::Lease, TargetUnion::Lease(text().parse::<Id>().map_err(str::to_owned)?.lease()))
        }
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        _ => return Err(format!("expected version, create, mod, value or lease, not {target:?}")),
    })
}

/// Words of a line, quoted as in a shell; within double quotes, backslashes say what cannot be written.
struct Words<'a>(&'a str);

impl Words<'_> {
    /// The next word, up to a space or one of these characters.
    fn next(&mut self, ends: &str) -> Result<Option<Vec<u8>>, String> {
        self.0 = self.0.trim_start();
        let is_end = |c: char| c.is_whitespace() || ends.contains(c);
        if self.0.chars().next().is_none_or(is_end) {
            return Ok(None);
        }
        let mut word = Vec::new();
        while let Some(c) = self.0.chars().next().filter(|c| !is_end(*c)) {
            self.0 = &self.0[c.len_utf8()..];
            match c {
                '"' => self.escaped(&mut word)?,
                '\'' => {
                    let (raw, rest) = self.0.split_once('\'').ok_or("a quote without its end")?;
                    word.extend_from_slice(raw.as_bytes());
                    self.0 = rest;
                }
                c => word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Some(word))
    }

    /// The rest of what is in double quotes.
    fn escaped(&mut self, word: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let at = self.0.find(['"', '\\']).ok_or("a quote without its end")?;
            let (plain, rest) = self.0.split_at(at);
            word.extend_from_slice(plain.as_bytes());
            if let Some(after) = rest.strip_prefix('"') {
                self.0 = after;
                return Ok(());
            }
            let escapes = [("\\n", b'\n'), ("\\r", b'\r'), ("\\t", b'\t'), ("\\\"", b'"'), ("\\\\", b'\\')];
            let simple = escapes.iter().find_map(|(escape, byte)| Some((rest.strip_prefix(escape)?, *byte)));
            let (after, byte) = match simple {
                Some(found) => found,
                None => hexadecimal(rest).ok_or("expected \\n \\r \\t \\\" \\\\ or \\xNN")?,
            };
            word.push(byte);
            self.0 = after;
        }
    }
}

/// `\xNN`, and what is after it.
fn hexadecimal(text: &str) -> Option<(&str, u8)> {
    let digits = text.strip_prefix("\\x")?;
    let both = digits.get(..2).filter(|both| both.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    Some((&digits[2..], u8::from_str_radix(both, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
        let mut words = Words(line);
        std::iter::from_fn(|| words.next("").transpose()).collect()
    }

    #[test]
    fn words_are_quoted_as_in_a_shell() {
        assert_eq!(
            words(r#"put "a b" 'c\d' e"f"g"#),
            Ok(vec![b"put".to_vec(), b"a b".to_vec(), b"c\\d".to_vec(), b"efg".to_vec()])
        );
        assert_eq!(words(r#""\"\\\n\xff" "" "#), Ok(vec![b"\"\\\n\xff".to_vec(), Vec::new()]));
        for wrong in [r#""a"#, "'a", r#""\q""#, r#""\x+f""#, r#""\xf"#] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn etcdctls_example_is_read() {
        let text = "mod(\"key1\") > \"0\"\n\nput key1 \"overwrote-key1\"\n\nput key1 \"created-key1\"\nput key2 \"some extra key\"\n\n";
        let script = Script::parse(text).expect("a script");
        let compared = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Mod.into(),
            key: b"key1"[..].into(),
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Default::default()
        };
        assert_eq!(script.compare, [compared]);
        assert_eq!((script.success.len(), script.failure.len()), (1, 2));
        let Operation::Put(put) = &script.failure[1] else { panic!("a put") };
        assert_eq!(put.request().expect("a request").value, &b"some extra key"[..]);
    }

    #[test]
    fn headings_make_empty_lines_meaningless() {
        let text = "# a lock\ncompares:\n\nver(k)=0\nsuccess requests (get, put, del):\n\nget k --prefix\n\nfailure:\ndel 'a b'\n";
        let script = Script::parse(text).expect("a script");
        assert_eq!((script.compare.len(), script.success.len(), script.failure.len()), (1, 1, 1));
        // etcdctl's way to compare nothing.
        let script = Script::parse("\nput a b\n").expect("a script");
        assert_eq!((script.compare.len(), script.success.len()), (0, 1));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, why) in [
            ("mod(\"a\") ~ \"1\"", 1, "one of = != > <"),
            ("mod(\"a\") > \"x\"", 1, "a number"),
            ("age(\"a\") > \"1\"", 1, "not \"age\""),
            ("mod \"a\" > \"1\"", 1, "TARGET(\"KEY\")"),
            ("\nput a b\nput a", 3, "<VALUE>"),
            ("\nput a -", 2, "in its line or in a file"),
            ("\nget a --nonsense", 2, "--nonsense"),
            ("\nwatch a", 2, "watch"),
            ("\n\n\nput a b", 4, "nothing may follow"),
        ] {
            let error = Script::parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.why.contains(why), "{text:?}: {error}");
        }
    }
}
