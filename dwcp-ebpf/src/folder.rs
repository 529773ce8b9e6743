//! The pins of one interface in the BPF file system: `ROOT/INTERFACE/link` and `ROOT/INTERFACE/maps-LAYOUT/`, and beside them
//! why the link is not in the driver. They are what outlives the process. A lock on the folder, which ends with the process, keeps a second one out.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, symlink},
        },
    },
    path::{Path, PathBuf},
};

use libbpf_rs::{Link, libbpf_sys};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{error::Error, interface};

/// Which maps there are, and how they lie. Another number for each change: a program of another layout makes maps of its
/// own, and the old ones go when it is in place.
const LAYOUT: u32 = 1;

/// The pin of a link in its interface's folder.
pub(crate) const LINK: &str = "link";
/// Why the driver has refused the program of that link: a symbolic link to the error's number, since such a file system has
/// no files.
const REFUSAL: &str = "native-refused";

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    root: PathBuf,
    /// Held for as long as the folder is.
    _lock: Flock<File>,
}

impl Folder {
    /// Makes the folder where it is not there yet, and locks it.
    pub(crate) fn open(root: &Path, interface: &str) -> Result<Self, Error> {
        let above = existing(root);
        let kind = statfs(above).map_err(|errno| failed("statfs", above)(errno.into()))?.filesystem_type();
        if kind != BPF_FS_MAGIC {
            return Err(Error::NoBpfFileSystem { path: root.to_owned() });
        }
        let path = root.join(name(interface));
        let maps = path.join(format!("maps-{LAYOUT}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&maps).map_err(failed("mkdir", &maps))?;
        let file = File::open(&path).map_err(failed("open", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::InUse { interface: interface.to_owned(), folder: path.clone() })?;
        Ok(Self { path, root: root.to_owned(), _lock: lock })
    }

    /// Where the folders of all interfaces are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the maps of this layout are pinned.
    pub(crate) fn maps(&self) -> PathBuf {
        self.path.join(format!("maps-{LAYOUT}"))
    }

    fn link_path(&self) -> PathBuf {
        self.path.join(LINK)
    }

    /// The pinned link, if there is one.
    pub(crate) fn link(&self) -> Result<Option<Link>, Error> {
        let path = self.link_path();
        if !path.try_exists().map_err(failed("stat", &path))? {
            return Ok(None);
        }
        Link::open(&path).map(Some).map_err(|error| failed("open", &path)(io::Error::other(error)))
    }

    /// Pins a link.
    pub(crate) fn pin(&self, link: &OwnedFd) -> Result<(), Error> {
        let path = self.link_path();
        let text = CString::new(path.as_os_str().as_bytes()).expect("a path that exists has no zero byte");
        // SAFETY: `text` is a C string that lives through the call, and `link` is open for as long as it is borrowed.
        let code = unsafe { libbpf_sys::bpf_obj_pin(link.as_raw_fd(), text.as_ptr()) };
        interface::check(code).map(drop).map_err(failed("pin", &path))
    }

    /// Removes the pin of a link, which is detached unless somebody else holds it, and why it is not in the driver.
    pub(crate) fn unpin(&self) -> Result<(), Error> {
        let path = self.link_path();
        fs::remove_file(&path).map_err(failed("unlink", &path))?;
        self.forget_refusal()
    }

    /// Keeps for later processes why the driver has refused the program.
    pub(crate) fn keep_refusal(&self, refusal: &io::Error) -> Result<(), Error> {
        // That of an attempt which was killed.
        self.forget_refusal()?;
        let path = self.path.join(REFUSAL);
        let number = refusal.raw_os_error().expect("it is the kernel's");
        symlink(number.to_string(), &path).map_err(failed("symlink", &path))
    }

    /// Why the driver has refused the program, if it has been asked.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        let number = fs::read_link(self.path.join(REFUSAL)).ok()?;
        Some(io::Error::from_raw_os_error(number.to_str()?.parse().ok()?))
    }

    fn forget_refusal(&self) -> Result<(), Error> {
        let path = self.path.join(REFUSAL);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("unlink", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes the maps of other layouts.
    pub(crate) fn remove_other_maps(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.path).map_err(failed("readdir", &self.path))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && path != self.maps() {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes all pins and the folder.
    pub(crate) fn remove(self) -> Result<(), Error> {
        remove(&self.path)?;
        // Another interface's folder may be in there.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }

    /// Removes the folder if there is no link in it: of an attempt that failed.
    pub(crate) fn remove_if_unused(self) {
        if !self.link_path().exists() {
            // The attempt's own error says more.
            let _ = self.remove();
        }
    }
}

/// A folder of pins and of folders of pins.
fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(failed("rmdir", path))
}

/// The BPF file system keeps points in names for itself, and interfaces of VLANs have them.
pub(crate) fn name(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// The interface of a folder's name, if it is one that this program gives.
pub(crate) fn interface(folder: &str) -> Option<String> {
    let interface = folder.replace("%2e", ".").replace("%25", "%");
    (name(&interface) == folder).then_some(interface)
}

/// The top of the BPF file system in which a root is, or would be.
pub(crate) fn file_system_of(root: &Path) -> Option<PathBuf> {
    let is_bpf = |path: &&Path| statfs(*path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    existing(root).ancestors().take_while(is_bpf).last().map(Path::to_owned)
}

fn existing(root: &Path) -> &Path {
    root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { call, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_folders_of_their_own() {
        assert_eq!(name("eth0"), "eth0");
        assert_eq!(name("eth0.100"), "eth0%2e100");
        assert_ne!(name("eth0.1"), name("eth0%2e1"));
        for name_of in ["eth0", "eth0.100", "a%2e.b"] {
            assert_eq!(interface(&name(name_of)).as_deref(), Some(name_of));
        }
        assert_eq!(interface("eth0.100"), None, "somebody else's");
    }

    #[test]
    fn a_folder_outside_a_bpf_file_system_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let refused = Folder::open(&root.path().join("x"), "eth0").expect_err("no BPF file system");
        assert!(matches!(refused, Error::NoBpfFileSystem { .. }), "{refused}");
        assert!(refused.to_string().contains("mount -t bpf"), "{refused}");
        assert!(!root.path().join("x").exists(), "nothing is left behind");
    }
}
