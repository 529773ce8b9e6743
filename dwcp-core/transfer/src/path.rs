//! Relative paths as bytes: the only form in which a path travels (T2.1).

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::Path};

use crate::limits::{DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};

/// Name of the folder in which a receiver keeps unfinished files; no entry may carry it.
pub(crate) const PARTIAL_AREA: &str = ".novacron-partial";

/// Why a path is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No bytes at all.
    #[error("empty path")]
    Empty,
    /// Too many bytes.
    #[error("path of {0} bytes is longer than {PATH_BYTES_MAX}")]
    TooLong(usize),
    /// Too many components.
    #[error("path is deeper than {DEPTH_MAX}")]
    TooDeep,
    /// An empty component: a leading, trailing or doubled slash.
    #[error("path has an empty component or is absolute")]
    EmptyComponent,
    /// A component longer than a file name can be.
    #[error("path component of {0} bytes is longer than {NAME_BYTES_MAX}")]
    ComponentTooLong(usize),
    /// `.` or `..`, or the receiver's own partial area.
    #[error("path component {0:?} is not allowed")]
    Forbidden(String),
    /// A NUL byte.
    #[error("path has a NUL byte")]
    Nul,
}

/// A path below the receiver's folder: 1..=128 components of 1..=255 bytes, none of them `.`, `..` or the
/// partial area, joined by `/`, without NUL, at most 4096 bytes. Not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Checks `bytes`.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        for (depth, component) in bytes.split(|&byte| byte == b'/').enumerate() {
            if depth >= DEPTH_MAX {
                return Err(PathError::TooDeep);
            }
            check_component(component)?;
        }
        Ok(Self(bytes))
    }

    /// This path with one more component.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }

    /// All but the last component, and the last.
    pub fn split(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (Some(&self.0[..slash]), &self.0[slash + 1..]),
            None => (None, &self.0),
        }
    }

    /// The path that holds this one, if it is below the root.
    pub fn parent(&self) -> Option<Self> {
        self.split().0.map(|parent| Self(parent.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path of the operating system.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

fn check_component(component: &[u8]) -> Result<(), PathError> {
    if component.is_empty() {
        return Err(PathError::EmptyComponent);
    }
    if component.len() > NAME_BYTES_MAX {
        return Err(PathError::ComponentTooLong(component.len()));
    }
    if component == b"." || component == b".." || component == PARTIAL_AREA.as_bytes() {
        return Err(PathError::Forbidden(String::from_utf8_lossy(component).into_owned()));
    }
    Ok(())
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_for_terminal())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Printable UTF-8 stays as it is; control characters and other bytes are escaped, so that a name from a
/// peer cannot drive the terminal it is printed on.
trait EscapeForTerminal {
    fn escape_for_terminal(&self) -> String;
}

impl EscapeForTerminal for [u8] {
    fn escape_for_terminal(&self) -> String {
        let mut text = String::with_capacity(self.len());
        for chunk in self.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    text.extend(character.escape_default());
                } else {
                    text.push(character);
                }
            }
            for byte in chunk.invalid() {
                text.extend(std::ascii::escape_default(*byte).map(char::from));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_1_what_a_path_may_be() {
        let long_name = vec![b'n'; 256];
        let deep = vec!["d"; 129].join("/");
        let table: &[(&[u8], bool)] = &[
            (b"a", true),
            (b"a/b.txt", true),
            (b"\xff\xfe/caf\xc3\xa9", true),
            (b"...", true),
            (b"a/..b", true),
            (b"", false),
            (b"/etc/passwd", false),
            (b"a//b", false),
            (b"a/", false),
            (b"..", false),
            (b"a/../b", false),
            (b"./a", false),
            (b"a\0b", false),
            (b".novacron-partial/x", false),
            (b"a/.novacron-partial", false),
            (&long_name, false),
            (deep.as_bytes(), false),
            (&deep.as_bytes()[2..], true),
        ];
        for (bytes, allowed) in table {
            assert_eq!(RelPath::new(*bytes).is_ok(), *allowed, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn names_from_peers_are_printed_without_control_characters() {
        let path = RelPath::new(&b"a\x1b[2Jb\xff/\xc3\xa9"[..]).unwrap();
        assert_eq!(path.to_string(), "a\\u{1b}[2Jb\\xff/é");
    }
}
