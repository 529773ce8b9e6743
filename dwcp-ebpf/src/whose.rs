//! What there is without changing anything: whether a guard could be loaded here, which program an interface has, and who
//! holds it there; and taking away a guard that nobody wants any more.

use std::{collections::VecDeque, fs, io, path::Path};

use libbpf_rs::{
    Link, ProgramType,
    query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter},
};

use crate::{
    capabilities,
    error::{Error, Holder, Present},
    folder::{self, Folder},
    interface::{self, Attached},
};

/// Entries of the BPF file system that are looked at for a pin.
const PINS_LOOKED_AT_MAX: usize = 1024;

/// Whether programs can be loaded: by this build, this kernel and this thread.
///
/// # Errors
/// What is missing.
pub fn support() -> Result<(), Error> {
    capabilities::check()?;
    match ProgramType::Xdp.is_supported() {
        Ok(false) => Err(Error::KernelWithoutXdp),
        _ => Ok(()),
    }
}

/// The program that an interface has, whoever attached it. `root`: where guards are pinned.
///
/// # Errors
/// If there is no such interface, or the kernel does not say.
pub fn present(interface: &str, root: &Path) -> Result<Option<Present>, Error> {
    let index = interface::index(interface)?;
    let attached = interface::attached(index);
    let attached =
        attached.map_err(|source| Error::Link { call: "query", interface: interface.to_owned(), source })?;
    Ok(attached.map(|attached| of(attached, interface, index, root)))
}

/// Who holds this program at the interface.
pub(crate) fn of(attached: Attached, interface: &str, index: i32, root: &Path) -> Present {
    // Asking for the name takes CAP_SYS_ADMIN, as asking for links does.
    let name = ProgInfoIter::default().find(|program| program.id == attached.id);
    let name = name.map(|program| program.name.to_string_lossy().into_owned());
    let holder = pin(interface, attached.id, root)
        .or_else(|| link(index, attached.id))
        .unwrap_or(if capabilities::is_admin() { Holder::Interface } else { Holder::Unknown });
    Present { id: attached.id, mode: attached.mode, name: name.filter(|name| !name.is_empty()), holder }
}

/// The pin of a guard of ours, also of another root in the same file system.
fn pin(interface: &str, id: u32, root: &Path) -> Option<Holder> {
    let top = folder::file_system_of(root)?;
    let mut folders = VecDeque::from([top]);
    let mut looked_at = 0;
    while let Some(folder) = folders.pop_front() {
        let link = folder.join(folder::name(interface)).join(folder::LINK);
        if link.exists()
            && Link::open(&link).and_then(|link| link.info()).is_ok_and(|info| info.prog_id == id)
        {
            return link.parent().map(|folder| Holder::Pin(folder.to_owned()));
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            looked_at += 1;
            if looked_at > PINS_LOOKED_AT_MAX {
                return None;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push_back(entry.path());
            }
        }
    }
    None
}

fn link(index: i32, id: u32) -> Option<Holder> {
    let is_it = |of: &LinkTypeInfo| matches!(of, LinkTypeInfo::Xdp(xdp) if i64::from(xdp.ifindex) == i64::from(index));
    let link = LinkInfoIter::default().find(|link| link.prog_id == id && is_it(&link.info));
    link.map(|link| Holder::Link(link.id))
}

/// The interfaces whose guards are pinned in a root, also those that are gone.
pub fn pinned(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let with_link = entries.filter(|entry| entry.path().join(folder::LINK).exists());
    with_link.filter_map(|entry| folder::interface(entry.file_name().to_str()?)).collect()
}

/// Takes away the guard of an interface that an earlier process has left, counters included.
///
/// # Errors
/// [`Error::InUse`] if another process guards it, [`Error::OtherNamespace`] if it is not of this network namespace, and those of
/// the kernel. Nothing has changed then.
pub fn take_away(root: &Path, interface: &str) -> Result<(), Error> {
    capabilities::check()?;
    let folder = Folder::open(root, interface)?;
    let Some(link) = folder.link()? else { return folder.remove() };
    let failed = |call: &'static str| {
        move |error: libbpf_rs::Error| Error::Link {
            call,
            interface: interface.to_owned(),
            source: io::Error::other(error),
        }
    };
    let info = link.info().map_err(failed("query"))?;
    // The kernel takes the link from an interface that goes.
    let is_detached = matches!(&info.info, LinkTypeInfo::Xdp(of) if of.ifindex == 0);
    let is_here = interface::index(interface).is_ok_and(|index| {
        interface::attached(index).is_ok_and(|found| found.is_some_and(|found| found.id == info.prog_id))
    });
    if !is_detached && !is_here {
        let folder = folder.path().to_owned();
        return Err(Error::OtherNamespace { interface: interface.to_owned(), folder });
    }
    if is_here {
        link.detach().map_err(failed("detach"))?;
    }
    folder.remove()
}
