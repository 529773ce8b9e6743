//! Histories of real executions are accepted, altered ones refused, and on small ones the search agrees with trying every
//! order.

use linearizability::{
    Answer, EtcdKey, EtcdKeyInput as Input, EtcdKeyOutput as Output, Model, Operation, Register,
    RegisterInput, RegisterOutput, Verdict, check, merge_unseen_writes,
};
use proptest::prelude::*;

type EtcdOperation = Operation<u8, Input<u64>, Output<u64>>;
type RegisterOperation = Operation<u8, RegisterInput<u8>, RegisterOutput<u8>>;

/// Between the moments of two operations; calls and returns are up to a few of these away from the moment.
const BETWEEN: u64 = 10;
/// No execution here writes it.
const NEVER_WRITTEN: u64 = u64::MAX;
const STEPS_MAX: u64 = 1_000_000;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// It happens, and nobody sees the answer.
    Unseen,
    /// It never happens.
    Lost,
}

/// One operation of an execution, before it is known what it meets.
#[derive(Clone, Debug)]
struct Planned {
    key: u8,
    kind: u8,
    fate: Fate,
    called_before: u64,
    returned_after: u64,
    with_revision: bool,
}

fn planned() -> impl Strategy<Value = Planned> {
    let fate = prop_oneof![8 => Just(Fate::Answered), 1 => Just(Fate::Unseen), 1 => Just(Fate::Lost)];
    (0_u8..3, 0_u8..10, fate, 0..5 * BETWEEN, 0..5 * BETWEEN, any::<bool>()).prop_map(
        |(key, kind, fate, called_before, returned_after, with_revision)| Planned {
            key,
            kind,
            fate,
            called_before,
            returned_after,
            with_revision,
        },
    )
}

/// A store of three keys.
#[derive(Default)]
struct Store {
    keys: [Option<(u64, u64)>; 3],
    revision: u64,
}

impl Store {
    fn write(&mut self, key: u8, value: Option<u64>) -> u64 {
        self.revision += 1;
        self.keys[usize::from(key)] = value.map(|value| (value, self.revision));
        self.revision
    }

    fn apply(&mut self, key: u8, input: &Input<u64>, with_revision: bool) -> Output<u64> {
        let held = self.keys[usize::from(key)];
        let seen = |revision| with_revision.then_some(revision);
        match input {
            Input::Get => Output::Got(held),
            Input::Put(value) => Output::Put { revision: seen(self.write(key, Some(*value))) },
            Input::Delete if held.is_some() => {
                Output::Deleted { existed: true, revision: seen(self.write(key, None)) }
            }
            Input::Delete => Output::Deleted { existed: false, revision: seen(self.revision) },
            Input::Cas { expected, new } if held.map(|(value, _)| value) == *expected => {
                Output::Swapped { succeeded: true, revision: seen(self.write(key, Some(*new))) }
            }
            Input::Cas { .. } => Output::Swapped { succeeded: false, revision: seen(self.revision) },
        }
    }
}

/// Runs a plan one operation after the other and stretches each around its moment.
fn execute(plan: &[Planned]) -> Vec<EtcdOperation> {
    let mut store = Store::default();
    let operation = |(n, planned): (u64, &Planned)| {
        let held = store.keys[usize::from(planned.key)].map(|(value, _)| value);
        let input = match planned.kind {
            0..4 => Input::Get,
            4..6 => Input::Put(n),
            6 => Input::Delete,
            7 => Input::Cas { expected: None, new: n },
            _ => Input::Cas { expected: held.or(Some(0)), new: n },
        };
        let moment = (n + 5) * BETWEEN;
        let output = match planned.fate {
            Fate::Lost => None,
            _ => Some(store.apply(planned.key, &input, planned.with_revision)),
        };
        let answer = match planned.fate {
            Fate::Answered => output.map(|output| Answer { at: moment + planned.returned_after, output }),
            Fate::Unseen | Fate::Lost => None,
        };
        Operation { client: n, key: planned.key, input, call: moment - planned.called_before, answer }
    };
    (1..).zip(plan).map(operation).collect()
}

fn verdict(operations: &[EtcdOperation]) -> Verdict<u8> {
    check(&EtcdKey::default(), operations, STEPS_MAX)
}

/// Tries every order.
fn some_order<M: Model, K>(model: &M, state: &M::State, left: &[&Operation<K, M::Input, M::Output>]) -> bool {
    let first_return = left.iter().filter_map(|operation| Some(operation.answer.as_ref()?.at)).min();
    let Some(first_return) = first_return else {
        return true; // only operations are left that need not happen
    };
    left.iter().enumerate().filter(|(_, operation)| operation.call <= first_return).any(|(n, operation)| {
        let output = operation.answer.as_ref().map(|answer| &answer.output);
        let Some(next) = model.step(state, &operation.input, output) else {
            return false;
        };
        let rest: Vec<_> =
            left.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| *other).collect();
        some_order(model, &next, &rest)
    })
}

/// An operation of which nothing fits together.
fn arbitrary_register_operation() -> impl Strategy<Value = RegisterOperation> {
    let input = prop_oneof![
        2 => Just(RegisterInput::Read),
        2 => (0_u8..3).prop_map(RegisterInput::Write),
        1 => (0_u8..3, 0_u8..3).prop_map(|(expected, new)| RegisterInput::Cas { expected, new }),
    ];
    (input, 0_u64..12, 0_u64..6, 0_u8..4, any::<bool>(), 0_u8..4).prop_map(
        |(input, call, lasts, read, swapped, answered)| {
            let output = match input {
                RegisterInput::Read => RegisterOutput::Value((read < 3).then_some(read)),
                RegisterInput::Write(_) => RegisterOutput::Written,
                RegisterInput::Cas { .. } => RegisterOutput::Swapped(swapped),
            };
            let answer = (answered > 0).then_some(Answer { at: call + lasts, output });
            Operation { client: 0, key: 0, input, call, answer }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_search_agrees_with_trying_every_order(operations in prop::collection::vec(arbitrary_register_operation(), 1..8)) {
        let model = Register::default();
        let left: Vec<_> = operations.iter().collect();
        let expected = some_order(&model, &model.initial(), &left);
        let found = check(&model, &operations, STEPS_MAX);
        prop_assert_eq!(matches!(found, Verdict::Linearizable), expected, "{:?}", found);
        prop_assert_eq!(matches!(found, Verdict::Violation(_)), !expected);
    }

    #[test]
    fn an_altered_execution_is_judged_as_by_trying_every_order(
        plan in prop::collection::vec(planned(), 2..9),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let mut operations = execute(&plan);
        operations.iter_mut().for_each(|operation| operation.key = 0);
        let output = operations[from.index(plan.len())].answer.as_ref().map(|answer| answer.output.clone());
        if let (Some(output), Some(answer)) = (output, &mut operations[to.index(plan.len())].answer) {
            answer.output = output;
        }
        let model = EtcdKey::default();
        let left: Vec<_> = operations.iter().collect();
        let expected = some_order(&model, &model.initial(), &left);
        prop_assert_eq!(verdict(&operations) == Verdict::Linearizable, expected);
        merge_unseen_writes(&mut operations, &NEVER_WRITTEN);
        prop_assert_eq!(verdict(&operations) == Verdict::Linearizable, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn executions_are_accepted(plan in prop::collection::vec(planned(), 1..400)) {
        prop_assert_eq!(verdict(&execute(&plan)), Verdict::Linearizable);
    }

    #[test]
    fn a_value_that_was_never_written_is_refused(
        plan in prop::collection::vec(planned(), 1..400),
        which in any::<prop::sample::Index>(),
    ) {
        let mut operations = execute(&plan);
        let mut gets: Vec<_> = operations
            .iter_mut()
            .filter(|operation| operation.input == Input::Get)
            .filter_map(|operation| Some((operation.key, operation.answer.as_mut()?)))
            .collect();
        prop_assume!(!gets.is_empty());
        let at = which.index(gets.len());
        let (key, answer) = &mut gets[at];
        answer.output = Output::Got(Some((NEVER_WRITTEN, 7)));
        let key = *key;
        let found = verdict(&operations);
        let Verdict::Violation(violation) = found else {
            panic!("{found:?}");
        };
        prop_assert_eq!(violation.key, key);
        prop_assert!(violation.explain(&operations).to_string().contains(&NEVER_WRITTEN.to_string()));
    }
}

/// Many operations that time out, of which a few happen late: what a test with faults records.
#[test]
fn operations_without_an_answer_do_not_make_it_slow() {
    let lost = |n: u64| Operation { client: n, key: 0, input: Input::Put(n), call: n, answer: None };
    let mut operations: Vec<_> = (1..=500).map(lost).collect();
    for n in 0..2_000 {
        let at = 1_000 + 10 * n;
        // Every fiftieth get sees a write that timed out long before.
        let unseen = n % 50 == 49;
        let value = if unseen { 500 - n / 50 } else { 1_000 + n };
        let put = (Input::Put(value), Output::Put { revision: Some(10 * n + 1) });
        let get = (Input::Get, Output::Got(Some((value, 10 * n + 1))));
        for (offset, (input, output)) in [put, get].into_iter().enumerate().skip(usize::from(unseen)) {
            let call = at + 2 * offset as u64;
            operations.push(Operation {
                client: n,
                key: 0,
                input,
                call,
                answer: Some(Answer { at: call + 1, output }),
            });
        }
    }
    assert_eq!(merge_unseen_writes(&mut operations, &NEVER_WRITTEN), 460);
    assert_eq!(check(&EtcdKey::default(), &operations, 100_000), Verdict::Linearizable);
    // The same write cannot happen twice.
    let last = operations.last().expect("operations").clone();
    let again = Output::Got(Some((500, last.call)));
    operations.push(Operation {
        call: last.call + 5,
        answer: Some(Answer { at: last.call + 6, output: again }),
        ..last
    });
    assert!(matches!(check(&EtcdKey::default(), &operations, 20_000_000), Verdict::Violation(_)));
}

#[test]
fn the_limit_is_kept() {
    let plan = vec![
        Planned {
            key: 0,
            kind: 4,
            fate: Fate::Answered,
            called_before: 0,
            returned_after: 0,
            with_revision: true
        };
        100
    ];
    let operations = execute(&plan);
    let check = |steps_max| check(&EtcdKey::default(), &operations, steps_max);
    assert_eq!(check(99), Verdict::Unknown { key: 0 });
    assert_eq!(check(100), Verdict::Linearizable);
}
