//! What goes out to one peer: entries on a stream, control messages beside it. Not here: how the connection is made.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use consensus_raft::{Class, Message};
use dwcp_core::{Messages, Priority, SendStream};
use tokio::{io::AsyncWrite as _, sync::Notify};

use super::RAFT;

/// Encoded entries that wait for one peer; with more, messages to it are lost.
const BACKLOG_BYTES_MAX: usize = 8 << 20;

/// The way to one peer. The raft thread writes to the sockets itself: a task in between would cost it a wake-up for each
/// message.
#[derive(Debug, Default)]
pub(super) struct Line {
    open: Mutex<Option<OpenLine>>,
    /// Told when entries wait for credit.
    backlog: Notify,
}

#[derive(Debug)]
struct OpenLine {
    messages: Messages,
    stream: SendStream,
    /// Encoded entries that the stream has not taken.
    backlog: BytesMut,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Option<OpenLine>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on messages go here.
    pub(super) fn open(&self, messages: Messages, stream: SendStream) {
        *self.lock() = Some(OpenLine { messages, stream, backlog: BytesMut::new() });
    }

    /// From now on messages are lost.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Sends what the raft thread could not; returns when the stream has ended.
    pub(super) async fn send_backlogs(&self) {
        loop {
            self.backlog.notified().await;
            let sent = poll_fn(|context| match &mut *self.lock() {
                Some(open) => open.flush(context),
                None => Poll::Ready(Err(())),
            });
            if sent.await.is_err() {
                return;
            }
        }
    }

    /// Sends messages as far as there is room at once; whether all were.
    pub(super) fn send(&self, messages: impl Iterator<Item = Message>) -> bool {
        let mut line = self.lock();
        let Some(open) = &mut *line else { return false };
        let mut context = Context::from_waker(Waker::noop());
        let mut all = true;
        for message in messages {
            all &= match message.class() {
                Class::Control => send_control(&open.messages, &message, &mut context),
                _ => open.add(&message),
            };
        }
        match open.flush(&mut context) {
            Poll::Ready(result) => all && result.is_ok(),
            Poll::Pending => {
                self.backlog.notify_one();
                all
            }
        }
    }
}

/// Small, and urgent: it goes out now or never.
pub(super) fn send_control(messages: &Messages, message: &Message, context: &mut Context<'_>) -> bool {
    let mut payload = BytesMut::with_capacity(128);
    payload.put_u8(RAFT);
    message.encode(&mut payload);
    let sending = pin!(messages.send(Priority::Control, payload.freeze()));
    matches!(sending.poll(context), Poll::Ready(Ok(())))
}

impl OpenLine {
    /// Puts a message behind its length at the end of what is to be sent.
    fn add(&mut self, message: &Message) -> bool {
        let start = self.backlog.len();
        if start > BACKLOG_BYTES_MAX {
            return false;
        }
        self.backlog.put_u32_le(0);
        message.encode(&mut self.backlog);
        let len = (self.backlog.len() - start - 4) as u32;
        self.backlog[start..start + 4].copy_from_slice(&len.to_le_bytes());
        true
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while !self.backlog.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.backlog)) {
                Ok(len) if len > 0 => self.backlog.advance(len),
                _ => return Poll::Ready(Err(())),
            }
        }
        Poll::Ready(Ok(()))
    }
}
