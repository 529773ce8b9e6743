//! What a frame of the peer does to the state.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{
    Closed, Connection, Event, Flow, LinkId, OpenError, Priority, RequestId, ResponseStatus,
    link::Retirement, send::SendState,
};
use crate::{
    close::CloseCode,
    error::ProtocolError,
    frame::{Codec, FrameHeader, FrameType},
    hello::Capabilities,
    limits::{
        CLOSE_TEXT_MAX, FRAMES_OUT_OF_ORDER_MAX, MESSAGE_LEN_MAX, REQUESTS_IN_FLIGHT_MAX, STREAM_ID_MAX,
    },
};

fn invalid(ty: FrameType, what: &'static str) -> ProtocolError {
    ProtocolError::Invalid { ty, what }
}

fn code_of(ty: FrameType, payload: &[u8]) -> Result<u32, ProtocolError> {
    let code = payload.first_chunk().ok_or(invalid(ty, "payload is shorter than its code"))?;
    Ok(u32::from_le_bytes(*code))
}

impl Connection {
    /// Takes a frame that arrived on `link` and whose payload checksum was verified.
    ///
    /// After an error the connection has to be ended with [`fail`](Self::fail).
    pub fn handle_frame(
        &mut self,
        now: Duration,
        link: LinkId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), ProtocolError> {
        if self.closed.is_some() {
            return Ok(());
        }
        let ty = header.ty;
        let Some(state) = self.links.get_mut(&link) else {
            return Ok(()); // the link was given up meanwhile; its frames come again on another
        };
        state.last_heard = state.last_heard.max(now);
        if ty.is_reliable() {
            if state.retirement.is_some_and(|r| r.received) {
                return Err(ProtocolError::Unexpected { ty, when: "after LINK_RETIRE" });
            }
            state.count_received(now, payload.len());
            self.last_activity = self.last_activity.max(now);
            if self.payload_crc && !payload.is_empty() && !header.flags.payload_crc() {
                return Err(invalid(ty, "has no payload checksum, which was negotiated"));
            }
        }
        self.dispatch(now, link, header, payload)?;
        self.advance_drain();
        Ok(())
    }

    fn dispatch(
        &mut self,
        now: Duration,
        link: LinkId,
        header: &FrameHeader,
        payload: Bytes,
    ) -> Result<(), ProtocolError> {
        let ty = header.ty;
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        match ty {
            FrameType::Data => self.on_data(header, payload),
            FrameType::Message | FrameType::Request => self.on_message(header, payload),
            FrameType::Response => self.on_response(header, payload),
            FrameType::Cancel => self.on_cancel(header),
            FrameType::Credit => self.on_credit(header),
            FrameType::MessageCredit => self.on_message_credit(header),
            FrameType::StreamsMax => self.on_streams_max(header),
            FrameType::LinkAck => self.on_link_ack(now, header),
            FrameType::Reset => self.on_reset(header, &payload),
            FrameType::Stop => self.on_stop(header, &payload),
            FrameType::Ping => {
                state.pong_due = Some(header.offset);
                Ok(())
            }
            FrameType::Pong => {
                let sent = Duration::from_micros(header.offset);
                state.ping_rtt = now.checked_sub(sent).or(state.ping_rtt);
                Ok(())
            }
            FrameType::Close => self.on_close(&payload),
            FrameType::Drain => self.on_drain(header),
            FrameType::LinkRetire => {
                state.retirement.get_or_insert(Retirement::default()).received = true;
                Ok(())
            }
            FrameType::LinkLost => {
                let lost = LinkId(header.stream);
                if lost != link && self.links.contains_key(&lost) {
                    self.link_lost(now, lost);
                    self.lost_links.retain(|&id| id != lost);
                    self.events.push_back(Event::LinkLost(lost));
                }
                Ok(())
            }
            FrameType::LinksWanted => {
                self.events.push_back(Event::LinksWanted(header.stream));
                Ok(())
            }
            FrameType::Hello => Err(ProtocolError::Unexpected { ty, when: "after the handshake" }),
        }
    }

    /// Makes sure that the peer's stream exists, if it is a new one.
    fn ensure_stream(&mut self, ty: FrameType, id: u32) -> Result<(), ProtocolError> {
        if id == 0 || id > STREAM_ID_MAX {
            return Err(invalid(ty, "stream id is not assigned"));
        }
        if self.is_own(id) {
            if id >= self.next_stream {
                return Err(invalid(ty, "names a stream that this side has not opened"));
            }
            return Ok(());
        }
        if id < self.peer_next_stream {
            return Ok(());
        }
        if id.div_ceil(2) > self.peer_streams_limit {
            return Err(ProtocolError::LimitExceeded {
                what: "streams",
                limit: self.peer_streams_limit.into(),
            });
        }
        // Links deliver in any order: all streams up to this one are open now.
        while self.peer_next_stream <= id {
            let next = self.peer_next_stream;
            self.peer_next_stream += 2;
            self.insert_stream(next);
            self.incoming.push_back(next);
            self.events.push_back(Event::StreamIncoming);
        }
        Ok(())
    }

    fn advance(flow: &mut Flow, bytes: u64) -> Result<(), ProtocolError> {
        flow.received = flow.received.saturating_add(bytes);
        if flow.received > flow.receive_limit {
            return Err(ProtocolError::CreditExceeded {
                what: "connection",
                used: flow.received,
                limit: flow.receive_limit,
            });
        }
        Ok(())
    }

    fn on_data(&mut self, header: &FrameHeader, payload: Bytes) -> Result<(), ProtocolError> {
        let (ty, id) = (header.ty, header.stream);
        if header.raw_len == 0 && !header.flags.fin() {
            return Err(invalid(ty, "is empty and not the last"));
        }
        let codec = header.flags.codec().unwrap_or(Codec::Identity);
        if !Capabilities::decodes(&self.config.local, codec) {
            return Err(invalid(ty, "codec was not negotiated"));
        }
        self.ensure_stream(ty, id)?;
        let Some(half) = self.recv.get_mut(&id) else {
            return Ok(()); // a repetition for a stream that is done
        };
        let received = half.receive(header, codec, payload)?;
        Self::advance(&mut self.flow, received.advanced)?;
        self.out_of_order_frames = self.out_of_order_frames.saturating_add_signed(received.out_of_order);
        if self.out_of_order_frames > FRAMES_OUT_OF_ORDER_MAX {
            let limit = FRAMES_OUT_OF_ORDER_MAX as u64;
            return Err(ProtocolError::LimitExceeded { what: "frames out of order", limit });
        }
        if received.discarded > 0 {
            self.flow.consume(received.discarded);
        }
        if half.bridge_gap(self.config.local.connection_window) {
            self.credits_due.push_back(id);
        }
        if received.readable {
            self.events.push_back(Event::StreamReadable(id));
        }
        self.forget_recv_if_done(id);
        Ok(())
    }

    fn on_reset(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ProtocolError> {
        let id = header.stream;
        let code = code_of(header.ty, payload)?;
        self.ensure_stream(header.ty, id)?;
        let Some(half) = self.recv.get_mut(&id) else { return Ok(()) };
        self.out_of_order_frames -= half.out_of_order_len();
        let (advanced, discarded) = half.reset(id, header.offset, code)?;
        Self::advance(&mut self.flow, advanced)?;
        self.flow.consume(discarded);
        self.events.push_back(Event::StreamReadable(id));
        self.forget_recv_if_done(id);
        if self.is_draining() {
            self.refuse_abandoned(id);
        }
        Ok(())
    }

    fn on_stop(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), ProtocolError> {
        let id = header.stream;
        let code = code_of(header.ty, payload)?;
        self.ensure_stream(header.ty, id)?;
        let Some(half) = self.send.get_mut(&id) else { return Ok(()) };
        if half.state != SendState::Reset {
            half.stopped = Some(code);
            if self.incoming.contains(&id) {
                self.stopped_early.insert(id, code);
            } else {
                self.events.push_back(Event::StreamStopped(id, code));
            }
            self.stream_reset(id, code); // settles the credit of both sides
        }
        Ok(())
    }

    fn on_credit(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        if header.stream == 0 {
            self.flow.send_limit = self.flow.send_limit.max(header.offset);
        } else {
            self.ensure_stream(header.ty, header.stream)?;
            if let Some(half) = self.send.get_mut(&header.stream) {
                half.limit = half.limit.max(header.offset);
            }
        }
        self.wake_blocked();
        Ok(())
    }

    fn on_streams_max(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        self.streams_max = self.streams_max.max(header.stream);
        if std::mem::take(&mut self.open_blocked) {
            self.events.push_back(Event::StreamsAvailable);
        }
        Ok(())
    }

    fn on_link_ack(&mut self, now: Duration, header: &FrameHeader) -> Result<(), ProtocolError> {
        let Some(link) = self.links.get_mut(&LinkId(header.stream)) else {
            return Ok(());
        };
        let newly = link.acknowledge(header.offset)?;
        for _ in 0..newly {
            let link = self.links.get_mut(&LinkId(header.stream));
            let Some(frame) = link.and_then(|link| link.pop_acknowledged(now)) else { break };
            if frame.repetition {
                continue;
            }
            self.settle(&frame);
            self.acknowledged_bytes += frame.payload.len() as u64;
            if frame.header.ty != FrameType::Data {
                continue;
            }
            let id = frame.header.stream;
            if let Some(half) = self.send.get_mut(&id) {
                half.outstanding -= 1;
                if half.outstanding == 0 {
                    self.forget_send_if_done(id);
                }
            }
        }
        Ok(())
    }

    fn priority(header: &FrameHeader) -> Result<Priority, ProtocolError> {
        Priority::from_wire(header.flags.priority()).ok_or(invalid(header.ty, "priority is not assigned"))
    }

    fn on_message(&mut self, header: &FrameHeader, payload: Bytes) -> Result<(), ProtocolError> {
        let priority = Self::priority(header)?;
        if payload.len() > MESSAGE_LEN_MAX {
            return Err(invalid(header.ty, "is longer than 64 KiB"));
        }
        if !self.in_messages[priority as usize].receive(header, priority, payload)? {
            return Ok(());
        }
        if header.ty == FrameType::Request {
            let id = RequestId { priority, sequence: header.offset };
            if self.requests_cancelled.remove(&id) {
                let queue = &mut self.in_messages[priority as usize];
                queue.drop_newest();
                self.drop_request(id);
                return Ok(());
            }
            Self::check_requests(&self.requests_taken)?;
            self.requests_taken.insert(id);
        }
        if !std::mem::replace(&mut self.messages_signalled, true) {
            self.events.push_back(Event::MessagesReadable);
        }
        Ok(())
    }

    fn on_response(&mut self, header: &FrameHeader, payload: Bytes) -> Result<(), ProtocolError> {
        let status = match header.stream {
            0 => ResponseStatus::Ok,
            1 => ResponseStatus::Error,
            2 => ResponseStatus::Dropped,
            _ => return Err(invalid(header.ty, "status is not assigned")),
        };
        if payload.len() > MESSAGE_LEN_MAX {
            return Err(invalid(header.ty, "is longer than 64 KiB"));
        }
        let id = RequestId { priority: Self::priority(header)?, sequence: header.offset };
        if let Some(cancelled) = self.requests_made.remove(&id) {
            if !cancelled {
                self.events.push_back(Event::Response(id, status, payload));
            }
            self.wake_requesters();
        }
        Ok(())
    }

    fn on_cancel(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        let id = RequestId { priority: Self::priority(header)?, sequence: header.offset };
        if self.requests_taken.remove(&id) {
            self.events.push_back(Event::RequestCancelled(id));
            self.drop_request(id);
        } else if !self.in_messages[id.priority as usize].has_seen(id.sequence)
            && !self.requests_cancelled.contains(&id)
        {
            Self::check_requests(&self.requests_cancelled)?;
            self.requests_cancelled.insert(id);
        }
        Ok(())
    }

    /// Tells the requester that its cancelled request is over.
    fn drop_request(&mut self, id: RequestId) {
        let queue = &mut self.out_messages[id.priority as usize];
        queue.push_response(id.sequence, ResponseStatus::Dropped, Bytes::new());
    }

    fn check_requests(requests: &BTreeSet<RequestId>) -> Result<(), ProtocolError> {
        if requests.len() < REQUESTS_IN_FLIGHT_MAX {
            return Ok(());
        }
        Err(ProtocolError::LimitExceeded { what: "requests", limit: REQUESTS_IN_FLIGHT_MAX as u64 })
    }

    fn on_message_credit(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        let priority = Self::priority(header)?;
        let queue = &mut self.out_messages[priority as usize];
        queue.credit_limit = queue.credit_limit.max(header.offset);
        Ok(())
    }

    fn on_close(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        let code = code_of(FrameType::Close, payload)?;
        let text = &payload[4..payload.len().min(4 + CLOSE_TEXT_MAX)];
        self.end(Closed::Peer(CloseCode(code), String::from_utf8_lossy(text).into_owned()));
        Ok(())
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Blocked => "the peer's bound of open streams is reached",
            Self::Draining => "the connection drains",
            Self::Closed => "the connection ended",
        })
    }
}
