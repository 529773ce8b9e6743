//! Close codes: why a connection ends, in a number that both sides understand.

use std::fmt;

/// Why a connection was closed or refused. Codes from 0x1000 belong to the application.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl CloseCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Nothing is wrong.
    NONE = 0x00, "no error";
    /// A rule of the protocol was broken.
    PROTOCOL_ERROR = 0x01, "protocol error";
    /// The other major version is not spoken here.
    VERSION_UNSUPPORTED = 0x02, "protocol version not supported";
    /// A header or payload checksum does not match.
    CHECKSUM_MISMATCH = 0x03, "checksum mismatch";
    /// A frame is larger than negotiated.
    FRAME_TOO_LARGE = 0x04, "frame too large";
    /// A mandatory frame type is not known here.
    UNKNOWN_FRAME = 0x05, "unknown mandatory frame";
    /// More was sent than credit allowed.
    CREDIT_EXCEEDED = 0x06, "credit exceeded";
    /// A bound other than credit was exceeded.
    LIMIT_EXCEEDED = 0x07, "limit exceeded";
    /// The certificate's names are not allowed here.
    NOT_ALLOWED = 0x08, "peer not allowed";
    /// A link wants to join a connection that is not known here (any more).
    UNKNOWN_CONNECTION = 0x09, "unknown connection";
    /// This side has as many connections or links as it takes.
    BUSY = 0x0a, "too many connections or links";
    /// This side is shutting down.
    SHUTTING_DOWN = 0x0b, "shutting down";
    /// Nothing was heard for the idle timeout.
    IDLE = 0x0c, "idle timeout";
    /// A failure inside this side.
    INTERNAL = 0x0d, "internal error";
}

impl CloseCode {
    /// First code that belongs to the application.
    pub const APPLICATION: u32 = 0x1000;
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None if self.0 >= Self::APPLICATION => {
                write!(f, "application code {}", self.0 - Self::APPLICATION)
            }
            None => write!(f, "code 0x{:x}", self.0),
        }
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode(0x{:x}: {self})", self.0)
    }
}
