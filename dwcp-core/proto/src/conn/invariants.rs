//! What must hold between any two calls. For the tests, the simulation and the fuzz targets: it looks at
//! everything, which a driver cannot afford.

use std::collections::BTreeMap;

use super::{Connection, send::SendHalf};
use crate::{
    frame::FrameType,
    limits::{FRAMES_OUT_OF_ORDER_MAX, REQUESTS_IN_FLIGHT_MAX},
};

impl Connection {
    /// Panics if the state contradicts itself.
    #[doc(hidden)]
    pub fn assert_invariants(&self) {
        self.assert_flow();
        self.assert_streams();
        self.assert_flight();
        self.out_messages.iter().for_each(|queue| queue.assert_invariants());
        self.in_messages.iter().for_each(|queue| queue.assert_invariants());
        for requests in [self.requests_made.len(), self.requests_taken.len(), self.requests_cancelled.len()] {
            assert!(requests <= REQUESTS_IN_FLIGHT_MAX, "requests are bounded");
        }
        if self.closed.is_some() {
            // But what the peer delivered before it closed.
            let readable = self.recv.len() + self.out_of_order_frames + self.credits_due.len();
            assert_eq!(self.queued(), readable, "a closed connection holds nothing");
        } else if self.links.is_empty() {
            assert!(!self.wants_transmit(), "nothing can be sent without a link");
        }
    }

    /// Frames and streams held in any queue; 0 after a graceful end.
    #[doc(hidden)]
    pub fn queued(&self) -> usize {
        self.send.len()
            + self.recv.len()
            + self.control.len()
            + self.retransmit.len()
            + self.scheduled.len()
            + self.blocked.len()
            + self.credits_due.len()
            + self.flight.totals().0
            + self.links.values().map(|link| link.unacked.len()).sum::<usize>()
            + self.out_messages.iter().filter(|queue| !queue.is_empty()).count()
            + self.requests_made.len()
            + self.requests_taken.len()
            + self.unsent_bytes
            + self.out_of_order_frames
    }

    /// Stream bytes that were received and not read.
    #[doc(hidden)]
    pub fn unread_bytes(&self) -> u64 {
        self.flow.received - self.flow.consumed
    }

    fn assert_flow(&self) {
        let flow = &self.flow;
        assert!(flow.sent <= flow.send_limit, "connection credit kept");
        if self.closed.is_some() {
            return; // streams were thrown away unread, and the last frame may have broken the rules
        }
        assert!(flow.received <= flow.receive_limit, "the peer kept the connection's credit");
        assert!(flow.receive_limit <= flow.consumed.saturating_add(flow.window), "connection credit given");
        let unread: u64 = self.recv.values().map(|half| half.highest - half.consumed).sum();
        assert_eq!(self.unread_bytes(), unread, "connection credit in use");
        assert!(unread <= flow.window, "unread bytes within the window");
    }

    fn assert_streams(&self) {
        self.recv.iter().for_each(|(&id, half)| half.assert_invariants(id));
        let out_of_order: usize = self.recv.values().map(|half| half.out_of_order_len()).sum();
        assert_eq!(self.out_of_order_frames, out_of_order, "frames out of order");
        assert!(out_of_order <= FRAMES_OUT_OF_ORDER_MAX, "frames out of order are bounded");
        let unsent: usize = self.send.values().map(|half| half.queued_bytes).sum();
        assert_eq!(self.unsent_bytes, unsent, "unsent bytes");
        for (&id, half) in &self.send {
            self.assert_sending(id, half);
        }
        for (&id, half) in &self.recv {
            let due = self.credits_due.iter().filter(|&&stream| stream == id).count();
            assert_eq!(due, usize::from(half.credit_due), "stream {id}: credit is due once");
        }
    }

    fn assert_sending(&self, id: u32, half: &SendHalf) {
        assert!(half.next_offset <= half.limit, "stream {id}: credit kept");
        assert!(half.scheduled || half.queue.is_empty(), "stream {id}: what has frames is scheduled");
        let scheduled = self.scheduled.iter().filter(|&&stream| stream == id).count();
        assert_eq!(scheduled, usize::from(half.scheduled), "stream {id}: scheduled once");
        let blocked = self.blocked.iter().filter(|&&stream| stream == id).count();
        assert_eq!(blocked, usize::from(half.blocked), "stream {id}: blocked once");
        assert!(!half.is_done(), "stream {id}: what is done is forgotten");
    }

    fn assert_flight(&self) {
        let mut outstanding: BTreeMap<u32, usize> =
            self.send.iter().map(|(&id, half)| (id, half.unsent_frames())).collect();
        let (mut frames, mut bytes) = (0, 0);
        let unacked = self.links.values().flat_map(|link| &link.unacked).filter(|frame| !frame.repetition);
        for frame in unacked.chain(&self.retransmit) {
            frames += 1;
            bytes += frame.payload.len();
            if frame.header.ty == FrameType::Data {
                *outstanding.entry(frame.header.stream).or_default() += 1;
            }
        }
        assert_eq!(self.flight.totals(), (frames, bytes), "frames in flight");
        for (id, count) in outstanding {
            let half = self.send.get(&id).expect("a stream stays until its frames are acknowledged");
            assert_eq!(half.outstanding, count, "stream {id}: frames outstanding");
        }
    }
}
