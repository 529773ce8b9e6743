//! Disks: which there are, QEMU's mirror of each at the source, and its NBD server at the target.
//!
//! What is added to a QEMU is called `dwcp-N`, so that it is found again ([`remove_all`]).

use std::time::{Duration, Instant};

use dwcp_core::Connection;
use dwcp_forward::carry_unix;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    MigrateError, Qmp,
    message::{self, Disk, Kind},
    qmp::event_or,
    recover::until,
    sockets::SocketPath,
};

/// Disks that a guest may have.
pub(crate) const DISKS_MAX: usize = 64;
/// Between two looks at a mirror, if no event comes.
const REST: Duration = Duration::from_millis(100);
/// What is written to a disk later is mirrored in pieces of this size.
const MIRROR_BYTES: u64 = 4096;
/// A guest that writes all the time is caught up with when this much is left, or what takes no longer than it may stand.
const LEFT_BYTES: u64 = 256 << 10;
/// Over how long it is measured how fast mirrors are.
const RATE_SPAN: Duration = Duration::from_secs(1);
/// How long QEMU may take to connect to a socket that it was told of.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A disk of a QEMU.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) disk: Disk,
    node: String,
}

/// All disks that a guest can write to, by name.
pub(crate) async fn attached(qmp: &Qmp) -> Result<Vec<Attached>, MigrateError> {
    let command = "query-block";
    let answer = qmp.query(command).await?;
    let devices = answer.as_array().ok_or(MigrateError::NotUnderstood { command })?;
    let mut disks: Vec<_> = devices
        .iter()
        .filter(|device| device["inserted"].is_object() && device["inserted"]["ro"] == false)
        .map(|device| disk(device).ok_or(MigrateError::NotUnderstood { command }))
        .collect::<Result<_, _>>()?;
    disks.sort_unstable_by(|a, b| a.disk.name.cmp(&b.disk.name));
    match disks.get(DISKS_MAX) {
        Some(Attached { disk, .. }) => Err(MigrateError::Disk {
            name: disk.name.clone(),
            what: format!("there are more than {DISKS_MAX}"),
        }),
        None => Ok(disks),
    }
}

fn disk(device: &Value) -> Option<Attached> {
    let names = [&device["device"], &device["qdev"]];
    let name = names.into_iter().filter_map(Value::as_str).find(|name| !name.is_empty())?.to_owned();
    let inserted = &device["inserted"];
    let bytes = inserted["image"]["virtual-size"].as_u64()?;
    Some(Attached { disk: Disk { name, bytes }, node: inserted["node-name"].as_str()?.to_owned() })
}

fn id(number: usize) -> String {
    format!("dwcp-{number}")
}

fn is_ours(id: &str) -> bool {
    id.strip_prefix("dwcp-").is_some_and(|number| number.parse::<u16>().is_ok())
}

fn export(number: usize) -> String {
    format!("disk-{number}")
}

/// Mirrors that run. Dropped, their connections end; what QEMU then has of them [`remove_all`] removes.
pub(crate) struct Mirrors {
    count: usize,
    carried: JoinSet<Result<(), MigrateError>>,
}

impl Mirrors {
    /// Begins to mirror disks to those with the same numbers at the peer.
    pub(crate) async fn start(
        qmp: &Qmp,
        connection: &Connection,
        disks: &[Attached],
    ) -> Result<Self, MigrateError> {
        let mut mirrors = Self { count: disks.len(), carried: JoinSet::new() };
        for (number, attached) in disks.iter().enumerate() {
            let path = SocketPath::new(qmp, &format!("disk-{number}"))?;
            let (listener, connection) = (path.listen()?, connection.clone());
            mirrors.carried.spawn(async move {
                let what = "QEMU's connection to a disk";
                let timeout = CONNECT_TIMEOUT;
                let accepted = tokio::time::timeout(timeout, listener.accept()).await;
                let (socket, _) = accepted
                    .map_err(|_| MigrateError::Timeout { what, timeout })?
                    .map_err(crate::error::socket(what))?;
                let (send, recv) = message::open(&connection, Kind::Disk(number as u16)).await?;
                carry_unix(socket, send, recv)
                    .await
                    .map_err(|error| crate::error::socket(what)(std::io::Error::other(error)))
            });
            let server = json!({ "type": "unix", "path": path.as_text() });
            let node = json!({
                "driver": "nbd", "node-name": id(number), "server": server, "export": export(number),
            });
            qmp.execute("blockdev-add", node).await?;
            let mirror = json!({
                "job-id": id(number), "device": attached.node, "target": id(number), "sync": "full",
                "granularity": MIRROR_BYTES, "auto-dismiss": false, "on-source-error": "report", "on-target-error": "report",
            });
            qmp.execute("blockdev-mirror", mirror).await?;
        }
        Ok(mirrors)
    }

    /// Waits until they have caught up with the guest: what is left takes at most `downtime_max`, as fast as it goes now. A
    /// mirror over a long path never has everything of a guest that writes.
    pub(crate) async fn caught_up(&self, qmp: &Qmp, downtime_max: Duration) -> Result<(), MigrateError> {
        let mut events = qmp.events();
        let (mut since, mut done_then, mut allowed) = (Instant::now(), 0, LEFT_BYTES);
        loop {
            let jobs = self.alive(qmp).await?;
            let sum = |of: fn(&Job) -> u64| jobs.iter().map(of).sum::<u64>();
            let (done, left) = (sum(|job| job.done), sum(|job| job.left));
            if since.elapsed() >= RATE_SPAN {
                let part = downtime_max.as_secs_f64() / since.elapsed().as_secs_f64();
                allowed = LEFT_BYTES.max((done.saturating_sub(done_then) as f64 * part) as u64);
                (since, done_then) = (Instant::now(), done);
            }
            if is_ready(&jobs) || jobs.iter().all(|job| job.done > 0) && left <= allowed {
                return Ok(());
            }
            event_or(&mut events, REST).await;
        }
    }

    /// All of them, which run.
    async fn alive(&self, qmp: &Qmp) -> Result<Vec<Job>, MigrateError> {
        let jobs = our_jobs(qmp).await?;
        match jobs.iter().find(|job| ["concluded", "aborting", "null"].contains(&&*job.status)) {
            Some(job) => Err(job.failed()),
            None if jobs.len() < self.count => Err(MigrateError::NotUnderstood { command: "query-jobs" }),
            None => Ok(jobs),
        }
    }

    /// The guest stands: copies the rest, and takes the mirrors off. Each says that it has copied all of it, or the migration
    /// fails.
    pub(crate) async fn finish(mut self, qmp: &Qmp) -> Result<(), MigrateError> {
        let mut events = qmp.events();
        while !is_ready(&self.alive(qmp).await?) {
            event_or(&mut events, REST / 10).await;
        }
        for number in 0..self.count {
            // Of a mirror that has caught up, this is the end and not a failure (QEMU's word for the other one is "force").
            qmp.execute("block-job-cancel", json!({ "device": id(number) })).await?;
        }
        let mut left = self.count;
        while left > 0 {
            for job in our_jobs(qmp).await? {
                match (job.status.as_str(), &job.error) {
                    ("concluded", None) => {
                        qmp.execute("job-dismiss", json!({ "id": job.id })).await?;
                        qmp.execute("blockdev-del", json!({ "node-name": job.id })).await?;
                        left -= 1;
                    }
                    ("concluded", Some(_)) => return Err(job.failed()),
                    _ => {}
                }
            }
            if left > 0 {
                event_or(&mut events, REST / 10).await;
            }
        }
        while let Some(carried) = self.carried.join_next().await {
            carried.expect("nobody panics")?;
        }
        Ok(())
    }
}

struct Job {
    id: String,
    status: String,
    error: Option<String>,
    /// Bytes that it has copied, and that it knows are left.
    done: u64,
    left: u64,
}

fn is_ready(jobs: &[Job]) -> bool {
    jobs.iter().all(|job| job.status == "ready")
}

impl Job {
    fn failed(&self) -> MigrateError {
        let what = self.error.clone().unwrap_or_else(|| format!("its mirror is {}", self.status));
        MigrateError::Disk { name: self.id.clone(), what }
    }
}

async fn our_jobs(qmp: &Qmp) -> Result<Vec<Job>, MigrateError> {
    let command = "query-jobs";
    let answer = qmp.query(command).await?;
    let jobs = answer.as_array().ok_or(MigrateError::NotUnderstood { command })?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let jobs = jobs.iter().filter_map(|job| {
        let (id, status) = (text(&job["id"])?, text(&job["status"])?);
        let done = job["current-progress"].as_u64()?;
        let left = job["total-progress"].as_u64()?.saturating_sub(done);
        is_ours(&id).then(|| Job { id, status, error: text(&job["error"]), done, left })
    });
    Ok(jobs.collect())
}

/// Ends all mirrors that are ours and removes their nodes, whoever has left them.
pub(crate) async fn remove_all(qmp: &Qmp) -> Result<(), MigrateError> {
    for job in our_jobs(qmp).await? {
        if job.status != "concluded" {
            // It may conclude before it hears of it.
            let _ = qmp.execute("block-job-cancel", json!({ "device": job.id, "force": true })).await;
        }
    }
    until("the end of mirrors", || async {
        let jobs = our_jobs(qmp).await?;
        for job in jobs.iter().filter(|job| job.status == "concluded") {
            qmp.execute("job-dismiss", json!({ "id": job.id })).await?;
        }
        Ok(jobs.is_empty())
    })
    .await?;
    let command = "query-named-block-nodes";
    let nodes = qmp.execute(command, json!({ "flat": true })).await?;
    let nodes = nodes.as_array().ok_or(MigrateError::NotUnderstood { command })?;
    for node in nodes.iter().filter_map(|node| node["node-name"].as_str()).filter(|name| is_ours(name)) {
        qmp.execute("blockdev-del", json!({ "node-name": node })).await?;
    }
    Ok(())
}

/// A target's NBD server.
pub(crate) struct Exports {
    path: SocketPath,
    count: usize,
}

impl Exports {
    /// Offers the disks that the source has, if they are the same ones.
    pub(crate) async fn start(qmp: &Qmp, wanted: &[Disk]) -> Result<Self, MigrateError> {
        let here = attached(qmp).await?;
        let mut nodes = Vec::new();
        for disk in wanted {
            let found = here.iter().find(|attached| attached.disk.name == disk.name);
            let what = match found {
                Some(attached) if attached.disk.bytes == disk.bytes => {
                    nodes.push(&attached.node);
                    continue;
                }
                Some(attached) => format!("{} bytes at the source, {} here", disk.bytes, attached.disk.bytes),
                None => "there is none of this name".to_owned(),
            };
            return Err(MigrateError::Disk { name: disk.name.clone(), what });
        }
        if let Some(more) = here.iter().find(|attached| !wanted.contains(&attached.disk)) {
            let what = "the source has none of this name".to_owned();
            return Err(MigrateError::Disk { name: more.disk.name.clone(), what });
        }
        let exports = Self { path: SocketPath::new(qmp, "nbd")?, count: nodes.len() };
        if exports.count > 0 {
            let address = json!({ "type": "unix", "data": { "path": exports.path.as_text() } });
            qmp.execute("nbd-server-start", json!({ "addr": address })).await?;
        }
        for (number, node) in nodes.into_iter().enumerate() {
            let export = json!({
                "type": "nbd", "id": id(number), "node-name": node, "name": export(number), "writable": true,
            });
            qmp.execute("block-export-add", export).await?;
        }
        Ok(exports)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A connection to the server.
    pub(crate) async fn connect(&self) -> Result<tokio::net::UnixStream, MigrateError> {
        self.path.connect().await.map_err(crate::error::socket("QEMU's NBD server"))
    }

    /// Ends the server: before the guest runs, as both want to be the only one that writes.
    pub(crate) async fn stop(&self, qmp: &Qmp) -> Result<(), MigrateError> {
        if self.count > 0 {
            qmp.query("nbd-server-stop").await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_known_by_its_name() {
        assert!(is_ours(&id(0)) && is_ours(&id(12)));
        for other in ["dwcp-", "dwcp-x", "dwcp-mirror-1", "disk-0", "#block123"] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn disks_have_the_name_of_the_drive_or_of_the_device() {
        let mut device = json!({
            "device": "", "qdev": "/machine/peripheral/d/virtio-backend",
            "inserted": { "node-name": "n", "ro": false, "image": { "virtual-size": 7 } },
        });
        assert_eq!(disk(&device).unwrap().disk.name, "/machine/peripheral/d/virtio-backend");
        device["device"] = "drive0".into();
        let Attached { disk: Disk { name, bytes }, node } = disk(&device).unwrap();
        assert_eq!((&*name, bytes, &*node), ("drive0", 7, "n"));
        device["inserted"] = Value::Null;
        assert!(disk(&device).is_none());
    }
}
