//! Keys and values.

use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, kv_server::Kv,
    },
    internal::internal_request::Request as Internal,
};
use consensus_store::{Response as Answer, check, needs_room};
use tonic::{Request, Response, Status};

use crate::{server::Server, status};

/// The state machine answered something else than was asked: a defect.
pub(crate) fn mismatch() -> Status {
    Status::internal("etcdserver: an answer to another request")
}

impl Server {
    fn complete(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = self.header(revision);
    }
}

#[tonic::async_trait]
impl Kv for Server {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request).map_err(|error| status::store(&error))?;
        if !request.serializable {
            self.linearize().await?;
        }
        let mut response = self.shared.reader.range(&request).map_err(|error| status::store(&error))?;
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check::put(&request).map_err(|error| status::store(&error))?;
        self.check_room().await?;
        let Answer::Put(mut response) = self.propose(Internal::Put(request)).await? else {
            return Err(mismatch());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check::delete_range(&request).map_err(|error| status::store(&error))?;
        let Answer::DeleteRange(mut response) = self.propose(Internal::DeleteRange(request)).await? else {
            return Err(mismatch());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check::txn(&request, self.shared.config.txn_ops_max).map_err(|error| status::store(&error))?;
        if check::is_read_only(&request) {
            if !check::is_serializable(&request) {
                self.linearize().await?;
            }
            let mut response = self.shared.reader.txn(&request).map_err(|error| status::store(&error))?;
            self.complete(&mut response.header);
            return Ok(Response::new(response));
        }
        if needs_room(&request) {
            self.check_room().await?;
        }
        let Answer::Txn(mut response) = self.propose(Internal::Txn(request)).await? else {
            return Err(mismatch());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let Answer::Compact(mut response) = self.propose(Internal::Compaction(request.into_inner())).await?
        else {
            return Err(mismatch());
        };
        self.complete(&mut response.header);
        Ok(Response::new(response))
    }
}
