//! Why one entry, or the whole transfer, failed: in a form that travels to the peer (T3.6).

use std::fmt;

use crate::{
    DecodeError, RelPath,
    codec::{Put, Reader},
};

/// Longest name of a system call or similar in a [`Failure`].
const CALL_BYTES_MAX: usize = 64;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Families of failures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FailureKind {
            $($(#[$doc])* $name = $value,)*
        }

        impl FailureKind {
            fn decode(value: u8) -> Result<Self, DecodeError> {
                match value {
                    $($value => Ok(Self::$name),)*
                    _ => Err(DecodeError::Unknown { what: "failure kind", value: value.into() }),
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// The destination exists and may not be replaced.
    Exists = 1, "exists already and overwriting is not allowed";
    /// The path leads out of the folder or through a symbolic link.
    Escapes = 2, "path leads through a symbolic link or out of the destination folder";
    /// A directory is where a file should be, or the other way round.
    WrongType = 3, "another type of file is in the way";
    /// A system call failed at the receiver.
    Io = 4, "input/output error at the receiver";
    /// A system call failed at the sender.
    SourceIo = 5, "input/output error at the source";
    /// The source changed while it was read.
    SourceChanged = 6, "source changed while it was read";
    /// Content does not match its hash.
    Integrity = 7, "content does not match its BLAKE3 hash";
    /// The destination takes no such entry.
    Unsupported = 8, "the destination does not take such an entry";
    /// Another transfer writes the same file.
    Busy = 9, "another transfer is writing this file";
    /// A bound would be exceeded.
    Limit = 10, "a limit is exceeded";
    /// The file that this is a hard link to was not transferred.
    LinkTarget = 11, "the file it is a hard link of was not transferred";
    /// A rule of the transfer protocol was broken.
    Protocol = 12, "transfer protocol broken";
    /// A newer run of the same transfer has taken over.
    Superseded = 13, "a newer run of the same transfer took over";
    /// The peer speaks another version of the transfer protocol.
    Version = 14, "transfer protocol version not supported";
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Family.
    pub kind: FailureKind,
    /// Error number of the system call, or 0.
    pub errno: i32,
    /// The system call, or a detail in words; at most 64 bytes.
    pub call: String,
}

/// A failure of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFailure {
    /// Which path, as named in the transfer.
    pub path: RelPath,
    /// Why.
    pub failure: Failure,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: &str) -> Self {
        let mut call = detail.to_owned();
        call.truncate(call.floor_char_boundary(CALL_BYTES_MAX));
        Self { kind, errno: 0, call }
    }

    /// A system call failed; some error numbers have a meaning of their own.
    pub(crate) fn from_errno(call: &'static str, errno: rustix::io::Errno) -> Self {
        use rustix::io::Errno;
        let kind = match errno {
            Errno::LOOP | Errno::XDEV => FailureKind::Escapes,
            Errno::EXIST => FailureKind::Exists,
            Errno::ISDIR | Errno::NOTDIR => FailureKind::WrongType,
            _ => FailureKind::Io,
        };
        Self { kind, errno: errno.raw_os_error(), call: call.into() }
    }

    pub(crate) fn at_receiver(call: &'static str, error: &std::io::Error) -> Self {
        Self { kind: FailureKind::Io, errno: error.raw_os_error().unwrap_or(0), call: call.into() }
    }

    pub(crate) fn at_source(call: &'static str, error: &std::io::Error) -> Self {
        Self { kind: FailureKind::SourceIo, errno: error.raw_os_error().unwrap_or(0), call: call.into() }
    }

    /// Whether going on with other files of this transfer is pointless: the destination is full, read-only or
    /// broken.
    pub(crate) fn is_fatal(&self) -> bool {
        use rustix::io::Errno;
        let fatal = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO];
        self.kind == FailureKind::Io && fatal.iter().any(|errno| errno.raw_os_error() == self.errno)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind as u8);
        out.put_u32(self.errno.cast_unsigned());
        out.put_blob(self.call.as_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = FailureKind::decode(reader.u8()?)?;
        let errno = reader.u32()?.cast_signed();
        let call = reader.blob("failure text", CALL_BYTES_MAX)?;
        // Made printable, and so perhaps longer: cut to the bound again.
        let call: String = String::from_utf8_lossy(call).chars().filter(|c| !c.is_control()).collect();
        Ok(Self { errno, ..Self::new(kind, &call) })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        match (self.call.as_str(), self.errno) {
            ("", _) => Ok(()),
            (call, 0) => write!(f, " ({call})"),
            (call, errno) => write!(f, " ({call}: {})", std::io::Error::from_raw_os_error(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_6_failures_come_back_and_kinds_are_those_of_the_specification() {
        let specification = include_str!("../../../docs/spec/transfer-1.md");
        let clause = specification.split("**T3.6**").nth(1).unwrap().split("- **T").next().unwrap();
        let kinds = clause.split("Kinds:").nth(1).unwrap().trim().trim_end_matches('.');
        let mut count = 0;
        for (number, kind) in (1u8..).zip(kinds.split(',')) {
            let mut words = kind.split_whitespace();
            assert_eq!(words.next(), Some(&*number.to_string()));
            let name: String = words.collect::<String>().replace(['/', ' '], "").to_lowercase();
            let kind = FailureKind::decode(number).unwrap();
            let ours = match kind {
                FailureKind::Io => "receiverio".into(),
                _ => format!("{kind:?}").to_lowercase(),
            };
            assert_eq!(name, ours);
            let failure = Failure { kind, errno: -5, call: "renameat2".into() };
            let mut bytes = Vec::new();
            failure.encode(&mut bytes);
            assert_eq!(bytes[..5], [number, 0xfb, 0xff, 0xff, 0xff]);
            assert_eq!(Failure::decode(&mut Reader::new(&bytes)), Ok(failure));
            count = number;
        }
        for unknown in [0, count + 1, u8::MAX] {
            assert!(FailureKind::decode(unknown).is_err());
        }
    }

    #[test]
    fn t3_6_texts_are_bounded() {
        let long = Failure::new(FailureKind::SourceChanged, &"ü".repeat(100));
        assert_eq!(long.call, "ü".repeat(32));
        let mut bytes = vec![1, 0, 0, 0, 0];
        bytes.put_blob(&[b'x'; CALL_BYTES_MAX + 1]);
        assert!(Failure::decode(&mut Reader::new(&bytes)).is_err());
    }
}
