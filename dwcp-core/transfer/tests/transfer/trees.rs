//! Trees arrive as they were: content, metadata, links, holes, odd names; and what may not arrive does not.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

use crate::support::*;
use dwcp_transfer::{Destination, FailureKind, ReceiverConfig, SenderConfig, limits::WRITE_BACK_BYTES};
use proptest::prelude::*;

/// What matters of everything below a folder.
fn listing(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn visit(path: &Path, root: &Path, out: &mut BTreeMap<Vec<u8>, String>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let content = if found.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else if found.is_dir() {
                visit(&path, root, out);
                "directory".into()
            } else {
                blake3::hash(&fs::read(&path).unwrap()).to_string()
            };
            let links = if found.is_dir() { 0 } else { found.nlink() };
            let about = format!("{:o} {}.{} {links}", found.mode(), found.mtime(), found.mtime_nsec());
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            out.insert(name, format!("{about} {content}"));
        }
    }
    let mut out = BTreeMap::new();
    visit(root, root, &mut out);
    out
}

/// Pieces that are written back whole, in part, and not at all; with holes, and as one stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_a_disk_that_others_use_arrives_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir(&from).unwrap();
    for (name, len) in [("small", 5), ("one", WRITE_BACK_BYTES), ("large", 9 * WRITE_BACK_BYTES + 1)] {
        fs::write(from.join(name), noise(len as usize, len)).unwrap();
    }
    let sparse = File::create(from.join("sparse")).unwrap();
    sparse.set_len(30 << 20).unwrap();
    sparse.write_all_at(&noise(3 << 20, 7), 6 << 20).unwrap();
    let shared = |destination| {
        let mut config = ReceiverConfig::new(destination);
        config.shares_disk = true;
        config
    };
    let tree = SenderConfig::new(vec![source(&from, "tree")]);
    transfer(tree, shared(Destination::Folder(into.clone()))).await.clean();
    assert_eq!(listing(&into.join("tree")), listing(&from));

    let device = dir.path().join("device");
    fs::write(&device, noise(30 << 20, 8)).unwrap();
    let one = SenderConfig::new(vec![source(from.join("sparse"), "sparse")]);
    transfer(one, shared(Destination::Device(device.clone()))).await.clean();
    assert!(fs::read(&device).unwrap() == fs::read(from.join("sparse")).unwrap());

    // Where there is nothing to be written back.
    let one = SenderConfig::new(vec![source(from.join("large"), "large")]);
    transfer(one, shared(Destination::Output(Box::new(std::io::sink())))).await.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_arrives_with_everything_that_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::create_dir(from.join("empty")).unwrap();
    fs::write(from.join("a/small"), b"small").unwrap();
    fs::write(from.join("a/none"), b"").unwrap();
    fs::write(from.join("a/b/large"), noise(9 << 20, 1)).unwrap();
    fs::write(from.join("a/exact"), noise(4 << 20, 2)).unwrap();
    fs::write(from.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), b"bytes").unwrap();
    fs::hard_link(from.join("a/b/large"), from.join("a/again")).unwrap();
    fs::hard_link(from.join("a/b/large"), from.join("z-again")).unwrap();
    symlink("/nowhere/outside", from.join("absolute")).unwrap();
    symlink("b/large", from.join("a/relative")).unwrap();
    fs::set_permissions(from.join("a/small"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(from.join("empty"), fs::Permissions::from_mode(0o500)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    for path in ["a/small", "a/b/large", "a/none", "empty", "a"] {
        File::open(from.join(path)).unwrap().set_modified(old).unwrap();
    }

    let (sent, received) = send(&from, "tree", &into).await.clean();
    assert_eq!(listing(&into.join("tree")), listing(&from));
    let inode = |path: &str| fs::metadata(into.join("tree").join(path)).unwrap().ino();
    assert_eq!(inode("a/b/large"), inode("a/again"));
    assert_eq!(inode("a/b/large"), inode("z-again"));
    assert_eq!(sent.progress.bytes_moved, received.progress.bytes_moved);
    assert_eq!(sent.progress.entries_done, sent.progress.entries_total);
    assert_eq!(sent.progress.bytes_done, sent.progress.bytes_total);

    // Again: nothing moves, nothing is replaced, nothing fails.
    let again = send(&from, "tree", &into).await;
    assert!(again.carried < 10_000, "{} bytes carried", again.carried);
    let (sent, _) = again.clean();
    assert_eq!((sent.progress.bytes_moved, sent.progress.files_done), (0, 0));
    assert_eq!(listing(&into.join("tree")), listing(&from));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_files_pass_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    for directory in 0..5 {
        let directory = from.join(format!("d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..1000 {
            fs::write(directory.join(format!("f{file}")), noise(file % 300, file as u64)).unwrap();
        }
    }
    let mut config = into_folder(&into);
    config.fsync = false;
    let (sent, _) = transfer(SenderConfig::new(vec![source(&from, "t")]), config).await.clean();
    assert_eq!(sent.progress.files_done, 5000);
    assert_eq!(listing(&into.join("t")), listing(&from));
    let left = fs::read_dir(into.join(".novacron-partial")).unwrap().count();
    assert_eq!(left, 1, "only the lock stays in the partial area");
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_neither_sent_nor_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("vm.img"), dir.path().join("into"));
    let image = File::create(&from).unwrap();
    image.set_len(200 << 20).unwrap();
    for (offset, len) in [(0, 4096), (50 << 20, 1 << 20), (199 << 20, 1 << 20)] {
        image.write_all_at(&noise(len, offset), offset).unwrap();
    }
    drop(image);
    if fs::metadata(&from).unwrap().blocks() * 512 > 50 << 20 {
        println!("SKIP: the file system of {} keeps no holes", dir.path().display());
        return;
    }
    let ended = send(&from, "vm.img", &into).await;
    assert!(ended.carried < 3 << 20, "{} bytes carried", ended.carried);
    let (sent, _) = ended.clean();
    assert_eq!(sent.progress.bytes_done, 200 << 20);
    assert_eq!(fs::read(into.join("vm.img")).unwrap(), fs::read(&from).unwrap());
    // What a file system allocates ahead is its own affair; 198 MiB of holes are not.
    assert!(fs::metadata(into.join("vm.img")).unwrap().blocks() * 512 < 50 << 20);
}

/// Offsets, sizes and holes are 64 bits wide.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_past_4_gib() {
    const GIB: u64 = 1 << 30;
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("vm.img"), dir.path().join("into"));
    let image = File::create(&from).unwrap();
    image.set_len(5 * GIB).unwrap();
    // At both ends, across 2^32, and in a piece behind it.
    let written = [(0, 4096), (4 * GIB - 8192, 16384), (4 * GIB + (9 << 20), 4096), (5 * GIB - 4096, 4096)];
    for (offset, len) in written {
        image.write_all_at(&noise(len, offset), offset).unwrap();
    }
    drop(image);
    if fs::metadata(&from).unwrap().blocks() * 512 > GIB {
        println!("SKIP: the file system of {} keeps no holes", dir.path().display());
        return;
    }
    let mut config = SenderConfig::new(vec![source(&from, "vm.img")]);
    config.checksum = true;
    let ended = transfer(config, into_folder(&into)).await;
    assert!(ended.carried < 1 << 20, "{} bytes carried", ended.carried);
    let (sent, received) = ended.clean();
    assert_eq!((sent.progress.bytes_done, received.progress.bytes_done), (5 * GIB, 5 * GIB));
    let image = File::open(into.join("vm.img")).unwrap();
    assert_eq!(image.metadata().unwrap().len(), 5 * GIB);
    // The transfer has compared the hash of all of it.
    for (offset, len) in written {
        let mut found = vec![0; len];
        image.read_exact_at(&mut found, offset).unwrap();
        assert!(found == noise(len, offset), "at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_6_user_attributes_arrive_and_privileged_bits_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("file"), dir.path().join("into"));
    fs::write(&from, b"x").unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o4755)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&from, "user.note", b"v\0\xff", flags) {
        println!("SKIP: no user attributes here: {error}");
        return;
    }
    let trusted = rustix::fs::setxattr(&from, "trusted.note", b"v", flags).is_ok();
    send(&from, "file", &into).await.clean();
    let mut value = [0; 16];
    let to = into.join("file");
    assert_eq!(rustix::fs::getxattr(&to, "user.note", &mut value[..]).unwrap(), 3);
    assert_eq!(&value[..3], b"v\0\xff");
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o755, "no setuid from a peer");
    if trusted {
        assert!(rustix::fs::getxattr(&to, "trusted.note", &mut value[..]).is_err());
        let mut config = into_folder(&dir.path().join("privileged"));
        config.privileged_metadata = true;
        transfer(SenderConfig::new(vec![source(&from, "file")]), config).await.clean();
        let to = dir.path().join("privileged/file");
        assert_eq!(rustix::fs::getxattr(&to, "trusted.note", &mut value[..]).unwrap(), 1);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o4755);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_2_nothing_is_replaced_without_leave_and_no_content_travels_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir_all(into.join("t")).unwrap();
    fs::write(from.join("there"), noise(3 << 20, 1)).unwrap();
    fs::write(from.join("new"), b"new").unwrap();
    symlink("new", from.join("link")).unwrap();
    fs::write(into.join("t/there"), b"precious").unwrap();
    fs::write(into.join("t/link"), b"precious").unwrap();

    let ended = send(&from, "t", &into).await;
    assert!(ended.carried < 10_000, "{} bytes carried", ended.carried);
    assert_eq!(
        ended.failures(),
        [("t/link".into(), FailureKind::Exists), ("t/there".into(), FailureKind::Exists)]
    );
    assert_eq!(fs::read(into.join("t/there")).unwrap(), b"precious");
    assert_eq!(fs::read(into.join("t/new")).unwrap(), b"new");

    let mut config = into_folder(&into);
    config.overwrite = true;
    transfer(SenderConfig::new(vec![source(&from, "t")]), config).await.clean();
    assert_eq!(listing(&into.join("t")), listing(&from));
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_1_no_way_out_through_links_in_the_destination() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into, outside) =
        (dir.path().join("from"), dir.path().join("into"), dir.path().join("outside"));
    fs::create_dir_all(from.join("way")).unwrap();
    fs::write(from.join("way/file"), b"x").unwrap();
    fs::write(from.join("file"), b"x").unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), b"precious").unwrap();
    fs::create_dir_all(into.join("t")).unwrap();
    symlink(&outside, into.join("t/way")).unwrap();
    symlink(outside.join("file"), into.join("t/file")).unwrap();

    let mut config = into_folder(&into);
    config.overwrite = true;
    let ended = transfer(SenderConfig::new(vec![source(&from, "t")]), config).await;
    let escapes = |path: &str| (path.to_owned(), FailureKind::Escapes);
    let failures = ended.failures();
    assert!(
        failures.contains(&escapes("t/way")) && failures.contains(&escapes("t/way/file")),
        "{failures:?}"
    );
    // Replacing the link itself is what overwriting means; what it points to is untouched.
    assert_eq!(fs::read(into.join("t/file")).unwrap(), b"x");
    assert!(fs::symlink_metadata(into.join("t/file")).unwrap().is_file());
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn special_files_are_left_out_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir_all(&from).unwrap();
    fs::write(from.join("file"), b"x").unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, from.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let (sent, _) = send(&from, "t", &into).await.clean();
    assert_eq!(sent.progress.entries_left_out, 2);
    assert_eq!(fs::read_dir(into.join("t")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_checksum_a_file_that_only_looks_the_same_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir_all(&from).unwrap();
    let mut content = noise(10 << 20, 7);
    fs::write(from.join("image"), &content).unwrap();
    fs::write(from.join("same"), &content).unwrap();
    send(&from, "t", &into).await.clean();
    let modified = fs::metadata(from.join("image")).unwrap().modified().unwrap();
    content[5_000_000] ^= 1;
    fs::write(into.join("t/image"), &content).unwrap();
    File::options().write(true).open(into.join("t/image")).unwrap().set_modified(modified).unwrap();

    let (sent, _) = send(&from, "t", &into).await.clean();
    assert_eq!(sent.progress.files_skipped, 2, "size and time are believed by default");
    for (overwrite, failures) in [(false, vec![("t/image".into(), FailureKind::Exists)]), (true, vec![])] {
        let mut config = SenderConfig::new(vec![source(&from, "t")]);
        config.checksum = true;
        let mut into = into_folder(&into);
        into.overwrite = overwrite;
        let ended = transfer(config, into).await;
        assert_eq!(ended.failures(), failures);
        assert_eq!(ended.sent.unwrap().progress.files_skipped, 1);
    }
    assert_eq!(listing(&into.join("t")), listing(&from));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_arrives(files in prop::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}\\.f", 0usize..400_000, 0..12)) {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        fs::create_dir_all(&from).unwrap();
        for (path, len) in &files {
            fs::create_dir_all(from.join(path).parent().unwrap()).unwrap();
            fs::write(from.join(path), noise(*len, *len as u64)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut config = into_folder(&into);
        config.fsync = false;
        let ended = runtime.block_on(transfer(SenderConfig::new(vec![source(&from, "t")]), config));
        ended.clean();
        prop_assert_eq!(listing(&into.join("t")), listing(&from));
    }
}
