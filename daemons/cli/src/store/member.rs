//! `novacron member list|add|promote|remove|update|rejoin`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use consensus_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, ResponseHeader, StatusRequest,
};
use novacron_store::{Client, Endpoint, StoreError, printable};
use serde_json::{Value, json};

use super::{
    answer::header,
    client::{StoreArgs, each},
    output::{Id, Table, print},
    quorum::Quorum,
    rejoin::{self, RejoinArgs},
};
use crate::exit::{self, Ended};

/// The members of a cluster.
#[derive(Args, Debug)]
pub(crate) struct MemberArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Subcommand, Debug)]
enum MemberCommand {
    /// Prints the members.
    List,
    /// Adds a member, and prints what it is to be started with.
    ///
    /// As a learner it gets the data first and has no vote: a mistake in it cannot cost the quorum.
    Add {
        /// Its name, which it is to be started with.
        name: String,
        /// Where the other members find it.
        #[arg(long, value_name = "URL,...", required = true, value_delimiter = ',')]
        peer_urls: Vec<String>,
        /// It has no vote until it is promoted.
        #[arg(long)]
        learner: bool,
    },
    /// Gives a learner a vote.
    Promote {
        /// The member.
        id: Id,
    },
    /// Removes a member. Exit code 4 if the voters that would be left could not decide anything.
    Remove {
        /// The member.
        id: Id,
        /// Removes it all the same.
        #[arg(long)]
        force: bool,
    },
    /// Brings a member back whose data is damaged, as a new one with all data of the others.
    ///
    /// Removes it, adds a new member at the same URLs, and gives it a vote once it has the data. The member itself keeps its
    /// damaged folder aside, and has to be started again if nothing does so. Cut off, it is run again, and goes on. Exit
    /// code 4 if the cluster could not go on without the member.
    Rejoin(RejoinArgs),
    /// Changes where the other members find a member.
    Update {
        /// The member.
        id: Id,
        /// Where they find it.
        #[arg(long, value_name = "URL,...", required = true, value_delimiter = ',')]
        peer_urls: Vec<String>,
    },
}

/// Does it; returns the exit code.
pub(super) async fn run(args: MemberArgs) -> Result<u8> {
    let client = args.store.client()?;
    let json = args.store.json;
    match args.command {
        MemberCommand::List => {
            let answer = list(&client, "member list").await?;
            if json {
                print(members_json(&answer.header, &answer.members))?;
            } else {
                print(table(&answer.members))?;
            }
        }
        MemberCommand::Add { name, peer_urls, learner } => {
            let request = MemberAddRequest { peer_ur_ls: peer_urls, is_learner: learner };
            let add = client.write("member add", request, |link, request| async move {
                link.cluster().member_add(request).await
            });
            print_added(&name, &add.await?, json)?;
        }
        MemberCommand::Promote { id } => {
            let request = MemberPromoteRequest { id: id.0 };
            let promote = client.write("member promote", request, |link, request| async move {
                link.cluster().member_promote(request).await
            });
            let answer = promote.await?;
            print_changed(&answer.header, &answer.members, format!("member {id} has a vote"), json)?;
        }
        MemberCommand::Remove { id, force } => {
            if !force {
                keeps_quorum(&client, "member remove", id).await?;
            }
            let request = MemberRemoveRequest { id: id.0 };
            let remove = client.write("member remove", request, |link, request| async move {
                link.cluster().member_remove(request).await
            });
            let answer = remove.await?;
            print_changed(&answer.header, &answer.members, format!("member {id} is removed"), json)?;
        }
        MemberCommand::Rejoin(args) => rejoin::run(&client, &args, json).await?,
        MemberCommand::Update { id, peer_urls } => {
            let request = MemberUpdateRequest { id: id.0, peer_ur_ls: peer_urls };
            let update = client.write("member update", request, |link, request| async move {
                link.cluster().member_update(request).await
            });
            let answer = update.await?;
            print_changed(&answer.header, &answer.members, format!("member {id} is updated"), json)?;
        }
    }
    Ok(exit::OK)
}

/// The members, as the cluster has agreed on them.
pub(super) async fn list(client: &Client, what: &'static str) -> Result<MemberListResponse, StoreError> {
    let request = MemberListRequest { linearizable: true };
    client.read(what, request, |link, request| async move { link.cluster().member_list(request).await }).await
}

fn member_json(member: &Member) -> Value {
    json!({
        "id": Id(member.id).json(),
        "name": member.name,
        "peer_urls": member.peer_ur_ls,
        "client_urls": member.client_ur_ls,
        "is_learner": member.is_learner,
    })
}

fn members_json(of: &Option<ResponseHeader>, members: &[Member]) -> Value {
    json!({ "header": header(of), "members": members.iter().map(member_json).collect::<Vec<_>>() })
}

fn table(members: &[Member]) -> Table {
    let mut table = Table::new(["ID", "NAME", "LEARNER", "PEER URLS", "CLIENT URLS"]);
    for member in members {
        let learner = if member.is_learner { "yes" } else { "no" };
        let urls = |urls: &[String]| urls.join(",");
        table.row([
            Id(member.id).to_string(),
            member.name.clone(),
            learner.to_owned(),
            urls(&member.peer_ur_ls),
            urls(&member.client_ur_ls),
        ]);
    }
    table
}

fn print_changed(of: &Option<ResponseHeader>, members: &[Member], text: String, json: bool) -> Result<()> {
    if json {
        print(members_json(of, members))?
    } else {
        print(text)?
    }
    Ok(())
}

fn print_added(name: &str, answer: &MemberAddResponse, json: bool) -> Result<()> {
    let Some(added) = &answer.member else {
        bail!("member add: the answer does not say which member was added")
    };
    let id = Id(added.id);
    let peers = answer.members.iter().flat_map(|member| {
        let name = if member.id == added.id { name } else { &member.name };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    let (initial_cluster, urls) = (peers.collect::<Vec<_>>().join(","), added.peer_ur_ls.join(","));
    if json {
        let mut value = members_json(&answer.header, &answer.members);
        value["member"] = member_json(added);
        value["start_with"] = json!({
            "name": name,
            "initial_cluster": initial_cluster,
            "initial_cluster_state": "existing",
            "initial_advertise_peer_urls": urls,
        });
        print(value)?;
        return Ok(());
    }
    let kind = if added.is_learner { "learner" } else { "voter" };
    print(format_args!("member {id} is added as a {kind}; start it with an empty data folder, and with"))?;
    print(format_args!("--name {}", printable(name)))?;
    print(format_args!("--initial-cluster {}", printable(&initial_cluster)))?;
    print("--initial-cluster-state existing")?;
    print(format_args!("--initial-advertise-peer-urls {}", printable(&urls)))?;
    Ok(())
}

/// Refuses a removal after which too few voters would answer.
pub(super) async fn keeps_quorum(client: &Client, what: &'static str, id: Id) -> Result<()> {
    let members = list(client, what).await?.members;
    let Some(member) = members.iter().find(|member| member.id == id.0) else {
        bail!("{what}: there is no member {id} (`novacron member list` prints them)");
    };
    if member.is_learner {
        return Ok(());
    }
    let answering = answering(client, &members).await?;
    let quorum = Quorum::without(&members, &answering, id.0);
    if !quorum.holds() {
        bail!(Ended::refused(format!(
            "{what}: without member {id} there are {} voters, of which {} must answer, and {} do (bring others back first; \
             `novacron member remove --force` removes it all the same)",
            quorum.voters,
            quorum.needed(),
            quorum.answering,
        )));
    }
    Ok(())
}

/// Members that work: they know a leader. Those that were named are asked where they were, all others where they say that
/// clients find them.
pub(super) async fn answering(client: &Client, members: &[Member]) -> Result<BTreeSet<u64>> {
    let urls = members.iter().flat_map(|member| &member.client_ur_ls);
    // One that cannot be asked does not answer.
    let told = urls.filter_map(|url| client.at(url).ok());
    let endpoints: Vec<_> = client.endpoints().iter().cloned().chain(told).collect();
    let ask = |endpoint: Endpoint| async move {
        let status = endpoint
            .ask(StatusRequest {}, |link, request| async move { link.maintenance().status(request).await })
            .await;
        let status = status.ok().filter(|status| status.leader != 0)?;
        status.header.map(|header| header.member_id)
    };
    Ok(each(&endpoints, ask).await?.into_iter().flatten().collect())
}
