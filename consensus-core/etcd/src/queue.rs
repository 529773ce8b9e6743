//! Queues of keys: whoever put the oldest key with a prefix is first. Locks and elections are made of them.

use bytes::{BufMut as _, Bytes, BytesMut};
use consensus_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
        TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request as Op,
        response_op::Response as Done,
    },
    mvccpb::KeyValue,
};
use consensus_store::WatchRange;
use tonic::Status;

use crate::{identity::Credential, kv::mismatch, server::Server, status, watch::Target};

/// How long a place lasts that was asked for without a lease, as in etcd: nobody renews it.
const PLACE_TTL_S: i64 = 60;

/// A place in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) key: Bytes,
    /// The revision that created it: its number in the queue.
    pub(crate) revision: i64,
}

/// The prefix of a queue's keys.
pub(crate) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The end of all keys with a prefix that ends with a slash.
fn end(prefix: &Bytes) -> Bytes {
    let mut end = BytesMut::from(&prefix[..prefix.len() - 1]);
    end.put_u8(b'/' + 1);
    end.freeze()
}

/// A key of the same creation, or, for 0, one that is not there.
pub(crate) fn created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

pub(crate) fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

impl Server {
    /// Takes a place in a queue that lasts as long as a lease; the one of before if this lease has one already.
    pub(crate) async fn enqueue(
        &self,
        credential: &Credential,
        prefix: &Bytes,
        lease: i64,
        value: Bytes,
    ) -> Result<Place, Status> {
        let key: Bytes = [&prefix[..], format!("{lease:x}").as_bytes()].concat().into();
        let put = PutRequest { key: key.clone(), value: value.clone(), lease, ..Default::default() };
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let txn = TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![op(Op::RequestPut(put.clone()))],
            failure: vec![op(Op::RequestRange(get))],
        };
        let answer = self.txn_as(credential, txn).await?;
        let header = answer.header.ok_or_else(mismatch)?;
        let Some(Done::ResponseRange(found)) =
            answer.responses.into_iter().next().and_then(|done| done.response)
        else {
            return Ok(Place { key, revision: header.revision });
        };
        let found = found.kvs.into_iter().next().ok_or_else(mismatch)?;
        let place = Place { key: key.clone(), revision: found.create_revision };
        if found.value != value {
            let again = TxnRequest {
                compare: vec![created_at(key, place.revision)],
                success: vec![op(Op::RequestPut(put))],
                ..Default::default()
            };
            self.txn_as(credential, again).await?;
        }
        Ok(place)
    }

    /// Waits until nobody is before `place`.
    pub(crate) async fn wait_for_turn(
        &self,
        credential: &Credential,
        prefix: &Bytes,
        place: &Place,
    ) -> Result<Option<ResponseHeader>, Status> {
        loop {
            let before = RangeRequest {
                key: prefix.clone(),
                range_end: end(prefix),
                limit: 1,
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Create.into(),
                max_create_revision: place.revision - 1,
                keys_only: true,
                ..Default::default()
            };
            let answer = self.range_as(credential, before).await?;
            let Some(last) = answer.kvs.into_iter().next() else {
                // The lease may have ended meanwhile, and the place with it.
                let own = RangeRequest { key: place.key.clone(), keys_only: true, ..Default::default() };
                let own = self.range_as(credential, own).await?;
                return match own.kvs.first() {
                    Some(kv) if kv.create_revision == place.revision => Ok(own.header),
                    _ => Err(Status::aborted("etcdserver: the lease of this place in the queue has expired")),
                };
            };
            let seen = answer.header.map_or(0, |header| header.revision);
            self.changed(WatchRange { key: last.key, range_end: Bytes::new() }, seen).await?;
        }
    }

    /// Who is first in a queue.
    pub(crate) async fn first(
        &self,
        credential: &Credential,
        prefix: &Bytes,
    ) -> Result<(Option<KeyValue>, Option<ResponseHeader>), Status> {
        let oldest = RangeRequest {
            key: prefix.clone(),
            range_end: end(prefix),
            limit: 1,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        };
        let answer = self.range_as(credential, oldest).await?;
        Ok((answer.kvs.into_iter().next(), answer.header))
    }

    /// All keys of a queue.
    pub(crate) fn queue_range(prefix: &Bytes) -> WatchRange {
        WatchRange { key: prefix.clone(), range_end: end(prefix) }
    }

    /// Waits until something in a range may have changed after `seen`.
    pub(crate) async fn changed(&self, range: WatchRange, seen: i64) -> Result<(), Status> {
        let (target, told) = Target::once();
        let registered = self.shared.news.hub().register(range, seen + 1, target);
        // An error: it may have changed already.
        let Ok(id) = registered else { return Ok(()) };
        let _registration = Registration { server: self, id };
        tokio::select! {
            () = told => Ok(()),
            () = self.closing() => Err(Status::unavailable("etcdserver: server stopped")),
        }
    }

    /// Removes a key; nothing happens if it is gone.
    pub(crate) async fn leave(
        &self,
        credential: &Credential,
        key: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let gone = DeleteRangeRequest { key, ..Default::default() };
        self.delete_range_as(credential, gone).await.map(|gone| gone.header)
    }

    /// The lease of a place in the queue of this name: the one that was asked for, or one of its own if that is 0.
    pub(crate) async fn place_lease(
        &self,
        credential: &Credential,
        name: &[u8],
        lease: i64,
    ) -> Result<i64, Status> {
        if name.is_empty() {
            return Err(status::store(&consensus_store::StoreError::EmptyKey));
        }
        if lease != 0 {
            return Ok(lease);
        }
        let granted = self.grant(credential, LeaseGrantRequest { ttl: PLACE_TTL_S, id: 0 }).await?;
        Ok(granted.id)
    }
}

/// Ends when whoever waits goes away.
struct Registration<'a> {
    server: &'a Server,
    id: consensus_store::WatcherId,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.server.shared.news.hub().remove(self.id);
    }
}
