//! Keys, and the file that keeps them.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use boringtun::x25519;
use serde::{Deserialize, Serialize};

use super::{Error, ParseError};
use crate::state::{self, StateError};

const KEY_BYTES: usize = 32;

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// A Curve25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub(super) [u8; KEY_BYTES]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseError;

    /// In Base64, as `wg` writes it.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        decode(text).map(Self).ok_or(ParseError { expected: "a key of 32 bytes in Base64" })
    }
}

/// A secret that two ends know beside their keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(pub(super) [u8; KEY_BYTES]);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

impl FromStr for PresharedKey {
    type Err = ParseError;

    /// In Base64, as `wg` writes it.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        decode(text).map(Self).ok_or(ParseError { expected: "a key of 32 bytes in Base64" })
    }
}

/// A Curve25519 private key. It is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrivateKey(pub(super) [u8; KEY_BYTES]);

impl PrivateKey {
    /// A new one, of the system's randomness.
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|source| Error::UserSpace {
            call: "getrandom",
            source: std::io::Error::other(source),
        })?;
        // As Curve25519 uses it, and so as the kernel gives it back.
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        Ok(Self(bytes))
    }

    /// What peers know it by.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    pub(super) fn secret(&self) -> x25519::StaticSecret {
        self.0.into()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public_key())
    }
}

impl TryFrom<String> for PrivateKey {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        decode(&text).map(Self).ok_or(ParseError { expected: "a key of 32 bytes in Base64" })
    }
}

impl From<PrivateKey> for String {
    fn from(key: PrivateKey) -> Self {
        BASE64_STANDARD.encode(key.0)
    }
}

/// This node's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    current: PrivateKey,
    next: Option<Next>,
}

/// The key that is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    key: PrivateKey,
    /// In seconds since 1970: when it becomes the current one.
    switch_at_s: u64,
}

/// This node's keys in a file that only its owner reads. Each change is on disk before it is told.
#[derive(Debug)]
pub struct KeyStore {
    path: PathBuf,
    keys: Keys,
}

impl KeyStore {
    /// Reads the file, or makes a key and writes it.
    ///
    /// # Errors
    ///
    /// If the file is damaged, can be read by others, or cannot be written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let keys = match state::read_secret(path)? {
            Some(content) => serde_json::from_slice(&content)
                // Not serde's words: they might quote a key.
                .map_err(|_| StateError::Damaged {
                    path: path.to_owned(),
                    detail: "no keys in it".to_owned(),
                })?,
            None => {
                let keys = Keys { current: PrivateKey::generate()?, next: None };
                write(path, &keys)?;
                keys
            }
        };
        Ok(Self { path: path.to_owned(), keys })
    }

    /// The key that the interface has to have.
    pub fn private_key(&self) -> &PrivateKey {
        &self.keys.current
    }

    /// What peers have to be told: the current key, and the next one if there is one. They are [`super::Peer::public_keys`].
    pub fn public_keys(&self) -> Vec<PublicKey> {
        let next = self.keys.next.as_ref().map(|next| next.key.public_key());
        [self.keys.current.public_key()].into_iter().chain(next).collect()
    }

    /// When the next key becomes the current one, if there is a next one.
    pub fn switch_at(&self) -> Option<SystemTime> {
        self.keys.next.as_ref().map(|next| SystemTime::UNIX_EPOCH + Duration::from_secs(next.switch_at_s))
    }

    /// Makes the next key, to be told to all peers well before this time. If there is one already, it stays, and so does
    /// its time: it may have been told.
    ///
    /// # Errors
    ///
    /// If the file cannot be written: then nothing has changed.
    pub fn announce(&mut self, switch_at: SystemTime) -> Result<PublicKey, Error> {
        if let Some(next) = &self.keys.next {
            return Ok(next.key.public_key());
        }
        let since = switch_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let key = PrivateKey::generate()?;
        let public_key = key.public_key();
        self.replace(Keys { next: Some(Next { key, switch_at_s: since.as_secs() }), ..self.keys.clone() })?;
        Ok(public_key)
    }

    /// Makes the next key the current one, if its time has come. Whether it has: then the interface has to be told
    /// ([`super::Interface::set_key`]), now or by the next start.
    ///
    /// # Errors
    ///
    /// If the file cannot be written: then nothing has changed.
    pub fn switch(&mut self, now: SystemTime) -> Result<bool, Error> {
        let Some(next) = self.keys.next.clone().filter(|_| self.switch_at().is_some_and(|at| at <= now))
        else {
            return Ok(false);
        };
        self.replace(Keys { current: next.key, next: None })?;
        Ok(true)
    }

    fn replace(&mut self, keys: Keys) -> Result<(), Error> {
        write(&self.path, &keys)?;
        self.keys = keys;
        Ok(())
    }
}

fn write(path: &Path, keys: &Keys) -> Result<(), StateError> {
    state::write(path, &serde_json::to_vec_pretty(keys).expect("strings and numbers"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn keys_are_those_of_the_standard() {
        let hex = |text: &str| -> [u8; 32] {
            std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        };
        // RFC 7748, section 6.1: Bob's.
        let private = PrivateKey(hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        let public = PublicKey(hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(private.public_key(), public);
        assert_eq!(public.to_string().parse(), Ok(public));
        assert!("c2hvcnQ=".parse::<PublicKey>().is_err());
        assert!(!format!("{private:?}").contains(&String::from(private.clone())), "secrets are not shown");
    }

    #[test]
    fn every_step_of_a_rotation_is_on_disk_before_it_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wireguard.json");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        // A store that is opened again is what a crash leaves.
        let open = || KeyStore::open(&path).expect("opened");
        let first = open().public_keys();
        assert_eq!(open().public_keys(), first, "the key that was made is kept");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        let next = open().announce(at).expect("announced");
        assert_eq!(open().public_keys(), [first[0], next]);
        assert_eq!(open().announce(at + Duration::from_secs(9)).expect("announced already"), next);
        assert_eq!(open().switch_at(), Some(at));

        assert!(!open().switch(at - Duration::from_secs(1)).expect("it is too early"));
        assert_eq!(open().private_key().public_key(), first[0]);
        assert!(open().switch(at).expect("it is time"));
        assert_eq!(open().public_keys(), [next]);
        assert!(!open().switch(at).expect("nothing to do"));
    }

    #[test]
    fn a_file_that_is_damaged_or_open_is_refused_without_telling_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wireguard.json");
        KeyStore::open(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(KeyStore::open(&path), Err(Error::State(StateError::Open { .. }))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&path, r#"{"current":"c2VjcmV0","next":null}"#).expect("written");
        let error = KeyStore::open(&path).expect_err("it is damaged").to_string();
        assert!(error.contains("damaged") && !error.contains("c2VjcmV0"), "{error}");
    }
}
