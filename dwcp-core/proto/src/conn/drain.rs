//! The end of a connection without loss (clauses of section 8): both sides finish what they have, say so, and the
//! side that wanted the end closes.

use bytes::Bytes;

use super::{Closed, Connection, messages::OutQueue, recv::RecvHalf};
use crate::{
    close::CloseCode,
    error::ProtocolError,
    frame::{FrameHeader, FrameType},
};

/// Values of the stream field of a DRAIN frame.
const STARTED: u32 = 0;
const DONE: u32 = 1;

/// How far draining has come.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// This side called [`Connection::drain`].
    pub(super) started: bool,
    /// This side said that it has nothing left.
    pub(super) done: bool,
    /// The peer said that it drains.
    pub(super) peer_started: bool,
    /// The peer said that it has nothing left.
    pub(super) peer_done: bool,
}

impl Connection {
    /// No more streams from here on. Once both sides have nothing left the connection closes with
    /// [`CloseCode::NONE`]: streams are done, messages delivered, requests answered.
    pub fn drain(&mut self) {
        if self.closed.is_some() || self.drain.started {
            return;
        }
        self.drain.started = true;
        self.push_drain(STARTED);
        self.refuse_all_abandoned();
        self.advance_drain();
    }

    /// Whether [`drain`](Self::drain) was called here or by the peer.
    pub fn is_draining(&self) -> bool {
        self.drain.started || self.drain.peer_started
    }

    pub(super) fn on_drain(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        match header.stream {
            STARTED => {}
            DONE => self.drain.peer_done = true,
            _ => return Err(ProtocolError::Invalid { ty: header.ty, what: "phase is not assigned" }),
        }
        if !std::mem::replace(&mut self.drain.peer_started, true) {
            self.events.push_back(super::Event::PeerDraining);
            self.refuse_all_abandoned();
        }
        Ok(())
    }

    fn refuse_all_abandoned(&mut self) {
        for id in self.incoming.clone() {
            self.refuse_abandoned(id);
        }
    }

    /// Ends a stream that the peer reset and that the application has not taken: it need not take one just to see
    /// that nothing is in it, and the end would wait for it.
    pub(super) fn refuse_abandoned(&mut self, id: u32) {
        let reset = self.recv.get(&id).and_then(RecvHalf::reset_code);
        let (Some(code), Some(index)) = (reset, self.incoming.iter().position(|&waiting| waiting == id))
        else {
            return;
        };
        self.incoming.remove(index);
        self.stopped_early.remove(&id);
        self.stream_reset(id, code);
        if let Some(half) = self.recv.get_mut(&id) {
            half.ended = true;
        }
        self.forget_recv_if_done(id);
    }

    /// To be called after everything that may have been the last thing.
    pub(super) fn advance_drain(&mut self) {
        if !self.is_draining() || self.closed.is_some() || !self.is_idle() {
            return;
        }
        if !std::mem::replace(&mut self.drain.done, true) {
            self.push_drain(DONE);
        } else if self.drain.started && self.drain.peer_done {
            self.end(Closed::Local(CloseCode::NONE, String::new()));
        }
    }

    /// Both sides have said that they are done: only the CLOSE is missing.
    pub(super) fn is_drained(&self) -> bool {
        self.drain.done && self.drain.peer_done
    }

    /// No stream, nothing to send, nothing to be acknowledged, nothing to be answered.
    pub(super) fn is_idle(&self) -> bool {
        self.send.is_empty()
            && self.recv.is_empty()
            && self.flight.is_empty()
            && self.control.is_empty()
            && self.out_messages.iter().all(OutQueue::is_empty)
            && self.requests_made.is_empty()
            && self.requests_taken.is_empty()
    }

    fn push_drain(&mut self, phase: u32) {
        self.push_control(FrameHeader { stream: phase, ..FrameHeader::new(FrameType::Drain) }, Bytes::new());
    }
}
