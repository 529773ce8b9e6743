//! The search for an order that explains every answer.
//!
//! Depth first: give a moment to an operation that may be next, as long as the model accepts its answer; go back when none
//! may. An operation with an answer has to get its moment, one without may. Such operations never end, so they would be tried
//! everywhere; four rules keep that cheap. They are tried last. One that changes nothing is not tried. Of equal ones the one
//! that was called first goes first. And whatever comes after one must come to something else than it would without it: else
//! an order without it does as well.

use std::collections::BTreeMap;

use crate::{
    Model, Operation, Verdict, Violation,
    timeline::{Event, Timeline},
    visited::{Set, Visited},
};

/// Checks each key by itself against a model.
///
/// `steps_max` bounds, for each key, how many operations are tried at some place of an order, and with them time and memory.
/// A history of a system that works takes a few for each operation.
///
/// # Panics
///
/// If an operation returns before it is called.
pub fn check<K: Clone + Ord, M: Model>(
    model: &M,
    operations: &[Operation<K, M::Input, M::Output>],
    steps_max: u64,
) -> Verdict<K> {
    let mut by_key: BTreeMap<&K, Vec<usize>> = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        by_key.entry(&operation.key).or_default().push(index);
    }
    let mut unknown = None;
    for (key, indices) in by_key {
        let search = Search::new(model, operations, indices);
        match search.run(steps_max) {
            Found::Order => {}
            Found::None { prefix, stuck, state } => {
                let state = format!("{state:?}");
                return Verdict::Violation(Violation { key: key.clone(), prefix, stuck, state });
            }
            Found::Limit => unknown = unknown.or(Some(key)),
        }
    }
    unknown.map_or(Verdict::Linearizable, |key| Verdict::Unknown { key: key.clone() })
}

/// What a search ends with. Operations are indices into what was checked.
enum Found<S> {
    Order,
    None { prefix: Vec<usize>, stuck: Vec<usize>, state: S },
    Limit,
}

/// An operation that may be next, by its index among those of its kind.
#[derive(Clone, Copy)]
enum Candidate {
    Answered(usize),
    Unanswered(usize),
}

/// How far the candidates of a configuration have been tried.
#[derive(Clone, Copy)]
struct Cursor {
    event: usize,
    unanswered: usize,
}

/// A moment that was given, and what to go back to.
struct Given<S> {
    candidate: Candidate,
    /// Before it.
    state: S,
    /// Behind it.
    cursor: Cursor,
}

/// For each of these operations the last one before it with an equal input.
fn equals<K, I: PartialEq, O>(operations: &[Operation<K, I, O>], indices: &[usize]) -> Vec<Option<usize>> {
    let input = |n: usize| &operations[indices[n]].input;
    (0..indices.len()).map(|n| (0..n).rev().find(|before| input(*before) == input(n))).collect()
}

struct Search<'a, K, M: Model> {
    model: &'a M,
    operations: &'a [Operation<K, M::Input, M::Output>],
    /// Indices of operations in the order of their calls.
    answered: Vec<usize>,
    unanswered: Vec<usize>,
    /// For each unanswered one the last equal one before it.
    equals: Vec<Option<usize>>,
    /// Calls and returns of operations with an answer that have no moment yet.
    timeline: Timeline,
    done: Set,
    used: Set,
    left: usize,
    state: M::State,
    given: Vec<Given<M::State>>,
    visited: Visited<M::State>,
    /// What got furthest: how many operations with an answer had none yet, the order, the state.
    furthest: Option<(usize, Vec<usize>, Vec<usize>, M::State)>,
}

impl<'a, K, M: Model> Search<'a, K, M> {
    fn new(
        model: &'a M,
        operations: &'a [Operation<K, M::Input, M::Output>],
        mut indices: Vec<usize>,
    ) -> Self {
        indices.sort_by_key(|index| operations[*index].call);
        let (answered, unanswered): (Vec<_>, Vec<_>) =
            indices.into_iter().partition(|index| operations[*index].answer.is_some());
        let times = answered.iter().filter_map(|index| {
            let operation = &operations[*index];
            operation.answer.as_ref().map(|answer| (operation.call, answer.at))
        });
        Self {
            model,
            operations,
            timeline: Timeline::new(&times.collect::<Vec<_>>()),
            done: Set::new(answered.len()),
            used: Set::new(unanswered.len()),
            left: answered.len(),
            answered,
            equals: equals(operations, &unanswered),
            unanswered,
            state: model.initial(),
            given: Vec::new(),
            visited: Visited::new(),
            furthest: None,
        }
    }

    fn run(mut self, steps_max: u64) -> Found<M::State> {
        let mut steps = 0;
        let mut cursor = self.start();
        while self.left > 0 {
            if let Some(candidate) = self.candidate(&mut cursor) {
                if steps == steps_max {
                    return Found::Limit;
                }
                steps += 1;
                if self.give(candidate, cursor) {
                    cursor = self.start();
                }
                continue;
            }
            self.note_how_far();
            match self.take_back() {
                Some(before) => cursor = before,
                None => {
                    let (_, prefix, stuck, state) =
                        self.furthest.expect("the way back is noted before it is taken");
                    return Found::None { prefix, stuck, state };
                }
            }
        }
        Found::Order
    }

    fn start(&self) -> Cursor {
        Cursor { event: self.timeline.first(), unanswered: 0 }
    }

    /// The next operation to try here: one that was called before the first return among those without a moment.
    fn candidate(&self, cursor: &mut Cursor) -> Option<Candidate> {
        let first_return = match self.timeline.event(cursor.event)? {
            Event::Call(operation) => {
                cursor.event = self.timeline.after(cursor.event);
                return Some(Candidate::Answered(operation));
            }
            Event::Return(operation) => self.operation(Candidate::Answered(operation)).answer.as_ref()?.at,
        };
        while let Some(index) = self.unanswered.get(cursor.unanswered) {
            if self.operations[*index].call > first_return {
                return None;
            }
            let unanswered = cursor.unanswered;
            cursor.unanswered += 1;
            let has_its_turn = self.equals[unanswered].is_none_or(|equal| self.used.contains(equal));
            if has_its_turn && !self.used.contains(unanswered) {
                return Some(Candidate::Unanswered(unanswered));
            }
        }
        None
    }

    fn index(&self, candidate: Candidate) -> usize {
        match candidate {
            Candidate::Answered(operation) => self.answered[operation],
            Candidate::Unanswered(operation) => self.unanswered[operation],
        }
    }

    fn operation(&self, candidate: Candidate) -> &'a Operation<K, M::Input, M::Output> {
        &self.operations[self.index(candidate)]
    }

    fn step(&self, state: &M::State, candidate: Candidate) -> Option<M::State> {
        let operation = self.operation(candidate);
        self.model.step(state, &operation.input, operation.answer.as_ref().map(|answer| &answer.output))
    }

    /// Gives a candidate its moment, if the model accepts it and that leads to something new.
    fn give(&mut self, candidate: Candidate, cursor: Cursor) -> bool {
        let Some(next) = self.step(&self.state, candidate) else {
            return false;
        };
        if matches!(candidate, Candidate::Unanswered(_)) && next == self.state {
            return false;
        }
        if let Some(Given { candidate: Candidate::Unanswered(_), state: without, .. }) = self.given.last()
            && self.step(without, candidate).as_ref() == Some(&next)
        {
            return false;
        }
        self.mark(candidate);
        if !self.visited.is_new(&self.done, &self.used, &next) {
            self.unmark(candidate);
            return false;
        }
        let state = std::mem::replace(&mut self.state, next);
        self.given.push(Given { candidate, state, cursor });
        true
    }

    /// Takes the last moment back; where to go on, or `None` if none was given.
    fn take_back(&mut self) -> Option<Cursor> {
        let Given { candidate, state, cursor } = self.given.pop()?;
        self.unmark(candidate);
        self.state = state;
        Some(cursor)
    }

    fn mark(&mut self, candidate: Candidate) {
        match candidate {
            Candidate::Answered(operation) => {
                self.timeline.remove(operation);
                self.done.insert(operation);
                self.left -= 1;
            }
            Candidate::Unanswered(operation) => self.used.insert(operation),
        }
    }

    fn unmark(&mut self, candidate: Candidate) {
        match candidate {
            Candidate::Answered(operation) => {
                self.timeline.restore(operation);
                self.done.remove(operation);
                self.left += 1;
            }
            Candidate::Unanswered(operation) => self.used.remove(operation),
        }
    }

    /// Keeps the order so far if none got further.
    fn note_how_far(&mut self) {
        if self.furthest.as_ref().is_some_and(|(left, ..)| *left <= self.left) {
            return;
        }
        let prefix = self.given.iter().map(|given| self.index(given.candidate)).collect();
        let mut at = self.timeline.first();
        let mut stuck = Vec::new();
        while let Some(Event::Call(operation)) = self.timeline.event(at) {
            stuck.push(self.answered[operation]);
            at = self.timeline.after(at);
        }
        self.furthest = Some((self.left, prefix, stuck, self.state.clone()));
    }
}
