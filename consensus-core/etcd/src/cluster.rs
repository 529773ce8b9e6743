//! Members.

use std::collections::BTreeSet;

use consensus_core::{MemberChange, MemberInfo, Membership};
use consensus_proto::{
    etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, ResponseHeader, cluster_server::Cluster,
    },
    internal::{PromoteAnswer, peer_request},
};
use tonic::{Request, Response, Status};

use crate::{bootstrap::authority, server::Server, status};

/// Learners at a time, as in etcd: each costs the leader as much as a voter.
const LEARNERS_MAX: usize = 1;

fn members(membership: &Membership) -> Vec<Member> {
    let member = |(id, info): (&u64, &MemberInfo)| Member {
        id: *id,
        name: info.name.clone(),
        peer_ur_ls: info.peer_urls.clone(),
        client_ur_ls: info.client_urls.clone(),
        is_learner: membership.is_learner(*id),
    };
    membership.members.iter().map(member).collect()
}

/// Voters that are needed for anything to be committed.
fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// A number that nobody has chosen before.
pub(crate) fn random() -> Result<u64, Status> {
    getrandom::u64().map_err(|error| Status::internal(format!("no random numbers: {error}")))
}

fn check_urls(urls: &[String]) -> Result<(), Status> {
    let distinct: BTreeSet<_> = urls.iter().collect();
    if urls.is_empty() || distinct.len() < urls.len() || urls.iter().any(|url| authority(url).is_err()) {
        return Err(Status::invalid_argument("etcdserver: given member URLs are invalid"));
    }
    Ok(())
}

/// No other member may be found at any of these.
fn check_unused(membership: &Membership, id: u64, urls: &[String]) -> Result<(), Status> {
    let others = membership.members.iter().filter(|(other, _)| **other != id);
    if others.flat_map(|(_, info)| &info.peer_urls).any(|url| urls.contains(url)) {
        return Err(Status::failed_precondition("etcdserver: Peer URLs already exists"));
    }
    Ok(())
}

/// Voters that have started, of those who count after a change.
fn started<'a>(membership: &'a Membership, but: u64) -> impl Iterator<Item = u64> + 'a {
    let members = membership.members.iter();
    members
        .filter(move |(id, info)| membership.is_voter(**id) && **id != but && !info.name.is_empty())
        .map(|(id, _)| *id)
}

fn not_enough_started() -> Status {
    Status::failed_precondition("etcdserver: re-configuration failed due to not enough started members")
}

fn unhealthy() -> Status {
    Status::unavailable("etcdserver: unhealthy cluster")
}

/// One more voter makes a larger quorum, of members that are there.
fn check_one_more(membership: &Membership, joining_counts: usize) -> Result<(), Status> {
    let (voters, started) = (membership.voters(), started(membership, 0).count());
    // One that is alone can always get a second: nobody else could be asked.
    if (voters, started) == (1, 1) || started + joining_counts >= quorum(voters + 1) {
        Ok(())
    } else {
        Err(not_enough_started())
    }
}

impl Server {
    /// The members, of which this is one.
    fn known(&self, id: u64) -> Result<Membership, Status> {
        let membership = self.shared.node.membership();
        if membership.members.contains_key(&id) { Ok(membership) } else { Err(status::member_not_found()) }
    }

    /// Who the members are has no revision.
    fn header_of_members(&self) -> Option<ResponseHeader> {
        self.header(0)
    }

    async fn change_members(&self, change: MemberChange) -> Result<Vec<Member>, Status> {
        let shared = &self.shared;
        let changed = shared.node.change_members(change, shared.request_timeout).await;
        changed.map(|membership| members(&membership)).map_err(status::propose)
    }

    fn is_there(&self, id: u64) -> bool {
        id == self.shared.node.id() || self.shared.node.is_connected(id)
    }

    /// Whoever stays must be able to go on.
    fn check_removal(&self, membership: &Membership, id: u64) -> Result<(), Status> {
        if !membership.is_voter(id) || !self.is_there(id) {
            return Ok(()); // it has no part in any quorum, so none is lost with it
        }
        let left = membership.voters() - 1;
        if left == 0 || started(membership, id).count() < quorum(left) {
            return Err(not_enough_started());
        }
        if started(membership, id).filter(|other| self.is_there(*other)).count() < quorum(left) {
            return Err(unhealthy());
        }
        Ok(())
    }

    /// Promotes a learner, if this member leads: only the leader knows how far it is. `None`: it does not lead.
    pub(crate) async fn promote_here(&self, id: u64) -> Option<Result<(), Status>> {
        let matched = self.shared.node.matched().await.ok()?;
        let own = *matched.get(&self.shared.node.id())?;
        let learner = matched.get(&id).copied().unwrap_or_default();
        // Who votes has published its name: by that it is known that it has run, should its folder be lost.
        let has_run = self.shared.node.membership().members.get(&id).is_none_or(|info| !info.name.is_empty());
        // As in etcd: nine tenths of what the leader has.
        if !has_run || u128::from(learner) * 10 < u128::from(own) * 9 {
            let text = "etcdserver: can only promote a learner member which is in sync with leader";
            return Some(Err(Status::failed_precondition(text)));
        }
        Some(self.change_members(MemberChange::Promote { id }).await.map(drop))
    }
}

#[tonic::async_trait]
impl Cluster for Server {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.require_root(&request).await?;
        let MemberAddRequest { peer_ur_ls: peer_urls, is_learner: learner } = request.into_inner();
        check_urls(&peer_urls)?;
        self.linearize().await?;
        let membership = self.shared.node.membership();
        check_unused(&membership, 0, &peer_urls)?;
        if !learner {
            check_one_more(&membership, 0)?;
        }
        if !membership.members.keys().all(|id| !membership.is_voter(*id) || self.is_there(*id)) {
            // One more would make a quorum harder to reach, which may be out of reach then.
            return Err(unhealthy());
        }
        if learner
            && membership.members.keys().filter(|id| membership.is_learner(**id)).count() >= LEARNERS_MAX
        {
            return Err(Status::failed_precondition("etcdserver: too many learner members in cluster"));
        }
        let id = random()?.max(1); // 0 names nobody
        let info = MemberInfo { peer_urls: peer_urls.clone(), ..MemberInfo::default() };
        let members = self.change_members(MemberChange::Add { id, info, learner }).await?;
        let member = Member { id, peer_ur_ls: peer_urls, is_learner: learner, ..Member::default() };
        Ok(Response::new(MemberAddResponse {
            header: self.header_of_members(),
            member: Some(member),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.require_root(&request).await?;
        let id = request.into_inner().id;
        let membership = self.known(id)?;
        self.check_removal(&membership, id)?;
        let members = self.change_members(MemberChange::Remove { id }).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.header_of_members(), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.require_root(&request).await?;
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        let membership = self.known(request.id)?;
        check_unused(&membership, request.id, &request.peer_ur_ls)?;
        let change = MemberChange::Move { id: request.id, peer_urls: request.peer_ur_ls };
        let members = self.change_members(change).await?;
        Ok(Response::new(MemberUpdateResponse { header: self.header_of_members(), members }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.require_user(&request).await?;
        if request.into_inner().linearizable {
            self.linearize().await?;
        }
        let members = members(&self.shared.node.membership());
        Ok(Response::new(MemberListResponse { header: self.header_of_members(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.require_root(&request).await?;
        let request = request.into_inner();
        let membership = self.known(request.id)?;
        if !membership.is_learner(request.id) {
            return Err(Status::failed_precondition("etcdserver: can only promote a learner member"));
        }
        check_one_more(&membership, 1)?;
        let answer: PromoteAnswer = self.ask_leader(peer_request::Request::MemberPromote(request)).await?;
        if !answer.refused.is_empty() {
            return Err(Status::failed_precondition(answer.refused));
        }
        // The leader has it; this member may be about to.
        self.linearize().await?;
        let members = members(&self.shared.node.membership());
        Ok(Response::new(MemberPromoteResponse { header: self.header_of_members(), members }))
    }
}
