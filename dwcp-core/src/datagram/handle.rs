//! Datagrams, as an application sees them.

use std::sync::Arc;

use bytes::Bytes;
use dwcp_proto::datagram::DatagramType;

use super::Channel;
use crate::{ConnectionError, DatagramError, connection::Handle};

/// What a datagram of an application is for. Each kind has a queue of its own: a flood of one does not push out the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// What nodes tell each other about others.
    Gossip,
    /// Anything else.
    Message,
}

impl DatagramKind {
    pub(super) fn to_type(self) -> DatagramType {
        match self {
            Self::Gossip => DatagramType::Gossip,
            Self::Message => DatagramType::Message,
        }
    }
}

/// The datagrams of a connection: each arrives once or never, in any order. Cheap to clone; keeps the connection open.
#[derive(Clone, Debug)]
pub struct Datagrams {
    handle: Arc<Handle>,
    channel: Arc<Channel>,
}

impl Datagrams {
    pub(crate) fn new(handle: Arc<Handle>, channel: Arc<Channel>) -> Self {
        Self { handle, channel }
    }

    /// Sends a datagram, or does not: it never waits, and a datagram for which there is no room is gone.
    ///
    /// # Errors
    /// [`DatagramError`] says why the datagram is known not to have been sent.
    pub fn send(&self, kind: DatagramKind, content: &[u8]) -> Result<(), DatagramError> {
        self.send_all(kind, &[content]).map(|_| ())
    }

    /// Sends datagrams with as few system calls as can be; returns how many were sent, from the first on. Those that
    /// follow were not looked at if there were more than a batch (64), and else are gone.
    ///
    /// # Errors
    /// As of [`send`](Self::send), when none was sent; if one is too large, none is.
    pub fn send_all(&self, kind: DatagramKind, contents: &[&[u8]]) -> Result<usize, DatagramError> {
        self.channel.send(kind, contents).map_err(|error| match error {
            DatagramError::Connection(_) => DatagramError::Connection(self.ended()),
            other => other,
        })
    }

    /// The oldest datagram of this kind that has arrived and was not received. Of many that wait, the oldest are dropped.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// The connection has ended, and nothing is left.
    pub async fn recv(&self, kind: DatagramKind) -> Result<Bytes, ConnectionError> {
        match self.channel.queue(kind).pop().await {
            Some(datagram) => Ok(datagram),
            None => Err(self.ended()),
        }
    }

    /// Longest content that can be sent now, in bytes. It changes as the path is measured, and is never less than 1160.
    pub fn max_len(&self) -> usize {
        self.channel.max_len()
    }

    /// Goes on to the next key, for tests. `false`: the peer has not confirmed this one.
    #[doc(hidden)]
    pub fn update_key(&self) -> bool {
        self.channel.update_key()
    }

    fn ended(&self) -> ConnectionError {
        let shared = &self.handle.shared;
        shared.error(&shared.lock())
    }
}
