//! The members of a region's store: who they are, how they are, and changes of them, by the etcd v3 API.
//!
//! Behind a trait, so that what decides and what applies is tested without a store. Deliberately not here: what to do next.

use std::time::Duration;

use consensus_proto::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest,
    StatusRequest,
};
use futures::{FutureExt as _, future::BoxFuture};
use novacron_store::{Client, EndpointError, Failure, Options, StoreError};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::membership::{Health, Step};

/// How long a member may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Entries that a member may lack of what is committed, and be as good as the others.
pub const LAG_MAX: u64 = 1000;
/// Members of a region at most, with one that joins or leaves.
pub const MEMBERS_MAX: usize = 16;

/// Where a region's store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Each pod's URL for clients, by number.
    pub clients: Vec<String>,
    /// Each pod's URL for members, by number: as many as could be members.
    pub peers: Vec<String>,
    /// Certificates, where members want them.
    pub tls: Option<Pems>,
}

/// Certificates as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pems {
    /// The authority of members.
    pub ca: Vec<u8>,
    /// The operator's chain.
    pub cert: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Pems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pems").finish_non_exhaustive()
    }
}

/// A member as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who it is.
    pub id: u64,
    /// Its pod; `None`: it is none of the region's.
    pub ordinal: Option<u16>,
    /// It has run.
    pub started: bool,
    /// It has no vote.
    pub learner: bool,
    /// It leads.
    pub leader: bool,
    /// How it is.
    pub health: Health,
}

/// A store that was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// It cannot be meant.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// It does not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The member that leads does not do it.
    #[error("{0}")]
    Leader(Failure),
    /// There are more members than there can be.
    #[error("{count} members, and there can be {MEMBERS_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// Stores of regions.
pub trait Stores: Send + Sync + 'static {
    /// The members, as the store has agreed on them.
    fn members(&self, place: Place) -> BoxFuture<'_, Result<Vec<Seen>, MembersError>>;

    /// Does a step that is the store's; others are nothing to it.
    fn change(&self, place: Place, step: Step) -> BoxFuture<'_, Result<(), MembersError>>;
}

/// Stores over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network;

impl Stores for Network {
    fn members(&self, place: Place) -> BoxFuture<'_, Result<Vec<Seen>, MembersError>> {
        members(place).boxed()
    }

    fn change(&self, place: Place, step: Step) -> BoxFuture<'_, Result<(), MembersError>> {
        change(place, step).boxed()
    }
}

impl Place {
    fn client(&self) -> Result<Client, EndpointError> {
        let tls = self.tls.as_ref().map(|pems| {
            ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&pems.ca))
                .identity(Identity::from_pem(&pems.cert, &pems.key))
        });
        let options = Options { tls, user: None, timeout: TIMEOUT };
        Client::new(self.clients.iter().map(String::as_str), options)
    }

    fn ordinal(&self, urls: &[String]) -> Option<u16> {
        let at = self.peers.iter().position(|peer| urls.contains(peer))?;
        u16::try_from(at).ok()
    }
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug)]
struct Said {
    id: u64,
    leader: u64,
    committed: u64,
    applied: u64,
}

async fn ask(client: &Client, url: &str) -> Option<Said> {
    let endpoint = client.at(url).ok()?;
    let asked = endpoint
        .ask(StatusRequest {}, |link, request| async move { link.maintenance().status(request).await })
        .await;
    let answer = asked.ok()?;
    Some(Said {
        id: answer.header.as_ref()?.member_id,
        leader: answer.leader,
        committed: answer.raft_index,
        applied: answer.raft_applied_index,
    })
}

async fn members(place: Place) -> Result<Vec<Seen>, MembersError> {
    let client = place.client()?;
    let request = MemberListRequest { linearizable: true };
    let list = client.read("member list", request, |link, request| async move {
        link.cluster().member_list(request).await
    });
    let list = list.await?.members;
    if list.len() > MEMBERS_MAX {
        return Err(MembersError::TooMany { count: list.len() });
    }
    let asked = place.clients.iter().map(|url| ask(&client, url));
    let said: Vec<Said> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    let seen = |member: &consensus_proto::etcdserverpb::Member| Seen {
        id: member.id,
        ordinal: place.ordinal(&member.peer_ur_ls),
        started: !member.name.is_empty(),
        learner: member.is_learner,
        leader: leader(&said) == Some(member.id),
        health: health(member.id, &said),
    };
    Ok(list.iter().map(seen).collect())
}

/// Whom most of them follow.
fn leader(said: &[Said]) -> Option<u64> {
    let followed = |id| said.iter().filter(|other| other.leader == id).count();
    said.iter().map(|one| one.leader).filter(|id| *id != 0).max_by_key(|id| (followed(*id), *id))
}

fn health(id: u64, said: &[Said]) -> Health {
    let committed = said.iter().map(|other| other.committed).max().unwrap_or(0);
    match said.iter().find(|one| one.id == id) {
        None => Health::Away,
        Some(one) if one.leader == 0 => Health::Away,
        Some(one) if committed.saturating_sub(one.applied) > LAG_MAX => Health::Behind,
        Some(_) => Health::Well,
    }
}

async fn change(place: Place, step: Step) -> Result<(), MembersError> {
    let client = place.client()?;
    match step {
        Step::AddLearner(ordinal) => {
            let urls = place.peers.get(usize::from(ordinal)).cloned().into_iter().collect();
            let request = MemberAddRequest { peer_ur_ls: urls, is_learner: true };
            let add = client.write("member add", request, |link, request| async move {
                link.cluster().member_add(request).await
            });
            add.await?;
        }
        Step::Promote(id) => {
            let promote =
                client.write("member promote", MemberPromoteRequest { id }, |link, request| async move {
                    link.cluster().member_promote(request).await
                });
            promote.await?;
        }
        Step::Remove(id) => {
            let remove =
                client.write("member remove", MemberRemoveRequest { id }, |link, request| async move {
                    link.cluster().member_remove(request).await
                });
            remove.await?;
        }
        Step::MoveLeader { from, to } => move_leader(&place, &client, from, to).await?,
        Step::RecordBegin(_) | Step::SetPods(_) | Step::RestartPod(_) => {}
    }
    Ok(())
}

/// Only the member that leads does it.
async fn move_leader(place: &Place, client: &Client, from: u64, to: u64) -> Result<(), MembersError> {
    for url in &place.clients {
        if ask(client, url).await.is_none_or(|said| said.id != from) {
            continue;
        }
        let request = MoveLeaderRequest { target_id: to };
        let leader = client.at(url)?;
        let moved =
            leader.ask(request, |link, request| async move { link.maintenance().move_leader(request).await });
        moved.await.map_err(MembersError::Leader)?;
        return Ok(());
    }
    let away = Failure::unreachable(&format!("member {from:x}"), "it does not answer".to_owned());
    Err(MembersError::Leader(away))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: u64, leader: u64, applied: u64) -> Said {
        Said { id, leader, committed: applied, applied }
    }

    #[test]
    fn health_is_what_members_say_beside_each_other() {
        let all = [said(1, 1, 5000), said(2, 1, 4500), said(3, 1, 10), said(4, 0, 5000)];
        assert_eq!(leader(&all), Some(1));
        let healths = [1, 2, 3, 4, 5].map(|id| health(id, &all));
        assert_eq!(healths, [Health::Well, Health::Well, Health::Behind, Health::Away, Health::Away]);
        assert_eq!(leader(&[said(1, 0, 1)]), None);
    }

    #[test]
    fn members_are_known_by_their_urls() {
        let peers = ["http://a-0:9090", "http://a-1:9090"].map(str::to_owned).to_vec();
        let place = Place { clients: Vec::new(), peers, tls: None };
        assert_eq!(place.ordinal(&["http://a-1:9090".to_owned()]), Some(1));
        assert_eq!(place.ordinal(&["http://b-0:9090".to_owned()]), None);
    }
}
