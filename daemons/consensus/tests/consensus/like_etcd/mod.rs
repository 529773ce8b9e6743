//! One script of etcdctl's commands to a cluster of etcd's and to one of ours: what each prints, and how it ends, is equal.
//! The commands are in `script.txt`; what is not compared of which is in `masks.rs`, with the reasons.

mod cluster;
mod masks;
mod script;

use std::{collections::BTreeMap, process::Command};

use cluster::{Outcome, Running, Side};
use masks::{DIFFERENT, MASKS};
use script::{Action, Line};

const SCRIPT: &str = include_str!("script.txt");

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIP: {program} is not installed (Debian's packages etcd-client and etcd-server)");
    }
    there
}

/// Where a script is on one side.
struct Play {
    side: Side,
    running: BTreeMap<&'static str, Running>,
}

impl Play {
    fn new(program: &'static str) -> Self {
        Self { side: Side::start(program), running: BTreeMap::new() }
    }

    /// `None`: nothing is printed.
    fn play(&mut self, line: &Line) -> Option<Outcome> {
        let outcome = match &line.action {
            Action::Run(command) => self.side.run(command).end(line.lines),
            Action::Start(name, command) => {
                self.running.insert(name, self.side.run(command));
                return None;
            }
            Action::End(name) => {
                let running = self.running.remove(name).unwrap_or_else(|| panic!("{name} was not started"));
                running.end(line.lines)
            }
            Action::Kill(n) => {
                self.side.kill(*n);
                return None;
            }
            Action::Member(n) => {
                self.side.start_member(*n);
                return None;
            }
            Action::Sleep(time) => {
                std::thread::sleep(*time);
                return None;
            }
        };
        if let Some(name) = line.lease {
            self.side.learn_lease(&outcome, name);
        }
        if line.text.contains("member add") && outcome.code == Some(0) {
            self.side.learn();
        }
        Some(Outcome { out: self.side.named(&outcome.out), err: self.side.named(&outcome.err), ..outcome })
    }
}

fn masked(outcome: &Outcome, line: &Line) -> (Option<i32>, String, String) {
    let masked = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for name in &line.masks {
            let mask = MASKS.iter().find(|mask| mask.name == *name);
            let mask = mask.unwrap_or_else(|| panic!("line {}: no mask {name}", line.number));
            if !bytes.is_empty() {
                bytes = (mask.apply)(&bytes).into_bytes();
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (outcome.code, masked(&outcome.out), masked(&outcome.err))
}

#[test]
fn etcdctl_sees_no_difference() {
    if !is_there("etcd") || !is_there("etcdctl") {
        return;
    }
    let mut etcd = Play::new("etcd");
    let mut ours = Play::new(env!("CARGO_BIN_EXE_novacron-consensus"));
    let (mut compared, mut failed) = (0, 0);
    let mut different = String::new();
    for line in script::lines(SCRIPT) {
        let (Some(expected), Some(found)) = std::thread::scope(|scope| {
            let expected = scope.spawn(|| etcd.play(&line));
            let found = ours.play(&line);
            (expected.join().unwrap(), found)
        }) else {
            continue;
        };
        compared += 1;
        failed += usize::from(expected.code != Some(0));
        let (expected, found) = (masked(&expected, &line), masked(&found, &line));
        let why = line.differs.map(|name| {
            let known = DIFFERENT.iter().find(|(known, _)| *known == name);
            known.unwrap_or_else(|| panic!("line {}: no reason {name}", line.number)).1
        });
        if (expected == found) == why.is_some() {
            different += &format!("line {}: {}\n", line.number, line.text);
            for mask in MASKS.iter().filter(|mask| line.masks.contains(&mask.name)) {
                different += &format!("not compared: {}\n", mask.why);
            }
            if let Some(why) = why {
                different += &format!("should differ: {why}\n");
            }
            different += &format!("etcd: {expected:?}\nours: {found:?}\n\n");
        }
    }
    assert!(different.is_empty(), "{different}");
    assert!(
        compared > 300 && failed > 60,
        "the script is shorter: {compared} commands, {failed} of them fail"
    );
}
