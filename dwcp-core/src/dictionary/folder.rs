//! A folder of dictionaries: `CLASS-VERSION-HASH.dict`. A name says the first bytes of its content's hash, so that one that is
//! damaged, or half copied, is noticed and left out: without it payloads are a little longer, and no more.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use dwcp_proto::hello::DICTIONARIES_MAX;

use super::{DICTIONARY_BYTES_MAX, Dictionary};

/// Bytes of the hash in a name.
const HASH_BYTES: usize = 8;
const CLASS_BYTES_MAX: usize = 32;
/// Versions of a class that are kept: a peer may not have the newest yet.
const VERSIONS_KEPT: usize = 3;
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 1024;

/// Where dictionaries are kept.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// What a folder has.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Found {
    /// Those that can be used, the newest of each class first; as many as a handshake may name.
    pub dictionaries: Vec<(Name, Arc<Dictionary>)>,
    /// Files that cannot, and why.
    pub left_out: Vec<(PathBuf, String)>,
}

/// A folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct FolderError {
    /// What was to be done.
    pub what: &'static str,
    /// With which file or folder.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

impl FolderError {
    fn of<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self { what, path: path.to_owned(), source }
    }
}

/// What a dictionary is called: what its data is, and which of its class it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Name {
    /// What its data is: 1..=32 of a-z, 0-9 and `_`.
    pub class: String,
    /// Later ones of a class are higher.
    pub version: u32,
    hash: [u8; HASH_BYTES],
}

/// A name that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The class.
    #[error("a class of dictionaries has 1 to {CLASS_BYTES_MAX} of a-z, 0-9 and _")]
    Class,
    /// The whole.
    #[error(
        "a dictionary's file is called CLASS-VERSION-HASH.dict, the first {HASH_BYTES} bytes of its BLAKE3 in hexadecimal"
    )]
    Form,
}

impl Name {
    fn new(class: &str, version: u32, dictionary: &Dictionary) -> Result<Self, NameError> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=CLASS_BYTES_MAX).contains(&class.len()) || !class.bytes().all(known) {
            return Err(NameError::Class);
        }
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(&dictionary.hash()[..HASH_BYTES]);
        Ok(Self { class: class.to_owned(), version, hash })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, version, hash } = self;
        write!(f, "{class}-{version}-{:016x}.dict", u64::from_be_bytes(*hash))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let mut parts = name.strip_suffix(".dict").ok_or(NameError::Form)?.splitn(3, '-');
        let (Some(class), Some(version), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NameError::Form);
        };
        let version = version.parse().map_err(|_| NameError::Form)?;
        let hash = u64::from_str_radix(hash, 16).map_err(|_| NameError::Form)?;
        let parsed = Self { class: class.to_owned(), version, hash: hash.to_be_bytes() };
        // Whatever else the parts may be written as is not their name.
        (parsed.to_string() == name).then_some(parsed).ok_or(NameError::Form)
    }
}

impl Folder {
    /// A folder, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// The folder cannot be read. A file that is no dictionary is left out, and said.
    pub fn load(&self) -> Result<Found, FolderError> {
        let mut found = Found::default();
        let mut classes: BTreeMap<String, Vec<(Name, Arc<Dictionary>)>> = BTreeMap::new();
        for path in self.files()? {
            match read(&path) {
                Ok((name, dictionary)) => {
                    classes.entry(name.class.clone()).or_default().push((name, Arc::new(dictionary)));
                }
                Err(why) => found.left_out.push((path, why)),
            }
        }
        let mut ranked = Vec::new();
        for of_class in classes.into_values() {
            let mut of_class = of_class;
            of_class.sort_by_key(|(name, _)| Reverse(name.version));
            ranked.extend(of_class.into_iter().enumerate());
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        for (_, (name, dictionary)) in ranked {
            let why = if found.dictionaries.iter().any(|(_, other)| other.id() == dictionary.id()) {
                "another one has its id".to_owned()
            } else if found.dictionaries.len() == DICTIONARIES_MAX {
                format!("a handshake names {DICTIONARIES_MAX}, and there are that many newer ones")
            } else {
                found.dictionaries.push((name, dictionary));
                continue;
            };
            found.left_out.push((self.0.join(name.to_string()), why));
        }
        Ok(found)
    }

    /// Keeps a dictionary as the newest of its class, whole or not at all; the oldest of the class goes.
    ///
    /// # Errors
    /// The class has no such name, or the folder cannot be written.
    pub fn add(&self, class: &str, dictionary: &Dictionary) -> Result<Name, AddError> {
        let here = &self.0;
        Name::new(class, 0, dictionary)?;
        fs::create_dir_all(here).map_err(FolderError::of("cannot make", here))?;
        let mut names: Vec<(PathBuf, Name)> = self
            .files()?
            .into_iter()
            .filter_map(|path| Some((name_of(&path).ok()?, path)).map(|(name, path)| (path, name)))
            .filter(|(_, name)| name.class == class)
            .collect();
        names.sort_by_key(|(_, name)| Reverse(name.version));
        let version = names.first().map_or(1, |(_, newest)| newest.version.saturating_add(1));
        let name = Name::new(class, version, dictionary)?;
        let path = here.join(name.to_string());
        let growing = here.join(format!(".{name}.{}", std::process::id()));
        let written = (|| {
            let mut file = fs::File::create(&growing)?;
            file.write_all(dictionary.bytes())?;
            file.sync_all()?;
            fs::rename(&growing, &path)?;
            fs::File::open(here)?.sync_all()
        })();
        if let Err(source) = written {
            let _ = fs::remove_file(&growing);
            return Err(FolderError { what: "cannot write", path, source }.into());
        }
        for (old, _) in names.iter().skip(VERSIONS_KEPT - 1) {
            fs::remove_file(old).map_err(FolderError::of("cannot remove", old))?;
        }
        Ok(name)
    }

    fn files(&self) -> Result<Vec<PathBuf>, FolderError> {
        let failed = || FolderError::of("cannot read the folder of dictionaries", &self.0);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed())?.take(ENTRIES_MAX) {
            let path = entry.map_err(failed())?.path();
            // Others keep files here as well: what Kubernetes mounts has links that begin with dots.
            if path.extension().is_some_and(|extension| extension == "dict")
                && !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
            {
                files.push(path);
            }
        }
        Ok(files)
    }
}

/// A dictionary was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Its class has no such name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The folder cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

fn name_of(path: &Path) -> Result<Name, NameError> {
    path.file_name().and_then(|name| name.to_str()).ok_or(NameError::Form)?.parse()
}

fn read(path: &Path) -> Result<(Name, Dictionary), String> {
    let name = name_of(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(DICTIONARY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let dictionary = Dictionary::new(bytes).map_err(|error| error.to_string())?;
    if dictionary.hash()[..HASH_BYTES] != name.hash {
        return Err("its content is not what its name says: it is damaged, or was renamed".to_owned());
    }
    Ok((name, dictionary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::train;

    fn dictionary(seed: u32) -> Dictionary {
        let samples: Vec<_> = (0..400_u32)
            .map(|n| {
                format!("seed {seed}: request {} of tenant {} took {} us", n * 31 % 97, n % 7, n * n)
                    .into_bytes()
            })
            .collect();
        train(&samples, 4 << 10).unwrap().dictionary
    }

    #[test]
    fn versions_rise_and_the_oldest_go() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().join("new"));
        for seed in 0..5 {
            let name = folder.add("json", &dictionary(seed)).unwrap();
            assert_eq!(name.version, seed + 1);
        }
        folder.add("log", &dictionary(9)).unwrap();
        let found = folder.load().unwrap();
        assert!(found.left_out.is_empty(), "{found:?}");
        let names: Vec<_> =
            found.dictionaries.iter().map(|(name, _)| (name.class.as_str(), name.version)).collect();
        assert_eq!(names, [("json", 5), ("log", 1), ("json", 4), ("json", 3)]);
    }

    #[test]
    fn what_is_damaged_or_foreign_is_left_out_and_said() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path());
        let name = folder.add("json", &dictionary(1)).unwrap();
        let good = folder.add("json", &dictionary(2)).unwrap();
        let path = place.path().join(name.to_string());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::write(place.path().join("notes.txt"), "notes").unwrap();
        fs::write(place.path().join("mine.dict"), "text").unwrap();
        fs::write(place.path().join(".json-1-00.dict"), "half").unwrap();
        let found = folder.load().unwrap();
        assert_eq!(found.dictionaries.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&good]);
        let mut why: Vec<_> = found.left_out.iter().map(|(_, why)| why.as_str()).collect();
        why.sort_unstable();
        assert_eq!(why.len(), 2, "{found:?}");
        assert!(why[0].contains("CLASS-VERSION-HASH") && why[1].contains("damaged"), "{why:?}");
    }

    #[test]
    fn names_are_checked() {
        let place = tempfile::tempdir().unwrap();
        for class in ["", "Json", "a-b", "../x", &"x".repeat(33)] {
            let error = Folder::new(place.path()).add(class, &dictionary(1)).unwrap_err();
            assert!(matches!(error, AddError::Name(NameError::Class)), "{class}: {error}");
        }
        for name in [
            "a-1-0.dict",
            "a-01-0000000000000000.dict",
            "a-1-000000000000000G.dict",
            "a.dict",
            "a-1-0000000000000000",
        ] {
            assert_eq!(name.parse::<Name>(), Err(NameError::Form), "{name}");
        }
        let missing = Folder::new(place.path().join("none")).load().unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("No such file"), "{missing}");
    }
}
