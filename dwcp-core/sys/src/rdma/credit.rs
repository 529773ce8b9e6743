//! Who may send how much: the accounting that keeps a receiver from being overrun. Pure numbers.
//!
//! A message takes up one of the receiver's *slots* (a posted receive request), bulk data also bytes of its *window*.
//! Both come back when the receiver has room again, told as totals since the beginning, in every message's header.
//!
//! **Why it cannot lock up.** Data leaves [`SLOTS_RESERVED`] slots for messages that only give credit back, and the
//! receiver frees those at once, whether the application reads or not. A side gives credit back for every
//! [`SLOTS_OWED_MAX`] slots or a quarter of the window. So of a side's messages that only give credit back, at most
//! `SLOTS / SLOTS_OWED_MAX + 4` are unanswered, and as many as the other side may owe: less than the reserve.

use super::RdmaError;

/// Receive requests that are posted, at each end.
pub const SLOTS: u32 = 256;
/// Of these, not for data.
pub const SLOTS_RESERVED: u64 = 48;
/// Free slots that a receiver keeps to itself, at most.
pub const SLOTS_OWED_MAX: u64 = 16;
const _: () = assert!(SLOTS as u64 / SLOTS_OWED_MAX + 4 + SLOTS_OWED_MAX < SLOTS_RESERVED);

/// What this side may still send.
#[derive(Debug)]
pub struct SendCredit {
    window: u64,
    slots_used: u64,
    slots_returned: u64,
    bytes_sent: u64,
    bytes_returned: u64,
}

impl SendCredit {
    /// For a peer with a window of so many bytes.
    pub fn new(window: u32) -> Self {
        Self { window: window.into(), slots_used: 0, slots_returned: 0, bytes_sent: 0, bytes_returned: 0 }
    }

    /// Messages that may be sent, those that only give credit back.
    pub fn slots(&self) -> u64 {
        u64::from(SLOTS) - (self.slots_used - self.slots_returned)
    }

    /// Messages with data that may be sent.
    pub fn slots_for_data(&self) -> u64 {
        self.slots().saturating_sub(SLOTS_RESERVED)
    }

    /// Where in the peer's window the next bytes go, and how many may go there at once.
    pub fn window(&self) -> (usize, usize) {
        let at = self.bytes_sent % self.window;
        let free = self.window - (self.bytes_sent - self.bytes_returned);
        (at as usize, free.min(self.window - at) as usize)
    }

    /// A message is sent.
    pub fn use_slot(&mut self) {
        assert!(self.slots() > 0, "a message without a slot would end the queue pair");
        self.slots_used += 1;
    }

    /// This many bytes are sent into the window.
    pub fn use_window(&mut self, len: usize) {
        assert!(len <= self.window().1, "bytes without credit would overwrite what is not read");
        self.bytes_sent += len as u64;
    }

    /// The peer has told its totals.
    pub fn returned(&mut self, slots: u64, bytes: u64) -> Result<(), RdmaError> {
        let is_right = (self.slots_returned..=self.slots_used).contains(&slots)
            && (self.bytes_returned..=self.bytes_sent).contains(&bytes);
        if !is_right {
            return Err(RdmaError::Peer { what: "it gives back credit that it did not get" });
        }
        (self.slots_returned, self.bytes_returned) = (slots, bytes);
        Ok(())
    }
}

/// What this side has let the peer send, and what it has to give back.
#[derive(Debug)]
pub struct ReceiveCredit {
    window: u64,
    slots_freed: u64,
    slots_told: u64,
    bytes_arrived: u64,
    bytes_freed: u64,
    bytes_told: u64,
}

impl ReceiveCredit {
    /// For an own window of so many bytes.
    pub fn new(window: u32) -> Self {
        let window = window.into();
        Self { window, slots_freed: 0, slots_told: 0, bytes_arrived: 0, bytes_freed: 0, bytes_told: 0 }
    }

    /// The peer has written into the window.
    pub fn arrived(&mut self, len: usize) -> Result<(), RdmaError> {
        let len = len as u64;
        let fits = len > 0
            && self.bytes_arrived + len - self.bytes_told <= self.window
            && self.bytes_arrived % self.window + len <= self.window;
        if !fits {
            return Err(RdmaError::Peer { what: "it writes beyond its credit" });
        }
        self.bytes_arrived += len;
        Ok(())
    }

    /// Where in the window the oldest bytes are.
    pub fn window_at(&self) -> usize {
        (self.bytes_freed % self.window) as usize
    }

    /// These bytes of the window were read.
    pub fn free_window(&mut self, len: usize) {
        self.bytes_freed += len as u64;
        assert!(self.bytes_freed <= self.bytes_arrived, "more is read than came");
    }

    /// A receive request is posted again.
    pub fn free_slot(&mut self) {
        self.slots_freed += 1;
    }

    /// Whether it is time for a message that only gives credit back.
    pub fn owes(&self) -> bool {
        self.slots_freed - self.slots_told >= SLOTS_OWED_MAX
            || self.bytes_freed - self.bytes_told >= self.window / 4
    }

    /// The totals of slots and bytes for a message's header.
    pub fn tell(&mut self) -> (u64, u64) {
        (self.slots_told, self.bytes_told) = (self.slots_freed, self.bytes_freed);
        (self.slots_told, self.bytes_told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 1000;

    #[test]
    fn a_window_is_used_round_and_round_and_never_beyond_what_was_read() {
        let (mut send, mut receive) = (SendCredit::new(WINDOW), ReceiveCredit::new(WINDOW));
        let mut sent = 0;
        for step in 1..500_usize {
            let (at, free) = send.window();
            assert!(at + free <= WINDOW as usize);
            let len = free.min(step % 97);
            if len > 0 {
                send.use_slot();
                send.use_window(len);
                receive.arrived(len).unwrap();
                receive.free_slot();
                assert_eq!(receive.window_at(), at, "all before was read");
                receive.free_window(len);
                sent += len;
            }
            if receive.owes() {
                let (slots, bytes) = receive.tell();
                send.returned(slots, bytes).unwrap();
            }
        }
        assert!(sent > 10 * WINDOW as usize, "{sent}");
    }

    #[test]
    fn data_leaves_slots_for_credit() {
        let mut send = SendCredit::new(WINDOW);
        while send.slots_for_data() > 0 {
            send.use_slot();
        }
        assert_eq!(send.slots(), SLOTS_RESERVED);
        send.returned(10, 0).unwrap();
        assert_eq!(send.slots_for_data(), 10);
    }

    #[test]
    fn a_peer_that_counts_wrong_is_found_out() {
        let mut send = SendCredit::new(WINDOW);
        send.use_slot();
        send.use_window(100);
        for (slots, bytes) in [(2, 0), (0, 101), (u64::MAX, 0), (0, u64::MAX)] {
            assert!(matches!(send.returned(slots, bytes), Err(RdmaError::Peer { .. })), "{slots} {bytes}");
        }
        send.returned(1, 100).unwrap();
        assert!(send.returned(0, 100).is_err() && send.returned(1, 99).is_err(), "totals do not fall");

        let mut receive = ReceiveCredit::new(WINDOW);
        assert!(receive.arrived(0).is_err() && receive.arrived(1001).is_err());
        receive.arrived(900).unwrap();
        assert!(receive.arrived(101).is_err(), "not read");
        receive.free_window(900);
        assert!(receive.arrived(101).is_err(), "read, and not told");
        receive.tell();
        assert!(receive.arrived(101).is_err(), "around the end");
        receive.arrived(100).unwrap();
        receive.arrived(900).unwrap();
    }

    /// Both sides send all they may, and neither application reads: credit still flows, and stops by itself.
    #[test]
    fn giving_credit_back_does_not_need_credit_that_is_gone() {
        let mut sides = [(), ()].map(|()| (SendCredit::new(WINDOW), ReceiveCredit::new(WINDOW)));
        // All data slots are used on both sides; their data stay unread.
        for (send, _) in &mut sides {
            while send.slots_for_data() > 0 {
                send.use_slot();
            }
        }
        // Now both applications read everything, a slot at a time and in turns.
        for turn in 0..2 * (u64::from(SLOTS) - SLOTS_RESERVED) as usize {
            sides[turn % 2].1.free_slot();
            let mut messages = 0;
            while let Some(from) = (0..2).find(|&side| sides[side].1.owes()) {
                messages += 1;
                assert!(messages < 10, "credit for credit for ever");
                sides[from].0.use_slot();
                let (slots, bytes) = sides[from].1.tell();
                sides[1 - from].0.returned(slots, bytes).unwrap();
                sides[1 - from].1.free_slot();
            }
        }
        for (send, _) in &sides {
            assert!(send.slots_for_data() > u64::from(SLOTS) - SLOTS_RESERVED - 2 * SLOTS_OWED_MAX);
        }
    }
}
