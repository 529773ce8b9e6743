//! What operators ask.

use std::pin::Pin;

use consensus_core::Role;
use consensus_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
    maintenance_server::Maintenance,
};
use consensus_store::Policy;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::server::Server;

/// The version of etcd's API that this is.
const API_VERSION: &str = "3.5.0";

fn not_yet(what: &str) -> Status {
    Status::unimplemented(format!("etcdserver: {what} is not implemented yet"))
}

#[tonic::async_trait]
impl Maintenance for Server {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let credential = self.credential(&request);
        let request = request.into_inner();
        let check = match request.action() {
            AlarmAction::Get => Policy::check_user,
            AlarmAction::Activate | AlarmAction::Deactivate => Policy::check_root,
        };
        self.authorize(&credential, check).await?;
        match request.action() {
            // None can be raised yet.
            AlarmAction::Get => {
                Ok(Response::new(AlarmResponse { header: self.header_now(), alarms: Vec::new() }))
            }
            AlarmAction::Activate | AlarmAction::Deactivate => Err(not_yet("raising alarms")),
        }
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let shared = &self.shared;
        let status = shared.node.status();
        let bytes = shared.disk.file_bytes() as i64;
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        Ok(Response::new(StatusResponse {
            header: self.header_now(),
            version: API_VERSION.to_owned(),
            db_size: bytes,
            leader: status.leader.unwrap_or_default(),
            raft_index: status.commit,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            db_size_in_use: bytes,
            is_learner: shared.node.membership().is_learner(shared.node.id()),
            ..Default::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.require_root(&request).await?;
        Err(not_yet("defragmentation"))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.require_root(&request).await?;
        Err(not_yet("the hash"))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.require_root(&request).await?;
        Err(not_yet("the hash of keys"))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.require_root(&request).await?;
        Err(not_yet("the snapshot"))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.require_root(&request).await?;
        let node = &self.shared.node;
        let target = request.into_inner().target_id;
        if node.status().role != Role::Leader {
            return Err(Status::failed_precondition("etcdserver: not leader"));
        }
        if !node.membership().is_voter(target) {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        let mut changes = node.watch_status();
        node.transfer_leader(target).map_err(crate::status::propose)?;
        let moved = changes.wait_for(|status| status.leader == Some(target));
        // What it gives holds the status for reading: it must be gone before anyone looks at the status again.
        let moved =
            tokio::time::timeout(self.shared.request_timeout, moved).await.is_ok_and(|moved| moved.is_ok());
        if !moved {
            return Err(Status::unavailable("etcdserver: request timed out, leader transfer took too long"));
        }
        Ok(Response::new(MoveLeaderResponse { header: self.header_now() }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.require_root(&request).await?;
        Err(not_yet("downgrading"))
    }
}
