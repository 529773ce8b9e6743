//! `novacron member rejoin`: brings a member back whose data is damaged, as a new member at the same URLs.
//!
//! Each step is looked up in the list of members before it is done, so the command can be cut off anywhere and run again.
//! Deliberately not here: what becomes of the damaged folder, which the member sees to when it starts.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use consensus_proto::etcdserverpb::{Member, MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest};
use novacron_store::{Client, Link, StoreError};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    client::parse_duration,
    member::{answering, keeps_quorum, list},
    output::{Id, print},
};

const WHAT: &str = "member rejoin";
/// Between looks at how far the new member is.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(super) struct RejoinArgs {
    /// Where the other members find it: what the damaged member itself says, or `novacron member list`.
    #[arg(long, value_name = "URL,...", required = true, value_delimiter = ',')]
    peer_urls: Vec<String>,
    /// How long it may take the new member to start and to get the data.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    wait: Duration,
}

/// Where a member is on its way.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It has a vote, and is down.
    Remove(Id),
    /// It is no member.
    Add,
    /// It gets the data.
    Promote(Id),
    /// It has a vote, and works.
    Done(Id),
}

fn step(members: &[Member], peer_urls: &[String], works: impl Fn(u64) -> bool) -> Step {
    let member = members.iter().find(|member| member.peer_ur_ls.iter().any(|url| peer_urls.contains(url)));
    match member {
        None => Step::Add,
        Some(member) if member.is_learner => Step::Promote(Id(member.id)),
        Some(member) if works(member.id) => Step::Done(Id(member.id)),
        Some(member) => Step::Remove(Id(member.id)),
    }
}

pub(super) async fn run(client: &Client, args: &RejoinArgs, as_json: bool) -> Result<()> {
    let deadline = Instant::now() + args.wait;
    let say = |text: String| if as_json { Ok(()) } else { print(text) };
    let mut removed = None;
    loop {
        let members = list(client, WHAT).await?.members;
        let working = answering(client, &members).await?;
        match step(&members, &args.peer_urls, |id| working.contains(&id)) {
            Step::Remove(id) => {
                keeps_quorum(client, WHAT, id).await?;
                let request = MemberRemoveRequest { id: id.0 };
                let method = |link: Link, request| async move { link.cluster().member_remove(request).await };
                client.write(WHAT, request, method).await?;
                removed = Some(id);
                say(format!("member {id} does not answer, and is removed"))?;
            }
            Step::Add => {
                let request = MemberAddRequest { peer_ur_ls: args.peer_urls.clone(), is_learner: true };
                let method = |link: Link, request| async move { link.cluster().member_add(request).await };
                let added = client.write(WHAT, request, method).await?.member.unwrap_or_default();
                say(format!("member {} is added in its place; it joins when it is started", Id(added.id)))?;
            }
            Step::Promote(id) => {
                promote(client, id, deadline).await?;
                // Not looked up again: one that does not answer at this moment would be removed.
                return print_done(id, removed, "has the data, and a vote", as_json);
            }
            Step::Done(id) => return print_done(id, removed, "works", as_json),
        }
    }
}

fn print_done(id: Id, removed: Option<Id>, what: &str, as_json: bool) -> Result<()> {
    if as_json {
        print(json!({ "member": id.json(), "removed": removed.map(|id| id.json()) }))?;
    } else {
        print(format_args!("member {id} {what}"))?;
    }
    Ok(())
}

/// Gives a learner its vote as soon as it may have it.
async fn promote(client: &Client, id: Id, deadline: Instant) -> Result<()> {
    loop {
        let request = MemberPromoteRequest { id: id.0 };
        let method = |link: Link, request| async move { link.cluster().member_promote(request).await };
        let refused = match client.write(WHAT, request, method).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Refused { failure, .. }) if !failure.is_not_yet() => {
                bail!("{WHAT}: {failure}")
            }
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            bail!(
                "{refused}\nmember {id} is not there yet: is it started? Run the same command again, and it goes on"
            );
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_follows_from_the_list() {
        let url = ["http://c:1".to_owned()];
        let member = |id, port: &str, is_learner| Member {
            id,
            is_learner,
            peer_ur_ls: vec![format!("http://{port}")],
            ..Default::default()
        };
        let others = [member(1, "a:1", false), member(2, "b:1", false)];
        let with = |member: Member| others.iter().cloned().chain([member]).collect::<Vec<_>>();
        let next = |members: &[Member]| step(members, &url, |id| id != 3);
        assert_eq!(next(&with(member(3, "c:1", false))), Step::Remove(Id(3)));
        assert_eq!(next(&others), Step::Add);
        assert_eq!(next(&with(member(4, "c:1", true))), Step::Promote(Id(4)));
        assert_eq!(next(&with(member(4, "c:1", false))), Step::Done(Id(4)));
    }
}
