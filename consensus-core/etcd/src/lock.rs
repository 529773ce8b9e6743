//! Locks: the first place of a queue.

use bytes::Bytes;
use consensus_proto::v3lockpb::{
    LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock,
};
use tonic::{Request, Response, Status};

use crate::{identity::Credential, queue, server::Server};

#[tonic::async_trait]
impl Lock for Server {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let credential = self.credential_of_stream(&request);
        let LockRequest { name, lease } = request.into_inner();
        let lease = self.place_lease(&credential, &name, lease).await?;
        let prefix = queue::prefix(&name);
        let place = self.enqueue(&credential, &prefix, lease, Bytes::new()).await?;
        let mut forget = Forget(Some((self.clone(), credential.clone(), place.key.clone())));
        let header = self.wait_for_turn(&credential, &prefix, &place).await?;
        forget.0 = None;
        Ok(Response::new(LockResponse { header, key: place.key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let credential = self.credential(&request);
        let header = self.leave(&credential, request.into_inner().key).await?;
        Ok(Response::new(UnlockResponse { header }))
    }
}

/// Gives up a place when whoever waits for it goes away.
pub(crate) struct Forget(pub(crate) Option<(Server, Credential, Bytes)>);

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some((server, credential, key)) = self.0.take() {
            // If it does not succeed, the lease ends it.
            tokio::spawn(async move { drop(server.leave(&credential, key).await) });
        }
    }
}
