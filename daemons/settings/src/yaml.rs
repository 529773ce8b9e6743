//! A YAML file as a flat list of settings with their lines.
//!
//! Understood are mappings of sections, scalars, and sequences of scalars. Anchors, tags and more than one document
//! are refused: a settings file needs none of them.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Sections inside each other; the schema has three.
const DEPTH_MAX: usize = 8;

/// One value of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Full name, sections separated by dots.
    pub(crate) key: String,
    /// As it stands there; `None` for nothing, `null` or `~`. Items of a sequence are joined by commas.
    pub(crate) value: Option<String>,
    pub(crate) is_list: bool,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// Every value in the text, in its order.
pub(crate) fn entries(text: &str) -> Result<Vec<Entry>, Mistake> {
    let mut reader = Reader { parser: Parser::new_from_str(text), entries: Vec::new() };
    let mut documents = 0;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(reader.entries),
            Event::DocumentStart(_) if documents > 0 => return mistake(line, "a second document"),
            Event::DocumentStart(_) => documents += 1,
            Event::MappingStart(..) => reader.mapping("", 1)?,
            // An empty document.
            Event::Scalar(value, ScalarStyle::Plain, ..) if is_null(&value) => {}
            Event::Scalar(..) | Event::SequenceStart(..) => {
                return mistake(line, "expected `setting: value`");
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    entries: Vec<Entry>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Mistake> {
        let Some(next) = self.parser.next() else { return mistake(0, "the file ends too early") };
        let (event, span): (_, Span) =
            next.map_err(|e| Mistake { line: e.marker().line(), reason: e.info().to_owned() })?;
        let line = span.start.line();
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(_) => (1, false),
            _ => (0, false),
        };
        if anchor != 0 || tag {
            return mistake(line, "anchors, aliases and tags are not understood here");
        }
        Ok((event, line))
    }

    fn mapping(&mut self, section: &str, depth: usize) -> Result<(), Mistake> {
        loop {
            let (event, line) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(()),
                Event::Scalar(key, ..) if section.is_empty() => key.into_owned(),
                Event::Scalar(key, ..) => format!("{section}.{key}"),
                _ => return mistake(line, "expected the name of a setting"),
            };
            match self.next()?.0 {
                Event::MappingStart(..) if depth == DEPTH_MAX => return mistake(line, "nested too deeply"),
                Event::MappingStart(..) => self.mapping(&key, depth + 1)?,
                Event::SequenceStart(..) => {
                    let items = self.sequence()?;
                    self.entries.push(Entry { key, value: Some(items.join(",")), is_list: true, line });
                }
                Event::Scalar(value, style, ..) => {
                    let null = style == ScalarStyle::Plain && is_null(&value);
                    let value = (!null).then(|| value.into_owned());
                    self.entries.push(Entry { key, value, is_list: false, line });
                }
                _ => return mistake(line, "expected a value"),
            }
        }
    }

    fn sequence(&mut self) -> Result<Vec<String>, Mistake> {
        let mut items = Vec::new();
        loop {
            let (event, line) = self.next()?;
            match event {
                Event::SequenceEnd => return Ok(items),
                Event::Scalar(item, ..) if item.contains(',') => {
                    return mistake(line, "an item may not contain a comma");
                }
                Event::Scalar(item, ..) => items.push(item.into_owned()),
                _ => return mistake(line, "expected a list of plain values"),
            }
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null")
}

fn mistake<T>(line: usize, reason: &str) -> Result<T, Mistake> {
    Err(Mistake { line, reason: reason.to_owned() })
}
