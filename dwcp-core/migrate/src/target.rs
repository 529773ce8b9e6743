//! The side that the guest comes to: a QEMU with the same devices, started with `-incoming defer`.

use dwcp_core::{Connection, RecvStream, SendStream};
use dwcp_forward::carry_unix;
use serde_json::json;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    MigrateError, Qmp,
    disks::{DISKS_MAX, Exports},
    error::socket,
    memory::{self, Incoming},
    message::{self, ANSWER_TIMEOUT, Answer, Kind, Offer},
    ram::PAGES_BYTES_MAX,
    recover::{set_capabilities, until},
    sockets::SocketPath,
};

/// Takes the guest that the peer of a connection sends, until it runs here. After an error it does not: a QEMU that has got
/// some of its memory is told to end.
pub async fn receive(connection: &Connection, qmp: &Qmp) -> Result<(), MigrateError> {
    let (mut control, mut heard) = connection.accept_stream().await?;
    if message::accepted(&mut heard).await? != Kind::Control {
        return Err(MigrateError::Protocol("first stream"));
    }
    let mut begun = false;
    let received = take(connection, qmp, &mut control, &mut heard, &mut begun).await;
    let answer = match &received {
        Ok(()) => Answer::Running,
        Err(error) => {
            let end = if begun { "quit" } else { "nbd-server-stop" };
            if let Err(error) = qmp.query(end).await {
                tracing::debug!(%error, "after a failure");
            }
            Answer::Failed(error.to_string())
        }
    };
    let told = async {
        message::say(&mut control, &answer).await?;
        control.finish()?;
        Ok::<_, MigrateError>(control.acknowledged().await?)
    };
    if !matches!(tokio::time::timeout(ANSWER_TIMEOUT, told).await, Ok(Ok(()))) {
        tracing::warn!(?answer, "the source may not have heard");
    }
    received
}

async fn take(
    connection: &Connection,
    qmp: &Qmp,
    control: &mut SendStream,
    heard: &mut RecvStream,
    begun: &mut bool,
) -> Result<(), MigrateError> {
    let offer: Offer = message::hear(heard).await?;
    if offer.disks.len() > DISKS_MAX || offer.pages_bytes > PAGES_BYTES_MAX {
        return Err(MigrateError::Protocol("offer"));
    }
    let state = qmp.status().await?;
    if state != "inmigrate" {
        return Err(MigrateError::State { state, wanted: "inmigrate: started with -incoming defer" });
    }
    set_capabilities(qmp, &["events"]).await?;
    let exports = Exports::start(qmp, &offer.disks).await?;
    message::say(control, &Answer::Ready).await?;
    let mut carried = JoinSet::new();
    let incoming = streams(connection, &exports, &mut carried).await?;

    *begun = true;
    let path = SocketPath::new(qmp, "incoming")?;
    qmp.execute("migrate-incoming", json!({ "uri": format!("unix:{}", path.as_text()) })).await?;
    let mut qemu = path.connect().await.map_err(socket("QEMU's migration socket"))?;
    let (done, disks_done) = oneshot::channel();
    let disks = async {
        while let Some(ended) = carried.join_next().await {
            ended.expect("nobody panics")?;
        }
        exports.stop(qmp).await?;
        // Who waits for it has failed, otherwise.
        let _ = done.send(());
        Ok(())
    };
    let disks_done = async { disks_done.await.map_err(|_| MigrateError::Protocol("disks")) };
    tokio::try_join!(memory::receive(incoming, offer.pages_bytes, &mut qemu, disks_done), disks)?;
    runs(qmp).await
}

/// Carries disks until there is memory, too.
async fn streams(
    connection: &Connection,
    exports: &Exports,
    carried: &mut JoinSet<Result<(), MigrateError>>,
) -> Result<Incoming, MigrateError> {
    let (mut memory, mut repair, mut disks) = (None, None, 0);
    loop {
        tokio::select! {
            accepted = connection.accept_stream() => {
                let (send, mut recv) = accepted?;
                match message::accepted(&mut recv).await? {
                    Kind::Disk(_) if disks < exports.count() => {
                        disks += 1;
                        let nbd = exports.connect().await?;
                        carried.spawn(async move {
                            let what = "QEMU's NBD server";
                            carry_unix(nbd, send, recv).await.map_err(|error| socket(what)(std::io::Error::other(error)))
                        });
                    }
                    Kind::Memory if memory.is_none() && disks == exports.count() => memory = Some((send, recv)),
                    Kind::Repair if repair.is_none() => repair = Some((send, recv)),
                    _ => return Err(MigrateError::Protocol("stream")),
                }
            }
            // One that ends before there is memory does so with the source's failure, of which the connection tells.
            Some(ended) = carried.join_next() => ended.expect("nobody panics")?,
        }
        match (memory.take(), repair.take()) {
            (Some((acks, batches)), Some(repair)) => return Ok(Incoming { batches, acks, repair }),
            found => (memory, repair) = found,
        }
    }
}

/// QEMU has everything: waits until the guest runs, and lets it, if QEMU was started with `-S`.
async fn runs(qmp: &Qmp) -> Result<(), MigrateError> {
    until("the guest's start", || async {
        match &*qmp.status().await? {
            "running" => return Ok(true),
            "paused" => {
                qmp.query("cont").await?;
                return Ok(true);
            }
            "inmigrate" => {}
            state => return Err(MigrateError::State { state: state.to_owned(), wanted: "running" }),
        }
        Ok(false)
    })
    .await
}
