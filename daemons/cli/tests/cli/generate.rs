//! Completions and man pages, made by the real command and read by those who are to read them, where they are there.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn novacron(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_novacron")).args(args).output().expect("the command runs");
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

/// Whether there is such a program; says so if not.
fn is_there(program: &str) -> bool {
    let found = ["/bin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(program).is_file());
    if !found {
        println!("SKIP: there is no program `{program}`");
    }
    found
}

#[test]
fn each_shell_takes_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let text = novacron(&["completions", shell]).stdout;
        let words = String::from_utf8(text.clone()).unwrap();
        for command in ["schedule", "migration", "completions", "suspend"] {
            assert!(words.contains(command), "{shell}: {command}");
        }
        if is_there(shell) {
            let file = folder.path().join(shell);
            fs::write(&file, text).unwrap();
            let checked = Command::new(shell).arg("-n").arg(&file).output().unwrap();
            assert!(checked.status.success(), "{shell}: {checked:?}");
        }
    }
    let wrong = Command::new(env!("CARGO_BIN_EXE_novacron")).args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn bash_completes_commands_and_flags() {
    if !is_there("bash") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("novacron.bash");
    fs::write(&file, novacron(&["completions", "bash"]).stdout).unwrap();
    let complete = |words: &str, last: usize| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={last}; _novacron novacron \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; \
             echo \"${{COMPREPLY[@]}}\"",
            file.display(),
            last - 1
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete("novacron sched", 1).trim(), "schedule");
    assert_eq!(complete("novacron schedule res", 2).trim(), "resume");
    assert!(complete("novacron schedule create --mi", 3).contains("--missed"));
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    novacron(&["man", pages.to_str().unwrap()]);
    let names: Vec<_> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in [
        "novacron.1",
        "novacron-schedule.1",
        "novacron-schedule-create.1",
        "novacron-vm-list.1",
        "novacron-vm-migrate.1",
        "novacron-man.1",
    ] {
        assert!(names.iter().any(|page| page == name), "{name}: {names:?}");
        let text = fs::read_to_string(pages.join(name)).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
    }
    // Made again, they are the same: they can be packaged.
    let before = fs::read(pages.join("novacron.1")).unwrap();
    novacron(&["man", pages.to_str().unwrap()]);
    assert_eq!(fs::read(pages.join("novacron.1")).unwrap(), before);
    if is_there("man") {
        for name in &names {
            let shown = Command::new("man").arg("-l").arg(pages.join(name)).output().unwrap();
            assert!(shown.status.success() && !shown.stdout.is_empty(), "{name}: {shown:?}");
        }
    }
    // A folder that cannot be made.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let failed = Command::new(env!("CARGO_BIN_EXE_novacron")).arg("man").arg(&file).output().unwrap();
    assert!(!failed.status.success());
}
