//! When something that fails again and again is not asked for a while. Time is an argument.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures in a row after which there is a pause, and how long that is. Then one request is let through.
const FAILURES_MAX: u32 = 3;
pub(super) const PAUSE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// Nothing is asked before.
    not_before: Option<Instant>,
}

impl Breaker {
    /// Whether it may be asked now.
    pub(super) fn lets(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.not_before {
            None => true,
            Some(not_before) if now < not_before => false,
            Some(_) => {
                // Others wait for what becomes of this one.
                state.not_before = Some(now + PAUSE);
                true
            }
        }
    }

    /// It has answered; whether it had not before.
    pub(super) fn good(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *state);
        before.not_before.is_some()
    }

    /// It has not; whether there is a pause now that was not before.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES_MAX {
            return false;
        }
        let is_new = state.not_before.is_none();
        state.not_before = Some(now + PAUSE);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_there_is_a_pause_and_then_one_attempt() {
        let (breaker, begin) = (Breaker::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        assert!(!breaker.failed(at(0)) && !breaker.failed(at(1)));
        assert!(!breaker.good(), "what is good in between begins anew");
        for n in 0..FAILURES_MAX {
            assert!(breaker.lets(at(2)));
            assert_eq!(breaker.failed(at(2)), n + 1 == FAILURES_MAX);
        }
        assert!(!breaker.lets(at(3)) && !breaker.lets(at(2001)));
        assert!(breaker.lets(at(2002)));
        assert!(!breaker.lets(at(2003)), "one at a time");
        assert!(!breaker.failed(at(2003)));
        assert!(!breaker.lets(at(4002)));
        assert!(breaker.lets(at(4003)));
        assert!(breaker.good());
        assert!(breaker.lets(at(4004)) && breaker.lets(at(4004)));
    }
}
