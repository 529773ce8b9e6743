//! Every recorded history gets its known verdict.

use std::{collections::HashMap, fs, path::Path};

use linearizability::{
    History, Model, Operation, OperationId, Register, RegisterInput, RegisterOutput, Text, TextInput,
    TextOutput, Verdict, check,
};

/// None of these takes a tenth of it.
const STEPS_MAX: u64 = 10_000_000;

fn data(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn register(content: &str) -> History<(), RegisterInput<u64>, RegisterOutput<u64>> {
    let mut history = History::default();
    let mut open: HashMap<u64, (OperationId, RegisterInput<u64>)> = HashMap::new();
    for (now, line) in (0..).zip(content.lines()) {
        let mut fields = line.strip_prefix("INFO  jepsen.util - ").expect("the prefix").split('\t');
        let mut field = || fields.next().unwrap_or_else(|| panic!("line {now}: {line}"));
        let (process, event, operation, value) = (field(), field(), field(), field());
        let process = process.parse().expect("a process");
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("line {now}: {line}"));
        if event == ":invoke" {
            let input = match operation {
                ":read" => RegisterInput::Read,
                ":write" => RegisterInput::Write(number(value)),
                _ => {
                    let pair = value.trim_matches(['[', ']']).split_once(' ').expect("[old new]");
                    RegisterInput::Cas { expected: number(pair.0), new: number(pair.1) }
                }
            };
            open.insert(process, (history.call(process, (), input.clone(), now), input));
            continue;
        }
        let (id, input) = open.remove(&process).expect("it was invoked");
        if value == ":timed-out" {
            continue;
        }
        let output = match input {
            RegisterInput::Read if value == "nil" => RegisterOutput::Value(None),
            RegisterInput::Read => RegisterOutput::Value(Some(number(value))),
            RegisterInput::Write(_) => RegisterOutput::Written,
            RegisterInput::Cas { .. } => RegisterOutput::Swapped(event == ":ok"),
        };
        history.returned(id, output, now);
    }
    history
}

/// Between `name` and what ends it.
fn field<'a>(line: &'a str, name: &str, end: &str) -> &'a str {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("{name} in {line}"));
    rest.split_once(end).unwrap_or_else(|| panic!("{end} in {line}")).0
}

fn texts(content: &str) -> History<String, TextInput, TextOutput> {
    let mut history = History::default();
    let mut open: HashMap<u64, OperationId> = HashMap::new();
    for (now, line) in (0..).zip(content.lines()) {
        let process = field(line, ":process ", ",").parse().expect("a process");
        let function = field(line, ":f ", ",");
        let value =
            line.split_once(":value ").expect("a value").1.trim_end_matches('}').trim_matches('"').to_owned();
        if field(line, ":type ", ",") == ":invoke" {
            let input = match function {
                ":get" => TextInput::Get,
                ":put" => TextInput::Put(value),
                _ => TextInput::Append(value),
            };
            let key = field(line, ":key \"", "\"").to_owned();
            open.insert(process, history.call(process, key, input, now));
        } else {
            let id = open.remove(&process).expect("it was invoked");
            let output = if function == ":get" { TextOutput::Text(value) } else { TextOutput::Written };
            history.returned(id, output, now);
        }
    }
    history
}

/// Whether it is linearizable; if not, the evidence is checked.
fn judge<K: Clone + Ord + std::fmt::Debug, M: Model>(
    file: &str,
    model: &M,
    operations: &[Operation<K, M::Input, M::Output>],
) -> bool {
    let violation = match check(model, operations, STEPS_MAX) {
        Verdict::Linearizable => return true,
        Verdict::Violation(violation) => violation,
        Verdict::Unknown { key } => panic!("{file}: unknown at {key:?}"),
    };
    let step = |state: &M::State, index: &usize| {
        let operation = &operations[*index];
        assert!(operation.key == violation.key, "{file}: an operation on another key");
        model.step(state, &operation.input, operation.answer.as_ref().map(|answer| &answer.output))
    };
    let end = violation.prefix.iter().try_fold(model.initial(), |state, index| step(&state, index));
    let end = end.unwrap_or_else(|| panic!("{file}: the prefix is no order"));
    assert_eq!(format!("{end:?}"), violation.state, "{file}");
    assert!(!violation.stuck.is_empty(), "{file}: nothing is stuck");
    assert!(violation.stuck.iter().all(|index| !violation.prefix.contains(index)), "{file}");
    false
}

#[test]
fn the_verdicts_are_reproduced() {
    let verdicts = data("verdicts.tsv");
    let mut judged = 0;
    for line in verdicts.lines().skip(1) {
        let (file, expected) = line.split_once('\t').expect("file and verdict");
        let content = data(file);
        let found = match file.starts_with("register/") {
            true => judge(file, &Register::default(), register(&content).operations()),
            false => judge(file, &Text, texts(&content).operations()),
        };
        assert_eq!(found, expected == "true", "{file}");
        judged += 1;
    }
    assert!(judged > 60, "{judged} histories");
}
