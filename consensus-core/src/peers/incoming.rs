//! Who connects to this member, and what comes in. Not here: connections that this member makes.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use consensus_raft::{MESSAGE_BYTES_MAX, Message};
use dwcp_core::{Connection, IncomingMessage, Responder};

use super::{INTRODUCTION, Network, QUESTION, RAFT, caller::Caller, line::send_control};
use crate::{inbox::Input, links::Dials, node::PeerQuestion};

/// Members whose connections are kept to answer on.
const CALLERS_MAX: usize = 64;

impl Network {
    pub(super) async fn accept(self: Arc<Self>) {
        while let Some(connection) = self.endpoint.accept().await {
            match Caller::parse(&connection.peer().node_id) {
                Some(Caller::Member(cluster, from)) if cluster == self.cluster => {
                    self.remember_caller(from, connection.clone());
                    if self.membership.borrow().members.contains_key(&from) {
                        let reach = connection.watch_reach();
                        tokio::spawn(Arc::clone(&self.links).follow(from, reach, Dials::Peer));
                    }
                    tokio::spawn(Arc::clone(&self).receive_messages(connection.clone(), from));
                    tokio::spawn(Arc::clone(&self).receive_streams(connection, from));
                }
                Some(Caller::Fetcher(cluster, _)) if cluster == self.cluster => {
                    tokio::spawn(Arc::clone(&self.outgoing).serve(connection));
                }
                Some(Caller::Stranger) => {
                    tokio::spawn(Arc::clone(&self).introduce(connection));
                }
                _ => {
                    let peer = connection.peer();
                    tracing::warn!(peer = peer.node_id, addr = %peer.addr, "not a member of this cluster: refused");
                    connection.close(1, &format!("this is cluster {:016x}", self.cluster));
                }
            }
        }
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the newest connection of each member until that closes.
    fn remember_caller(self: &Arc<Self>, from: u64, connection: Connection) {
        let mut callers = self.callers();
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&from) {
            return;
        }
        callers.insert(from, connection.clone());
        let network = Arc::clone(self);
        tokio::spawn(async move {
            connection.closed().await;
            let mut callers = network.callers();
            if callers.get(&from).is_some_and(|kept| kept.peer().addr == connection.peer().addr) {
                callers.remove(&from);
            }
        });
    }

    /// Answers a member that is not known here. Whether all went out; what did not is lost.
    pub(super) fn answer_caller(&self, to: u64, messages: Vec<Message>) -> bool {
        let Some(connection) = self.callers().get(&to).cloned() else { return false };
        let mut context = Context::from_waker(Waker::noop());
        let lost = |message: &&Message| !send_control(&connection.messages(), message, &mut context);
        messages.iter().filter(lost).count() == 0
    }

    /// Tells somebody who wants to join who the members are.
    async fn introduce(self: Arc<Self>, connection: Connection) {
        let asked = tokio::time::timeout(INTRODUCTION, connection.messages().recv()).await;
        if let Ok(Ok(IncomingMessage { responder: Some(responder), .. })) = asked {
            let mut answer = BytesMut::new();
            answer.put_u64_le(self.cluster);
            answer.put_slice(&self.membership.borrow().encode());
            if responder.respond(answer.freeze()).is_ok() {
                let _ = tokio::time::timeout(INTRODUCTION, connection.closed()).await;
            }
        }
    }

    pub(super) async fn receive_messages(self: Arc<Self>, connection: Connection, from: u64) {
        let messages = connection.messages();
        while let Ok(IncomingMessage { mut payload, responder, .. }) = messages.recv().await {
            if payload.is_empty() {
                continue;
            }
            let goes_on = match (payload.get_u8(), responder) {
                (RAFT, None) => self.deliver(payload, from).await,
                (QUESTION, Some(responder)) => {
                    self.question(payload, responder);
                    true
                }
                _ => true,
            };
            if !goes_on {
                break;
            }
        }
    }

    fn question(&self, question: Bytes, responder: Responder) {
        // Full: whoever asks is told that nobody answered, and asks again.
        let _ = self.questions.try_send(PeerQuestion { question, responder });
    }

    async fn receive_streams(self: Arc<Self>, connection: Connection, from: u64) {
        while let Ok((_, mut stream)) = connection.accept_stream().await {
            let network = Arc::clone(&self);
            let peer = connection.peer().node_id.clone();
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                while let Ok(Some(chunk)) = stream.read_chunk().await {
                    buffer.extend_from_slice(&chunk);
                    while let Some(len) = buffer.first_chunk::<4>() {
                        let len = u32::from_le_bytes(*len) as usize;
                        if len > MESSAGE_BYTES_MAX {
                            tracing::warn!(peer, len, max = MESSAGE_BYTES_MAX, "a peer message is too long");
                            stream.stop(1);
                            return;
                        }
                        if buffer.len() < 4 + len {
                            break;
                        }
                        buffer.advance(4);
                        let message = buffer.split_to(len).freeze();
                        if !network.deliver(message, from).await {
                            return;
                        }
                    }
                }
            });
        }
    }

    /// Whether the raft thread is still there.
    async fn deliver(&self, message: Bytes, from: u64) -> bool {
        match Message::decode(message) {
            Ok(message) if message.from() != from => {
                tracing::warn!(
                    peer = format!("{from:x}"),
                    "a message in the name of another member: dropped"
                );
                true
            }
            Ok(message) => self.inbox.send(Input::Message(message)).await.is_ok(),
            Err(error) => {
                tracing::warn!(%error, "a peer message cannot be read");
                true
            }
        }
    }
}
