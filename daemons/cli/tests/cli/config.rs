//! The real command's settings: file, environment and flags, what is refused and how that is said.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::support::{Server, errors};
use tempfile::TempDir;

/// The command, without what the environment of the tests says. One that hangs fails.
fn novacron(args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    crate::support::clean(&mut command);
    command.env_remove("RUST_LOG").args(["60", env!("CARGO_BIN_EXE_novacron")]).args(args);
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    novacron(args).output().expect("the command runs")
}

#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = command.output().expect("the command runs");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs it and expects exit code 2 and these words.
#[track_caller]
fn refused(command: &mut Command, words: &str) {
    let output = command.output().expect("the command runs");
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(words), "{words:?} is not in {errors:?}");
}

/// A folder with `n.yaml` in it.
fn config(text: impl AsRef<[u8]>) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.yaml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

/// Without the comments that say where values come from.
fn values(yaml: &str) -> Vec<&str> {
    yaml.lines().map(|line| line.split_once("  # ").map_or(line, |(value, _)| value)).collect()
}

/// Every command that takes settings.
const COMMANDS: [&[&str]; 4] = [&["send"], &["recv"], &["bench", "server"], &["bench", "client"]];

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let text = "region: file\ncompression:\n  algorithm: lz4\n  level: 3\ntransport: {streams: {max: 8}}\n";
    let (_folder, path) = config(text);
    for command in COMMANDS {
        let mut command = novacron(command);
        command.args(["--config", &path, "--print-config", "--level", "7"]);
        command.env("NOVACRON_COMPRESSION_LEVEL", "5").env("NOVACRON_REGION", "env");
        let yaml = printed(&mut command);
        for line in [
            "region: env  # environment variable NOVACRON_REGION".to_owned(),
            format!("  algorithm: lz4  # {path}:3"),
            "  level: 7  # flag --level".to_owned(),
            format!("    max: 8  # {path}:5"),
            "    min: 1  # default".to_owned(),
        ] {
            assert!(yaml.lines().any(|l| l == line), "{line:?} is not in\n{yaml}");
        }
    }
}

#[test]
fn what_is_printed_reads_back_and_is_the_same() {
    let flags = ["--streams-max", "8", "--pacing", "10MiB", "--allow-plaintext", "--listen", "[::1]:0"];
    let first = printed(novacron(&["recv", "--print-config"]).args(flags));
    let (_folder, path) = config(&first);
    let second = printed(&mut novacron(&["recv", "--config", &path, "--print-config"]));
    assert_eq!(values(&second), values(&first));
    assert!(second.contains("pacing_bytes_per_second: 10 MiB"), "{second}");
    let output = run(&["recv", "--config", &path, "--check-config"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn mistakes_in_a_file_are_named_with_their_line() {
    for (text, words) in [
        ("transport:\n  strems:\n    max: 4\n", ":3: transport.strems.max: no such setting; did you mean"),
        ("lisen: here\n", ":1: lisen: no such setting; did you mean listen?"),
        (
            "compression:\n  level: 20\n",
            ":2: compression.level: \"20\" is not allowed, expected auto or 1..=19",
        ),
        ("transport:\n  frame_bytes_max: 5 MB\n", ":2: transport.frame_bytes_max: \"5 MB\" is not allowed"),
        ("listen: 127.0.0.1\n", ":1: listen: \"127.0.0.1\" is not allowed, expected ADDRESS:PORT"),
        ("a: [1\n", ":2: "),
    ] {
        let (_folder, path) = config(text);
        for action in ["--check-config", "--print-config"] {
            refused(&mut novacron(&["recv", "--config", &path, action]), &format!("{path}{words}"));
        }
        // Without either, nothing is begun.
        refused(&mut novacron(&["recv", "--config", &path, "--into", "/nonexistent/x"]), &path);
    }
}

#[test]
fn files_that_are_no_settings_are_refused() {
    let (folder, path) = config(b"region: \xff\n");
    refused(&mut novacron(&["send", "--config", &path, "--check-config"]), &path);
    let folder = folder.path().to_str().expect("UTF-8");
    for path in ["/nonexistent/n.yaml", "/dev/zero", folder] {
        refused(&mut novacron(&["send", "--config", path, "--check-config"]), path);
    }
}

#[test]
fn certificates_are_checked_too() {
    let (folder, path) = config("tls:\n  cert: /nonexistent/c.pem\n  key: k.pem\n  ca: ca.pem\n");
    let words = format!("{path}:2: tls: cannot read the certificate file /nonexistent/c.pem");
    refused(&mut novacron(&["recv", "--config", &path, "--check-config"]), &words);
    refused(&mut novacron(&["recv", "--check-config", "--key", "k.pem"]), "tls.cert");
    refused(
        &mut novacron(&["recv", "--check-config", "--cert=c", "--key=k", "--ca=a", "--allow", "a*b"]),
        "flag --allow: tls.allow: \"a*b\"",
    );

    let certs = folder.path().join("certs");
    let made = novacron(&["certs", "--node", "n", "--out"]).arg(&certs).output().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}", errors(&made));
    let file = |name: &str| certs.join(name).display().to_string();
    // The key from the command line, the rest from the file.
    fs::write(&path, format!("tls: {{cert: {}, ca: {}, allow: [n]}}\n", file("n.pem"), file("ca.pem")))
        .unwrap();
    let key = file("n.key");
    let output = run(&["recv", "--config", &path, "--key", &key, "--check-config"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn variables_are_checked_and_unknown_ones_reported() {
    let mut command = novacron(&["recv", "--check-config"]);
    refused(command.env("NOVACRON_LISTEN", "here"), "environment variable NOVACRON_LISTEN: listen: \"here\"");
    let mut command = novacron(&["recv", "--check-config"]);
    let output = command.env("NOVACRON_API_SERVICE_HOST", "10.0.0.1").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(errors(&output).contains("NOVACRON_API_SERVICE_HOST"), "{}", errors(&output));
}

#[test]
fn bad_flags_are_refused() {
    let bad: [&[&str]; 10] = [
        &["--level", "20"],
        &["--streams-max", "2", "--streams-min", "4"],
        &["--streams-max", "0"],
        &["--streams-max", "many"],
        &["--frame-bytes-max", "1GiB"],
        &["--frame-bytes-max", "99999999999999GiB"],
        &["--compression", "gzip"],
        &["--pacing", "fast"],
        &["--bogus"],
        &["--print-config"],
    ];
    for flags in bad {
        for command in COMMANDS {
            refused(novacron(command).args(["--check-config"]).args(flags), flags[0]);
        }
    }
    // What is needed to run is not needed to check.
    for (command, missing) in
        [(&["send"][..], "SRC"), (&["recv"], "--into"), (&["bench", "client"], "HOST:PORT")]
    {
        refused(&mut novacron(command), missing);
    }
}

#[test]
fn the_configured_address_is_listened_on_and_a_used_one_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (folder, path) = config(format!("listen: {address}\n"));
    let into = folder.path().join("into");
    let into = into.to_str().expect("UTF-8");
    for command in [&["recv", "--into", into][..], &["bench", "server"]] {
        let output = novacron(command).args(["--config", &path]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
        assert!(errors(&output).contains(&address), "{}", errors(&output));
    }
    drop(taken);

    let mut command = crate::support::novacron();
    command.args(["recv", "--into", into, "--config", &path]).env("NOVACRON_LISTEN", "127.0.0.1:0");
    let server = Server::start(&mut command);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    assert_ne!(server.address, address, "the variable goes over the file");
}

#[test]
fn a_read_only_destination_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();
    let Some(output) = receive_read_only(&into) else {
        eprintln!("SKIP: a read-only mount in a namespace of its own is not possible here");
        return;
    };
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let words = into.to_str().expect("UTF-8");
    assert!(errors(&output).contains(words), "{}", errors(&output));
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
}

/// Root may write where modes forbid it, so the folder is on a read-only mount that only the receiver sees.
fn receive_read_only(into: &Path) -> Option<Output> {
    /// What the script below says when it cannot mount.
    const NO_MOUNT: i32 = 77;
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 77
        exec timeout 60 \"$0\" recv --listen 127.0.0.1:0 --into \"$1\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(PathBuf::from(env!("CARGO_BIN_EXE_novacron"))).arg(into).stdin(Stdio::null());
    let output = command.output().ok()?;
    // unshare itself fails with 1 and says who it is.
    let failed = output.status.code() == Some(NO_MOUNT) || errors(&output).starts_with("unshare:");
    (!failed).then_some(output)
}
