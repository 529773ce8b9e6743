//! Leases. Time runs at the leader: the other members pass on what needs it.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use consensus_core::{PeerQuestion, Role};
use consensus_proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
        LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, lease_server::Lease,
    },
    internal::{PeerRequest, PromoteAnswer, internal_request::Request as Internal, peer_request},
};
use consensus_store::{Access, Caller, Response as Answer};
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{cluster::random, identity::Credential, kv::mismatch, regions, server::Server, status};

/// How often the leader looks for leases whose time is over.
const LOOK: Duration = Duration::from_millis(200);
/// Leases that are revoked at a look.
const REVOKED_AT_ONCE: usize = 200;
/// A lease whose revocation got lost is revoked again after this.
const REVOKE_RETRY: Duration = Duration::from_secs(3);
/// For the leader to answer a question; then it is asked again, or another.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// Questions of other members that are answered at a time.
const QUESTIONS_AT_ONCE: usize = 256;
/// Answers to one client that wait to be sent.
const ANSWERS: usize = 16;

/// Revokes leases whose time is over, while this member leads. A new leader gives all their full time as soon as it looks, so
/// that none that is granted later lives longer than it was granted for.
pub(crate) async fn expire(server: Server) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = server.closing() => return,
        }
        let shared = &server.shared;
        let status = shared.node.status();
        let is_due = || shared.news.lessor().expired_at(shared.news.now()).is_some();
        if status.role != Role::Leader || (shared.news.has_lessor_of(status.term) && !is_due()) {
            continue;
        }
        // Who only believes to lead must not end what the leader has renewed.
        let Some(term) = server.lead().await else { continue };
        let due = shared.news.lessor_of(term).expired(shared.news.now(), REVOKED_AT_ONCE, REVOKE_RETRY);
        for id in due {
            let server = server.clone();
            tokio::spawn(async move {
                let revoked =
                    server.propose(&Caller::Member, Internal::LeaseRevoke(LeaseRevokeRequest { id })).await;
                tracing::debug!(id = format!("{id:x}"), ?revoked, "lease expired");
            });
        }
    }
}

/// Answers what other members ask.
pub(crate) async fn answer_peers(server: Server, mut questions: mpsc::Receiver<PeerQuestion>) {
    let at_once = Arc::new(Semaphore::new(QUESTIONS_AT_ONCE));
    loop {
        let asked = tokio::select! {
            asked = questions.recv() => asked,
            () = server.closing() => None,
        };
        let (Some(PeerQuestion { question, responder }), Ok(permit)) =
            (asked, at_once.clone().acquire_owned().await)
        else {
            return;
        };
        let server = server.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let answer = match PeerRequest::decode(question) {
                Ok(PeerRequest { request: Some(request) }) => server.answer_here(&request).await,
                _ => None,
            };
            if let Some(answer) = answer {
                // If the peer is gone, nobody waits.
                let _ = responder.respond(answer);
            }
        });
    }
}

impl Server {
    /// The term in which this member leads, once it is sure of that and has applied what was acknowledged before.
    pub(crate) async fn lead(&self) -> Option<u64> {
        let node = &self.shared.node;
        let before = node.status();
        if before.role != Role::Leader {
            return None;
        }
        self.linearize().await.ok()?;
        let after = node.status();
        (after.role == Role::Leader && after.term == before.term).then_some(after.term)
    }

    /// `None`: this member does not lead.
    async fn renew_here(&self, id: i64) -> Option<LeaseKeepAliveResponse> {
        let shared = &self.shared;
        let term = self.lead().await?;
        let ttl = shared.news.lessor_of(term).renew(id, shared.news.now());
        Some(LeaseKeepAliveResponse {
            header: self.header_now(),
            id,
            ttl: ttl.map_or(0, |ttl| ttl.as_secs() as i64),
        })
    }

    async fn time_to_live_here(&self, request: &LeaseTimeToLiveRequest) -> Option<LeaseTimeToLiveResponse> {
        let shared = &self.shared;
        let term = self.lead().await?;
        let remaining = shared.news.lessor_of(term).remaining(request.id, shared.news.now());
        let mut response = LeaseTimeToLiveResponse {
            header: self.header_now(),
            id: request.id,
            ttl: -1,
            ..Default::default()
        };
        if let (Ok(Some(granted)), Some(remaining)) = (shared.reader.lease_ttl(request.id), remaining) {
            (response.ttl, response.granted_ttl) = (remaining.as_secs() as i64, granted);
            if request.keys {
                response.keys = shared.reader.lease_keys(request.id).unwrap_or_default();
            }
        }
        Some(response)
    }

    /// The encoded answer; `None`: this member does not lead.
    async fn answer_here(&self, request: &peer_request::Request) -> Option<Bytes> {
        let answer = match request {
            peer_request::Request::LeaseKeepAlive(request) => {
                self.renew_here(request.id).await?.encode_to_vec()
            }
            peer_request::Request::LeaseTimeToLive(request) => {
                self.time_to_live_here(request).await?.encode_to_vec()
            }
            peer_request::Request::MemberPromote(request) => {
                let refused = match self.promote_here(request.id).await? {
                    Ok(()) => String::new(),
                    // Whoever asks tries again.
                    Err(status) if status.code() == tonic::Code::Unavailable => return None,
                    Err(status) => status.message().to_owned(),
                };
                PromoteAnswer { refused }.encode_to_vec()
            }
            peer_request::Request::Clock(_) => return Some(regions::clock_answer()),
            peer_request::Request::RegionStatus(_) => self.region_status_here().await?.encode_to_vec(),
        };
        Some(answer.into())
    }

    /// Who may not write a key must not decide how long it lives.
    async fn keep_alive_as(
        &self,
        credential: &Credential,
        request: LeaseKeepAliveRequest,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        let reader = &self.shared.reader;
        if reader.auth_epoch().is_enabled() {
            let keys = reader.lease_keys(request.id).map_err(|error| status::store(&error))?;
            self.authorize(credential, |policy, caller| {
                policy.check_user(caller)?;
                policy.check_each_key(caller, Access::Write, &keys)
            })
            .await?;
        }
        let asked = peer_request::Request::LeaseKeepAlive(request);
        let mut response: LeaseKeepAliveResponse = self.ask_leader(asked).await?;
        response.header = self.header_now();
        Ok(response)
    }

    /// As in etcd: one and a half election timeouts in seconds, rounded up, so that a lease survives the loss of a leader.
    fn lease_ttl_min(&self) -> i64 {
        let time = self.shared.config.node.timing.election_timeout * 3 / 2;
        time.as_millis().div_ceil(1000) as i64
    }

    /// Grants a lease; for id 0, under one that nobody has chosen before.
    pub(crate) async fn grant(
        &self,
        credential: &Credential,
        mut request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Status> {
        if request.id == 0 {
            request.id = random_id()?;
        }
        request.ttl = request.ttl.max(self.lease_ttl_min());
        self.check_room().await?;
        let Answer::LeaseGrant(mut response) =
            self.propose_as(credential, Internal::LeaseGrant(request)).await?
        else {
            return Err(mismatch());
        };
        response.header = self.header_now();
        Ok(response)
    }

    /// Asks the leader, which may be this member, until it answers or the time is over.
    pub(crate) async fn ask_leader<T: prost::Message + Default>(
        &self,
        request: peer_request::Request,
    ) -> Result<T, Status> {
        let shared = &self.shared;
        let question = PeerRequest { request: Some(request) }.encode_to_vec();
        let until = tokio::time::Instant::now() + shared.request_timeout;
        loop {
            let leader = shared.node.status().leader;
            let answer = match leader {
                Some(leader) if leader == shared.node.id() => self.answer_here(&request).await,
                Some(leader) => shared.node.ask(leader, &question, ANSWERED_WITHIN).await,
                None => None,
            };
            if let Some(Ok(answer)) = answer.map(T::decode) {
                return Ok(answer);
            }
            if tokio::time::Instant::now() >= until {
                return Err(match leader {
                    None => Status::unavailable("etcdserver: no leader"),
                    Some(_) => Status::unavailable("etcdserver: request timed out"),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A positive number that nobody has chosen before.
fn random_id() -> Result<i64, Status> {
    Ok((random()?.cast_signed() & i64::MAX).max(1))
}

#[tonic::async_trait]
impl Lease for Server {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let credential = self.credential(&request);
        Ok(Response::new(self.grant(&credential, request.into_inner()).await?))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let credential = self.credential(&request);
        let Answer::LeaseRevoke(mut response) =
            self.propose_as(&credential, Internal::LeaseRevoke(request.into_inner())).await?
        else {
            return Err(mismatch());
        };
        response.header = self.header_now();
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let credential = self.credential_of_stream(&request);
        let mut requests = request.into_inner();
        let (sender, answers) = mpsc::channel(ANSWERS);
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.next() => request,
                    () = server.closing() => {
                        let _ = sender.send(Err(Status::unavailable("etcdserver: server stopped"))).await;
                        return;
                    }
                };
                let Some(Ok(request)) = request else { return };
                let answer = server.keep_alive_as(&credential, request).await;
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.require_user(&request).await?;
        let credential = self.credential_of_stream(&request);
        let asked = peer_request::Request::LeaseTimeToLive(request.into_inner());
        let mut response: LeaseTimeToLiveResponse = self.ask_leader(asked).await?;
        if !response.keys.is_empty() {
            // The leader may know of keys that this member does not know who may read them.
            self.linearize().await?;
            self.authorize(&credential, |policy, caller| {
                policy.check_each_key(caller, Access::Read, &response.keys)
            })
            .await?;
        }
        response.header = self.header_now();
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.require_user(&request).await?;
        self.linearize().await?;
        let leases = self.shared.reader.leases().map_err(|error| status::store(&error))?;
        let leases = leases.into_iter().map(|(id, _)| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}
