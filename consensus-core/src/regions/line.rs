//! The way to one other region: a task that keeps a connection to its leader, and what waits to be sent.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use dwcp_core::Connection;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{Shared, region_of};
use crate::peers::connect_to;

/// Messages that wait to be sent; with more, messages are lost.
const QUEUE: usize = 64;
/// Between two rounds of attempts to connect.
const RECONNECT: Duration = Duration::from_millis(200);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
/// A connection that lasted this long was to the leader.
const SETTLED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Line {
    pub(super) urls: Vec<String>,
    queue: mpsc::Sender<Bytes>,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    pub(super) fn start(shared: &Arc<Shared>, region: u32, urls: Vec<String>) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(Arc::downgrade(shared), region, urls.clone(), messages));
        Self { urls, queue, task }
    }

    /// Full: the region does not keep up, and is sent the same again later.
    pub(super) fn send(&self, message: Bytes) {
        let _ = self.queue.try_send(message);
    }
}

/// While it lives, a region counts as connected.
struct Connected(Weak<Shared>, u32);

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.connected().remove(&self.1);
        }
    }
}

async fn run(shared: Weak<Shared>, region: u32, urls: Vec<String>, mut messages: mpsc::Receiver<Bytes>) {
    let (mut pause, mut next) = (RECONNECT, 0);
    loop {
        for _ in 0..urls.len() {
            let url = &urls[next % urls.len()];
            let Some(strong) = shared.upgrade() else { return };
            let connected = connect(&strong, region, url).await;
            drop(strong);
            let Some(connection) = connected else {
                next += 1;
                continue;
            };
            // What waited meanwhile is old.
            while messages.try_recv().is_ok() {}
            let began = Instant::now();
            carry(&shared, region, &connection, &mut messages).await;
            // It does not lead, or not any more.
            if began.elapsed() < SETTLED {
                next += 1;
            } else {
                pause = RECONNECT;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

async fn connect(shared: &Shared, region: u32, url: &str) -> Option<Connection> {
    let connection = connect_to(&shared.endpoint, url).await?;
    let peer = connection.peer();
    if region_of(peer, shared.has_tls) == Some(region) {
        return Some(connection);
    }
    tracing::warn!(url, region, found = peer.node_id, names = ?peer.names, "another region than the one that should be there");
    connection.close(1, "another region was expected");
    None
}

/// Sends what is to be sent until the connection ends.
async fn carry(
    shared: &Weak<Shared>,
    region: u32,
    connection: &Connection,
    messages: &mut mpsc::Receiver<Bytes>,
) {
    let Ok((mut stream, _)) = connection.open_stream().await else { return };
    if let Some(shared) = shared.upgrade() {
        shared.connected().insert(region);
    }
    let _connected = Connected(shared.clone(), region);
    let sending = async {
        while let Some(message) = messages.recv().await {
            let mut framed = BytesMut::with_capacity(4 + message.len());
            framed.put_u32_le(message.len() as u32);
            framed.put_slice(&message);
            if stream.write_bytes(framed.freeze()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        _ = connection.closed() => {}
    }
}
