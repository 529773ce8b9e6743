//! The guard of a build that has no program to load: it cannot be made, and says why.

use std::{convert::Infallible, io, net::IpAddr, os::fd::BorrowedFd, path::Path, time::Duration};

use crate::{Config, Error, Event, Mode, Peer, Present, Totals};

const REASON: &str = if cfg!(feature = "xdp") {
    "built without clang; install it (Debian package clang) and build again"
} else {
    "built without the feature `xdp` of dwcp-ebpf, which needs clang, libelf and zlib (Debian packages clang, libelf-dev, \
     zlib1g-dev)"
};

const UNAVAILABLE: Error = Error::Unavailable { reason: REASON };

/// Fails: it says why programs cannot be loaded.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn support() -> Result<(), Error> {
    Err(UNAVAILABLE)
}

/// Fails: nobody knows which program an interface has.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn present(_interface: &str, _root: &Path) -> Result<Option<Present>, Error> {
    Err(UNAVAILABLE)
}

/// None.
pub fn pinned(_root: &Path) -> Vec<String> {
    Vec::new()
}

/// Fails.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn take_away(_root: &Path, _interface: &str) -> Result<(), Error> {
    Err(UNAVAILABLE)
}

/// A guard of one interface: there is none in this build.
#[derive(Debug)]
pub struct Guard(Infallible);

#[allow(missing_docs, reason = "as in guard.rs")]
impl Guard {
    /// Fails.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or that of a bad setting.
    pub fn attach(_interface: &str, config: &Config) -> Result<Self, Error> {
        config.check()?;
        Err(UNAVAILABLE)
    }

    pub fn detach(self) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn is_attached(&self) -> Result<bool, Error> {
        match self.0 {}
    }

    pub fn mode(&self) -> Mode {
        match self.0 {}
    }

    pub fn native_refused(&self) -> Option<&io::Error> {
        match self.0 {}
    }

    pub fn totals(&self) -> Result<Totals, Error> {
        match self.0 {}
    }

    pub fn peer(&self, _address: IpAddr) -> Result<Option<Peer>, Error> {
        match self.0 {}
    }

    pub fn poll_events(&self, _timeout: Duration, _take: impl FnMut(Event)) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn add_flow(&self, _flow: u64) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn remove_flow(&self, _flow: u64) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn clear_flows(&self) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn set_addresses(&self, _addresses: &[IpAddr]) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn set_socket(&self, _queue: u32, _socket: BorrowedFd<'_>) -> Result<(), Error> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_build_without_a_program_says_what_is_missing() {
        let nowhere = Path::new("/sys/fs/bpf/there-is-no-such-folder");
        let config = Config::default();
        let refused = [
            support().err(),
            present("lo", nowhere).err(),
            take_away(nowhere, "lo").err(),
            Guard::attach("lo", &config).err(),
        ];
        for error in refused {
            let said = error.expect("there is no program").to_string();
            assert!(said.contains("clang") && said.contains("built without"), "{said}");
        }
        assert!(pinned(nowhere).is_empty());
    }

    #[test]
    fn a_bad_setting_is_told_before_what_is_missing() {
        let config = Config { ports: Vec::new(), ..Config::default() };
        let error = Guard::attach("lo", &config).expect_err("there is no port to guard");
        assert!(!matches!(error, Error::Unavailable { .. }), "{error}");
    }
}
