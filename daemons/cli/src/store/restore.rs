//! `novacron cluster snapshot restore`: the folder of a member of a new cluster out of a snapshot. No server is asked.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use consensus_etcd::{InitialCluster, Restore, RestoreError};
use serde_json::json;

use super::output::print;
use crate::exit::{self, Ended};

const WHAT: &str = "cluster snapshot restore";

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// What `snapshot save` has written, of this store or of etcd.
    file: PathBuf,
    /// Folder for the data of the member, which is not there yet.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the member in --initial-cluster.
    #[arg(long, default_value = "default")]
    name: String,
    /// The members of the new cluster as NAME=URL,NAME=URL: the same for each, and when they start.
    #[arg(long, value_name = "LIST", default_value = "default=http://127.0.0.1:9090")]
    initial_cluster: String,
    /// Tells clusters apart that are made of the same members; the same when they start.
    #[arg(long, value_name = "TEXT", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Takes a file without a digest at its end, such as a copy of etcd's database.
    #[arg(long)]
    skip_hash_check: bool,
}

pub(super) fn run(args: &RestoreArgs, as_json: bool) -> Result<u8> {
    let cluster = InitialCluster::parse(&args.initial_cluster, &args.initial_cluster_token)
        .with_context(|| format!("{WHAT}: --initial-cluster"))?;
    let restore = Restore {
        file: args.file.clone(),
        skip_digest: args.skip_hash_check,
        data_dir: args.data_dir.clone(),
        cluster,
        name: args.name.clone(),
    };
    let restored = restore.run().map_err(|error| match error {
        RestoreError::Digest { .. } => anyhow::Error::from(Ended::integrity(format!("{WHAT}: {error}"))),
        error => anyhow::Error::from(error).context(WHAT),
    })?;
    let [cluster, member] = [restored.cluster, restored.member].map(|id| format!("{id:x}"));
    if as_json {
        print(json!({
            "data_dir": args.data_dir.display().to_string(),
            "cluster": cluster,
            "member": member,
            "revision": restored.revision,
            "changes": restored.changes,
        }))?;
    } else {
        print(format_args!(
            "{}: member {member} of the new cluster {cluster}, with {} changes up to revision {}\nstart each restored \
             member with the same --initial-cluster and --initial-cluster-token",
            args.data_dir.display(),
            restored.changes,
            restored.revision
        ))?;
    }
    Ok(exit::OK)
}
