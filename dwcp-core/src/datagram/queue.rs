//! Datagrams that have arrived and that nobody has taken yet. What comes when it is full takes the place of the oldest:
//! what datagrams are for, gossip and measurements, is worth the less the older it is.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Datagrams of a kind that wait in one connection.
const DATAGRAMS_WAITING_MAX: usize = 1024;
/// Their bytes.
const BYTES_WAITING_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
}

impl Queue {
    /// Returns how many older ones were dropped for it.
    pub(super) fn push(&self, datagram: Bytes) -> u64 {
        let mut dropped = 0;
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.ended {
                return 0;
            }
            while state.waiting.len() >= DATAGRAMS_WAITING_MAX
                || state.bytes + datagram.len() > BYTES_WAITING_MAX
            {
                let oldest = state.waiting.pop_front().expect("one datagram is below the bounds");
                state.bytes -= oldest.len();
                dropped += 1;
            }
            state.bytes += datagram.len();
            state.waiting.push_back(datagram);
        }
        self.arrived.notify_one();
        dropped
    }

    /// The oldest; `None` once nothing is left and [`end`](Self::end) was called. Cancellation-safe.
    pub(super) async fn pop(&self) -> Option<Bytes> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let popped = state.waiting.pop_front();
                if let Some(datagram) = &popped {
                    state.bytes -= datagram.len();
                }
                if popped.is_some() || state.ended {
                    if state.ended || !state.waiting.is_empty() {
                        self.arrived.notify_one(); // for another who waits
                    }
                    return popped;
                }
            }
            arrived.await;
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_give_way() {
        let queue = Queue::default();
        for number in 0..DATAGRAMS_WAITING_MAX as u32 {
            assert_eq!(queue.push(Bytes::from(number.to_le_bytes().to_vec())), 0);
        }
        assert_eq!(queue.push(Bytes::from_static(b"last")), 1);
        assert_eq!(queue.pop().await.unwrap()[..], 1_u32.to_le_bytes());
        // A long one takes the room of many, in bytes.
        for _ in 0..BYTES_WAITING_MAX / 8000 - 1 {
            queue.push(Bytes::from(vec![0; 8000]));
        }
        let dropped = queue.push(Bytes::from(vec![1; 8000]));
        assert!((1..=DATAGRAMS_WAITING_MAX as u64).contains(&dropped), "{dropped}");
        queue.end();
        queue.push(Bytes::from_static(b"too late"));
        let mut left = 0;
        while queue.pop().await.is_some() {
            left += 1;
        }
        assert!(left >= BYTES_WAITING_MAX / 8000 - 1);
        assert_eq!(queue.pop().await, None, "it stays ended");
    }
}
