//! The real command: two processes, real sockets, TLS, `kill -9`, exit codes.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::support::*;

const MIB: u64 = 1 << 20;

fn partial_bytes(into: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(into.join(".novacron-partial")) else { return 0 };
    let data = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension() == Some(OsStr::new("data")));
    data.and_then(|path| fs::metadata(path).ok())
        .map_or(0, |found| std::os::unix::fs::MetadataExt::blocks(&found) * 512)
}

fn wait_for_partial(into: &Path, bytes: u64) {
    wait_until("enough has arrived", || partial_bytes(into) >= bytes);
}

/// Pacing makes the transfer last for seconds after there is enough to kill it, however late the test sees that.
fn slow_sender(from: &Path, to: &str) -> Process {
    let mut command = novacron();
    // So long it looks for a receiver that is gone.
    command.env("NOVACRON_TRANSPORT_RESUME_TIMEOUT", "2s");
    command.args(["send", "--pacing", "10MiB", "--compression", "none"]).arg(from).arg(to);
    Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn setup() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, into) = (dir.path().join("from"), dir.path().join("into"));
    (dir, from, into)
}

#[test]
fn a_tree_moves_and_moving_it_again_moves_nothing() {
    let (_dir, from, into) = setup();
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/large"), noise(20 * MIB, 0)).unwrap();
    fs::write(from.join("small"), b"small").unwrap();
    let receiver = Server::into(&into);
    let to = format!("{}:tree", receiver.address);
    let first = report(&send_one(&from, &to), 0);
    assert_eq!((&first["bytes_moved"], &first["files_done"]), (&(20 * 1_048_576 + 5).into(), &2.into()));
    assert_eq!(fs::read(into.join("tree/sub/large")).unwrap(), noise(20 * MIB, 0));
    let second = report(&send_one(&from, &to), 0);
    assert_eq!((&second["bytes_moved"], &second["files_skipped"]), (&0.into(), &2.into()));
}

#[test]
fn t6_the_sender_is_killed() {
    let (_dir, from, into) = setup();
    fs::write(&from, noise(80 * MIB, 0)).unwrap();
    let receiver = Server::into(&into);
    let to = format!("{}:f", receiver.address);
    let mut sender = slow_sender(&from, &to);
    wait_for_partial(&into, 24 << 20);
    sender.kill();
    assert!(!into.join("f").exists());
    let rest = report(&send_one(&from, &to), 0);
    assert!(rest["bytes_skipped"].as_u64().unwrap() >= 4 << 20, "{rest}");
    assert_eq!(fs::read(into.join("f")).unwrap(), noise(80 * MIB, 0));
}

#[test]
fn t6_the_receiver_is_killed() {
    let (_dir, from, into) = setup();
    fs::write(&from, noise(80 * MIB, 0)).unwrap();
    let mut receiver = Server::into(&into);
    let mut sender = slow_sender(&from, &format!("{}:f", receiver.address));
    wait_for_partial(&into, 24 << 20);
    receiver.process.kill();
    // The sender looks for its receiver for a while, and then says what to do.
    assert_eq!(sender.wait(), Some(1));
    assert!(!into.join("f").exists());
    let receiver = Server::into(&into);
    let rest = report(&send_one(&from, &format!("{}:f", receiver.address)), 0);
    assert!(rest["bytes_skipped"].as_u64().unwrap() >= 4 << 20, "{rest}");
    assert_eq!(fs::read(into.join("f")).unwrap(), noise(80 * MIB, 0));
}

#[test]
fn exit_codes_tell_what_happened() {
    let (dir, from, into) = setup();
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a"), b"new").unwrap();
    let receiver = Server::into(&into);
    fs::create_dir_all(into.join("t")).unwrap();
    fs::write(into.join("t/a"), b"precious").unwrap();
    let to = format!("{}:t", receiver.address);
    let refused = report(&send_one(&from, &to), 4);
    assert_eq!(refused["failed"][0]["path"], "t/a");
    assert_eq!(fs::read(into.join("t/a")).unwrap(), b"precious");

    // A directory in the way of a file: this one fails, the others do not.
    fs::create_dir(into.join("t/b")).unwrap();
    fs::write(from.join("b"), b"x").unwrap();
    fs::write(from.join("c"), b"x").unwrap();
    fs::remove_file(from.join("a")).unwrap();
    report(&send_one(&from, &to), 3);
    assert_eq!(fs::read(into.join("t/c")).unwrap(), b"x");

    let missing = dir.path().join("missing");
    let usage: [(&[&OsStr], i32, &str); 5] = [
        (&[missing.as_os_str(), OsStr::new("127.0.0.1:1")], 1, "missing"),
        (&[from.as_os_str(), OsStr::new("127.0.0.1")], 2, "HOST:PORT"),
        (&[from.as_os_str(), OsStr::new("127.0.0.1:1:../up")], 2, ".."),
        (&[from.as_os_str(), OsStr::new("127.0.0.1:1"), OsStr::new("--bogus")], 2, "bogus"),
        (&[from.as_os_str(), OsStr::new("192.0.2.1:1")], 4, "plaintext"),
    ];
    for (args, code, word) in usage {
        let output = send(args);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(word), "{errors}");
    }
    let taken =
        novacron().args(["recv", "--listen", &receiver.address, "--into"]).arg(&into).output().unwrap();
    assert_eq!(taken.status.code(), Some(1), "a port in use");
    assert!(errors(&taken).contains(&receiver.address), "{}", errors(&taken));
}

/// Off loopback nothing is plaintext by accident, and whoever wants it is told how.
#[test]
fn plaintext_off_loopback_needs_a_flag_that_the_error_names() {
    let (_dir, from, into) = setup();
    fs::write(&from, b"content").unwrap();
    let mut listening = novacron();
    listening.args(["recv", "--listen", "0.0.0.0:0", "--into"]).arg(&into);
    let mut measured = novacron();
    measured.args(["recv", "--listen", "127.0.0.1:0", "--metrics-listen", "0.0.0.0:0", "--into"]).arg(&into);
    let mut sending = novacron();
    sending.arg("send").arg(&from).arg("192.0.2.1:1");
    for (mut command, flag) in [
        (listening, "--allow-plaintext"),
        (sending, "--allow-plaintext"),
        (measured, "--metrics-allow-plaintext"),
    ] {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{}", errors(&output));
        assert!(errors(&output).contains(flag), "{}", errors(&output));
    }
    let receiver =
        Server::recv_at("0.0.0.0:0", &["--allow-plaintext".as_ref(), "--into".as_ref(), into.as_ref()]);
    let port = receiver.address.rsplit(':').next().unwrap();
    report(&send_one(&from, &format!("127.0.0.1:{port}:f")), 0);
    assert_eq!(fs::read(into.join("f")).unwrap(), b"content");
}

#[test]
fn standard_input_to_standard_output() {
    let content = noise(10_000_000, 0);
    let mut receiver = Server::recv(&[OsStr::new("--into"), OsStr::new("-")]);
    let mut output = receiver.process.output_reader();
    let reading = std::thread::spawn(move || {
        let mut received = Vec::new();
        output.read_to_end(&mut received).map(|_| received)
    });
    let to = format!("{}:name", receiver.address);
    let mut sender = Process::spawn(novacron().args(["send", "-", &to]).stdin(Stdio::piped()));
    let mut input = sender.0.stdin.take().unwrap();
    input.write_all(&content).unwrap();
    drop(input);
    assert_eq!(sender.wait(), Some(0));
    assert_eq!(receiver.process.wait(), Some(0));
    assert!(reading.join().unwrap().unwrap() == content);
}

#[test]
fn certificates_decide_who_may_send() {
    let (dir, from, into) = setup();
    fs::write(&from, noise(5 * MIB, 0)).unwrap();
    let certs = |folder: &str, nodes: &[&str]| {
        let folder = dir.path().join(folder);
        let mut command = novacron();
        command.arg("certs").arg("--out").arg(&folder).args(["--san", "127.0.0.1"]);
        for node in nodes {
            command.args(["--node", node]);
        }
        assert!(command.output().unwrap().status.success());
        folder
    };
    let (ours, others) = (certs("ours", &["receiver", "friend", "stranger"]), certs("others", &["friend"]));
    let flags = |folder: &Path, node: &str| {
        let file = |flag: &str, name: String| [flag.into(), folder.join(name).into_os_string()];
        let flags = [
            file("--cert", format!("{node}.pem")),
            file("--key", format!("{node}.key")),
            file("--ca", "ca.pem".into()),
        ];
        flags.into_iter().flatten().collect::<Vec<_>>()
    };
    let mut args = flags(&ours, "receiver");
    args.extend(["--allow", "friend", "--into"].map(Into::into));
    args.push(into.clone().into_os_string());
    let receiver = Server::recv(&args.iter().map(|arg| &**arg).collect::<Vec<_>>());
    let try_as = |folder: &Path, node: &str, extra: &[&str]| {
        let mut command = novacron();
        command.arg("send").args(flags(folder, node)).args(extra).arg(&from);
        command.arg(format!("{}:f", receiver.address)).output().unwrap()
    };
    for (folder, node) in [(&ours, "stranger"), (&others, "friend")] {
        let output = try_as(folder, node, &[]);
        assert_eq!(output.status.code(), Some(4), "{node} of {}: {}", folder.display(), errors(&output));
        assert!(!into.join("f").exists());
    }
    let wrong_name = try_as(&ours, "friend", &["--server-name", "somebody"]);
    assert_eq!(wrong_name.status.code(), Some(4), "{}", String::from_utf8_lossy(&wrong_name.stderr));
    let plaintext = send_one(&from, &receiver.address);
    assert_ne!(plaintext.status.code(), Some(0));
    assert!(!into.join("f").exists());

    let output = try_as(&ours, "friend", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(into.join("f")).unwrap(), noise(5 * MIB, 0));
}

#[test]
fn partials_are_cleaned_on_demand() {
    let (_dir, from, into) = setup();
    fs::write(&from, noise(60 * MIB, 0)).unwrap();
    let receiver = Server::into(&into);
    let mut sender = slow_sender(&from, &format!("{}:f", receiver.address));
    wait_for_partial(&into, 8 << 20);
    let clean = || novacron().args(["recv", "--clean-partials"]).arg(&into).output().unwrap();
    assert_eq!(clean().status.code(), Some(1), "in use");
    sender.kill();
    drop(receiver);
    assert_eq!(clean().status.code(), Some(0));
    assert_eq!(partial_bytes(&into), 0);
}
