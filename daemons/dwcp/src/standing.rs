//! A connection to a peer that is kept: what goes over it for as long as it lasts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dwcp_core::{Connection, MessageError, Messages, Priority};
use tokio::time::MissedTickBehavior;

use crate::{
    hub::Hub,
    schema::{Greeting, News},
};

/// How often an agent tells others of its paths.
const PATHS_INTERVAL: Duration = Duration::from_secs(5);
/// Longest message in bytes: some hundreds of paths.
const MESSAGE_BYTES_MAX: usize = Messages::LEN_MAX / 2;

/// Keeps a connection until it ends.
pub(crate) async fn keep(hub: &Arc<Hub>, connection: &Connection, mut greeting: Greeting, number: u64) {
    let node_id = greeting.node_id.clone();
    tracing::info!(peer = node_id, address = %connection.peer().addr, "connected");
    let messages = connection.messages();
    tokio::select! {
        () = tell(hub, &messages) => {}
        () = listen(hub, &messages, &mut greeting, number) => {}
        why = connection.closed() => tracing::info!(peer = node_id, %why, "disconnected"),
    }
    // Whoever could not go on has said so; the other end need not wait for more.
    connection.close(0, "");
    hub.ended(&node_id, number);
}

/// Tells the peer what is new here, until that cannot be done any more.
async fn tell(hub: &Hub, messages: &Messages) {
    let mut greeting = hub.greeting.subscribe();
    let mut ticks = tokio::time::interval(PATHS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let news = tokio::select! {
            changed = greeting.changed() => match changed {
                Ok(()) => News::Greeting(greeting.borrow_and_update().clone()),
                Err(_) => return,
            },
            _ = ticks.tick() => News::Paths(hub.paths()),
        };
        match messages.send(Priority::Normal, fitting(news)).await {
            Ok(()) => {}
            Err(error @ MessageError::Connection(_)) => {
                tracing::debug!(%error, "telling a peer");
                // The end of the connection says why.
                return std::future::pending().await;
            }
            Err(error) => tracing::warn!(%error, "a peer is not told what is new"),
        }
    }
}

/// News as a message: of more paths than one has room for, the first.
fn fitting(mut news: News) -> Bytes {
    loop {
        let json = serde_json::to_vec(&news).unwrap_or_default();
        match &mut news {
            News::Paths(paths) if json.len() > MESSAGE_BYTES_MAX && !paths.is_empty() => {
                paths.truncate(paths.len() / 2);
            }
            _ => return Bytes::from(json),
        }
    }
}

/// Takes what the peer tells.
async fn listen(hub: &Hub, messages: &Messages, greeting: &mut Greeting, number: u64) {
    loop {
        let Ok(message) = messages.recv().await else { return std::future::pending().await };
        match serde_json::from_slice(&message.payload) {
            Ok(News::Greeting(new)) if new.node_id == greeting.node_id => {
                *greeting = new;
                hub.greeted(number, greeting.clone());
            }
            Ok(News::Greeting(new)) => {
                tracing::warn!(
                    peer = greeting.node_id,
                    now = new.node_id,
                    "a peer changes its name: not taken"
                );
                return;
            }
            Ok(News::Paths(paths)) => hub.told(greeting, paths),
            // A younger version may have more to tell.
            Err(error) => tracing::debug!(peer = greeting.node_id, %error, "news that are not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Path;

    #[test]
    fn however_many_paths_there_are_a_message_has_room() {
        let path = Path {
            to: "x".repeat(255),
            rtt_ms: 0.123_456_789,
            rtt_min_ms: 0.1,
            jitter_ms: None,
            loss_ratio: 0.0,
            mtu_bytes: None,
        };
        let message = fitting(News::Paths(vec![path; 1024]));
        assert!((MESSAGE_BYTES_MAX / 3..=MESSAGE_BYTES_MAX).contains(&message.len()), "{}", message.len());
    }
}
