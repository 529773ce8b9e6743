//! Members.

use consensus_core::{MemberChange, MemberInfo, Membership};
use consensus_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse, cluster_server::Cluster,
};
use tonic::{Request, Response, Status};

use crate::{server::Server, status};

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

impl Server {
    /// The members, of which this is one.
    fn known(&self, id: u64) -> Result<Membership, Status> {
        let membership = self.shared.node.membership();
        if membership.members.contains_key(&id) { Ok(membership) } else { Err(status::member_not_found()) }
    }

    async fn change_members(&self, change: MemberChange) -> Result<Vec<Member>, Status> {
        let shared = &self.shared;
        let changed = shared.node.change_members(change, shared.request_timeout).await;
        changed.map(|membership| members(&membership)).map_err(status::propose)
    }
}

#[tonic::async_trait]
impl Cluster for Server {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.require_root(&request).await?;
        // A new member begins with a snapshot, and those are not sent yet.
        Err(Status::unimplemented("etcdserver: adding members is not implemented yet"))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.require_root(&request).await?;
        let id = request.into_inner().id;
        self.known(id)?;
        let members = self.change_members(MemberChange::Remove { id }).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.header_now(), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.require_root(&request).await?;
        let request = request.into_inner();
        if request.peer_ur_ls.is_empty() {
            return Err(Status::invalid_argument("etcdserver: given member URLs are invalid"));
        }
        self.known(request.id)?;
        let change = MemberChange::Move { id: request.id, peer_urls: request.peer_ur_ls };
        let members = self.change_members(change).await?;
        Ok(Response::new(MemberUpdateResponse { header: self.header_now(), members }))
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
        Ok(Response::new(MemberListResponse { header: self.header_now(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.require_root(&request).await?;
        let id = request.into_inner().id;
        if !self.known(id)?.is_learner(id) {
            return Err(Status::failed_precondition("etcdserver: can only promote a learner member"));
        }
        let members = self.change_members(MemberChange::Promote { id }).await?;
        Ok(Response::new(MemberPromoteResponse { header: self.header_now(), members }))
    }
}
