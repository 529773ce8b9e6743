//! The server: receives, answers requests, and says in the end what it got.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dwcp_core::{Connection, ConnectionError, Endpoint, MessageError};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    Arrivals, BLOCK_BYTES_MAX, Control, End, Outcome, Plan, Ring, STREAMS_MAX, ServerArgs, Until,
    cpu_seconds, drain, fill, retransmits,
};
use novacron_process::Signals;

use crate::{observe::Observable, settings::Node};

/// Messages taken at once.
const MESSAGES_BATCH: usize = 1024;
/// For the result of the last client, when its connection has ended.
const RESULT_TIME_MAX: Duration = Duration::from_secs(1);

/// Serves one client after the other: two at once would measure each other.
pub(super) async fn run(args: &ServerArgs, node: Node) -> Result<()> {
    let mut signals = Signals::listen()?;
    let observable = Observable::prepare(&node.settings.metrics).await?;
    let endpoint = Endpoint::listen(node.settings.listen, node.settings.endpoint.clone()).await?;
    node.keep_fresh(&endpoint);
    let _observed = observable.serve("novacron bench server", &node.settings, &endpoint, signals.draining());
    let addr = endpoint.local_addr().context("the endpoint does not listen")?;
    println!("listening on {addr}");
    let drain = async {
        endpoint.shutdown(node.settings.drain_timeout).await;
        tokio::time::sleep(RESULT_TIME_MAX).await;
    };
    signals.let_finish(serve_all(&endpoint, args.once), drain).await;
    Ok(())
}

/// Until the endpoint takes on no more.
async fn serve_all(endpoint: &Endpoint, once: bool) {
    while let Some(connection) = endpoint.accept().await {
        let peer = connection.peer().clone();
        match serve(&connection).await {
            Ok(outcome) => println!(
                "{} ({}): {} bytes, {} messages received",
                peer.node_id, peer.addr, outcome.bytes, outcome.messages
            ),
            Err(error) => eprintln!("{} ({}): {error:#}", peer.node_id, peer.addr),
        }
        if once {
            break;
        }
    }
}

async fn serve(connection: &Connection) -> Result<Outcome> {
    let cpu = cpu_seconds();
    let mut control = Control::new(connection.accept_stream().await?);
    let plan: Plan = control.recv().await?;
    ensure!(plan.streams <= STREAMS_MAX, "{} streams asked for, at most {STREAMS_MAX}", plan.streams);
    ensure!(
        (1..=BLOCK_BYTES_MAX).contains(&plan.block_bytes),
        "blocks of {} bytes asked for, 1..={BLOCK_BYTES_MAX}",
        plan.block_bytes
    );
    let data = plan.data.parse().map_err(anyhow::Error::msg)?;
    let ring = if plan.reverse { Some(Ring::new(data, plan.block_bytes).await?) } else { None };
    let (count, mut counted) = watch::channel(0);
    let mut messages = JoinSet::new();
    messages.spawn(answer(connection.clone(), count));
    control.send(&"ready").await?;

    let arrivals = Arrivals::new(plan.time);
    let (_never, early) = watch::channel(false);
    let until = Until { time: Instant::now() + plan.time, early };
    let mut streams = JoinSet::new();
    for _ in 0..plan.streams {
        match &ring {
            Some(ring) => {
                let (send, _) = connection.open_stream().await?;
                streams.spawn(fill(send, ring.clone(), until.clone()));
            }
            None => {
                let (_, recv) = connection.accept_stream().await?;
                streams.spawn(drain(recv, Arc::clone(&arrivals)));
            }
        }
    }
    while let Some(done) = streams.join_next().await {
        done??;
    }
    let end: End = control.recv().await?;
    let messages = *counted.wait_for(|count| *count >= end.messages).await?;
    let outcome = Outcome {
        bytes: arrivals.bytes(),
        bytes_in_time: arrivals.in_time(),
        messages,
        cpu_seconds: cpu_seconds() - cpu,
        retransmits: retransmits(connection),
    };
    control.send(&outcome).await?;
    // The client closes once it has read that.
    connection.closed().await;
    Ok(outcome)
}

/// Counts messages and answers requests with their own payload, until the connection ends.
async fn answer(connection: Connection, count: watch::Sender<u64>) -> Result<(), MessageError> {
    let messages = connection.messages();
    let mut batch = Vec::with_capacity(MESSAGES_BATCH);
    loop {
        match messages.recv_many(&mut batch, MESSAGES_BATCH).await {
            Err(MessageError::Connection(ConnectionError::ClosedByPeer(_))) => return Ok(()),
            received => received?,
        };
        count.send_modify(|count| *count += batch.len() as u64);
        for message in batch.drain(..) {
            if let Some(responder) = message.responder {
                responder.respond(message.payload)?;
            }
        }
    }
}
