//! The real command: dictionaries are made, listed, and used by a transfer.

use std::{ffi::OsStr, fmt::Write as _, fs, path::Path};

use crate::support::*;

/// A file of records, one a line.
fn records(path: &Path, from: usize) {
    let mut text = String::new();
    for n in from..from + 3000 {
        let (piece, peer) = (n * 7919 % 99_991, n % 31);
        writeln!(text, "{{\"level\":\"info\",\"message\":\"a piece was verified\",\"piece\":{piece},\"peer\":\"node-{peer}\"}}").unwrap();
    }
    fs::write(path, text).unwrap();
}

fn dict(args: &[&OsStr]) -> (Option<i32>, String, String) {
    let output = novacron().arg("dict").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_dictionary_is_made_listed_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (samples, kept) = (path("samples.json"), path("kept"));
    records(&samples, 0);
    let flag = OsStr::new("--dictionaries");
    let train = |class: &str| {
        let class = OsStr::new(class);
        let args = ["train", "--lines", "--bytes", "16KiB", "--class"].map(OsStr::new);
        dict(&[&args[..], &[class, flag, kept.as_os_str(), samples.as_os_str()]].concat())
    };
    let (code, said, error) = train("json");
    assert_eq!(code, Some(0), "{error}");
    assert!(said.starts_with("json-1-") && said.contains("held-out samples"), "{said}");
    let (code, _, error) = train("JSON");
    assert_eq!(code, Some(1));
    assert!(error.contains("a class of dictionaries has 1 to 32 of a-z, 0-9 and _"), "{error}");
    let (code, listed, _) = dict(&[OsStr::new("ls"), flag, kept.as_os_str()]);
    assert_eq!((code, listed.lines().count()), (Some(0), 2), "{listed}");

    // Both ends take it, and what is sent arrives; without the folder it is said which.
    let (from, into) = (path("records.json"), path("into"));
    records(&from, 50_000);
    let receiver = Server::recv(&[OsStr::new("--into"), into.as_os_str(), flag, kept.as_os_str()]);
    let to = OsStr::new(&receiver.address);
    report(&send(&[from.as_os_str(), to, flag, kept.as_os_str()]), 0);
    assert!(fs::read(into.join("records.json")).unwrap() == fs::read(&from).unwrap());
    let missing = path("none");
    let failed = novacron().args(["send"]).arg(&from).arg(to).arg(flag).arg(&missing).output().unwrap();
    let error = String::from_utf8_lossy(&failed.stderr);
    assert!(
        !failed.status.success() && error.contains("compression.dictionaries: cannot read the folder"),
        "{error}"
    );

    // What is damaged is left out, said, and nothing else changes.
    let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, listed, error) = dict(&[OsStr::new("ls"), flag, kept.as_os_str()]);
    assert_eq!((code, listed.lines().count()), (Some(1), 1), "{listed}");
    assert!(error.contains("damaged"), "{error}");
    fs::remove_file(into.join("records.json")).unwrap();
    let sent = send(&[from.as_os_str(), to, flag, kept.as_os_str()]);
    report(&sent, 0);
    assert!(String::from_utf8_lossy(&sent.stderr).contains("a dictionary is left out"));
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (few, kept) = (dir.path().join("few"), dir.path().join("kept"));
    fs::write(&few, "one\ntwo\n").unwrap();
    let args = ["train", "--lines", "--class", "log", "--dictionaries"].map(OsStr::new);
    let (code, _, error) = dict(&[&args[..], &[kept.as_os_str(), few.as_os_str()]].concat());
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("2 samples are too few"), "{error}");
    assert!(!kept.exists(), "nothing is left");
    let bytes =
        [&args[..], &[kept.as_os_str(), few.as_os_str(), OsStr::new("--bytes"), OsStr::new("2MiB")]].concat();
    let (code, _, error) = dict(&bytes);
    assert_eq!(code, Some(2));
    assert!(error.contains("--bytes: \"2MiB\" is not allowed"), "{error}");
}
