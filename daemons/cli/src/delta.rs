//! `novacron store ls|verify|gc`, and the flag with which `send` and `recv` use a store of baselines.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use dwcp_transfer::{BaselineStore, DeltaConfig, StoreConfig};
use novacron_settings::DeltaSettings;

use crate::{
    exit::{self, Usage},
    settings::{Flag, SettingsArgs},
    size,
    store::{Table, print},
};

/// The flags of commands that send or receive differences.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Differences")]
pub(crate) struct DeltaArgs {
    /// Keeps what was transferred in this folder, so that of the next version only what differs travels; the receiver
    /// needs one, and with one at the sender, too, changed blocks are patches.
    #[arg(long, value_name = "DIR")]
    delta_store: Option<String>,
}

impl DeltaArgs {
    pub(crate) fn flag(&self) -> Flag {
        ("--delta-store", "delta.store", self.delta_store.clone())
    }
}

/// Shows or tidies the store of what was transferred, from which the next versions are made.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    /// Lists what is kept.
    Ls(OneStore),
    /// Reads all of it and removes what is damaged; exit code 1 if something was.
    Verify(OneStore),
    /// Removes what nobody has used for long, what is too much, and what dead processes left.
    Gc(OneStore),
}

#[derive(Args, Debug)]
struct OneStore {
    #[command(flatten)]
    delta: DeltaArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Returns the exit code.
pub(crate) async fn run(args: StoreArgs) -> Result<u8> {
    tokio::task::spawn_blocking(move || tidy(args)).await.context("a command ended abnormally")?
}

fn tidy(args: StoreArgs) -> Result<u8> {
    let (StoreCommand::Ls(one) | StoreCommand::Verify(one) | StoreCommand::Gc(one)) = &args.command;
    let Some(node) = one.settings.load([one.delta.flag()])? else { return Ok(exit::OK) };
    let delta = &node.settings.delta;
    let folder = delta.store.clone().ok_or_else(|| Usage("which store? --delta-store DIR".into()))?;
    if !folder.is_dir() {
        return Err(Usage(format!("{} is no folder", folder.display())).into());
    }
    let store = open(delta, folder)?;
    match args.command {
        StoreCommand::Ls(_) => list(&store),
        StoreCommand::Verify(_) => {
            let report = store.verify()?;
            println!(
                "{} intact, {} damaged and removed, {} records removed",
                report.intact, report.damaged, report.records_removed
            );
            Ok(if report.damaged == 0 { exit::OK } else { exit::FAILURE })
        }
        StoreCommand::Gc(_) => {
            let report = store.gc()?;
            println!("removed {} contents, {}", report.contents, size::show(report.bytes));
            Ok(exit::OK)
        }
    }
}

fn list(store: &BaselineStore) -> Result<u8> {
    let listed = store.list()?;
    let mut table = Table::new(["NAME", "VERSION", "SIZE", "UNUSED FOR", "BLAKE3"]);
    for version in listed.versions {
        let unused = version.unused.map_or("gone".to_owned(), |unused| format!("{} s", unused.as_secs()));
        let (number, hash) = (version.version.to_string(), version.hash.to_string());
        table.row([version.label, number, size::show(version.bytes), unused, hash]);
    }
    print(format!("{table}\n{} contents, {}", listed.contents, size::show(listed.bytes)))?;
    Ok(exit::OK)
}

/// What transfers need to know, if there is a store.
pub(crate) fn config(settings: &DeltaSettings) -> Result<Option<DeltaConfig>> {
    let Some(folder) = settings.store.clone() else { return Ok(None) };
    let mut config = DeltaConfig::new(Some(Arc::new(open(settings, folder)?)));
    config.block_bytes = settings.block_bytes;
    Ok(Some(config))
}

fn open(settings: &DeltaSettings, folder: PathBuf) -> Result<BaselineStore> {
    let mut config = StoreConfig::new(folder);
    config.bytes_max = settings.store_bytes_max;
    config.ttl = settings.baseline_ttl;
    config.versions_max = settings.chain_max;
    Ok(BaselineStore::open(config)?)
}
