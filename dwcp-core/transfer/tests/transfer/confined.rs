//! What may be sent of a folder, while somebody who writes there changes it (T4.9): nothing from outside ever arrives.

use std::{
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::support::*;
use dwcp_transfer::{
    FailureKind, ReceiverConfig, Sender, SenderConfig, Source, TransferError,
    limits::{DEPTH_MAX, DIRECTORIES_OPEN_MAX},
};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

const SECRET: &[u8] = b"nobody may have this";
/// Transfers under which names are exchanged.
const TRANSFERS: usize = 150;

fn beneath(folder: &Path, path: &str) -> SenderConfig {
    let source = Source::Beneath { folder: folder.to_owned(), path: rel(path), dest: rel("t") };
    SenderConfig::new(vec![source])
}

fn unsynced(into: &Path) -> ReceiverConfig {
    let mut config = into_folder(into);
    (config.fsync, config.overwrite) = (false, true);
    config
}

fn fifo(path: PathBuf) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Exchanges pairs of names until it is dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exchange {
    /// `None`: this file system cannot.
    fn begin(pairs: Vec<(PathBuf, PathBuf)>) -> Option<Self> {
        let exchange = |(a, b): &(PathBuf, PathBuf)| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
        if let Err(error) = pairs.iter().try_for_each(exchange) {
            println!("SKIP: names cannot be exchanged here: {error}");
            return None;
        }
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                pairs.iter().try_for_each(exchange).unwrap();
                counted.fetch_add(1, Relaxed);
            }
        });
        Some(Self { stop, rounds, thread: Some(thread) })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        println!("{} exchanges, {ended:?}", self.rounds.load(Relaxed));
    }
}

/// Names and contents of what has arrived, links as links.
fn arrived(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            arrived(&path, found);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            found.push((path, content));
        }
    }
}

fn assert_nothing_secret(into: &Path) {
    let mut found = Vec::new();
    arrived(into, &mut found);
    for (path, content) in found {
        let leaks = content.windows(SECRET.len()).any(|window| window == SECRET);
        let named = path.as_os_str().as_bytes().windows(7).any(|window| window == b"only-in");
        assert!(!leaks && !named, "{} has arrived", path.display());
    }
}

/// A folder with a VM, and beside it what has the same names and is not to be sent.
fn vm_and_outside(dir: &Path) -> (PathBuf, PathBuf) {
    let (vms, outside) = (dir.join("vms"), dir.join("outside"));
    for (root, content) in [(vms.join("db-1"), &b"harmless"[..]), (outside.clone(), SECRET)] {
        for directory in ["a", "a/b", "a/b/c"] {
            fs::create_dir_all(root.join(directory)).unwrap();
            for file in 0..8 {
                fs::write(root.join(directory).join(format!("f{file}")), content).unwrap();
            }
        }
        fs::write(root.join("file"), content).unwrap();
    }
    fs::write(outside.join("a/b/only-in-outside"), SECRET).unwrap();
    (vms, outside)
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_9_directories_exchanged_for_links_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, outside) = vm_and_outside(dir.path());
    let vm = vms.join("db-1");
    // A link in place of a directory, at two depths, and in place of a file.
    let pairs = [("a", "a"), ("a/b/c", "a/b/c"), ("file", "file")];
    let names: Vec<_> =
        pairs.iter().map(|(name, _)| (vm.join(name), vms.join(name.replace('/', "-")))).collect();
    for ((_, beside), (_, target)) in names.iter().zip(pairs) {
        symlink(outside.join(target), beside).unwrap();
    }
    // The second pair is reachable only while the first is not exchanged.
    let Some(_exchange) = Exchange::begin(vec![names[0].clone(), names[2].clone()]) else { return };
    let mut whole = 0;
    for n in 0..TRANSFERS {
        let into = dir.path().join(format!("into-{}", n % 2));
        let ended = transfer(beneath(&vms, "db-1"), unsynced(&into)).await;
        let sent = ended.sent.expect("what cannot be read is a failure of its own");
        whole += usize::from(sent.failures.is_empty());
        assert_nothing_secret(&into);
        let _ = fs::remove_dir_all(&into);
    }
    println!("{whole} of {TRANSFERS} without failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_9_a_root_exchanged_for_a_link_is_refused_or_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, outside) = vm_and_outside(dir.path());
    symlink(&outside, vms.join("link")).unwrap();
    let Some(_exchange) = Exchange::begin(vec![(vms.join("db-1"), vms.join("link"))]) else { return };
    let mut refused = 0;
    for n in 0..TRANSFERS {
        let into = dir.path().join("into");
        // Either of the two is the link.
        let ended = transfer(beneath(&vms, ["db-1", "link"][n % 2]), unsynced(&into)).await;
        match ended.sent {
            Ok(sent) => assert_eq!(sent.failures, []),
            Err(TransferError::NotBeneath { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        assert_nothing_secret(&into);
        let _ = fs::remove_dir_all(&into);
    }
    println!("{refused} of {TRANSFERS} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_9_no_path_leads_out_and_links_below_are_sent_as_links() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, outside) = vm_and_outside(dir.path());
    let vm = vms.join("db-1");
    symlink(&outside, vms.join("out")).unwrap();
    symlink("db-1", vms.join("inside")).unwrap();
    symlink("../../outside", vm.join("up")).unwrap();
    symlink("up", vm.join("a/link-to-link")).unwrap();
    symlink("/proc/self/root", vm.join("magic")).unwrap();
    for path in [
        "out",
        "inside",
        "out/a",
        "inside/a",
        "db-1/up",
        "db-1/up/file",
        "db-1/magic/etc",
        "nothing",
        "db-1/file/x",
    ] {
        let refused = Sender::new(beneath(&vms, path)).err();
        assert!(matches!(refused, Some(TransferError::NotBeneath { .. })), "{path}: {refused:?}");
    }
    // The folder's own path is nobody else's.
    let called = dir.path().join("called");
    symlink(&vms, &called).unwrap();
    let into = dir.path().join("into");
    transfer(beneath(&called, "db-1"), unsynced(&into)).await.clean();
    assert_nothing_secret(&into);
    for (link, target) in [("up", "../../outside"), ("a/link-to-link", "up"), ("magic", "/proc/self/root")] {
        assert_eq!(fs::read_link(into.join("t").join(link)).unwrap(), Path::new(target));
    }
    assert_eq!(fs::read(into.join("t/a/b/c/f7")).unwrap(), b"harmless");
    let (one, _) = transfer(beneath(&vms, "db-1/a/b/f0"), unsynced(&dir.path().join("one"))).await.clean();
    assert_eq!(one.progress.files_done, 1);
    assert_eq!(fs::read(dir.path().join("one/t")).unwrap(), b"harmless");
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_9_what_is_no_file_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, _) = vm_and_outside(dir.path());
    let vm = vms.join("db-1");
    fifo(vm.join("a/fifo"));
    let _socket = UnixListener::bind(vm.join("a/socket")).unwrap();
    let mut left_out = 2;
    match mknodat(CWD, vm.join("a/zero"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 5)) {
        Ok(()) => left_out += 1,
        Err(error) => println!("SKIP: no device can be made here: {error}"),
    }
    let (sent, _) = transfer(beneath(&vms, "db-1"), unsynced(&dir.path().join("into"))).await.clean();
    assert_eq!(sent.progress.entries_left_out, left_out);
    for path in ["db-1/a/fifo", "db-1/a/socket"] {
        let refused = Sender::new(beneath(&vms, path)).err();
        assert!(matches!(refused, Some(TransferError::Source { .. })), "{path}: {refused:?}");
    }
}

/// All were found before the first is opened.
#[tokio::test(flavor = "multi_thread")]
async fn t4_9_what_is_replaced_between_looking_and_opening_is_not_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, outside) = vm_and_outside(dir.path());
    let vm = vms.join("db-1");
    for (name, len) in
        [("a-large", 40 << 20), ("other", 5), ("z-fifo", 5), ("z-link", 5), ("z-gone", 5), ("z-directory", 5)]
    {
        fs::write(vm.join("a").join(name), noise(len, 1)).unwrap();
    }
    let (a, b, link) = connection(u64::MAX);
    let (replaced, done) = (vm.clone(), AtomicBool::new(false));
    link.before_each_chunk(move |carried| {
        // The manifest travels first, and says what is there.
        if carried > 200 && !done.swap(true, Relaxed) {
            let at = |name: &str| replaced.join("a").join(name);
            for name in ["z-fifo", "z-link", "z-gone", "z-directory"] {
                fs::remove_file(at(name)).unwrap();
            }
            fifo(at("z-fifo"));
            symlink(outside.join("file"), at("z-link")).unwrap();
            fs::create_dir(at("z-directory")).unwrap();
            fs::write(at("z-directory").join("x"), "x").unwrap();
        }
    });
    let into = dir.path().join("into");
    let ended = transfer_over((a, b, link), beneath(&vms, "db-1"), unsynced(&into)).await;
    let failures = ended.failures();
    let paths: std::collections::BTreeSet<_> = failures.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["t/a/z-directory", "t/a/z-fifo", "t/a/z-gone", "t/a/z-link"].into(), "{failures:?}");
    for (path, kind) in &failures {
        // The receiver is told of the end of a directory that it has never heard of.
        let is_end = path == "t/a/z-directory" && *kind == FailureKind::Io;
        let is_source = matches!(kind, FailureKind::SourceChanged | FailureKind::SourceIo);
        assert!(is_source || is_end, "{path}: {kind:?}");
    }
    assert_nothing_secret(&into);
    assert_eq!(fs::read(into.join("t/a/other")).unwrap(), noise(5, 1));
    assert!(!into.join("t/a/z-fifo").exists() && !into.join("t/a/z-link").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_9_trees_deeper_than_what_is_held_open_arrive_with_names_of_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, into) = (dir.path().join("vms"), dir.path().join("into"));
    let odd = std::ffi::OsStr::from_bytes(b"-\n\xff\x1b[2J \\ \"'*");
    let mut at = vms.join("db-1");
    let mut files = 0;
    // At the receiver, everything is below `t`, and a file is one deeper than its directory.
    let depth = DEPTH_MAX - 2;
    for level in 0..depth {
        fs::create_dir_all(&at).unwrap();
        // On both sides of the way down, in any order of reading.
        for name in ["0", "zz"] {
            fs::create_dir(at.join(name)).unwrap();
            fs::write(at.join(name).join("f"), level.to_le_bytes()).unwrap();
            fs::write(at.join(format!("{name}-f")), level.to_le_bytes()).unwrap();
            files += 2;
        }
        at = if level % 40 == 7 { at.join(odd) } else { at.join("d") };
    }
    assert!(depth > 4 * DIRECTORIES_OPEN_MAX);
    let (root, most) = (vms.canonicalize().unwrap(), Arc::new(AtomicU64::new(0)));
    let open = move || {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        descriptors.filter(|fd| fs::read_link(fd).is_ok_and(|path| path.starts_with(&root))).count() as u64
    };
    let (a, b, link) = connection(u64::MAX);
    let seen = most.clone();
    link.before_each_chunk(move |_| {
        seen.fetch_max(open(), Relaxed);
    });
    let (sent, _) = transfer_over((a, b, link), beneath(&vms, "db-1"), unsynced(&into)).await.clean();
    // Beside them a root, a file for each data stream, and what is looked at.
    let most = most.load(Relaxed);
    assert!(most <= (DIRECTORIES_OPEN_MAX + 16) as u64, "{most} descriptors");
    assert_eq!((sent.progress.files_done, sent.progress.entries_left_out), (files, 0));
    let mut found = (Vec::new(), Vec::new());
    arrived(&vms.join("db-1"), &mut found.0);
    arrived(&into.join("t"), &mut found.1);
    for found in [&mut found.0, &mut found.1] {
        found.sort();
    }
    let contents = |found: &[(PathBuf, Vec<u8>)]| -> Vec<_> {
        found.iter().map(|(_, content)| content.clone()).collect()
    };
    assert_eq!(contents(&found.0), contents(&found.1));
    // Deeper than a path may be: left out, and said.
    fs::create_dir_all(at.join("d/d")).unwrap();
    fs::write(at.join("d/d/f"), "too deep").unwrap();
    let (sent, _) = transfer(beneath(&vms, "db-1"), unsynced(&into)).await.clean();
    assert_eq!(sent.progress.entries_left_out, 1);
}

/// A directory that was closed meanwhile is gone on with only if it is still the same.
#[tokio::test(flavor = "multi_thread")]
async fn t4_9_deep_directories_exchanged_for_links_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, outside) = (dir.path().join("vms"), dir.path().join("outside"));
    let deep = "d/".repeat(DIRECTORIES_OPEN_MAX + 8);
    for (root, content) in [(vms.join("db-1"), &b"harmless"[..]), (outside.clone(), SECRET)] {
        let mut at = root.clone();
        fs::create_dir_all(root.join(&deep)).unwrap();
        for _ in 0..DIRECTORIES_OPEN_MAX + 8 {
            for name in ["0", "zz"] {
                fs::write(at.join(name), content).unwrap();
            }
            at = at.join("d");
        }
    }
    symlink(outside.join("d"), vms.join("link")).unwrap();
    let Some(_exchange) = Exchange::begin(vec![(vms.join("db-1/d"), vms.join("link"))]) else { return };
    for _ in 0..TRANSFERS {
        let into = dir.path().join("into");
        let ended = transfer(beneath(&vms, "db-1"), unsynced(&into)).await;
        assert!(ended.sent.is_ok(), "{:?}", ended.sent.err());
        assert_nothing_secret(&into);
        let _ = fs::remove_dir_all(&into);
    }
}

/// A file that only some may read, and one whose holes are large: read from what was opened.
#[tokio::test(flavor = "multi_thread")]
async fn t4_9_an_image_with_holes_arrives_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (vms, into) = (dir.path().join("vms"), dir.path().join("into"));
    fs::create_dir_all(vms.join("db-1")).unwrap();
    let image = File::create(vms.join("db-1/disk.img")).unwrap();
    image.set_len(64 << 20).unwrap();
    image.write_all_at(&noise(3 << 20, 3), 17 << 20).unwrap();
    drop(image);
    let ended = transfer(beneath(&vms, "db-1/disk.img"), unsynced(&into)).await;
    ended.clean();
    assert!(fs::read(into.join("t")).unwrap() == fs::read(vms.join("db-1/disk.img")).unwrap());
}
