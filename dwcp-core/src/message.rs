//! Small prioritised messages beside the streams.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dwcp_proto::conn::{Incoming, MessageSendError, RequestId, ResponseStatus};
use tokio::sync::{Notify, oneshot};

pub use dwcp_proto::conn::Priority;

use crate::{
    MessageError,
    connection::Handle,
    shared::{Shared, State},
};

/// Sends and receives messages of a connection. Reliable while the connection lives, each delivered once;
/// in order only among messages of one priority on one link. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Messages {
    handle: Arc<Handle>,
}

/// A message or request from the peer.
#[derive(Debug)]
#[non_exhaustive]
pub struct IncomingMessage {
    /// As the sender set it.
    pub priority: Priority,
    /// The content.
    pub payload: Bytes,
    /// Present if the sender waits for an answer.
    pub responder: Option<Responder>,
}

/// Answers one request. Dropped without an answer, the requester gets [`MessageError::Dropped`].
#[derive(Debug)]
pub struct Responder(Box<Request>); // boxed: most messages have none, and should be cheap to move

/// A request of the peer that waits for our answer.
#[derive(Debug)]
struct Request {
    handle: Arc<Handle>,
    id: RequestId,
    deadline_ms: u32,
    cancelled: Arc<Notify>,
    answered: bool,
}

/// A request that waits for its answer; cancels it when dropped before.
struct Waiting<'a> {
    shared: &'a Shared,
    id: RequestId,
    done: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.with(|state, _| {
                state.responses.remove(&self.id);
                state.core.request_cancel(self.id);
            });
        }
    }
}

impl Messages {
    /// Largest payload of a message in bytes; less if the peer takes only smaller frames.
    pub const LEN_MAX: usize = dwcp_proto::limits::MESSAGE_LEN_MAX;

    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Repeats `attempt` until there is room.
    async fn when_room<T>(
        &self,
        len: usize,
        mut attempt: impl FnMut(&mut State, Duration) -> Result<T, MessageSendError>,
    ) -> Result<T, MessageError> {
        let shared = self.shared();
        loop {
            let result = shared.with(|state, now| {
                attempt(state, now).map_err(|error| match error {
                    MessageSendError::Blocked => None,
                    MessageSendError::TooLarge => {
                        Some(MessageError::TooLarge { len, max: state.core.message_len_max() })
                    }
                    MessageSendError::Closed => Some(MessageError::Connection(shared.error(state))),
                })
            });
            match result {
                Ok(value) => return Ok(value),
                Err(Some(error)) => return Err(error),
                Err(None) => {
                    let mut writable = std::pin::pin!(shared.messages_writable.notified());
                    writable.as_mut().enable();
                    // Between the attempt and now there may have become room: one more look.
                    if !shared.lock().core.messages_have_room() {
                        writable.await;
                    }
                }
            }
        }
    }

    /// Sends one message. Waits while too many wait to be sent.
    pub async fn send(&self, priority: Priority, payload: Bytes) -> Result<(), MessageError> {
        self.when_room(payload.len(), |state, now| state.core.message_send(now, priority, payload.clone()))
            .await
    }

    /// Sends all of `payloads`, taking the state's lock once for as many as there is room: for throughput. If the
    /// future is dropped, those that are still in `payloads` were not sent.
    pub async fn send_many(&self, priority: Priority, payloads: &mut Vec<Bytes>) -> Result<(), MessageError> {
        while let Some(first) = payloads.first() {
            self.when_room(first.len(), |state, now| {
                let mut sent = 0;
                // Looking for room first lets messages be moved instead of cloned.
                while sent < payloads.len() && state.core.message_has_room(priority) {
                    state.core.message_send(now, priority, std::mem::take(&mut payloads[sent]))?;
                    sent += 1;
                }
                if sent == 0 {
                    state.core.message_send(now, priority, payloads[0].clone())?;
                    sent = 1;
                }
                payloads.drain(..sent);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Sends a request and waits for its answer, at most `deadline`. Dropping the future cancels the request.
    pub async fn request(
        &self,
        priority: Priority,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, MessageError> {
        tokio::time::timeout(deadline, self.request_unbounded(priority, payload, deadline))
            .await
            .unwrap_or(Err(MessageError::DeadlineExceeded))
    }

    async fn request_unbounded(
        &self,
        priority: Priority,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, MessageError> {
        let deadline_ms = deadline.as_millis().min(u32::MAX.into()) as u32;
        let (id, mut answer) = self
            .when_room(payload.len(), |state, now| {
                let id = state.core.request_send(now, priority, deadline_ms, payload.clone())?;
                let (sender, receiver) = oneshot::channel();
                state.responses.insert(id, sender);
                Ok((id, receiver))
            })
            .await?;
        let mut waiting = Waiting { shared: self.shared(), id, done: false };
        let mut polled = None;
        self.shared()
            .busy_poll(|| {
                // A receiver that has said how it ended must not be asked again.
                polled = match answer.try_recv() {
                    Err(oneshot::error::TryRecvError::Empty) => None,
                    ended => Some(ended.ok()),
                };
                polled.is_some()
            })
            .await;
        let answer = match polled {
            Some(ended) => ended,
            None => answer.await.ok(),
        };
        waiting.done = true;
        match answer {
            Some((ResponseStatus::Ok, payload)) => Ok(payload),
            Some((ResponseStatus::Error, payload)) => Err(MessageError::Remote(payload)),
            Some((ResponseStatus::Dropped, _)) => Err(MessageError::Dropped),
            None => Err(MessageError::Connection(self.shared().error(&self.shared().lock()))),
        }
    }

    /// The next message. Cancellation-safe.
    pub async fn recv(&self) -> Result<IncomingMessage, MessageError> {
        let mut one = Vec::with_capacity(1);
        self.recv_many(&mut one, 1).await?;
        // recv_many gives at least one message, or an error.
        one.pop().ok_or(MessageError::Dropped)
    }

    /// Appends at least one and at most `max` messages to `out`; returns how many. Cancellation-safe.
    pub async fn recv_many(&self, out: &mut Vec<IncomingMessage>, max: usize) -> Result<usize, MessageError> {
        let shared = self.shared();
        let (before, max) = (out.len(), max.max(1));
        let mut polled = false;
        loop {
            let ended = shared.with(|state, _| {
                loop {
                    let room = max - (out.len() - before);
                    let batched = state.core.messages_receive_batched(room, |priority, payload| {
                        out.push(IncomingMessage { priority, payload, responder: None });
                    });
                    if batched == room {
                        break;
                    }
                    if batched == 0 {
                        let Some(incoming) = state.core.message_receive() else { break };
                        out.push(self.wrap(state, incoming));
                    }
                }
                state.core.closed().is_some().then(|| shared.error(state))
            });
            let count = out.len() - before;
            if count > 0 {
                if count == max {
                    shared.messages_readable.notify_one(); // there may be more, for another who waits
                }
                return Ok(count);
            }
            if let Some(error) = ended {
                shared.messages_readable.notify_one();
                return Err(error.into());
            }
            if !std::mem::replace(&mut polled, true) {
                shared.busy_poll(|| shared.lock().core.has_message()).await;
                continue;
            }
            // A notification that came after the look above is kept for us.
            shared.messages_readable.notified().await;
        }
    }

    fn wrap(&self, state: &mut State, incoming: Incoming) -> IncomingMessage {
        let responder = incoming.request.map(|id| {
            let cancelled = Arc::new(Notify::new());
            if state.core.request_is_open(id) {
                state.cancellations.insert(id, Arc::clone(&cancelled));
            } else {
                cancelled.notify_one(); // it was cancelled while it waited to be received
            }
            let (handle, deadline_ms) = (Arc::clone(&self.handle), incoming.deadline_ms);
            Responder(Box::new(Request { handle, id, deadline_ms, cancelled, answered: false }))
        });
        IncomingMessage { priority: incoming.priority, payload: incoming.payload, responder }
    }
}

impl Responder {
    /// How long the requester was willing to wait when it asked; `None`: no bound.
    pub fn deadline(&self) -> Option<Duration> {
        (self.0.deadline_ms > 0).then(|| Duration::from_millis(self.0.deadline_ms.into()))
    }

    /// Answers.
    pub fn respond(mut self, payload: Bytes) -> Result<(), MessageError> {
        self.0.answer(ResponseStatus::Ok, payload)
    }

    /// Answers with an error.
    pub fn fail(mut self, payload: Bytes) -> Result<(), MessageError> {
        self.0.answer(ResponseStatus::Error, payload)
    }

    /// Waits until the requester no longer wants the answer (cancelled or connection gone).
    pub async fn cancelled(&self) {
        self.0.cancelled.notified().await;
        self.0.cancelled.notify_one(); // for whoever asks again
    }
}

impl Request {
    fn answer(&mut self, status: ResponseStatus, payload: Bytes) -> Result<(), MessageError> {
        let len = payload.len();
        let shared = &self.handle.shared;
        shared.with(|state, now| {
            state.cancellations.remove(&self.id);
            match state.core.respond(now, self.id, status, payload) {
                Ok(()) => {
                    self.answered = true;
                    Ok(())
                }
                Err(MessageSendError::TooLarge) => {
                    Err(MessageError::TooLarge { len, max: state.core.message_len_max() })
                }
                Err(_) => Err(MessageError::Connection(shared.error(state))),
            }
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.answered {
            let _ = self.answer(ResponseStatus::Dropped, Bytes::new());
        }
    }
}
