//! Elections: who is first in a queue leads.

use std::pin::Pin;

use consensus_proto::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, ResponseHeader, TxnRequest, request_op::Request as Op},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
        ProclaimResponse, ResignRequest, ResignResponse, election_server::Election,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status};

use crate::{
    identity::Credential,
    lock::Forget,
    queue::{self, created_at, op},
    server::Server,
};

/// Leaders that wait to be told to one observer.
const LEADERS: usize = 4;

fn no_leader() -> Status {
    Status::not_found("election: no leader")
}

impl Server {
    /// Does something as a leader that still is one.
    async fn as_leader(
        &self,
        credential: &Credential,
        leader: &LeaderKey,
        what: Op,
    ) -> Result<Option<ResponseHeader>, Status> {
        let txn = TxnRequest {
            compare: vec![created_at(leader.key.clone(), leader.rev)],
            success: vec![op(what)],
            ..Default::default()
        };
        let answer = self.txn_as(credential, txn).await?;
        if answer.succeeded {
            Ok(answer.header)
        } else {
            Err(Status::failed_precondition("election: not leader"))
        }
    }

    /// Tells of one leader after the other, until nobody listens.
    async fn observe_leaders(
        &self,
        credential: &Credential,
        name: &[u8],
        told: &mpsc::Sender<Result<LeaderResponse, Status>>,
    ) -> Result<(), Status> {
        let prefix = queue::prefix(name);
        let mut last = 0;
        loop {
            let (leader, header) = self.first(credential, &prefix).await?;
            if let Some(kv) = leader.filter(|kv| kv.mod_revision > last) {
                last = kv.mod_revision;
                if told.send(Ok(LeaderResponse { header, kv: Some(kv) })).await.is_err() {
                    return Ok(());
                }
            }
            let seen = header.map_or(0, |header| header.revision);
            tokio::select! {
                changed = self.changed(Self::queue_range(&prefix), seen) => changed?,
                () = told.closed() => return Ok(()),
            }
        }
    }
}

#[tonic::async_trait]
impl Election for Server {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let credential = self.credential_of_stream(&request);
        let CampaignRequest { name, lease, value } = request.into_inner();
        let lease = self.place_lease(&credential, &name, lease).await?;
        let prefix = queue::prefix(&name);
        let place = self.enqueue(&credential, &prefix, lease, value).await?;
        let mut forget = Forget(Some((self.clone(), credential.clone(), place.key.clone())));
        let header = self.wait_for_turn(&credential, &prefix, &place).await?;
        forget.0 = None;
        let leader = LeaderKey { name, key: place.key, rev: place.revision, lease };
        Ok(Response::new(CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let credential = self.credential(&request);
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader =
            leader.ok_or_else(|| Status::invalid_argument("election: \"leader\" field must be provided"))?;
        let put = PutRequest { key: leader.key.clone(), value, lease: leader.lease, ..Default::default() };
        let header = self.as_leader(&credential, &leader, Op::RequestPut(put)).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let credential = self.credential(&request);
        let (leader, header) = self.first(&credential, &queue::prefix(&request.into_inner().name)).await?;
        let kv = leader.ok_or_else(no_leader)?;
        Ok(Response::new(LeaderResponse { header, kv: Some(kv) }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let credential = self.credential_of_stream(&request);
        let name = request.into_inner().name;
        let (sender, receiver) = mpsc::channel(LEADERS);
        let server = self.clone();
        tokio::spawn(async move {
            if let Err(error) = server.observe_leaders(&credential, &name, &sender).await {
                // If nobody listens any more, nobody has to know.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let credential = self.credential(&request);
        let leader = request.into_inner().leader;
        let leader =
            leader.ok_or_else(|| Status::invalid_argument("election: \"leader\" field must be provided"))?;
        let delete = DeleteRangeRequest { key: leader.key.clone(), ..Default::default() };
        // Whoever leads no more has resigned already.
        let resigned = self.as_leader(&credential, &leader, Op::RequestDeleteRange(delete)).await;
        let header = match resigned {
            Err(refused) if refused.code() != Code::FailedPrecondition => return Err(refused),
            resigned => resigned.unwrap_or_else(|_| self.header_now()),
        };
        Ok(Response::new(ResignResponse { header }))
    }
}
