//! Puts a source back: what a migration that failed, or was killed, has left in QEMU goes, and the guest runs.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{MigrateError, Qmp, disks};

/// How long QEMU may take to give something up.
const TIMEOUT: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_millis(20);

/// What becomes of a guest of which QEMU has sent all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It may run elsewhere.
    Stays,
    /// It is known not to: the target was never told that it may.
    GoesOn,
}

/// Ends a migration that is not complete, and removes mirrors and nodes that are named as ours. A guest that a migration has
/// stopped goes on.
pub async fn recover(qmp: &Qmp, sent: Sent) -> Result<(), MigrateError> {
    let cancelled = cancel(qmp).await?;
    disks::remove_all(qmp).await?;
    if cancelled {
        // QEMU lets the guest go on by itself.
        until("the guest's going on", || async { Ok(qmp.status().await? == "running") }).await?;
    } else if sent == Sent::GoesOn && qmp.status().await? == "postmigrate" {
        qmp.query("cont").await?;
    }
    Ok(())
}

/// Whether there was a migration to end.
async fn cancel(qmp: &Qmp) -> Result<bool, MigrateError> {
    if is_over(&status(qmp).await?) {
        return Ok(false);
    }
    qmp.query("migrate_cancel").await?;
    until("the end of QEMU's migration", || async { Ok(is_over(&status(qmp).await?)) }).await?;
    Ok(status(qmp).await? != "completed")
}

fn is_over(status: &str) -> bool {
    ["none", "completed", "failed", "cancelled"].contains(&status)
}

/// What QEMU's migration does; `none` before there was one.
pub(crate) async fn status(qmp: &Qmp) -> Result<String, MigrateError> {
    let answer = qmp.query("query-migrate").await?;
    Ok(answer["status"].as_str().unwrap_or("none").to_owned())
}

/// Looks again and again.
pub(crate) async fn until<F: Future<Output = Result<bool, MigrateError>>>(
    what: &'static str,
    mut is: impl FnMut() -> F,
) -> Result<(), MigrateError> {
    let begin = Instant::now();
    while !is().await? {
        if begin.elapsed() > TIMEOUT {
            return Err(MigrateError::Timeout { what, timeout: TIMEOUT });
        }
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

/// Switches off whatever changes QEMU's stream, as far as this QEMU knows it, and `on` on.
pub(crate) async fn set_capabilities(qmp: &Qmp, on: &[&str]) -> Result<(), MigrateError> {
    const OFF: [&str; 12] = [
        "auto-converge",
        "background-snapshot",
        "block",
        "compress",
        "mapped-ram",
        "multifd",
        "pause-before-switchover",
        "postcopy-ram",
        "return-path",
        "x-colo",
        "x-ignore-shared",
        "xbzrle",
    ];
    let command = "query-migrate-capabilities";
    let known = qmp.query(command).await?;
    let known = known.as_array().ok_or(MigrateError::NotUnderstood { command })?;
    let wanted: Vec<_> = known
        .iter()
        .filter_map(|capability| capability["capability"].as_str())
        .filter(|name| OFF.contains(name) || on.contains(name))
        .map(|name| json!({ "capability": name, "state": on.contains(&name) }))
        .collect();
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": wanted })).await?;
    Ok(())
}
