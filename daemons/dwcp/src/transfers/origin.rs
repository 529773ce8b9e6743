//! Where what is to be sent lies, and whether who asks for it may have it sent.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use dwcp_transfer::{RelPath, Source};

use super::TransferRefused;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An absolute path of this machine.
    Anywhere(PathBuf),
    /// Reached from the folder through no link, at each attempt anew: nothing is decided by the path alone.
    Beneath { folder: PathBuf, path: RelPath },
}

impl Origin {
    /// `from`: as asked for. Somebody elsewhere, and a relative path, get nothing but what is below the folder. Blocks.
    pub(crate) fn of(from: &str, is_from_afar: bool, folder: &Path) -> Result<Self, TransferRefused> {
        let path = Path::new(from);
        if path.is_absolute() && !is_from_afar {
            return Ok(Self::Anywhere(path.to_owned()));
        }
        if !is_from_afar && folder.as_os_str().is_empty() {
            let what = format!(
                "{from:?} is not an absolute path, and transfers.from, below which others are, is not set"
            );
            return Err(TransferRefused::Bad { what });
        }
        below(folder, path)
            .map(|path| Self::Beneath { folder: folder.to_owned(), path })
            .ok_or_else(|| TransferRefused::NotBelow { from: from.to_owned() })
    }

    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Anywhere(path) => path.clone(),
            Self::Beneath { folder, path } => folder.join(path.as_path()),
        }
    }

    /// What it is called where it lies.
    pub(super) fn name(&self) -> Option<&[u8]> {
        match self {
            Self::Anywhere(path) => path.file_name().map(OsStr::as_bytes),
            Self::Beneath { path, .. } => Some(path.split().1),
        }
    }

    pub(super) fn source(&self, dest: RelPath) -> Source {
        match self.clone() {
            Self::Anywhere(path) => Source::Path { path, dest },
            Self::Beneath { folder, path } => Source::Beneath { folder, path, dest },
        }
    }
}

/// A path below the folder, by its words: links are seen when it is opened.
fn below(folder: &Path, from: &Path) -> Option<RelPath> {
    if folder.as_os_str().is_empty() {
        return None;
    }
    let path = match from.is_absolute() {
        false => from.to_owned(),
        true => match from.strip_prefix(folder) {
            Ok(path) => path.to_owned(),
            // The folder may be called by another name than is set.
            Err(_) => from.strip_prefix(folder.canonicalize().ok()?).ok()?.to_owned(),
        },
    };
    let names: Option<Vec<&[u8]>> = path
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => Some(name.as_bytes()),
            _ => None,
        })
        .collect();
    RelPath::new(names?.join(&b'/')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_from_afar_gets_what_is_below_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let (vms, link) = (dir.path().join("vms"), dir.path().join("link"));
        std::fs::create_dir(&vms).expect("made");
        std::os::unix::fs::symlink(&vms, &link).expect("linked");
        let text = |path: PathBuf| path.into_os_string().into_string().expect("UTF-8");
        let of = |from: String| Origin::of(&from, true, &link).ok();
        let db =
            |path: &[u8]| Some(Origin::Beneath { folder: link.clone(), path: RelPath::new(path).unwrap() });
        for from in ["db-1", "./db-1/", "db-1/.", "db-1//"].map(str::to_owned) {
            assert_eq!(of(from.clone()), db(b"db-1"), "{from}");
        }
        for from in [link.join("db-1/disk"), vms.join("db-1//disk")] {
            assert_eq!(of(text(from.clone())), db(b"db-1/disk"), "{}", from.display());
        }
        for from in ["", ".", "..", "../vms/db-1", "db-1/../db-2", "/", "/etc", ".novacron-partial", "a\0b"] {
            assert_eq!(of(from.to_owned()), None, "{from}");
        }
        for from in [vms.clone(), vms.join(".."), dir.path().join("vms-2/x"), link.join("../secret")] {
            assert_eq!(of(text(from.clone())), None, "{}", from.display());
        }
        assert!(Origin::of("db-1", true, Path::new("")).is_err());
        assert!(Origin::of("db-1", false, Path::new("")).is_err());
        assert_eq!(Origin::of("/etc", false, Path::new("")).ok(), Some(Origin::Anywhere("/etc".into())));
    }
}
