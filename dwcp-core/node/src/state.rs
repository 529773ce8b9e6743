//! Small files that outlive a crash: written whole or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Bytes of a state file. Ours have some hundred.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a state file cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file system refuses.
    #[error("{call} {path}: {source}")]
    File {
        /// What was tried.
        call: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{path} is damaged ({detail}): look at it, then remove it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// What is to be kept is longer than a state file may be.
    #[error("{path} would have {bytes} bytes, and may have {FILE_BYTES_MAX}")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The length of its content.
        bytes: usize,
    },
    /// Another process changes the node by this file.
    #[error(
        "another process keeps {path}, and what it has set stays (it holds a lock on {path}.lock): stop it, or name another file"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A file of secrets can be read by others.
    #[error(
        "{path} can be read by others (mode {mode:o}): `chmod 600` it if nobody has, or remove it for a new key"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// The right to change the node by a state file, and to put back what it says: one process has it at a time, until this is
/// dropped or the process ends. The lock is on a file beside it, since the file itself is replaced as a whole.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it, at once or not at all.
    ///
    /// # Errors
    ///
    /// [`StateError::InUse`] if another process has it; or if the file system refuses.
    pub fn take(path: &Path) -> Result<Self, StateError> {
        let folder = folder(path);
        fs::create_dir_all(folder).map_err(StateError::at("mkdir", folder))?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let beside = Path::new(&beside);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(beside);
        let file = file.map_err(StateError::at("open", beside))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StateError::at("flock", beside)(error)),
        }
    }

    /// Takes it if it is `wanted`, or if there is something to put back: whoever changes nothing needs no folder for it.
    ///
    /// # Errors
    ///
    /// Those of [`Lock::take`].
    pub fn take_if(wanted: bool, path: &Path) -> Result<Option<Self>, StateError> {
        match wanted || path.try_exists().map_err(StateError::at("stat", path))? {
            true => Self::take(path).map(Some),
            false => Ok(None),
        }
    }
}

impl StateError {
    fn at(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { call, path, source }
    }
}

/// The kernel's name for this start of the machine. Empty where `/proc` does not say: then a record is believed.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Replaces a file by another content, for its owner only. After a crash there is the old content or the new one.
///
/// # Errors
///
/// If the file system refuses, or if [`read`] would: then there is the old content.
pub fn write(path: &Path, content: &[u8]) -> Result<(), StateError> {
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(StateError::TooLong { path: path.to_owned(), bytes: content.len() });
    }
    let folder = folder(path);
    fs::create_dir_all(folder).map_err(StateError::at("mkdir", folder))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    // One that a crash left may have any mode.
    remove_if_there(temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(StateError::at("open", temporary))?;
    file.write_all(content).map_err(StateError::at("write", temporary))?;
    file.sync_all().map_err(StateError::at("fsync", temporary))?;
    fs::rename(temporary, path).map_err(StateError::at("rename", temporary))?;
    sync(folder)
}

/// The content, if there is such a file.
///
/// # Errors
///
/// If it cannot be read, or is longer than a state file is.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(StateError::at("open", path))?,
    };
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(StateError::at("read", path))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(StateError::Damaged { path: path.to_owned(), detail: "it is too long".to_owned() });
    }
    Ok(Some(content))
}

/// As [`read`], for secrets: refuses a file that others than its owner may read or write.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let Some(content) = read(path)? else { return Ok(None) };
    let mode = fs::metadata(path).map_err(StateError::at("stat", path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StateError::Open { path: path.to_owned(), mode });
    }
    Ok(Some(content))
}

/// Removes a file, for good also after a crash.
pub(crate) fn remove(path: &Path) -> Result<(), StateError> {
    if remove_if_there(path)? { sync(folder(path)) } else { Ok(()) }
}

fn remove_if_there(path: &Path) -> Result<bool, StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true).map_err(StateError::at("unlink", path)),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> Result<(), StateError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StateError::at("fsync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_only_for_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/dwcp/state.json");
        assert_eq!(read(&path).expect("no file is fine"), None);
        write(&path, b"one").expect("written");
        // As a crash in the middle of writing leaves it.
        fs::write(folder.path().join("run/dwcp/state.json.new"), b"half").expect("written");
        write(&path, b"two").expect("written again");
        assert_eq!(read_secret(&path).expect("read"), Some(b"two".to_vec()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(read_secret(&path), Err(StateError::Open { mode: 0o640, .. })));
        remove(&path).expect("removed");
        remove(&path).expect("removed already");
    }

    #[test]
    fn one_at_a_time_may_change_what_a_file_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/state.json");
        assert!(Lock::take_if(false, &path).expect("nothing to do").is_none());
        assert!(!path.parent().expect("a folder").exists(), "and nothing is made");
        let lock = Lock::take(&path).expect("the first");
        write(&path, b"one").expect("written");
        let refused = Lock::take_if(false, &path).expect_err("there is another");
        assert!(
            matches!(&refused, StateError::InUse { .. }) && refused.to_string().contains("stop it"),
            "{refused}"
        );
        drop(lock);
        assert!(Lock::take_if(false, &path).expect("now").is_some());
    }

    #[test]
    fn a_file_that_cannot_be_ours_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        fs::write(&path, vec![b' '; FILE_BYTES_MAX as usize + 1]).expect("written");
        assert!(matches!(read(&path), Err(StateError::Damaged { .. })));
    }

    // What is changed is written down before: so nothing is that could not be put back.
    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let mut content = vec![b' '; FILE_BYTES_MAX as usize];
        write(&path, &content).expect("as long as may be");
        content.push(b' ');
        let refused = write(&path, &content).expect_err("longer");
        let StateError::TooLong { bytes, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*bytes, content.len());
        assert_eq!(read(&path).expect("read").expect("the old content").len(), *bytes - 1);
    }
}
