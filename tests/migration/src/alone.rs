//! QEMU's own ways to move a guest: its mirror to an NBD server, then its migration, over TCP.

use std::{fmt, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dwcp_lab::Side;
use dwcp_migrate::Qmp;
use serde_json::{Value, json};

use crate::{
    machine::wait_until,
    moving::{Moved, Sides, TIMEOUT},
};

const NBD_PORT: u16 = 10_809;
const MIGRATION_PORT: u16 = 4444;
const CHANNELS: u64 = 4;
/// As large as the guest: xbzrle is not to suffer from its default.
const XBZRLE_BYTES: u64 = 128 << 20;
/// A mirror over a long path never has everything of a guest that writes: it has caught up when this is left.
const LEFT_BYTES: u64 = 1 << 20;
/// Not the limit that QEMU has by default.
const BANDWIDTH_MAX: u64 = 100 << 30;

/// One of QEMU's own ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A stream.
    Tcp,
    /// Several.
    Multifd,
    /// Several, compressed.
    MultifdZstd,
    /// Pages as differences.
    Xbzrle,
    /// Pages when the guest, already there, wants them.
    Postcopy,
}

impl Mode {
    /// All.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Multifd, Self::MultifdZstd, Self::Xbzrle, Self::Postcopy];

    fn capability(self) -> Option<&'static str> {
        match self {
            Self::Tcp => None,
            Self::Multifd | Self::MultifdZstd => Some("multifd"),
            Self::Xbzrle => Some("xbzrle"),
            Self::Postcopy => Some("postcopy-ram"),
        }
    }

    fn parameters(self) -> Value {
        match self {
            Self::Tcp | Self::Postcopy => json!({}),
            Self::Multifd => json!({ "multifd-channels": CHANNELS }),
            Self::MultifdZstd => json!({ "multifd-channels": CHANNELS, "multifd-compression": "zstd" }),
            Self::Xbzrle => json!({ "xbzrle-cache-size": XBZRLE_BYTES }),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "QEMU, TCP",
            Self::Multifd => "QEMU, multifd",
            Self::MultifdZstd => "QEMU, multifd + zstd",
            Self::Xbzrle => "QEMU, xbzrle",
            Self::Postcopy => "QEMU, postcopy",
        })
    }
}

/// Moves the guest.
pub async fn migrate(sides: &Sides, mode: Mode) -> Result<Moved> {
    let (source, target) = (&sides.at_source, &sides.at_target);
    let host = Side::B.ipv4().to_string();
    for (qmp, more) in [(target, None), (source, Some("pause-before-switchover"))] {
        let on: Vec<_> = mode
            .capability()
            .into_iter()
            .chain(more)
            .chain(["events"])
            .map(|name| json!({ "capability": name, "state": true }))
            .collect();
        qmp.execute("migrate-set-capabilities", json!({ "capabilities": on })).await?;
        let mut parameters = mode.parameters();
        parameters["max-bandwidth"] = BANDWIDTH_MAX.into();
        qmp.execute("migrate-set-parameters", parameters).await?;
    }
    let (begin, before) = (Instant::now(), sides.link());
    let address = |port: u16| json!({ "type": "inet", "data": { "host": host, "port": port.to_string() } });
    target.execute("nbd-server-start", json!({ "addr": address(NBD_PORT) })).await?;
    let export = json!({ "type": "nbd", "id": "disk", "node-name": node(target).await?, "name": "disk", "writable": true });
    target.execute("block-export-add", export).await?;
    let server = json!({ "type": "inet", "host": host, "port": NBD_PORT.to_string() });
    let nbd = json!({ "driver": "nbd", "node-name": "mirror", "server": server, "export": "disk" });
    source.execute("blockdev-add", nbd).await?;
    let mirror = json!({
        "job-id": "mirror", "device": node(source).await?, "target": "mirror", "sync": "full", "auto-dismiss": false,
    });
    source.execute("blockdev-mirror", mirror).await?;
    mirror_until(source, |job| left(job) <= LEFT_BYTES).await.context("until the mirror has caught up")?;

    let uri = format!("tcp:{host}:{MIGRATION_PORT}");
    target.execute("migrate-incoming", json!({ "uri": uri })).await?;
    source.execute("migrate", json!({ "uri": uri })).await?;
    if mode == Mode::Postcopy {
        // After the first pass, as is usual.
        wait_until(TIMEOUT, async || Ok(status(source).await?["ram"]["dirty-sync-count"].as_u64() > Some(1)))
            .await?;
        source.query("migrate-start-postcopy").await?;
    }
    status_is(source, "pre-switchover").await?;
    mirror_until(source, |job| job["status"] == "ready").await.context("until the mirror has everything")?;
    source.execute("block-job-cancel", json!({ "device": "mirror" })).await?;
    mirror_until(source, |job| job["status"] == "concluded").await.context("the mirror's end")?;
    source.execute("job-dismiss", json!({ "id": "mirror" })).await?;
    source.execute("blockdev-del", json!({ "node-name": "mirror" })).await?;
    target.query("nbd-server-stop").await?;
    source.execute("migrate-continue", json!({ "state": "pre-switchover" })).await?;
    status_is(source, "completed").await?;
    sides.moved(begin, &before).await
}

async fn node(qmp: &Qmp) -> Result<Value> {
    Ok(qmp.query("query-block").await?[0]["inserted"]["node-name"].clone())
}

async fn status(qmp: &Qmp) -> Result<Value> {
    Ok(qmp.query("query-migrate").await?)
}

async fn status_is(qmp: &Qmp, wanted: &str) -> Result<()> {
    soon(async || {
        let now = status(qmp).await?;
        ensure!(now["status"] != "failed", "QEMU's migration failed: {now}");
        Ok(now["status"] == wanted)
    })
    .await
    .with_context(|| format!("until QEMU's migration is {wanted}"))
}

/// Bytes that a mirror has not copied; all, when it has not begun.
fn left(job: &Value) -> u64 {
    let number = |name: &str| job[name].as_u64().unwrap_or(0);
    match number("current-progress") {
        0 => u64::MAX,
        done => number("total-progress") - done,
    }
}

async fn mirror_until(qmp: &Qmp, is: impl Fn(&Value) -> bool) -> Result<()> {
    soon(async || {
        let jobs = qmp.query("query-jobs").await?;
        let job = jobs.as_array().and_then(|jobs| jobs.iter().find(|job| job["id"] == "mirror"));
        match job {
            Some(job) if job.get("error").is_some() => bail!("the mirror failed: {job}"),
            Some(job) => Ok(is(job)),
            None => bail!("there is no mirror any more"),
        }
    })
    .await
}

/// Asks often: what is asked late prolongs the guest's stop.
async fn soon(mut is: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is().await? {
        ensure!(begin.elapsed() < TIMEOUT, "took longer than {TIMEOUT:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}
