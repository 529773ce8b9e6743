//! How many streams of events there are, and whose: nobody takes all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The part of all streams that one principal may have.
const SHARE: usize = 4;

/// Streams that there are, by principal.
pub(crate) struct Streams {
    max: usize,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

/// A stream's place, which it gives back with its end.
pub(crate) struct Place {
    principal: String,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

impl Streams {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    /// How many one principal may have.
    pub(crate) fn each_max(&self) -> usize {
        self.max.div_ceil(SHARE)
    }

    /// A place for one of this principal's, or why there is none.
    pub(crate) fn take(&self, principal: &str) -> Result<Place, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= self.max {
            return Err(format!("more than {} streams of events", self.max));
        }
        let own = open.get(principal).copied().unwrap_or_default();
        if own >= self.each_max() {
            return Err(format!("more than {} streams of events of one principal", self.each_max()));
        }
        open.insert(principal.to_owned(), own + 1);
        Ok(Place { principal: principal.to_owned(), open: self.open.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.principal) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(open.remove(&self.principal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all() {
        let streams = Streams::new(6);
        let mut of_a: Vec<_> = (0..2).map(|_| streams.take("a").unwrap()).collect();
        assert!(streams.take("a").err().unwrap().contains("one principal"));
        let others: Vec<_> = ["b", "b", "c", "c"].map(|name| streams.take(name).unwrap()).into();
        assert!(streams.take("d").err().unwrap().contains("more than 6"));
        of_a.pop();
        drop(streams.take("d").unwrap());
        of_a.push(streams.take("a").unwrap());
        drop((of_a, others));
        assert!(streams.open.lock().unwrap().is_empty(), "nothing is remembered");
        assert!(Streams::new(1).take("a").is_ok());
    }
}
