//! What goes to standard output: ids, keys and values as text and as JSON, and tables.
//!
//! Ids are hexadecimal in both forms. Bytes are text where they are text: else they are escaped for people, and base64 in
//! an object of its own for programs. Deliberately not here: which fields an answer has.

use std::{
    fmt,
    io::{self, Write as _},
    str::FromStr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use novacron_store::printable;
use serde_json::{Value, json};

/// A member, a cluster or a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u64);

impl Id {
    /// Leases are signed on the wire.
    pub(crate) fn of_lease(id: i64) -> Self {
        Self(id as u64)
    }

    pub(crate) fn lease(self) -> i64 {
        self.0 as i64
    }

    pub(crate) fn json(self) -> Value {
        self.to_string().into()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16).map(Self).map_err(|_| "expected an id of hexadecimal digits")
    }
}

/// A key or a value, for people: as it is if it is text, else with what is not printable as `\xNN`.
pub(crate) struct Printed<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_text = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
        match str::from_utf8(self.0) {
            Ok(text) if is_text(text) => f.write_str(text),
            _ => self.0.escape_ascii().fmt(f),
        }
    }
}

/// A key or a value, for programs: a string if it is UTF-8, else `{"base64": "..."}`.
pub(crate) fn json_bytes(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Rows below a header, in columns that are as wide as they have to be.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.rows[0].len(), "a row has as many cells as the header");
        // An empty cell would make the columns after it seem to be before it.
        let shown = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(&cell) });
        self.rows.push(shown.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = 0..self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = columns.map(width).collect();
        for (n, row) in self.rows.iter().enumerate() {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let line = cells.join("  ");
            write!(f, "{}{}", if n == 0 { "" } else { "\n" }, line.trim_end())?;
        }
        Ok(())
    }
}

/// Prints a line, or several.
pub(crate) fn print(what: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{what}")
}

/// Prints bytes as they are, and a line's end.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_said_to_be_none() {
        for (bytes, printed, json) in [
            (&b"a\tb\n"[..], "a\tb\n", json!("a\tb\n")),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n", json!("gr\u{fc}n")),
            (b"\x1b[2J", r"\x1b[2J", json!("\u{1b}[2J")),
            (b"\xff\0", r"\xff\x00", json!({ "base64": "/wA=" })),
        ] {
            assert_eq!(Printed(bytes).to_string(), printed);
            assert_eq!(json_bytes(bytes), json);
        }
    }

    #[test]
    fn ids_are_read_as_they_are_printed_and_as_etcdctl_prints_them() {
        assert_eq!("1a".parse(), Ok(Id(26)));
        assert_eq!("0x1a".parse(), Ok(Id(26)));
        assert_eq!(Id(26).to_string(), "000000000000001a");
        assert_eq!(Id::of_lease(-1).to_string().parse::<Id>().map(Id::lease), Ok(-1));
        assert!("lease".parse::<Id>().is_err());
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let mut table = Table::new(["NAME", "ID"]);
        table.row(["long name".into(), String::new()]);
        table.row(["b\x1b".into(), "7".into()]);
        assert_eq!(table.to_string(), "NAME       ID\nlong name  -\nb?         7");
    }
}
