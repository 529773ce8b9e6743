//! `novacron region status|add|remove`, and changes of counters, sets and maps that regions have in common.

use anyhow::Result;
use bytes::Bytes;
use clap::{Args, Subcommand};
use consensus_proto::regions::{
    AddRequest, ChangeRequest, Field, Region, RemoveRequest, StatusRequest, StatusResponse,
    change_request::Change,
};
use novacron_store::Client;
use serde_json::{Value, json};

use super::{
    answer::header,
    client::StoreArgs,
    output::{Table, json_bytes, print},
};
use crate::exit;

/// Regions that have the keys under a prefix in common. `novacron kv` reads and puts them as all others.
#[derive(Args, Debug)]
pub(crate) struct RegionArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: RegionCommand,
}

#[derive(Subcommand, Debug)]
enum RegionCommand {
    /// Prints the regions, how far they are, and what was found that should not be.
    #[command(visible_alias = "list")]
    Status,
    /// Adds a region, which then gets a snapshot from the others.
    Add {
        /// Its number, which no region ever had.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        number: u32,
        /// Its name.
        name: String,
        /// Where its members listen for other regions.
        #[arg(long, value_name = "URL,...", value_delimiter = ',')]
        urls: Vec<String>,
    },
    /// Removes a region for good. What it has changed and told nobody is lost, and its number is used up.
    Remove {
        /// Its number.
        number: u32,
    },
    /// Adds to a counter; less than nothing is taken away.
    Count {
        /// The key.
        key: String,
        /// How much.
        #[arg(allow_negative_numbers = true)]
        amount: i64,
        #[command(flatten)]
        how: How,
    },
    /// Adds an element to a set. What is added and removed at the same time is there.
    SetAdd {
        /// The key.
        key: String,
        /// The element.
        element: String,
        #[command(flatten)]
        how: How,
    },
    /// Removes an element from a set, as far as this region has heard of it.
    SetRemove {
        /// The key.
        key: String,
        /// The element.
        element: String,
        #[command(flatten)]
        how: How,
    },
    /// Puts a field into a map. What is put and removed at the same time is there.
    MapPut {
        /// The key.
        key: String,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// Of what is put and removed at the same time the later counts.
        #[arg(long)]
        last_writer_wins: bool,
        #[command(flatten)]
        how: How,
    },
    /// Removes a field from a map, as far as this region has heard of it.
    MapRemove {
        /// The key.
        key: String,
        /// The field.
        field: String,
        /// Of what is put and removed at the same time the later counts.
        #[arg(long)]
        last_writer_wins: bool,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Debug)]
struct How {
    /// Tells the other regions at once, and not in the next interval.
    #[arg(long)]
    urgent: bool,
}

/// Does it; returns the exit code.
pub(super) async fn run(args: RegionArgs) -> Result<u8> {
    let client = args.store.client()?;
    let json = args.store.json;
    let (key, change, how) = match args.command {
        RegionCommand::Status => return status(&client, json).await,
        RegionCommand::Add { number, name, urls } => {
            let request = AddRequest { region: number, name: name.clone(), urls };
            let add = client.write("region add", request, |link, request| async move {
                link.regions().add(request).await
            });
            let answer = add.await?;
            let value = json!({ "header": header(&answer.header), "region": number });
            let text = format!(
                "region {number} ({name}) is added: start it with --replication-initial-state existing"
            );
            return said(json, value, text);
        }
        RegionCommand::Remove { number } => {
            let request = RemoveRequest { region: number };
            let remove = client.write("region remove", request, |link, request| async move {
                link.regions().remove(request).await
            });
            let answer = remove.await?;
            let value = json!({ "header": header(&answer.header), "region": number });
            return said(json, value, format!("region {number} is removed for good"));
        }
        RegionCommand::Count { key, amount, how } => (key, Change::CounterAdd(amount), how),
        RegionCommand::SetAdd { key, element, how } => (key, Change::SetAdd(element.into()), how),
        RegionCommand::SetRemove { key, element, how } => (key, Change::SetRemove(element.into()), how),
        RegionCommand::MapPut { key, field, value, last_writer_wins, how } => {
            let field = Field { field: field.into(), value: value.into() };
            let change = if last_writer_wins { Change::RegisterMapPut(field) } else { Change::MapPut(field) };
            (key, change, how)
        }
        RegionCommand::MapRemove { key, field, last_writer_wins, how } => {
            let field = Bytes::from(field);
            let change =
                if last_writer_wins { Change::RegisterMapRemove(field) } else { Change::MapRemove(field) };
            (key, change, how)
        }
    };
    let request = ChangeRequest { key: key.into(), urgent: how.urgent, change: Some(change) };
    let change = client
        .write("region change", request, |link, request| async move { link.regions().change(request).await });
    let answer = change.await?;
    let text = if answer.changed { "changed" } else { "nothing to change" };
    said(json, json!({ "header": header(&answer.header), "changed": answer.changed }), text.to_owned())
}

fn said(json: bool, value: Value, text: String) -> Result<u8> {
    if json { print(value) } else { print(text) }?;
    Ok(exit::OK)
}

async fn status(client: &Client, json: bool) -> Result<u8> {
    let ask = client.read("region status", StatusRequest {}, |link, request| async move {
        link.regions().status(request).await
    });
    let answer = ask.await?;
    if json {
        print(status_json(&answer))?;
    } else {
        print(table(&answer))?;
        for alarm in &answer.alarms {
            print(format_args!(
                "ALARM {} of region {}, {} times: {}",
                alarm.kind, alarm.region, alarm.count, alarm.text
            ))?;
        }
    }
    Ok(exit::OK)
}

fn status_json(answer: &StatusResponse) -> Value {
    let region = |region: &Region| {
        json!({
            "region": region.region,
            "name": region.name,
            "urls": region.urls,
            "removed": region.removed,
            "connected": region.connected,
            "known": region.known,
            "lag_ms": region.lag_ms,
        })
    };
    let alarms = answer.alarms.iter().map(|alarm| {
        json!({ "kind": alarm.kind, "region": alarm.region, "count": alarm.count, "text": alarm.text })
    });
    json!({
        "header": header(&answer.header),
        "region": answer.region,
        "prefix": json_bytes(&answer.prefix),
        "joining": answer.joining,
        "items": answer.items,
        "regions": answer.regions.iter().map(region).collect::<Vec<_>>(),
        "alarms": alarms.collect::<Vec<_>>(),
    })
}

fn table(answer: &StatusResponse) -> Table {
    let mut table = Table::new(["NUMBER", "NAME", "STATE", "CHANGES KNOWN", "LAG", "URLS"]);
    for region in &answer.regions {
        let state = match region {
            _ if region.removed => "removed",
            _ if region.region == answer.region && answer.joining => "this one, joining",
            _ if region.region == answer.region => "this one",
            _ if region.connected => "connected",
            _ => "not connected",
        };
        table.row([
            region.region.to_string(),
            region.name.clone(),
            state.to_owned(),
            region.known.to_string(),
            format!("{:.1} s", region.lag_ms as f64 / 1000.0),
            region.urls.join(","),
        ]);
    }
    table
}
