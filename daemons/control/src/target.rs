//! Where a peer is: a name or an address, and a port.

use std::{fmt, net::SocketAddr, str::FromStr};

/// `HOST:PORT`, or `NAME=HOST:PORT` where the peer's certificate has another name than the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// What the certificate must say, where it is not the host.
    pub name: Option<String>,
    /// A DNS name or an address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not HOST:PORT or NAME=HOST:PORT; IPv6 addresses are in brackets")]
pub struct TargetError {
    /// The text.
    pub text: String,
}

impl Target {
    /// Longest text in bytes.
    pub const LEN_MAX: usize = 600;

    /// What the peer's certificate has to say.
    pub fn server_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.host)
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { name: None, host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parsed = || {
            let (name, place) = match text.split_once('=') {
                Some((name, place)) => (Some(name.to_owned()).filter(|name| !name.is_empty())?.into(), place),
                None => (None, text),
            };
            let (host, port) = place.rsplit_once(':')?;
            let host = match host.strip_prefix('[') {
                Some(bracketed) => bracketed.strip_suffix(']').filter(|host| host.contains(':'))?,
                None => Some(host).filter(|host| !host.contains([':', ']']))?,
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
            let fine = !host.is_empty() && host.chars().all(fits) && text.len() <= Self::LEN_MAX;
            let port = port.parse().ok().filter(|port| *port > 0)?;
            fine.then(|| Self { name, host: host.to_owned(), port })
        };
        parsed().ok_or_else(|| TargetError { text: text.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_printed_as_they_are_read() {
        for text in ["h:1", "10.0.0.1:8888", "[::1]:8888", "b=h.example:1", "b=[fe80::1%eth0]:2"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("b=h:1".parse::<Target>().unwrap().server_name(), "b");
        assert_eq!("h:1".parse::<Target>().unwrap().server_name(), "h");
        for text in ["", "h", "h:", ":1", "h:0", "h:65536", "=h:1", "::1:8", "[h]:1", "h/x:1", "[::1]8"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
