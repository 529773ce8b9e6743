//! What clients see while members are killed, stopped and cut off is linearizable, and the checker would notice if not.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chaos::{Cluster, Cut, Fault, KEYS, Load, Network, Reads, Recording, Round, Schedule, run};
use linearizability::{EtcdKeyInput as Input, EtcdKeyOutput as Output, Verdict};

const CLIENTS: u64 = 7;
const SEED: u64 = 20_260;
const ROUNDS: usize = 6;

/// One cluster at a time: two that compete for the processors would spend their time on elections.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The daemon that the same build has made; this package cannot depend on it.
fn novacron_consensus() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("novacron-consensus");
    if !program.is_file() {
        eprintln!("SKIP: {} is not built (cargo build --release --workspace --bins)", program.display());
        return None;
    }
    Some(program)
}

fn bridged() -> Option<Network> {
    Network::bridged().map_err(|error| eprintln!("SKIP: nothing can be cut off: {error:#}")).ok()
}

fn load(reads: Reads) -> Load {
    Load { clients: CLIENTS, seed: SEED, reads }
}

fn assert_linearizable(recording: &Recording) {
    match recording.verdict() {
        Verdict::Linearizable => {}
        Verdict::Violation(violation) => panic!("{}", violation.explain(&recording.operations)),
        Verdict::Unknown { key } => panic!("key {key}: the checker's limit is reached"),
    }
}

fn assert_violation_at(recording: &Recording, key: u64) {
    match recording.verdict() {
        Verdict::Violation(violation) => assert_eq!(violation.key, key),
        verdict => panic!("{verdict:?}"),
    }
}

/// Something of everything was answered: a history in which nothing happened would be linearizable as well.
fn assert_something_happened(recording: &Recording) {
    let outputs =
        || recording.operations.iter().filter_map(|operation| Some(&operation.answer.as_ref()?.output));
    assert!(outputs().any(|output| matches!(output, Output::Put { .. })));
    assert!(outputs().any(|output| matches!(output, Output::Deleted { existed: true, .. })));
    assert!(outputs().any(|output| matches!(output, Output::Swapped { succeeded: true, .. })));
    assert!(outputs().any(|output| matches!(output, Output::Swapped { succeeded: false, .. })));
    assert!(outputs().any(|output| matches!(output, Output::Got(Some(_)))));
}

/// Any get, put or swap of this key that was answered, before the last one that shows something else: value and revision.
fn older_value(recording: &Recording, key: u64, last: &Option<(String, u64)>) -> (String, u64) {
    let written =
        recording.operations.iter().filter(|operation| operation.key == key).filter_map(|operation| {
            let revision = match operation.answer.as_ref()?.output {
                Output::Put { revision } | Output::Swapped { succeeded: true, revision } => revision?,
                _ => return None,
            };
            match &operation.input {
                Input::Put(value) | Input::Cas { new: value, .. } => Some((value.clone(), revision)),
                Input::Get | Input::Delete => None,
            }
        });
    let mut older: Vec<_> = written.filter(|written| Some(written) != last.as_ref()).collect();
    older.sort_by_key(|(_, revision)| *revision);
    older.pop().expect("the key was written more than once")
}

/// With one of the last reads replaced by an older value, each history is refused. All clients are done then, so nothing
/// that is still going on explains it.
fn assert_an_old_read_is_refused(recording: &mut Recording) {
    for key in 0..KEYS {
        let last = recording
            .operations
            .iter()
            .rposition(|operation| operation.key == key && operation.answer.is_some());
        let last = last.expect("every key is read in the end");
        let answer = recording.operations[last].answer.clone().expect("it was answered");
        let Output::Got(held) = &answer.output else { panic!("the last operation is a read: {answer:?}") };
        let older = Output::Got(Some(older_value(recording, key, held)));
        recording.operations[last].answer.as_mut().expect("it was answered").output = older;
        assert_violation_at(recording, key);
        recording.operations[last].answer = Some(answer);
    }
    assert_linearizable(recording);
}

#[test]
fn clients_see_one_history_whatever_is_killed_stopped_or_cut_off() {
    let _turn = turn();
    let (Some(program), Some(network)) = (novacron_consensus(), bridged()) else { return };
    let mut cluster = Cluster::start(&program, network).unwrap();
    let rounds: Vec<_> = Schedule::new(SEED, true).take(ROUNDS).collect();
    let mut recording = run(&mut cluster, &load(Reads::Linearizable), &rounds).unwrap();
    assert_something_happened(&recording);
    assert_linearizable(&recording);
    assert_an_old_read_is_refused(&mut recording);
}

/// Where there are no namespaces this still tells something.
#[test]
fn clients_see_one_history_on_loopback() {
    let _turn = turn();
    let Some(program) = novacron_consensus() else { return };
    let mut cluster = Cluster::start(&program, Network::loopback()).unwrap();
    let rounds: Vec<_> = Schedule::new(SEED, false).take(2).collect();
    let recording = run(&mut cluster, &load(Reads::Linearizable), &rounds).unwrap();
    assert_something_happened(&recording);
    assert_linearizable(&recording);
}

/// Members that answer reads with what they have break the promise when they are cut off from the others: what finds no
/// fault with that would find none with anything.
#[test]
fn stale_reads_of_a_member_that_is_cut_off_are_found() {
    let _turn = turn();
    let (Some(program), Some(network)) = (novacron_consensus(), bridged()) else { return };
    let mut cluster = Cluster::start(&program, network).unwrap();
    let time = Duration::from_secs(2);
    let cut = |member| Round { fault: Fault::Cut(Cut::Members), member, lasts: time, rest: time / 4 };
    let recording = run(&mut cluster, &load(Reads::Serializable), &[cut(0), cut(1)]).unwrap();
    assert_something_happened(&recording);
    assert!(matches!(recording.verdict(), Verdict::Violation(_)));
}

#[test]
fn a_member_that_ends_by_itself_is_an_error_and_nothing_is_left() {
    let _turn = turn();
    let Some(program) = novacron_consensus() else { return };
    let mut cluster = Cluster::start(&program, Network::loopback()).unwrap();
    let processes: Vec<_> = (0..chaos::MEMBERS).map(|n| cluster.process(n).unwrap()).collect();
    let killed = nix::unistd::Pid::from_raw(processes[1] as i32);
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    let error = run(&mut cluster, &load(Reads::Linearizable), &[]).unwrap_err().to_string();
    assert!(error.contains("member 1 ended by itself"), "{error}");
    let folder = cluster.folder();
    assert!(folder.is_dir());
    drop(cluster);
    assert!(!folder.exists());
    for process in processes {
        assert!(!PathBuf::from(format!("/proc/{process}")).exists(), "process {process} is left");
    }
}
