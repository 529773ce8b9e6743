//! A guest that checks itself moves between two QEMUs over an emulated WAN, and stays where it is when something fails.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dwcp_lab::Scenario;
use dwcp_migrate::Qmp;
use migration::{
    guest::{self, Guest, program},
    machine::wait_until,
    moving::Sides,
    novacron::{self, Migration},
    workload::DISK_BYTES,
};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

/// Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The guest, in a folder, and the command; else why not.
async fn prepared() -> Result<Option<(tempfile::TempDir, Guest, PathBuf)>> {
    let folder = tempfile::tempdir()?;
    let Some(novacron) = program("novacron")? else {
        eprintln!("SKIP: novacron is not built (cargo build --release -p novacron)");
        return Ok(None);
    };
    match guest::make(folder.path()).await? {
        Ok(guest) => Ok(Some((folder, guest, novacron))),
        Err(reason) => {
            eprintln!("SKIP: {reason}");
            Ok(None)
        }
    }
}

/// When something is done to a migration.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Disks,
    Memory,
    Stopped,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
enum Fault {
    SenderKilled,
    SenderTerminated,
    ReceiverKilled,
    TargetKilled,
    LinkCut,
}

const FAULTS: [(Fault, Moment); 8] = [
    (Fault::SenderKilled, Moment::Disks),
    (Fault::TargetKilled, Moment::Disks),
    (Fault::SenderKilled, Moment::Memory),
    (Fault::ReceiverKilled, Moment::Memory),
    (Fault::SenderTerminated, Moment::Memory),
    (Fault::LinkCut, Moment::Memory),
    (Fault::SenderKilled, Moment::Stopped),
    (Fault::TargetKilled, Moment::Stopped),
];

/// One test: the guest is made once. MIGRATE-1.2, MIGRATE-2.3, MIGRATE-3.1
#[tokio::test]
async fn a_guest_moves_or_goes_on_where_it_is() -> Result<()> {
    let Some((folder, guest, novacron)) = prepared().await? else { return Ok(()) };
    let scenario = Scenario { loss: 0.001, ..Scenario::clean("migration", 200.0, 20.0) };
    let mut sides = Sides::start(&guest, folder.path(), &scenario).await?;
    refused(&mut sides, &guest, folder.path(), &novacron).await?;
    for (fault, moment) in FAULTS {
        let begin = Instant::now();
        struck(&mut sides, &novacron, fault, moment)
            .await
            .with_context(|| format!("{fault:?}, {moment:?}"))?;
        println!("{fault:?} at {moment:?}: the guest goes on, after {:?}", begin.elapsed());
        sides.replace_target(&guest, folder.path(), DISK_BYTES).await?;
    }
    let (moved, report) = novacron::migrate(&sides, &novacron).await?;
    println!("{moved:?} {report}");
    sides.target.check().await?;
    assert_eq!(sides.at_source.status().await?, "postmigrate");
    nothing_is_left(&sides.at_source).await?;
    assert!(report["pages_delta"].as_u64() > Some(0), "{report}");
    assert!(report["ratio"].as_f64() > Some(1.0), "{report}");
    Ok(())
}

/// A target with another disk is told nothing: MIGRATE-1.1.
async fn refused(sides: &mut Sides, guest: &Guest, folder: &Path, novacron: &Path) -> Result<()> {
    sides.replace_target(guest, folder, DISK_BYTES / 2).await?;
    let mut migration = novacron::start(sides, novacron)?;
    assert!(!migration.sender.wait()?.success() && !migration.receiver.wait()?.success(), "both failed");
    nothing_is_left(&sides.at_source).await?;
    assert_eq!(sides.at_source.status().await?, "running");
    assert_eq!(sides.at_target.status().await?, "inmigrate");
    sides.replace_target(guest, folder, DISK_BYTES).await
}

/// A migration that something happens to: the guest is whole at the source, and nothing is left of it (MIGRATE-1.3, MIGRATE-3.2).
async fn struck(sides: &mut Sides, novacron: &Path, fault: Fault, moment: Moment) -> Result<()> {
    let mut migration = novacron::start(sides, novacron)?;
    wait_until(PATIENCE, async || is_at(&sides.at_source, moment).await).await.context("until the moment")?;
    strike(sides, &mut migration, fault)?;
    let ended = migration.sender.wait()?;
    assert!(!ended.success(), "it failed");
    wait_until(PATIENCE, async || Ok(sides.at_source.status().await? == "running"))
        .await
        .context("until the guest goes on")?;
    if let Fault::LinkCut = fault {
        sides.lab.set_link_up(true);
    }
    wait_until(PATIENCE, async || Ok(nothing_is_left(&sides.at_source).await.is_ok())).await?;
    let target = sides.at_target.status().await.unwrap_or_default();
    assert!(target != "running", "it runs at the target, too");
    sides.source.check().await
}

async fn is_at(qmp: &Qmp, moment: Moment) -> Result<bool> {
    Ok(match moment {
        Moment::Disks => !ours(&qmp.query("query-jobs").await?, "id").is_empty(),
        Moment::Memory => qmp.query("query-migrate").await?["status"] == "active",
        Moment::Stopped => qmp.status().await? != "running",
    })
}

fn strike(sides: &mut Sides, migration: &mut Migration, fault: Fault) -> Result<()> {
    match fault {
        Fault::SenderKilled => migration.sender.child().kill()?,
        Fault::SenderTerminated => {
            let sender = Pid::from_raw(migration.sender.child().id() as i32);
            nix::sys::signal::kill(sender, Signal::SIGTERM)?;
        }
        Fault::ReceiverKilled => migration.receiver.child().kill()?,
        Fault::TargetKilled => sides.target.kill()?,
        Fault::LinkCut => sides.lab.set_link_up(false),
    }
    Ok(())
}

async fn nothing_is_left(qmp: &Qmp) -> Result<()> {
    let jobs = qmp.query("query-jobs").await?;
    let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
    let left = [ours(&jobs, "id"), ours(&nodes, "node-name")].concat();
    ensure!(left.is_empty(), "left in QEMU: {left:?}");
    Ok(())
}

fn ours(list: &Value, key: &str) -> Vec<String> {
    let names = list.as_array().into_iter().flatten().filter_map(|entry| entry[key].as_str());
    names.filter(|name| name.starts_with("dwcp-")).map(str::to_owned).collect()
}
