//! Keys and values.

use consensus_core::ProposeError;
use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, kv_server::Kv,
    },
    internal::internal_request::Request as Internal,
};
use consensus_store::{Caller, Policy, Response as Answer, check, needs_room};
use tonic::{Request, Response, Status};

use crate::{identity::Credential, server::Server, status};

/// The state machine answered something else than was asked: a defect.
pub(crate) fn mismatch() -> Status {
    Status::internal("etcdserver: an answer to another request")
}

impl Server {
    fn complete(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = self.header(revision);
    }

    /// Waits until nothing is left on this member's disk that a compaction has put out of reach.
    async fn removed_up_to(&self, revision: i64) -> Result<(), Status> {
        let mut removed = self.shared.news.removed.subscribe();
        tokio::select! {
            // The sender is in here: it cannot be gone.
            _ = removed.wait_for(|removed| *removed >= revision) => Ok(()),
            () = self.closing() => Err(status::propose(ProposeError::Stopped)),
        }
    }

    pub(crate) async fn range_as(
        &self,
        credential: &Credential,
        request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        check::range(&request).map_err(|error| status::store(&error))?;
        if !request.serializable {
            self.linearize().await?;
        }
        let allowed = |policy: &Policy, caller: &Caller| policy.check_range(caller, &request);
        let mut response = self.read_as(credential, allowed, self.read_range(&request)).await?;
        self.complete(&mut response.header);
        Ok(response)
    }

    pub(crate) async fn delete_range_as(
        &self,
        credential: &Credential,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        check::delete_range(&request).map_err(|error| status::store(&error))?;
        let Answer::DeleteRange(mut response) =
            self.propose_as(credential, Internal::DeleteRange(request)).await?
        else {
            return Err(mismatch());
        };
        self.complete(&mut response.header);
        Ok(response)
    }

    pub(crate) async fn txn_as(
        &self,
        credential: &Credential,
        request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        check::txn(&request, self.shared.config.txn_ops_max).map_err(|error| status::store(&error))?;
        let mut response = if check::is_read_only(&request) {
            if !check::is_serializable(&request) {
                self.linearize().await?;
            }
            let allowed = |policy: &Policy, caller: &Caller| policy.check_txn(caller, &request);
            self.read_as(credential, allowed, self.read_txn(&request)).await?
        } else {
            if needs_room(&request) {
                self.check_room().await?;
            }
            let Answer::Txn(response) = self.propose_as(credential, Internal::Txn(request)).await? else {
                return Err(mismatch());
            };
            response
        };
        self.complete(&mut response.header);
        Ok(response)
    }
}

#[tonic::async_trait]
impl Kv for Server {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let credential = self.credential(&request);
        self.range_as(&credential, request.into_inner()).await.map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let credential = self.credential(&request);
        let request = request.into_inner();
        check::put(&request).map_err(|error| status::store(&error))?;
        self.check_room().await?;
        let Answer::Put(mut response) = self.propose_as(&credential, Internal::Put(request)).await? else {
            return Err(mismatch());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let credential = self.credential(&request);
        self.delete_range_as(&credential, request.into_inner()).await.map(Response::new)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let credential = self.credential(&request);
        self.txn_as(&credential, request.into_inner()).await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let credential = self.credential(&request);
        let request = request.into_inner();
        let CompactionRequest { revision, physical } = request;
        let Answer::Compact(mut response) =
            self.propose_as(&credential, Internal::Compaction(request)).await?
        else {
            return Err(mismatch());
        };
        if physical {
            self.removed_up_to(revision).await?;
        }
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }
}
