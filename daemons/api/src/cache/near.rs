//! What is kept in this process. Times are arguments, in milliseconds since 1970.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::body::Bytes;

/// What an entry costs beside its key and value, about.
const ENTRY_BYTES: usize = 128;

/// Entries that fit into a number of bytes.
pub(super) struct Near {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    entries: HashMap<String, (Bytes, u64)>,
}

impl Kept {
    fn remove(&mut self, key: &str) {
        if let Some((value, _)) = self.entries.remove(key) {
            self.bytes -= cost(key, &value);
        }
    }
}

fn cost(key: &str, value: &Bytes) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

impl Near {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entries.get(key).filter(|(_, ends_ms)| *ends_ms > now_ms).map(|(value, _)| value.clone())
    }

    pub(super) fn put(&self, key: &str, value: Bytes, ends_ms: u64, now_ms: u64) {
        let cost = cost(key, &value);
        if cost > self.bytes_max || ends_ms <= now_ms {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(key);
        if kept.bytes + cost > self.bytes_max {
            let ended: Vec<_> = kept
                .entries
                .iter()
                .filter(|(_, (_, ends))| *ends <= now_ms)
                .map(|(key, _)| key.clone())
                .collect();
            ended.iter().for_each(|key| kept.remove(key));
        }
        if kept.bytes + cost > self.bytes_max {
            // Nothing lasts long here.
            *kept = Kept::default();
        }
        kept.bytes += cost;
        kept.entries.insert(key.to_owned(), (value, ends_ms));
    }

    pub(super) fn forget(&self, key: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[test]
    fn entries_have_an_end_and_can_be_forgotten() {
        let near = Near::new(10_000);
        near.put("a", value(3), 100, 50);
        assert_eq!(near.get("a", 99), Some(value(3)));
        assert_eq!(near.get("a", 100), None);
        near.put("a", value(4), 200, 150);
        assert_eq!(near.get("a", 150), Some(value(4)));
        near.forget("a");
        assert_eq!(near.get("a", 150), None);
        near.put("a", value(1), 150, 150);
        assert_eq!(near.get("a", 0), None, "what has ended is not kept");
    }

    #[test]
    fn they_fit_into_their_bytes() {
        let near = Near::new(4 * (1001 + ENTRY_BYTES));
        for (n, ends) in [(0, 10), (1, 1000), (2, 1000), (3, 1000)] {
            near.put(&n.to_string(), value(1000), ends, 0);
        }
        // The one that has ended makes place.
        near.put("4", value(1000), 1000, 20);
        assert!(near.get("1", 20).is_some() && near.get("4", 20).is_some());
        // None has, so all go.
        near.put("5", value(1000), 1000, 20);
        assert!(near.get("1", 20).is_none() && near.get("5", 20).is_some());
        near.put("6", value(10_000), 1000, 20);
        assert!(near.get("6", 20).is_none() && near.get("5", 20).is_some());
        let kept = near.kept.lock().unwrap();
        assert_eq!(kept.bytes, 1001 + ENTRY_BYTES);
    }

    #[test]
    fn without_bytes_nothing_is_kept() {
        let near = Near::new(0);
        near.put("a", value(0), 10, 0);
        assert_eq!(near.get("a", 0), None);
    }
}
