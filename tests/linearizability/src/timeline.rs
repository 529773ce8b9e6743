//! The calls and returns that are not explained yet, in the order of time.
//!
//! A doubly linked list, as Wing and Gong have it: an operation that is given its moment is taken out, and put back at the
//! same place when the search takes that moment from it. Owns nothing but that order.

/// The head of the list; not an event.
const HEAD: usize = 0;

/// A call or a return of an operation, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Call(usize),
    Return(usize),
}

/// All events that are in the list. An event's number is its place in the order of time, from 1 on.
pub(crate) struct Timeline {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Call and return of each operation.
    places: Vec<(usize, usize)>,
}

impl Timeline {
    /// Of operations with these times of call and return.
    pub(crate) fn new(times: &[(u64, u64)]) -> Self {
        let mut ordered = Vec::with_capacity(2 * times.len());
        for (operation, (call, returned)) in times.iter().enumerate() {
            assert!(call <= returned, "operation {operation} returns before it is called");
            // At one time calls are before returns: such operations overlap, which allows more orders.
            ordered.push((*call, false, Event::Call(operation)));
            ordered.push((*returned, true, Event::Return(operation)));
        }
        ordered.sort_by_key(|(time, returns, _)| (*time, *returns));
        let mut places = vec![(HEAD, HEAD); times.len()];
        for (at, (.., event)) in ordered.iter().enumerate() {
            match event {
                Event::Call(operation) => places[*operation].0 = at + 1,
                Event::Return(operation) => places[*operation].1 = at + 1,
            }
        }
        let events: Vec<_> = ordered.into_iter().map(|(.., event)| event).collect();
        let count = events.len() + 1;
        Self {
            events,
            next: (0..count).map(|at| (at + 1) % count).collect(),
            previous: (0..count).map(|at| (at + count - 1) % count).collect(),
            places,
        }
    }

    /// The first event; `HEAD`, for which `event` answers `None`, if there is none.
    pub(crate) fn first(&self) -> usize {
        self.next[HEAD]
    }

    pub(crate) fn after(&self, at: usize) -> usize {
        self.next[at]
    }

    pub(crate) fn event(&self, at: usize) -> Option<Event> {
        self.events.get(at.checked_sub(1)?).copied()
    }

    /// Takes an operation out.
    pub(crate) fn remove(&mut self, operation: usize) {
        let (call, returned) = self.places[operation];
        for at in [call, returned] {
            self.next[self.previous[at]] = self.next[at];
            self.previous[self.next[at]] = self.previous[at];
        }
    }

    /// Undoes the last removal that is not undone.
    pub(crate) fn restore(&mut self, operation: usize) {
        let (call, returned) = self.places[operation];
        for at in [returned, call] {
            self.next[self.previous[at]] = at;
            self.previous[self.next[at]] = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(timeline: &Timeline) -> Vec<Event> {
        let mut at = timeline.first();
        let following = || {
            let event = timeline.event(at)?;
            at = timeline.after(at);
            Some(event)
        };
        std::iter::from_fn(following).collect()
    }

    #[test]
    fn what_is_taken_out_comes_back_at_its_place() {
        use Event::{Call, Return};
        let mut timeline = Timeline::new(&[(1, 4), (4, 6), (2, 3)]);
        let all = [Call(0), Call(2), Return(2), Call(1), Return(0), Return(1)];
        assert_eq!(events(&timeline), all);
        timeline.remove(2);
        timeline.remove(0);
        assert_eq!(events(&timeline), [Call(1), Return(1)]);
        timeline.remove(1);
        assert_eq!(events(&timeline), []);
        [1, 0, 2].into_iter().for_each(|operation| timeline.restore(operation));
        assert_eq!(events(&timeline), all);
    }
}
