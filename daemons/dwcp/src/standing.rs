//! A connection to a peer that is kept: what goes over it for as long as it lasts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dwcp_core::{Connection, DatagramKind, Datagrams, MessageError, Messages, Priority};
use novacron_control::schema::{Greeting, News, Path};
use tokio::time::MissedTickBehavior;

use crate::{dial::fits, hub::Hub};

/// How often an agent tells others of its paths.
const PATHS_INTERVAL: Duration = Duration::from_secs(5);
/// Longest message in bytes.
const MESSAGE_BYTES_MAX: usize = Messages::LEN_MAX / 2;

/// Datagrams that lose more of themselves, 0 to 1, are not relied on.
const LOSS_MAX: f64 = 0.5;

/// Keeps a connection until it ends.
pub(crate) async fn keep(hub: &Arc<Hub>, connection: &Connection, mut greeting: Greeting, number: u64) {
    let node_id = greeting.node_id.clone();
    tracing::info!(peer = node_id, address = %connection.peer().addr, "connected");
    let messages = connection.messages();
    tokio::select! {
        () = tell(hub, connection, &messages) => {}
        () = listen(hub, connection, &messages, &mut greeting, number) => {}
        why = connection.closed() => tracing::info!(peer = node_id, %why, "disconnected"),
    }
    // Whoever could not go on has said so; the other end need not wait for more.
    connection.close(0, "");
    hub.ended(&node_id, number);
}

/// Tells the peer what is new here, until that cannot be done any more.
async fn tell(hub: &Hub, connection: &Connection, messages: &Messages) {
    let mut greeting = hub.greeting.subscribe();
    let mut ticks = tokio::time::interval(PATHS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let news = tokio::select! {
            changed = greeting.changed() => match changed {
                Ok(()) => vec![json(&News::Greeting(greeting.borrow_and_update().clone()))],
                Err(_) => return,
            },
            _ = ticks.tick() => match gossip(connection) {
                Some(datagrams) => {
                    let pieces = pieces(&hub.paths(), datagrams.max_len());
                    let pieces: Vec<_> = pieces.iter().map(|piece| &piece[..]).collect();
                    // What is lost is told again soon, as it will be then.
                    if let Err(error) = datagrams.send_all(DatagramKind::Gossip, &pieces) {
                        tracing::debug!(%error, "gossip");
                    }
                    continue;
                }
                None => pieces(&hub.paths(), MESSAGE_BYTES_MAX),
            },
        };
        for piece in news {
            match messages.send(Priority::Normal, piece).await {
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
}

/// Datagrams, where they get through.
fn gossip(connection: &Connection) -> Option<Datagrams> {
    let path = connection.path()?;
    (path.rtt.is_some() && path.loss_ratio < LOSS_MAX).then(|| connection.datagrams()).flatten()
}

fn json(news: &News) -> Bytes {
    serde_json::to_vec(news).unwrap_or_default().into()
}

/// News of paths, in as many pieces as it takes for each to be no longer than this.
fn pieces(paths: &[Path], bytes_max: usize) -> Vec<Bytes> {
    let whole = json(&News::Paths(paths.to_vec()));
    match paths.len() {
        _ if whole.len() <= bytes_max => vec![whole],
        // One whose name is so long is not told of.
        0 | 1 => Vec::new(),
        count => {
            let (front, back) = paths.split_at(count / 2);
            [pieces(front, bytes_max), pieces(back, bytes_max)].concat()
        }
    }
}

/// Takes what the peer tells.
async fn listen(
    hub: &Hub,
    connection: &Connection,
    messages: &Messages,
    greeting: &mut Greeting,
    number: u64,
) {
    let datagrams = connection.datagrams();
    let heard = || async {
        match &datagrams {
            Some(datagrams) => datagrams.recv(DatagramKind::Gossip).await.ok(),
            None => std::future::pending().await,
        }
    };
    loop {
        let said = tokio::select! {
            message = messages.recv() => message.ok().map(|message| message.payload),
            gossip = heard() => gossip,
        };
        // The end of the connection says why.
        let Some(said) = said else { return std::future::pending().await };
        match serde_json::from_slice(&said) {
            Ok(News::Greeting(new)) if new.node_id == greeting.node_id => {
                if let Err(why) = fits(&new) {
                    tracing::warn!(peer = greeting.node_id, why, "what a peer says of itself is not taken");
                    return;
                }
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

    #[test]
    fn however_many_paths_there_are_each_piece_has_room() {
        let path = |n: usize| Path {
            to: format!("{n}{}", "x".repeat(n % 250)),
            rtt_ms: 0.123_456_789,
            rtt_min_ms: 0.1,
            jitter_ms: None,
            loss_ratio: 0.0,
            mtu_bytes: None,
        };
        for count in [0, 1, 7, 1024] {
            let paths: Vec<_> = (0..count).map(path).collect();
            let pieces = pieces(&paths, 1160);
            assert!(pieces.iter().all(|piece| piece.len() <= 1160));
            let read = pieces.iter().flat_map(|piece| match serde_json::from_slice(piece) {
                Ok(News::Paths(paths)) => paths,
                other => panic!("{other:?}"),
            });
            assert_eq!(read.collect::<Vec<_>>(), paths);
        }
        assert!(pieces(&[Path { to: "x".repeat(1160), ..path(0) }], 1160).is_empty());
    }
}
