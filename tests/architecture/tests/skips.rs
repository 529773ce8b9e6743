//! `scripts/test.sh`: a test that could not run is shown and does not count as passed, and a failure stays one.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use architecture::root;

/// What cargo prints for two binaries, with `--show-output`.
const CARGO: &str = "\
     Running tests/trees.rs (target/release/deps/trees-0123456789abcdef)

running 3 tests
test a ... ok
test b::c ... ok
test d ... ok

successes:

---- b::c stdout ----
SKIP: no loop devices here
SKIP: nor anything else

---- d stdout ----
it went well

successes:
    a
    b::c
    d

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running unittests src/lib.rs (target/release/deps/dwcp_sys-0123456789abcdef)

running 2 tests
test e ... FAILED
test f ... ok

successes:

---- f stdout ----
SKIP: not root

successes:
    f

failures:

---- e stdout ----
SKIP: this failed, whatever it says

thread 'e' (7) panicked at src/rings.rs:12:5:
no ring

failures:
    e

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

/// Runs the script over a cargo that prints this and ends with this code.
fn run(folder: &Path, prints: &str, code: u8) -> (Output, PathBuf) {
    let (cargo, target) = (folder.join("cargo"), folder.join("target"));
    fs::write(folder.join("prints"), prints).expect("a file");
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = 'test -p x -- --show-output' ] || exit 77\ncat {}/prints\nexit {code}\n",
        folder.display()
    );
    fs::write(&cargo, script).expect("a file");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o700)).expect("permissions");
    let mut command = Command::new(root().join("scripts/test.sh"));
    command.args(["-p", "x"]).env("CARGO", &cargo).env("CARGO_TARGET_DIR", &target);
    (command.output().expect("the script runs"), target)
}

#[test]
fn skipped_tests_are_shown_and_do_not_count_as_passed() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skips");
    fs::create_dir_all(&folder).expect("a folder");
    let (output, target) = run(&folder, CARGO, 101);
    assert_eq!(output.status.code(), Some(101), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    let results: Vec<_> = said.lines().filter(|line| line.starts_with("test result")).collect();
    let rest = "0 measured; 0 filtered out; finished in 0.00s";
    assert_eq!(
        results,
        [
            format!("test result: ok. 2 passed; 0 failed; 2 ignored; {rest}"),
            format!("test result: FAILED. 0 passed; 1 failed; 1 ignored; {rest}"),
        ]
    );
    assert!(!said.contains("it went well") && said.contains("---- e stdout ----"), "{said}");
    let sum = "\
SKIP: no loop devices here [trees, b::c]
SKIP: nor anything else [trees, b::c]
SKIP: not root [dwcp_sys, f]
FAILED: [dwcp_sys, e]: src/rings.rs:12:5: no ring
all tests: 2 passed, 1 failed, 3 ignored or skipped
";
    assert!(said.ends_with(sum), "{said}");
    assert_eq!(fs::read_to_string(target.join("test-skips.txt")).expect("the sum"), sum);

    let (output, _) = run(&folder, "error: could not compile\n", 101);
    assert_eq!(output.status.code(), Some(101));
    let (output, _) = run(&folder, "", 0);
    assert!(output.status.success());
    assert!(output.stdout.ends_with(b"all tests: 0 passed, 0 failed, 0 ignored or skipped\n"));
}

/// A package that a skipped test names is one that `scripts/install-deps.sh` installs.
#[test]
fn what_skipped_tests_lack_is_installed() {
    let installs = fs::read_to_string(root().join("scripts/install-deps.sh")).expect("the script");
    let installed: Vec<_> = installs.split(|c: char| c.is_whitespace() || c == '"').collect();
    for (file, package) in [
        ("benches/tests/store.rs", "etcd-server"),
        ("daemons/consensus/tests/consensus/etcdctl.rs", "etcd-client"),
        ("daemons/api/tests/api/postgres.rs", "postgresql"),
    ] {
        let test = fs::read_to_string(root().join(file)).expect("the test");
        assert!(test.contains(&format!("(Debian's package {package})")), "{file}");
        assert!(installed.contains(&package), "{package} of {file}");
    }
}

#[test]
fn scripts_that_cannot_run_say_so_in_the_sum() {
    for name in ["test-openapi", "test-page"] {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Whatever an earlier run has left.
        let _ = fs::remove_dir_all(&target);
        let mut command = Command::new(root().join(format!("scripts/{name}.sh")));
        let output = command.env("CARGO_TARGET_DIR", &target).output().expect("the script runs");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(said.starts_with("SKIP: there is no ") && said.ends_with(&format!("[{name}]\n")), "{said}");
        assert_eq!(fs::read_to_string(target.join("test-skips.txt")).expect("the sum"), said);
    }
}
