//! `novacron cluster status|health|move-leader|defrag|alarm|snapshot`: how the members do, and what operators do to them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use consensus_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, MoveLeaderRequest, RangeRequest,
    StatusRequest, StatusResponse, alarm_request::AlarmAction,
};
use novacron_store::{Client, Effect, Endpoint, Failure, StoreError};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use super::{
    answer::header,
    client::{StoreArgs, each},
    member,
    output::{Id, Table, print},
    snapshot::{self, SnapshotCommand},
};
use crate::{exit, size};

/// The key that health is read with, as etcdctl does: it need not be there.
const HEALTH_KEY: &[u8] = b"health";

/// How a cluster does.
#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: ClusterCommand,
}

/// Which members a command is about.
#[derive(Args, Debug)]
struct Which {
    /// All members of the cluster, where they say that clients find them, instead of --endpoints.
    #[arg(long)]
    cluster: bool,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Prints what each member says of itself; exit code 1 if one does not answer.
    Status(Which),
    /// Has each member read a key; exit code 1 if one does not, or if there is an alarm.
    Health(Which),
    /// Has the leader hand over to another member.
    ///
    /// With preferred zones, leadership goes back to a member of the best one after two election timeouts.
    MoveLeader {
        /// Who is to lead.
        id: Id,
    },
    /// Has members give free disk space back, one after the other, the leader last. A member may answer nobody meanwhile.
    ///
    /// Ends at the first that fails.
    Defrag(Which),
    /// Alarms, which restrict a cluster until they are disarmed.
    #[command(subcommand)]
    Alarm(AlarmCommand),
    /// Copies of a whole store.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

#[derive(Subcommand, Debug)]
enum AlarmCommand {
    /// Prints all alarms.
    List,
    /// Disarms all alarms, and prints them.
    Disarm,
}

/// Does it; returns the exit code.
pub(super) async fn run(args: ClusterArgs) -> Result<u8> {
    let client = args.store.client()?;
    let json = args.store.json;
    match args.command {
        ClusterCommand::Status(which) => print_status(&targets(&client, &which).await?, json).await,
        ClusterCommand::Health(which) => print_health(&targets(&client, &which).await?, json).await,
        ClusterCommand::MoveLeader { id } => move_leader(&client, id, json).await,
        ClusterCommand::Defrag(which) => defrag(targets(&client, &which).await?, json).await,
        ClusterCommand::Alarm(AlarmCommand::List) => {
            print_alarms(&alarms(&client, "cluster alarm list").await?, json)
        }
        ClusterCommand::Alarm(AlarmCommand::Disarm) => disarm(&client, json).await,
        ClusterCommand::Snapshot(command) => snapshot::run(&client, &command, json).await,
    }
}

async fn targets(client: &Client, which: &Which) -> Result<Vec<Endpoint>> {
    if !which.cluster {
        return Ok(client.endpoints().to_vec());
    }
    let members = member::list(client, "--cluster").await?.members;
    // Members that have not started yet tell no URL.
    members.iter().filter_map(|member| member.client_ur_ls.first()).map(|url| Ok(client.at(url)?)).collect()
}

type Status = Result<StatusResponse, Failure>;

async fn status(endpoint: Endpoint) -> Status {
    endpoint
        .ask(StatusRequest {}, |link, request| async move { link.maintenance().status(request).await })
        .await
}

fn member_id(status: &StatusResponse) -> u64 {
    status.header.as_ref().map_or(0, |header| header.member_id)
}

fn leads(status: &StatusResponse) -> bool {
    status.leader != 0 && status.leader == member_id(status)
}

async fn print_status(endpoints: &[Endpoint], json: bool) -> Result<u8> {
    let statuses = each(endpoints, status).await?;
    let each = endpoints.iter().zip(&statuses);
    if json {
        print(Value::Array(each.map(|(endpoint, status)| status_json(endpoint, status)).collect()))?;
    } else {
        let mut table = Table::new([
            "ENDPOINT", "ID", "VERSION", "DB SIZE", "IN USE", "LEADER", "LEARNER", "TERM", "INDEX",
            "APPLIED", "ERRORS",
        ]);
        each.for_each(|(endpoint, status)| table.row(status_row(endpoint, status)));
        print(table)?;
    }
    Ok(if statuses.iter().all(Result::is_ok) { exit::OK } else { exit::FAILURE })
}

fn status_row(endpoint: &Endpoint, status: &Status) -> [String; 11] {
    let name = endpoint.name().to_owned();
    let status = match status {
        Ok(status) => status,
        Err(failure) => {
            let mut row = [const { String::new() }; 11];
            (row[0], row[10]) = (name, failure.message.clone());
            return row;
        }
    };
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let bytes = |count: i64| size::show(count.max(0).unsigned_abs());
    [
        name,
        Id(member_id(status)).to_string(),
        status.version.clone(),
        bytes(status.db_size),
        bytes(status.db_size_in_use),
        yes(leads(status)),
        yes(status.is_learner),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join("; "),
    ]
}

fn status_json(endpoint: &Endpoint, status: &Status) -> Value {
    match status {
        Err(failure) => json!({ "endpoint": endpoint.name(), "error": failure.message }),
        Ok(status) => json!({
            "endpoint": endpoint.name(),
            "error": null,
            "header": header(&status.header),
            "version": status.version,
            "db_size_bytes": status.db_size,
            "db_size_in_use_bytes": status.db_size_in_use,
            "leader_id": (status.leader != 0).then(|| Id(status.leader).json()),
            "is_leader": leads(status),
            "is_learner": status.is_learner,
            "raft_term": status.raft_term,
            "raft_index": status.raft_index,
            "raft_applied_index": status.raft_applied_index,
            "errors": status.errors,
        }),
    }
}

/// How long a member took to read with the whole cluster's consent, or why it did not.
async fn health(endpoint: Endpoint) -> Result<Duration, String> {
    let began = Instant::now();
    let request = RangeRequest { key: HEALTH_KEY.into(), count_only: true, ..Default::default() };
    let read = endpoint.ask(request, |link, request| async move { link.kv().range(request).await }).await;
    match read {
        Ok(_) => {}
        // Who may not read it has had the answer of a leader.
        Err(failure) if failure.code == Code::PermissionDenied => {}
        Err(failure) => return Err(failure.message),
    }
    let took = began.elapsed();
    let asked = endpoint.ask(alarm_request(AlarmAction::Get), |link, request| async move {
        link.maintenance().alarm(request).await
    });
    let alarms = match asked.await {
        Ok(answer) => answer.alarms,
        Err(failure) if failure.code == Code::PermissionDenied => Vec::new(),
        Err(failure) => return Err(failure.message),
    };
    if alarms.is_empty() { Ok(took) } else { Err(format!("alarm: {}", names(&alarms).join(", "))) }
}

async fn print_health(endpoints: &[Endpoint], json: bool) -> Result<u8> {
    let found = each(endpoints, health).await?;
    let mut table = Table::new(["ENDPOINT", "HEALTHY", "TOOK", "ERROR"]);
    let mut values = Vec::new();
    for (endpoint, health) in endpoints.iter().zip(&found) {
        let name = endpoint.name();
        let took_ms = health.as_ref().ok().map(|took| took.as_secs_f64() * 1e3);
        values.push(json!({
            "endpoint": name,
            "is_healthy": health.is_ok(),
            "took_ms": took_ms,
            "error": health.as_ref().err(),
        }));
        let healthy = if health.is_ok() { "yes" } else { "no" };
        let took = took_ms.map(|ms| format!("{ms:.1} ms")).unwrap_or_default();
        table.row([name.to_owned(), healthy.to_owned(), took, health.clone().err().unwrap_or_default()]);
    }
    if json {
        print(Value::Array(values))?
    } else {
        print(table)?
    }
    Ok(if found.iter().all(Result::is_ok) { exit::OK } else { exit::FAILURE })
}

/// The error of a request that only one member can be asked.
fn of_one(what: &'static str, failure: Failure) -> StoreError {
    match failure.effect {
        Effect::Refused => StoreError::Refused { what, failure },
        Effect::Unknown => StoreError::Unknown { what, failure },
        Effect::Nothing => StoreError::NoMember { what, failures: vec![failure] },
    }
}

async fn move_leader(client: &Client, id: Id, json: bool) -> Result<u8> {
    const WHAT: &str = "cluster move-leader";
    let (from, leader) = leader(client, WHAT).await?;
    let request = MoveLeaderRequest { target_id: id.0 };
    let moved = leader
        .ask(request, |link, request| async move { link.maintenance().move_leader(request).await })
        .await
        .map_err(|failure| of_one(WHAT, failure))?;
    if json {
        print(json!({ "header": header(&moved.header), "from": from.json(), "to": id.json() }))?;
    } else {
        print(format_args!("leadership moved from {from} to {id}"))?;
    }
    Ok(exit::OK)
}

/// The leader, and where it is: only it can be told to hand over.
async fn leader(client: &Client, what: &'static str) -> Result<(Id, Endpoint)> {
    let endpoints = client.endpoints().to_vec();
    let mut failures = Vec::new();
    // Who is behind may name an earlier leader.
    let mut newest = (0, 0);
    for (endpoint, answer) in endpoints.iter().zip(each(&endpoints, status).await?) {
        match answer {
            Ok(status) if leads(&status) => return Ok((Id(status.leader), endpoint.clone())),
            Ok(status) => newest = newest.max((status.raft_term, status.leader)),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.len() == endpoints.len() {
        bail!(StoreError::NoMember { what, failures });
    }
    let id = Id(newest.1);
    let members = member::list(client, what).await?.members;
    let url = members.iter().find(|member| member.id == id.0).and_then(|member| member.client_ur_ls.first());
    let url = url.with_context(|| format!("{what}: no member says that it leads, and nobody knows where {id} is (name all members in --endpoints)"))?;
    Ok((id, client.at(url)?))
}

async fn defrag(endpoints: Vec<Endpoint>, json: bool) -> Result<u8> {
    let statuses = each(&endpoints, status).await?;
    let mut order: Vec<_> = endpoints.into_iter().zip(statuses).collect();
    order.sort_by_key(|(_, status)| status.as_ref().is_ok_and(leads));
    let mut values = Vec::new();
    let mut failed = None;
    for (endpoint, _) in order {
        let began = Instant::now();
        let done = endpoint
            .ask(
                DefragmentRequest {},
                |link, request| async move { link.maintenance().defragment(request).await },
            )
            .await;
        let (name, took_ms) = (endpoint.name(), began.elapsed().as_secs_f64() * 1e3);
        let error = done.as_ref().err().map(|failure| failure.message.clone());
        values.push(json!({ "endpoint": name, "took_ms": took_ms, "error": error }));
        if let Err(failure) = done {
            failed = Some(of_one("cluster defrag", failure));
            break;
        }
        if !json {
            print(format_args!("{name}: done in {took_ms:.0} ms"))?;
        }
    }
    if json {
        print(Value::Array(values))?;
    }
    failed.map_or(Ok(exit::OK), |error| Err(error.into()))
}

fn alarm_request(action: AlarmAction) -> AlarmRequest {
    AlarmRequest { action: action.into(), ..Default::default() }
}

async fn alarms(client: &Client, what: &'static str) -> Result<AlarmResponse, StoreError> {
    let request = alarm_request(AlarmAction::Get);
    client.read(what, request, |link, request| async move { link.maintenance().alarm(request).await }).await
}

async fn disarm(client: &Client, json: bool) -> Result<u8> {
    const WHAT: &str = "cluster alarm disarm";
    let raised = alarms(client, WHAT).await?;
    for AlarmMember { member_id, alarm } in raised.alarms.clone() {
        let request = AlarmRequest { member_id, alarm, ..alarm_request(AlarmAction::Deactivate) };
        // What is disarmed already stays so.
        client
            .read(WHAT, request, |link, request| async move { link.maintenance().alarm(request).await })
            .await?;
    }
    print_alarms(&raised, json)
}

fn names(alarms: &[AlarmMember]) -> Vec<String> {
    let name = |alarm: &AlarmMember| match AlarmType::try_from(alarm.alarm) {
        Ok(kind) => kind.as_str_name().to_lowercase(),
        Err(_) => format!("unknown ({})", alarm.alarm),
    };
    alarms.iter().map(name).collect()
}

fn print_alarms(answer: &AlarmResponse, json: bool) -> Result<u8> {
    let each = answer.alarms.iter().zip(names(&answer.alarms));
    if json {
        let value = |(alarm, name): (&AlarmMember, _)| json!({ "member_id": Id(alarm.member_id).json(), "alarm": name });
        print(json!({ "header": header(&answer.header), "alarms": each.map(value).collect::<Vec<_>>() }))?;
    } else if answer.alarms.is_empty() {
        print("no alarms")?;
    } else {
        let mut table = Table::new(["MEMBER", "ALARM"]);
        each.for_each(|(alarm, name)| table.row([Id(alarm.member_id).to_string(), name]));
        print(table)?;
    }
    Ok(exit::OK)
}
