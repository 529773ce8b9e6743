//! `novacron lease grant|revoke|ttl|list|keep-alive`.

use std::{io, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use consensus_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use novacron_store::{Client, Link};
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::{Response, Status};

use super::{
    answer::header,
    client::StoreArgs,
    output::{Id, Printed, json_bytes, print},
};
use crate::exit;

/// A lease is renewed when this part of its time is over.
const RENEWALS_PER_TTL: u32 = 3;

/// Leases: keys that go by themselves unless somebody keeps them alive.
#[derive(Args, Debug)]
pub(crate) struct LeaseArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Subcommand, Debug)]
enum LeaseCommand {
    /// Makes a lease.
    Grant {
        /// Seconds that it lasts from each renewal on.
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        ttl: i64,
        /// Its id [default: the store's choice].
        #[arg(long, value_name = "ID")]
        id: Option<Id>,
    },
    /// Ends a lease, and deletes its keys.
    Revoke {
        /// The lease.
        id: Id,
    },
    /// Prints how long a lease has left; exit code 1 if there is none.
    Ttl {
        /// The lease.
        id: Id,
        /// Prints its keys as well.
        #[arg(long)]
        keys: bool,
    },
    /// Prints all leases, one a line.
    List,
    /// Renews a lease until it is interrupted; exit code 1 when the lease is over.
    #[command(visible_alias = "keepalive")]
    KeepAlive {
        /// The lease.
        id: Id,
        /// Renews it once.
        #[arg(long)]
        once: bool,
    },
}

/// Does it; returns the exit code.
pub(super) async fn run(args: LeaseArgs) -> Result<u8> {
    let client = args.store.client()?;
    let json = args.store.json;
    match args.command {
        LeaseCommand::Grant { ttl, id } => grant(&client, ttl, id, json).await,
        LeaseCommand::Revoke { id } => {
            let request = LeaseRevokeRequest { id: id.lease() };
            let revoke = client.write("lease revoke", request, |link, request| async move {
                link.lease().lease_revoke(request).await
            });
            let answer = revoke.await?;
            say(
                json,
                json!({ "header": header(&answer.header), "id": id.json() }),
                format!("lease {id} revoked"),
            )?;
            Ok(exit::OK)
        }
        LeaseCommand::Ttl { id, keys } => ttl(&client, id, keys, json).await,
        LeaseCommand::List => {
            let list = client.read("lease list", LeaseLeasesRequest {}, |link, request| async move {
                link.lease().lease_leases(request).await
            });
            let answer = list.await?;
            let ids: Vec<_> = answer.leases.iter().map(|lease| Id::of_lease(lease.id)).collect();
            if json {
                let leases: Vec<_> = ids.iter().map(|id| id.json()).collect();
                print(json!({ "header": header(&answer.header), "leases": leases }))?;
            } else {
                ids.iter().try_for_each(print)?;
            }
            Ok(exit::OK)
        }
        LeaseCommand::KeepAlive { id, once: true } => {
            renew(&client, id, json).await?;
            Ok(exit::OK)
        }
        LeaseCommand::KeepAlive { id, once: false } => loop {
            let ttl = renew(&client, id, json).await?;
            sleep(Duration::from_secs(ttl) / RENEWALS_PER_TTL).await;
        },
    }
}

fn say(json: bool, value: Value, text: String) -> io::Result<()> {
    if json { print(value) } else { print(text) }
}

async fn grant(client: &Client, ttl: i64, id: Option<Id>, json: bool) -> Result<u8> {
    let request = LeaseGrantRequest { ttl, id: id.map_or(0, Id::lease) };
    let grant = client.write("lease grant", request, |link, request| async move {
        link.lease().lease_grant(request).await
    });
    let answer = grant.await?;
    let (id, ttl) = (Id::of_lease(answer.id), answer.ttl);
    let value = json!({ "header": header(&answer.header), "id": id.json(), "ttl": ttl });
    say(json, value, format!("lease {id} granted, ttl {ttl} s"))?;
    Ok(exit::OK)
}

async fn ttl(client: &Client, id: Id, keys: bool, json: bool) -> Result<u8> {
    let request = LeaseTimeToLiveRequest { id: id.lease(), keys };
    let ask = client.read("lease ttl", request, |link, request| async move {
        link.lease().lease_time_to_live(request).await
    });
    let answer = ask.await?;
    let is_there = answer.ttl >= 0;
    if json {
        let keys = keys.then(|| answer.keys.iter().map(|key| json_bytes(key)).collect::<Vec<_>>());
        print(json!({
            "header": header(&answer.header),
            "id": id.json(),
            "ttl": answer.ttl,
            "granted_ttl": answer.granted_ttl,
            "keys": keys,
        }))?;
    } else {
        print_ttl(id, &answer)?;
    }
    Ok(if is_there { exit::OK } else { exit::FAILURE })
}

fn print_ttl(id: Id, answer: &LeaseTimeToLiveResponse) -> io::Result<()> {
    if answer.ttl < 0 {
        return print(format_args!("lease {id}: there is none, or it is over"));
    }
    print(format_args!("lease {id} has {} s left of {} s", answer.ttl, answer.granted_ttl))?;
    answer.keys.iter().try_for_each(|key| print(Printed(key)))
}

/// Renews it, and says how many seconds it has now. Each renewal is a stream of its own: any member can take the next.
async fn renew(client: &Client, id: Id, json: bool) -> Result<u64> {
    let request = LeaseKeepAliveRequest { id: id.lease() };
    let answer: LeaseKeepAliveResponse = client.read("lease keep-alive", request, renew_once).await?;
    let Some(ttl) = u64::try_from(answer.ttl).ok().filter(|ttl| *ttl > 0) else {
        bail!(
            "lease keep-alive: lease {id}: there is none, or it is over (`novacron lease grant` makes one)"
        );
    };
    let value = json!({ "header": header(&answer.header), "id": id.json(), "ttl": ttl });
    say(json, value, format!("lease {id} renewed, ttl {ttl} s"))?;
    Ok(ttl)
}

async fn renew_once(
    link: Link,
    request: LeaseKeepAliveRequest,
) -> Result<Response<LeaseKeepAliveResponse>, Status> {
    let mut answers = link.lease().lease_keep_alive(tokio_stream::once(request)).await?.into_inner();
    let answer = answers.message().await?;
    answer.map(Response::new).ok_or_else(|| Status::unavailable("the member has ended the stream"))
}
