//! `novacron vm|migration|job|schedule|api`: asks the HTTP API.
//!
//! Owns which request a command is and how its answer is shown; `client.rs` is the way to the API.

mod client;
mod schedule;
mod show;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::{
    exit::{self, Ended},
    store::print,
};
use client::Client;
pub(crate) use schedule::{ScheduleArgs, schedule};
use show::{jobs, members, raw, regions, tokens, transfers, vms};

/// Where the API is, who asks, and how answers are shown.
#[derive(Args, Debug)]
pub(crate) struct ApiOptions {
    /// URL of the API.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        env = "NOVACRON_API"
    )]
    api: String,
    /// File with the API token, or the JWT, to log in with; NOVACRON_API_TOKEN has the token itself.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the authorities that may have signed the API's certificate.
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// PEM file with a certificate to log in with.
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Prints what the API answers, which is JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// Virtual machines of the inventory.
#[derive(Subcommand, Debug)]
pub(crate) enum InventoryCommand {
    /// All, or those of a region.
    List {
        #[command(flatten)]
        options: ApiOptions,
        /// Only those of this region.
        #[arg(long)]
        region: Option<String>,
    },
    /// One.
    Get(OneVm),
    /// Enters one into the inventory.
    Create(NewVm),
    /// Removes one from the inventory; its data stays where it is.
    Remove(OneVm),
}

#[derive(Args, Debug)]
pub(crate) struct OneVm {
    #[command(flatten)]
    options: ApiOptions,
    /// Its name.
    name: String,
}

#[derive(Args, Debug)]
pub(crate) struct NewVm {
    #[command(flatten)]
    options: ApiOptions,
    /// Its name, a DNS label.
    name: String,
    /// The region it belongs to.
    #[arg(long)]
    region: String,
    /// The image of its disk: a path or a URL.
    #[arg(long)]
    image: String,
    /// Virtual processors.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory, as 512MiB or 4GiB.
    #[arg(long, value_parser = memory)]
    memory: u64,
    /// The node that has its data.
    #[arg(long)]
    node: Option<String>,
    /// It should not run.
    #[arg(long)]
    stopped: bool,
}

fn memory(text: &str) -> Result<u64, &'static str> {
    novacron_settings::size(text).ok_or("expected a size such as 512MiB")
}

/// Migrations: a VM's data goes from one node to another.
#[derive(Args, Debug)]
pub(crate) struct MigrationArgs {
    #[command(flatten)]
    options: ApiOptions,
    #[command(subcommand)]
    command: MigrationCommand,
}

#[derive(Subcommand, Debug)]
enum MigrationCommand {
    /// Begins one, and watches it to its end.
    Start {
        /// The VM.
        vm: String,
        /// The node that gets its data.
        to: String,
        /// The node that has its data, if the inventory does not say so.
        #[arg(long)]
        from: Option<String>,
        /// Returns when it has begun.
        #[arg(long)]
        no_wait: bool,
    },
    /// All, also those that ended long ago.
    List(ListJobs),
    /// One.
    Get {
        /// Its id.
        id: String,
    },
    /// Watches one to its end.
    Watch {
        /// Its id.
        id: String,
    },
    /// Ends one; what has arrived stays, for the next.
    Cancel {
        /// Its id.
        id: String,
    },
}

#[derive(Args, Debug)]
struct ListJobs {
    /// Only those that are in the store: for this, the API needs no database.
    #[arg(long)]
    recent: bool,
}

impl ListJobs {
    fn query(&self) -> &'static str {
        if self.recent { "history=false" } else { "" }
    }
}

/// Jobs: what takes the API longer than a request.
#[derive(Args, Debug)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    options: ApiOptions,
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Subcommand, Debug)]
enum JobCommand {
    /// All, also those that ended long ago.
    List(ListJobs),
    /// One.
    Get {
        /// Its id.
        id: String,
    },
    /// Watches one to its end.
    Watch {
        /// Its id.
        id: String,
    },
    /// Ends one.
    Cancel {
        /// Its id.
        id: String,
    },
}

/// The API itself: its health, tokens, the audit, any path.
#[derive(Args, Debug)]
pub(crate) struct ApiArgs {
    #[command(flatten)]
    options: ApiOptions,
    #[command(subcommand)]
    command: ApiCommand,
}

#[derive(Subcommand, Debug)]
enum ApiCommand {
    /// Whether the replica is well.
    Health,
    /// Gets a path and prints the answer.
    Get {
        /// Such as /api/v1/nodes.
        path: String,
    },
    /// Regions: VMs, nodes, and how far replication between them is.
    Regions,
    /// Transfers of all nodes.
    Transfers,
    /// Ends a transfer; what has arrived stays.
    CancelTransfer {
        /// The node whose agent tells of it.
        node: String,
        /// Its number there.
        id: u64,
    },
    /// Members of the store.
    Members,
    /// Tokens, without their secrets.
    Tokens,
    /// Makes a token and prints it, this once.
    CreateToken {
        /// What it is for.
        name: String,
        /// ROLE@REGION or ROLE@*, any number.
        #[arg(required = true)]
        grants: Vec<String>,
        /// How long it is good for.
        #[arg(long, default_value_t = 90)]
        days: u64,
    },
    /// Ends a token.
    RevokeToken {
        /// Its id.
        id: String,
    },
    /// Records of changes.
    Audit,
}

const VMS: &str = "/api/v1/vms";
const MIGRATIONS: &str = "/api/v1/dwcp/migrations";
const JOBS: &str = "/api/v1/jobs";
const TOKENS: &str = "/api/v1/tokens";

/// `novacron vm list|get|create|remove`.
pub(crate) async fn inventory(command: InventoryCommand) -> Result<u8> {
    match command {
        InventoryCommand::List { options, region } => {
            let query = region.map(|region| format!("region={region}")).unwrap_or_default();
            show_all(&Client::new(&options)?, &options, VMS, &query, vms).await
        }
        InventoryCommand::Get(OneVm { options, name }) => {
            show_one(&Client::new(&options)?, &options, &format!("{VMS}/{name}"), vms).await
        }
        InventoryCommand::Create(new) => {
            let mut vm = json!({
                "name": new.name, "region": new.region, "image": new.image, "cpus": new.cpus,
                "memory_bytes": new.memory, "desired_state": if new.stopped { "stopped" } else { "running" },
            });
            if let Some(node) = new.node {
                vm["node"] = node.into();
            }
            let made = Client::new(&new.options)?.ask(Method::POST, VMS, Some(&vm)).await?;
            new.options.show(made, vms)
        }
        InventoryCommand::Remove(OneVm { options, name }) => {
            Client::new(&options)?.ask(Method::DELETE, &format!("{VMS}/{name}"), None).await?;
            Ok(exit::OK)
        }
    }
}

/// `novacron migration`.
pub(crate) async fn migration(MigrationArgs { options, command }: MigrationArgs) -> Result<u8> {
    let client = Client::new(&options)?;
    match command {
        MigrationCommand::Start { vm, to, from, no_wait } => {
            let mut new = Map::from_iter([("vm".to_owned(), vm.into()), ("to".to_owned(), to.into())]);
            new.extend(from.map(|from| ("from".to_owned(), from.into())));
            let begun = client.ask(Method::POST, MIGRATIONS, Some(&new.into())).await?;
            match begun["id"].as_str() {
                Some(id) if !no_wait => watch(&client, &options, &format!("{MIGRATIONS}/{id}")).await,
                _ => options.show(begun, jobs),
            }
        }
        MigrationCommand::List(list) => show_all(&client, &options, MIGRATIONS, list.query(), jobs).await,
        MigrationCommand::Get { id } => {
            show_one(&client, &options, &format!("{MIGRATIONS}/{id}"), jobs).await
        }
        MigrationCommand::Watch { id } => watch(&client, &options, &format!("{MIGRATIONS}/{id}")).await,
        MigrationCommand::Cancel { id } => cancel(&client, &options, &format!("{MIGRATIONS}/{id}")).await,
    }
}

/// `novacron job`.
pub(crate) async fn job(JobArgs { options, command }: JobArgs) -> Result<u8> {
    let client = Client::new(&options)?;
    match command {
        JobCommand::List(list) => show_all(&client, &options, JOBS, list.query(), jobs).await,
        JobCommand::Get { id } => show_one(&client, &options, &format!("{JOBS}/{id}"), jobs).await,
        JobCommand::Watch { id } => watch(&client, &options, &format!("{JOBS}/{id}")).await,
        JobCommand::Cancel { id } => cancel(&client, &options, &format!("{JOBS}/{id}")).await,
    }
}

/// `novacron api`.
pub(crate) async fn api(ApiArgs { options, command }: ApiArgs) -> Result<u8> {
    let client = Client::new(&options)?;
    match command {
        ApiCommand::Health => show_one(&client, &options, "/api/v1/health", raw).await,
        ApiCommand::Get { path } => show_one(&client, &options, &path, raw).await,
        ApiCommand::Regions => show_all(&client, &options, "/api/v1/regions", "", regions).await,
        ApiCommand::Transfers => show_all(&client, &options, "/api/v1/transfers", "", transfers).await,
        ApiCommand::CancelTransfer { node, id } => {
            let path = format!("/api/v1/nodes/{node}/transfers/{id}/cancel");
            client.ask(Method::POST, &path, None).await?;
            Ok(exit::OK)
        }
        ApiCommand::Members => show_all(&client, &options, "/api/v1/consensus/members", "", members).await,
        ApiCommand::Tokens => show_all(&client, &options, TOKENS, "", tokens).await,
        ApiCommand::CreateToken { name, grants, days } => {
            let grants: Result<Vec<_>> = grants
                .iter()
                .map(|grant| {
                    let (role, region) = grant
                        .split_once('@')
                        .ok_or_else(|| exit::Usage(format!("{grant}: expected ROLE@REGION, or ROLE@*")))?;
                    Ok(json!({ "role": role, "region": region }))
                })
                .collect();
            let new = json!({ "name": name, "grants": grants?, "lasts_seconds": days * 24 * 60 * 60 });
            let made = client.ask(Method::POST, TOKENS, Some(&new)).await?;
            match made["token"].as_str().filter(|_| !options.json) {
                Some(token) => print(token)?,
                None => print(made)?,
            }
            Ok(exit::OK)
        }
        ApiCommand::RevokeToken { id } => {
            client.ask(Method::DELETE, &format!("{TOKENS}/{id}"), None).await?;
            Ok(exit::OK)
        }
        ApiCommand::Audit => show_all(&client, &options, "/api/v1/audit", "", raw).await,
    }
}

impl ApiOptions {
    fn show(&self, answer: Value, table: fn(&[Value]) -> String) -> Result<u8> {
        match self.json {
            true => print(answer)?,
            false => print(table(&[answer]))?,
        }
        Ok(exit::OK)
    }
}

async fn show_one(
    client: &Client,
    options: &ApiOptions,
    path: &str,
    table: fn(&[Value]) -> String,
) -> Result<u8> {
    options.show(client.ask(Method::GET, path, None).await?, table)
}

/// All pages of a list.
async fn show_all(
    client: &Client,
    options: &ApiOptions,
    path: &str,
    query: &str,
    table: fn(&[Value]) -> String,
) -> Result<u8> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = client.ask(Method::GET, &format!("{path}{}", asked(query, &cursor)), None).await?;
        for silent in page["unanswered"].as_array().into_iter().flatten() {
            eprintln!("novacron: {}: {}", silent["node"], silent["why"]);
        }
        match page["items"].take() {
            Value::Array(items) => all.extend(items),
            _ => {
                return Err(Ended::failed(format!("{path}: not the answer of an API of this version")).into());
            }
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    match options.json {
        true => print(Value::Array(all))?,
        false => print(table(&all))?,
    }
    Ok(exit::OK)
}

/// The query of a page, as long as the API's pages are by themselves.
fn asked(query: &str, cursor: &str) -> String {
    match (query, cursor) {
        ("", "") => String::new(),
        (query, "") => format!("?{query}"),
        ("", cursor) => format!("?cursor={cursor}"),
        (query, cursor) => format!("?{query}&cursor={cursor}"),
    }
}

async fn cancel(client: &Client, options: &ApiOptions, path: &str) -> Result<u8> {
    let job = client.ask(Method::POST, &format!("{path}/cancel"), None).await?;
    options.show(job, jobs)
}

/// Prints a job whenever it has changed, until it has ended; fails if that was not by being done.
async fn watch(client: &Client, options: &ApiOptions, path: &str) -> Result<u8> {
    let mut last = Value::Null;
    client
        .follow(&format!("{path}/events"), |job| {
            match options.json {
                true => print(&job)?,
                false => print(show::progress(&job))?,
            }
            last = job;
            Ok(())
        })
        .await?;
    match last["state"].as_str() {
        Some("done") => Ok(exit::OK),
        Some(state) => {
            let why = last["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            Err(Ended::failed(format!("it is {state}{why}")).into())
        }
        // Its end was told before.
        None => show_one(client, options, path, jobs).await.context("its end"),
    }
}
