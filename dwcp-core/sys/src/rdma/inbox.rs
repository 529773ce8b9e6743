//! What has come from the peer and was not read yet: where it is, in the order of the stream. Pure numbers, checked against
//! the credit that the peer has; the bytes stay where the device has put them.

use std::collections::VecDeque;

use super::{
    RdmaError,
    credit::{ReceiveCredit, SLOTS},
    header::{HEADER_LEN, Header, Kind},
};

/// What of one message or of the window has come, and is left.
#[derive(Debug)]
enum Arrived {
    /// From `at` to `end` in the slot of this receive request.
    Slot { request: u64, at: usize, end: usize },
    /// So many bytes in the window.
    Window { len: usize },
}

/// Bytes that are next in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `len` bytes at `at` in the slot of this receive request, which is free again after the last of them.
    Slot {
        /// Number of the receive request.
        request: u64,
        /// Offset in the slot in bytes.
        at: usize,
        /// In bytes.
        len: usize,
        /// No more of this slot follows.
        is_last: bool,
    },
    /// `len` bytes at `at` in the window.
    Window {
        /// Offset in the window in bytes.
        at: usize,
        /// In bytes.
        len: usize,
    },
}

/// What is to be done with the receive request of a message that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// It holds bytes that are to be read.
    Holds,
    /// It is to be posted again at once.
    Free,
}

/// What has come and was not read.
#[derive(Debug)]
pub struct Inbox {
    window: usize,
    /// What the peer may send, and is owed.
    pub credit: ReceiveCredit,
    /// Oldest first. At most a slot's and a window's entry for each slot.
    arrived: VecDeque<Arrived>,
    ended: bool,
}

impl Inbox {
    /// With a window of so many bytes.
    pub fn new(window: u32) -> Self {
        Self {
            window: window as usize,
            credit: ReceiveCredit::new(window),
            arrived: VecDeque::with_capacity(2 * SLOTS as usize + 1),
            ended: false,
        }
    }

    /// Nothing is there to be read. There may be more to come.
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// The peer has said that no more comes.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// A message of so many bytes, header included, has come into the slot of this receive request.
    ///
    /// # Errors
    /// It is too short for a header, or has data after the end.
    pub fn message(&mut self, request: u64, len: usize, header: &Header) -> Result<Slot, RdmaError> {
        let is_wrong = len < HEADER_LEN || (self.ended && len > HEADER_LEN);
        if is_wrong || (header.kind == Kind::End && len > HEADER_LEN) {
            return Err(RdmaError::Peer { what: "a message is too short, or has data after the end" });
        }
        self.ended |= header.kind == Kind::End;
        if len == HEADER_LEN {
            return Ok(Slot::Free);
        }
        self.arrived.push_back(Arrived::Slot { request, at: HEADER_LEN, end: len });
        Ok(Slot::Holds)
    }

    /// The peer has written so many bytes into the window.
    ///
    /// # Errors
    /// It had no credit for them, or has ended the stream before.
    pub fn written(&mut self, len: usize) -> Result<(), RdmaError> {
        if self.ended {
            return Err(RdmaError::Peer { what: "it writes after the end" });
        }
        self.credit.arrived(len)?;
        match self.arrived.back_mut() {
            Some(Arrived::Window { len: before }) => *before += len,
            _ => self.arrived.push_back(Arrived::Window { len }),
        }
        Ok(())
    }

    /// Takes up to `max` bytes that are next in the stream and in one piece. What is taken out of the window counts as read.
    pub fn take(&mut self, max: usize) -> Option<Piece> {
        match self.arrived.front_mut()? {
            Arrived::Slot { request, at, end } => {
                let len = max.min(*end - *at);
                let piece = Piece::Slot { request: *request, at: *at, len, is_last: *at + len == *end };
                *at += len;
                if *at == *end {
                    self.arrived.pop_front();
                }
                Some(piece)
            }
            Arrived::Window { len: there } => {
                let at = self.credit.window_at();
                let len = max.min(*there).min(self.window - at);
                *there -= len;
                if *there == 0 {
                    self.arrived.pop_front();
                }
                self.credit.free_window(len);
                Some(Piece::Window { at, len })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Header = Header { kind: Kind::Data, slots: 0, bytes: 0 };
    const END: Header = Header { kind: Kind::End, slots: 0, bytes: 0 };

    #[test]
    fn bytes_come_out_in_the_order_in_which_they_came() {
        let mut inbox = Inbox::new(1000);
        inbox.written(600).unwrap();
        inbox.written(100).unwrap();
        assert_eq!(inbox.message(7, HEADER_LEN + 10, &DATA).unwrap(), Slot::Holds);
        assert_eq!(inbox.message(8, HEADER_LEN, &DATA).unwrap(), Slot::Free);
        inbox.written(300).unwrap();
        assert_eq!(inbox.message(9, HEADER_LEN, &END).unwrap(), Slot::Free);
        let slot = |at, len, is_last| Piece::Slot { request: 7, at, len, is_last };
        let mut pieces = std::iter::from_fn(|| inbox.take(650));
        assert_eq!(pieces.next(), Some(Piece::Window { at: 0, len: 650 }));
        assert_eq!(pieces.next(), Some(Piece::Window { at: 650, len: 50 }));
        assert_eq!(pieces.next(), Some(slot(HEADER_LEN, 10, true)));
        assert_eq!(pieces.next(), Some(Piece::Window { at: 700, len: 300 }));
        assert_eq!(pieces.next(), None);
        assert!(inbox.is_ended() && inbox.is_empty());
    }

    #[test]
    fn a_slot_is_free_after_its_last_byte() {
        let mut inbox = Inbox::new(1000);
        inbox.message(3, HEADER_LEN + 5, &DATA).unwrap();
        let lasts: Vec<_> = std::iter::from_fn(|| inbox.take(2)).collect();
        let slot = |at, len, is_last| Piece::Slot { request: 3, at: HEADER_LEN + at, len, is_last };
        assert_eq!(lasts, [slot(0, 2, false), slot(2, 2, false), slot(4, 1, true)]);
    }

    #[test]
    fn a_piece_ends_where_the_window_does() {
        let mut inbox = Inbox::new(1000);
        inbox.written(900).unwrap();
        inbox.take(900);
        inbox.credit.tell();
        inbox.written(100).unwrap();
        inbox.written(50).unwrap();
        assert_eq!(inbox.take(1000), Some(Piece::Window { at: 900, len: 100 }));
        assert_eq!(inbox.take(1000), Some(Piece::Window { at: 0, len: 50 }));
    }

    #[test]
    fn what_no_correct_peer_sends_is_refused() {
        let mut inbox = Inbox::new(1000);
        assert!(inbox.message(0, HEADER_LEN - 1, &DATA).is_err());
        assert!(inbox.message(0, HEADER_LEN + 1, &END).is_err());
        assert!(inbox.written(1001).is_err());
        inbox.message(0, HEADER_LEN, &END).unwrap();
        assert!(inbox.message(1, HEADER_LEN + 1, &DATA).is_err() && inbox.written(1).is_err());
        assert_eq!(inbox.message(1, HEADER_LEN, &DATA).unwrap(), Slot::Free, "credit may still come");
    }
}
