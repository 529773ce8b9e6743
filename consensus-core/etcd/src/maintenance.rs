//! What operators ask.

use std::pin::Pin;

use consensus_core::Role;
use consensus_proto::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
        DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
        MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
        alarm_request::AlarmAction, maintenance_server::Maintenance,
    },
    internal::internal_request::Request as Internal,
};
use consensus_store::{Policy, Response as Answer};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use crate::{kv::mismatch, server::Server, status};

/// The version of etcd's API that this is.
pub const API_VERSION: &str = "3.5.0";

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
        let Answer::Alarm(mut response) = self.propose_as(&credential, Internal::Alarm(request)).await?
        else {
            return Err(mismatch());
        };
        response.header = self.header_now();
        Ok(Response::new(response))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let shared = &self.shared;
        let member = shared.node.status();
        let disk = shared.reader.disk();
        let mut errors = Vec::new();
        if member.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in shared.reader.alarms().map_err(|error| status::store(&error))? {
            // As etcd prints it.
            let text = format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name());
            errors.push(text);
        }
        Ok(Response::new(StatusResponse {
            header: self.header_now(),
            version: API_VERSION.to_owned(),
            db_size: disk.bytes() as i64,
            leader: member.leader.unwrap_or_default(),
            raft_index: member.commit,
            raft_term: member.term,
            raft_applied_index: member.applied,
            errors,
            db_size_in_use: disk.bytes_in_use() as i64,
            is_learner: shared.node.membership().is_learner(shared.node.id()),
            ..Default::default()
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.require_root(&request).await?;
        let disk = self.shared.reader.disk();
        tokio::task::spawn_blocking(move || disk.compact())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| status::store(&error.into()))?;
        Ok(Response::new(DefragmentResponse { header: self.header_now() }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.require_root(&request).await?;
        let hash = self.read_long(|reader| reader.hash_of_everything()).await?;
        Ok(Response::new(HashResponse { header: self.header_now(), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.require_root(&request).await?;
        let revision = request.into_inner().revision;
        let keys = self.read_long(move |reader| reader.hash_of_keys(revision)).await?;
        Ok(Response::new(HashKvResponse {
            header: self.header_now(),
            hash: keys.hash,
            // As etcd says that nothing was ever compacted.
            compact_revision: if keys.compacted == 0 { -1 } else { keys.compacted },
            hash_revision: keys.revision,
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.require_root(&request).await?;
        let messages = self.snapshot_messages().await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
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
        let moved = node.transfer_leader(target, self.shared.request_timeout).await;
        let moved = moved.map_err(status::propose)?;
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
