//! Decisions as tables, and every crash: a start that was killed between any two steps leaves what the next puts right.
//! On files in place of `/proc/sys`; `tests/tune.rs` has the kernel.

use std::{fs, path::PathBuf};

use super::{decide::decide, *};

/// A folder with two sysctls, and the state file beside.
struct Machine {
    folder: tempfile::TempDir,
}

const SIZE: &str = "net.core.rmem_max";
const SIZES: &str = "net.ipv4.tcp_rmem";

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(machine.path("net/core")).expect("made");
        fs::create_dir_all(machine.path("net/ipv4")).expect("made");
        machine.set(SIZE, "212992\n");
        machine.set(SIZES, "4096\t131072\t6291456\n");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.path("tune.json")
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.path(&name.replace('.', "/")), value).expect("written");
    }

    fn get(&self, name: &str) -> String {
        let value = fs::read_to_string(self.path(&name.replace('.', "/"))).expect("read");
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn kernel(&self) -> Kernel {
        Kernel::with_sysctls(self.folder.path().to_owned())
    }

    fn apply(&self, bytes: u64) -> Vec<Report> {
        apply_in(&mut self.kernel(), self.wants(bytes), &self.state()).expect("the state file is fine")
    }

    fn wants(&self, bytes: u64) -> Vec<(Item, Want)> {
        vec![
            (Item::Sysctl(SIZE.to_owned()), Want::AtLeast(bytes)),
            (Item::Sysctl(SIZES.to_owned()), Want::MostAtLeast(bytes)),
        ]
    }

    fn restore(&self) -> Vec<Outcome> {
        let reports =
            restore_in(&mut self.kernel(), &self.state(), |_| true).expect("the state file is fine");
        reports.into_iter().map(|report| report.outcome).collect()
    }

    fn is_as_before(&self) {
        assert_eq!((self.get(SIZE).as_str(), self.get(SIZES).as_str()), ("212992", "4096 131072 6291456"));
        assert!(!self.state().exists(), "and nothing is recorded");
    }
}

#[test]
fn what_has_to_change() {
    let change = |from: &str, to: &str| Decision::Change { from: from.to_owned(), to: to.to_owned() };
    let already = |value: &str| Decision::Stay(Outcome::Already { value: value.to_owned() });
    for (want, present, decision) in [
        (Want::AtLeast(100), "99", change("99", "100")),
        (Want::AtLeast(100), "100", already("100")),
        (Want::AtLeast(100), "101", already("101")),
        (Want::MostAtLeast(100), "4 5 6", change("4 5 6", "4 5 100")),
        (Want::MostAtLeast(100), "4 5 200", already("4 5 200")),
        (Want::Exactly("bbr"), "cubic", change("cubic", "bbr")),
        (Want::Exactly("bbr"), "bbr", already("bbr")),
        (Want::Fq, "default pfifo_fast", change("default pfifo_fast", "fq")),
        (Want::Fq, "default mq", change("default mq", "mq")),
        (Want::Fq, "default fq", already("default fq")),
        (Want::Fq, "fq", already("fq")),
    ] {
        assert_eq!(decide(&want, present), decision, "{want:?} of {present}");
    }
    for (want, present) in [(Want::Fq, "htb"), (Want::AtLeast(1), "x"), (Want::MostAtLeast(1), "1 2")] {
        let decision = decide(&want, present);
        assert!(
            matches!(decision, Decision::Stay(Outcome::Cannot { .. })),
            "{want:?} of {present}: {decision:?}"
        );
    }
}

#[test]
fn what_was_set_is_put_back() {
    let machine = Machine::new();
    let reports = machine.apply(1 << 24);
    assert!(reports.iter().all(|report| matches!(report.outcome, Outcome::Set { .. })), "{reports:?}");
    assert_eq!(machine.get(SIZES), "4096 131072 16777216");
    let again = machine.apply(1 << 24);
    assert!(again.iter().all(|report| matches!(report.outcome, Outcome::Already { .. })), "{again:?}");
    machine.restore();
    machine.is_as_before();
    assert_eq!(machine.restore(), [], "there is nothing more to do");
}

#[test]
fn a_crash_between_any_two_steps_is_put_right_by_the_next_start() {
    for steps in 0..=3usize {
        for goes_on in [false, true] {
            let machine = Machine::new();
            let mut kernel = machine.kernel();
            let mut decided = decide_all(&mut kernel, machine.wants(1 << 24));
            if steps > 0 {
                record(&mut machine.kernel(), &mut decided, &machine.state()).expect("recorded");
            }
            for (item, decision) in decided.into_iter().take(steps.saturating_sub(1)) {
                let Decision::Change { from, to } = decision else { panic!("{item} has to change") };
                assert!(matches!(change(&mut kernel, &item, from, to), Outcome::Set { .. }));
            }
            if goes_on {
                machine.apply(1 << 24);
                assert_eq!(machine.get(SIZE), "16777216", "after {steps} steps");
            }
            machine.restore();
            machine.is_as_before();
        }
    }
}

#[test]
fn other_settings_after_a_crash_still_end_where_it_began() {
    let machine = Machine::new();
    machine.apply(1 << 24);
    // Killed after the record of the second change, before the change.
    let mut decided = decide_all(&mut machine.kernel(), machine.wants(1 << 25));
    record(&mut machine.kernel(), &mut decided, &machine.state()).expect("recorded");
    machine.restore();
    machine.is_as_before();

    machine.apply(1 << 24);
    machine.apply(1 << 25);
    assert_eq!(machine.get(SIZE), "33554432");
    let fewer = vec![(Item::Sysctl(SIZE.to_owned()), Want::AtLeast(1 << 25))];
    apply_in(&mut machine.kernel(), fewer, &machine.state()).expect("the state file is fine");
    assert_eq!(machine.get(SIZES), "4096 131072 6291456", "what is not wanted any more is put back");
    machine.restore();
    machine.is_as_before();
}

#[test]
fn what_somebody_else_has_set_is_left() {
    let machine = Machine::new();
    machine.apply(1 << 24);
    machine.set(SIZE, "5000000\n");
    let outcomes = machine.restore();
    assert_eq!(outcomes[0], Outcome::Left { value: "5000000".to_owned(), was: "212992".to_owned() });
    assert_eq!(machine.get(SIZE), "5000000");
    assert_eq!(machine.get(SIZES), "4096 131072 6291456");
    assert!(!machine.state().exists());
}

#[test]
fn a_record_of_an_earlier_start_of_the_machine_says_nothing() {
    let machine = Machine::new();
    let content = format!(
        r#"{{"boot":"another","changes":[{{"item":{{"sysctl":"{SIZE}"}},"was":"1","ours":["212992"]}}]}}"#
    );
    fs::write(machine.state(), content).expect("written");
    assert_eq!(machine.restore(), []);
    machine.is_as_before();
}

#[test]
fn a_damaged_record_is_not_overwritten() {
    let machine = Machine::new();
    fs::write(machine.state(), "{").expect("written");
    let result = apply_in(&mut machine.kernel(), machine.wants(1 << 24), &machine.state());
    let Err(StateError::Damaged { path, .. }) = result else { panic!("{result:?}") };
    assert_eq!(path, machine.state());
    assert_eq!(machine.get(SIZE), "212992", "and nothing is changed that could not be put back");
}
