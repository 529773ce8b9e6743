//! The real command with loop devices, a full disk, and files that change: needs root, and says so where it has to skip.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crate::support::*;

const MIB: u64 = 1 << 20;
/// What is compared and sent at once.
const PIECE: u64 = 4 * MIB;

fn onto(device: &LoopDevice) -> Server {
    Server::recv(&["--device".as_ref(), "--into".as_ref(), device.0.as_os_str()])
}

fn run(program: &str, args: &[&OsStr]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A block device on a file; detached when dropped.
struct LoopDevice(PathBuf);

impl LoopDevice {
    /// `None`, and the reason is printed: there are none here.
    fn new(backing: &Path, content: &[u8]) -> Option<Self> {
        if !Path::new("/dev/loop-control").exists() {
            println!("SKIP: no /dev/loop-control");
            return None;
        }
        fs::write(backing, content).expect("a backing file");
        match run("losetup", &["--find".as_ref(), "--show".as_ref(), backing.as_os_str()]) {
            Ok(device) => Some(Self(device.into())),
            Err(error) => {
                println!("SKIP: losetup: {error}");
                None
            }
        }
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.0).expect("a readable device")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach".as_ref(), self.0.as_os_str()]);
    }
}

/// A sparse image of 28 MiB: data, a hole across pieces, data.
fn image(path: &Path) -> Vec<u8> {
    let mut content = noise(28 * MIB, 1);
    content[(5 * MIB) as usize..(18 * MIB) as usize].fill(0);
    let file = File::create(path).expect("an image");
    file.set_len(28 * MIB).expect("its size");
    file.write_all_at(&content[..(5 * MIB) as usize], 0).expect("written");
    file.write_all_at(&content[(18 * MIB) as usize..], 18 * MIB).expect("written");
    content
}

#[test]
fn t5_8_a_device_gets_an_image_and_then_only_what_differs() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = dir.path().join("image");
    let mut content = image(&from);
    let old = noise(32 * MIB, 2);
    let Some(device) = LoopDevice::new(&dir.path().join("backing"), &old) else { return };
    let receiver = onto(&device);

    report(&send_one(&from, &format!("{}:vm", receiver.address)), 0);
    let there = device.content();
    assert!(there[..content.len()] == content, "the image, and zeros where it has holes");
    assert!(there[content.len()..] == old[content.len()..], "what lies behind it is not touched");

    // Again without a change, then with blocks changed in two pieces, one of them in the hole.
    assert_eq!(report(&send_one(&from, &format!("{}:vm", receiver.address)), 0)["bytes_moved"], 0);
    let file = File::options().write(true).open(&from).expect("the image");
    for (at, seed) in [(MIB, 3), (13 * MIB, 4)] {
        let block = noise(4096, seed);
        file.write_all_at(&block, at).expect("written");
        content[at as usize..at as usize + block.len()].copy_from_slice(&block);
    }
    let moved = report(&send_one(&from, &format!("{}:vm", receiver.address)), 0)["bytes_moved"]
        .as_u64()
        .expect("a number");
    assert!((2 * 4096..=2 * PIECE).contains(&moved), "{moved} bytes moved");
    assert!(device.content()[..content.len()] == content);

    // What changed at the device is put right.
    let raw = File::options().write(true).open(&device.0).expect("the device");
    raw.write_all_at(&noise(4096, 5), 20 * MIB).expect("written");
    raw.sync_all().expect("synced");
    let moved = report(&send_one(&from, &format!("{}:vm", receiver.address)), 0)["bytes_moved"]
        .as_u64()
        .expect("a number");
    assert!((4096..=PIECE).contains(&moved), "{moved} bytes moved");
    assert!(device.content()[..content.len()] == content);
}

#[test]
fn t5_8_a_device_that_is_too_small_is_refused_untouched() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = dir.path().join("image");
    image(&from);
    let old = noise(16 * MIB, 2);
    let Some(device) = LoopDevice::new(&dir.path().join("backing"), &old) else { return };
    let receiver = onto(&device);
    let refused = report(&send_one(&from, &format!("{}:vm", receiver.address)), 3);
    assert!(refused.to_string().contains("smaller than the source"), "{refused}");
    assert!(device.content() == old, "nothing was written");
}

#[test]
fn a_device_is_a_source() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut content = noise(24 * MIB, 1);
    content[(5 * MIB) as usize..(18 * MIB) as usize].fill(0);
    let Some(device) = LoopDevice::new(&dir.path().join("backing"), &content) else { return };
    let receiver = Server::into(&dir.path().join("into"));
    let sent = report(&send_one(&device.0, &format!("{}:copy.img", receiver.address)), 0);
    let moved = sent["bytes_moved"].as_u64().expect("a number");
    assert!(moved <= 11 * MIB, "{moved} bytes moved: zeros do not travel");
    assert!(fs::read(dir.path().join("into/copy.img")).expect("the copy") == content);
}

/// Unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).expect("a folder");
        let options = format!("size={size}");
        let args = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(OsStr::new);
        match run("mount", &[&args[..], &[at.as_os_str()]].concat()) {
            Ok(_) => Some(Self(at.into())),
            Err(error) => {
                println!("SKIP: cannot mount a small tmpfs: {error}");
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        run("mount", &["-o".as_ref(), options.as_ref(), self.0.as_os_str()]).expect("a remount");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy".as_ref(), self.0.as_os_str()]);
    }
}

#[test]
fn t5_7_a_full_disk_is_named_and_with_room_the_rest_follows() {
    let dir = tempfile::tempdir().expect("a folder");
    let from = dir.path().join("from");
    fs::write(&from, noise(60 * MIB, 8)).expect("a file");
    let into = dir.path().join("into");
    let Some(mount) = Mount::tmpfs(&into, "32m") else { return };
    let receiver = Server::into(&into);
    let full = send_one(&from, &format!("{}:f", receiver.address));
    // What ends the transfer is in the report; that the file has failed may not have been told before.
    let why = report(&full, 1)["error"].as_str().expect("why").to_owned();
    assert!(why.contains("No space left on device") && why.contains(" at f: "), "{why}");
    assert!(!into.join("f").exists());

    mount.resize("128m");
    let rest = report(&send_one(&from, &format!("{}:f", receiver.address)), 0);
    let kept = rest["bytes_skipped"].as_u64().expect("a number");
    assert!(kept >= 2 * PIECE, "{kept} bytes were kept");
    assert!(fs::read(into.join("f")).expect("the file") == noise(60 * MIB, 8));
}

#[test]
fn t4_7_a_file_that_is_written_all_the_time_never_arrives_as_a_mixture() {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    fs::create_dir(&from).expect("a folder");
    let log = from.join("log");
    fs::write(&log, noise(64 * MIB, 1)).expect("a file");
    fs::write(from.join("other"), noise(9 * MIB, 2)).expect("a file");
    let receiver = Server::into(&into);
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().append(true).open(&log).expect("the log");
            while !stop.load(Relaxed) {
                (&file).write_all(b"one more\n").expect("written");
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let output = send_one(&from, &format!("{}:t", receiver.address));
        stop.store(true, Relaxed);
        output
    });
    assert!(fs::read(into.join("t/other")).expect("the other") == noise(9 * MIB, 2));
    let mut whole = Vec::new();
    File::open(&log).expect("the log").read_to_end(&mut whole).expect("read");
    match output.status.code() {
        Some(3) => {
            let failed = report(&output, 3);
            assert!(failed.to_string().contains("source changed while it was read"), "{failed}");
            assert!(!into.join("t/log").exists());
        }
        // The writer had to wait for a processor long enough for a whole read: then it is what it was at that moment.
        _ => {
            report(&output, 0);
            let there = fs::read(into.join("t/log")).expect("the log");
            assert!(there.len() <= whole.len() && whole[..there.len()] == there[..]);
        }
    }
}
