//! Where a socket is: `unix:PATH` or `tcp:HOST:PORT`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Longest address in bytes, as text.
pub(crate) const ADDRESS_BYTES_MAX: usize = 512;

/// A socket to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
    /// Host, an IPv6 address in brackets, and port.
    Tcp(String),
}

/// What an address has to look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address: expected unix:/PATH or tcp:HOST:PORT")]
pub struct AddressError {
    text: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError { text: text.chars().take(ADDRESS_BYTES_MAX).collect() };
        if text.len() > ADDRESS_BYTES_MAX || text.contains('\0') {
            return Err(error());
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = path.starts_with('/') && !path.ends_with('/');
            return if is_path { Ok(Self::Unix(path.into())) } else { Err(error()) };
        }
        let address = text.strip_prefix("tcp:").ok_or_else(error)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(error)?;
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        match port.parse::<u16>() {
            Ok(_) if !host.is_empty() && bare => Ok(Self::Tcp(address.to_owned())),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_there_are() {
        for good in
            ["unix:/run/a.sock", "unix:/a b:c", "tcp:localhost:5432", "tcp:[::1]:80", "tcp:10.0.0.1:0"]
        {
            assert_eq!(good.parse::<Address>().map(|address| address.to_string()), Ok(good.to_owned()));
        }
        let long = format!("unix:/{}", "x".repeat(ADDRESS_BYTES_MAX));
        for bad in [
            "",
            "unix:",
            "unix:a",
            "unix:/a/",
            "tcp:",
            "tcp:x",
            "tcp:x:y",
            "tcp::1",
            "tcp:::1:5",
            "udp:x:5",
            &long,
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
