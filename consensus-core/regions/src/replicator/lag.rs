//! How old the changes are that others have not heard of.

use std::collections::VecDeque;

use crate::limits::MARKS_MAX;

/// Moments, each with how many changes there were.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    marks: VecDeque<(u64, u64)>,
}

impl Lag {
    /// There are so many changes now. With too many marks two of the middle become one, and what is in it looks as old as its first.
    pub(super) fn mark(&mut self, now_ms: u64, counter: u64) {
        if self.marks.back().is_some_and(|(_, last)| *last >= counter) {
            return;
        }
        if self.marks.len() == MARKS_MAX {
            let gone = self.marks.len() / 2;
            let (_, counter) = self.marks.remove(gone).expect("it is full");
            self.marks[gone - 1].1 = counter;
        }
        self.marks.push_back((now_ms, counter));
    }

    /// Since when there is something beyond the first `known` changes.
    pub(super) fn of(&self, known: u64, now_ms: u64) -> u64 {
        let oldest = self.marks.iter().find(|(_, counter)| *counter > known);
        oldest.map_or(0, |(at_ms, _)| now_ms.saturating_sub(*at_ms))
    }
}
