//! `novacron kv get|put|del|watch|txn|compact`: keys and values. Watches are in `watch.rs`, transactions in `txn.rs`.
//!
//! Owns what a get, a put and a delete are told and how their answers look, here and in a transaction.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
};
use novacron_store::Client;
use serde_json::json;

use super::{
    answer,
    client::StoreArgs,
    input,
    output::{Id, Printed, print, print_bytes},
    range::KeyRange,
    txn, watch,
};
use crate::exit;

/// Largest value that is read from a file. Stores take far less by default.
const VALUE_BYTES_MAX: u64 = 256 << 20;

/// Reads and writes keys of a store that speaks the etcd v3 API.
#[derive(Args, Debug)]
pub(crate) struct KvArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: KvCommand,
}

#[derive(Subcommand, Debug)]
enum KvCommand {
    /// Prints the value of a key, exit code 1 if there is none; of several keys lines KEY VALUE.
    ///
    /// Keys and values that are not text are escaped.
    Get(GetArgs),
    /// Sets a key.
    Put(PutArgs),
    /// Deletes keys, and prints how many there were.
    Del(DelArgs),
    /// Prints changes as they come, until it is interrupted: PUT KEY VALUE, or DELETE KEY.
    ///
    /// A member that goes away is replaced by the next, which goes on at the next revision: nothing is lost, and nothing
    /// comes twice.
    Watch(watch::WatchArgs),
    /// Compares, and does one of two lists of requests at once.
    #[command(after_help = txn::HELP)]
    Txn(txn::TxnArgs),
    /// Forgets what keys were before a revision; what they are stays.
    Compact {
        /// The oldest revision that can be read afterwards.
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        revision: i64,
    },
}

/// What a get asks for.
#[derive(Args, Debug)]
pub(crate) struct RangeArgs {
    #[command(flatten)]
    range: KeyRange,
    /// As of this revision.
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// At most so many keys.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(i64).range(0..))]
    limit: i64,
    /// What the keys are sorted by.
    #[arg(long, value_enum, ignore_case = true)]
    sort_by: Option<SortBy>,
    /// Which way they are sorted.
    #[arg(long, value_enum, ignore_case = true)]
    order: Option<Order>,
    /// No values.
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are.
    #[arg(long, conflicts_with = "keys_only")]
    count_only: bool,
    /// l: sees every change that was acknowledged before (linearizable); s: what this member has (serializable).
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    consistency: Consistency,
}

#[derive(Args, Debug)]
struct GetArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Only the values, byte by byte, each with a line's end; on a terminal escaped as ever.
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    print_value_only: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The key.
    key: OsString,
    /// The value; - reads it from standard input.
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// Reads the value from a file; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// The key goes when this lease ends.
    #[arg(long, value_name = "ID")]
    lease: Option<Id>,
    /// Prints what the key was before, as a line KEY VALUE.
    #[arg(long)]
    prev_kv: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DelArgs {
    #[command(flatten)]
    range: KeyRange,
    /// Prints what there was, as lines KEY VALUE.
    #[arg(long)]
    prev_kv: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortBy {
    Key,
    Version,
    Create,
    #[value(alias = "mod")]
    Modify,
    Value,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    #[value(alias = "asc")]
    Ascend,
    #[value(alias = "desc")]
    Descend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Consistency {
    #[value(name = "l")]
    Linearizable,
    #[value(name = "s")]
    Serializable,
}

impl RangeArgs {
    pub(crate) fn request(&self) -> RangeRequest {
        let target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Version) => SortTarget::Version,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
        };
        let order = match (self.order, self.sort_by) {
            (Some(Order::Descend), _) => SortOrder::Descend,
            (Some(Order::Ascend), _) | (None, Some(_)) => SortOrder::Ascend,
            // As keys lie, which is ascending.
            (None, None) => SortOrder::None,
        };
        RangeRequest {
            key: self.range.key(),
            range_end: self.range.end(),
            limit: self.limit,
            revision: self.rev,
            sort_order: order.into(),
            sort_target: target.into(),
            serializable: self.consistency == Consistency::Serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..Default::default()
        }
    }
}

impl PutArgs {
    /// Whether the value comes from standard input.
    pub(crate) fn reads_standard_input(&self) -> bool {
        self.source() == Some(Path::new("-"))
    }

    /// The file that the value is in, if it is not in the arguments.
    fn source(&self) -> Option<&Path> {
        let named = self.value.as_deref().filter(|value| *value == "-").map(Path::new);
        self.file.as_deref().or(named)
    }

    /// The request, with the value from where it is.
    pub(crate) fn request(&self) -> Result<PutRequest> {
        let value = match (self.source(), &self.value) {
            (Some(path), _) => input::read(path, VALUE_BYTES_MAX)?,
            (None, value) => value.as_ref().map(|value| value.as_bytes().to_vec()).unwrap_or_default(),
        };
        Ok(PutRequest {
            key: Bytes::copy_from_slice(self.key.as_bytes()),
            value: value.into(),
            lease: self.lease.map_or(0, Id::lease),
            prev_kv: self.prev_kv,
            ..Default::default()
        })
    }
}

impl DelArgs {
    pub(crate) fn request(&self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.range.key(), range_end: self.range.end(), prev_kv: self.prev_kv }
    }
}

/// Does it; returns the exit code.
pub(crate) async fn run(args: KvArgs) -> Result<u8> {
    let client = args.store.client()?;
    let json = args.store.json;
    match args.command {
        KvCommand::Get(args) => get(&client, &args, json).await,
        KvCommand::Put(args) => {
            let request = args.request()?;
            let answer = client
                .write("put", request, |link, request| async move { link.kv().put(request).await })
                .await?;
            if json {
                print(answer::put(&answer))?;
            } else if let Some(kv) = &answer.prev_kv {
                print(line(kv))?;
            }
            Ok(exit::OK)
        }
        KvCommand::Del(args) => {
            let delete = client.write("del", args.request(), |link, request| async move {
                link.kv().delete_range(request).await
            });
            let answer = delete.await?;
            if json {
                print(answer::delete_range(&answer))?
            } else {
                print_deleted(&answer)?
            }
            Ok(exit::OK)
        }
        KvCommand::Watch(args) => watch::run(&client, &args, json).await,
        KvCommand::Txn(args) => txn::run(&client, &args, json).await,
        KvCommand::Compact { revision } => {
            let request = CompactionRequest { revision, physical: false };
            let compact = client
                .write("compact", request, |link, request| async move { link.kv().compact(request).await });
            let answer = compact.await?;
            if json {
                print(json!({ "header": answer::header(&answer.header) }))?;
            }
            Ok(exit::OK)
        }
    }
}

async fn get(client: &Client, args: &GetArgs, json: bool) -> Result<u8> {
    let request = args.range.request();
    let answer =
        client.read("get", request, |link, request| async move { link.kv().range(request).await }).await?;
    if json {
        print(answer::range(&answer))?;
    } else if args.print_value_only {
        let escape = io::stdout().is_terminal();
        for kv in &answer.kvs {
            if escape { print(Printed(&kv.value))? } else { print_bytes(&kv.value)? }
        }
    } else {
        print_range(&args.range, &answer)?;
    }
    let missing = answer.count == 0 && !args.range.range.is_range() && !args.range.count_only;
    Ok(if missing { exit::FAILURE } else { exit::OK })
}

fn line(kv: &KeyValue) -> String {
    format!("{} {}", Printed(&kv.key), Printed(&kv.value))
}

/// What a get found, for people.
pub(crate) fn print_range(args: &RangeArgs, answer: &RangeResponse) -> io::Result<()> {
    if args.count_only {
        return print(answer.count);
    }
    answer.kvs.iter().try_for_each(|kv| match (args.keys_only, args.range.is_range()) {
        (true, _) => print(Printed(&kv.key)),
        (false, true) => print(line(kv)),
        (false, false) => print(Printed(&kv.value)),
    })
}

/// What a put in a transaction says, for people.
pub(crate) fn print_put(answer: &PutResponse) -> io::Result<()> {
    print("OK")?;
    answer.prev_kv.as_ref().map_or(Ok(()), |kv| print(line(kv)))
}

/// What a delete says, for people.
pub(crate) fn print_deleted(answer: &DeleteRangeResponse) -> io::Result<()> {
    print(answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|kv| print(line(kv)))
}
