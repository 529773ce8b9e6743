//! What this program asks of the store: entries below prefixes, transactions, leases.
//!
//! Which member answers, and what became of a request, is `novacron-store`'s.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use consensus_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
        PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use novacron_store::{Client, EndpointError, Options, StoreError};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{settings::StoreSettings, store_certificates::tls};

/// For how long a lease is shared, and for how long more if no other one can be had: entries that have it are kept for longer by up
/// to both, and end together.
const SHARED: Duration = Duration::from_secs(600);
const SHARED_MORE: Duration = Duration::from_secs(60);
/// Operations of a transaction: what etcd allows, if nobody says otherwise, less what each asks for by itself.
const OPS_MAX: usize = 127;
/// Everything of NovaCron's is below this.
const ROOT: &str = "/novacron/";

/// Why the store cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file that the settings name.
    #[error("store: reading {}: {source}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A member.
    #[error("store.endpoints: {0}")]
    Endpoint(#[from] EndpointError),
}

/// The store.
pub(crate) struct Store {
    client: Client,
    /// Leases that entries share, by how long they are kept.
    shared: Mutex<BTreeMap<i64, Shared>>,
}

/// A lease that entries share.
#[derive(Clone, Copy)]
struct Shared {
    id: i64,
    /// When it was granted.
    since: Instant,
    /// Somebody is about to have another one granted.
    is_old: bool,
}

impl Shared {
    /// The lease; `None`: another one is to be granted. While one is, others go on with this, and do not wait.
    fn find(&mut self) -> Option<i64> {
        let age = self.since.elapsed();
        if age < SHARED || self.is_old && age < SHARED + SHARED_MORE {
            return Some(self.id);
        }
        self.is_old = true;
        None
    }
}

/// What a transaction found: whether the comparisons held, the revision, and what it read or was [told](with_before) of.
pub(crate) struct Outcome {
    pub(crate) held: bool,
    pub(crate) revision: i64,
    reads: Vec<Option<KeyValue>>,
}

impl Outcome {
    /// The `n`th entry that was asked for.
    pub(crate) fn read(&mut self, n: usize) -> Option<KeyValue> {
        self.reads.get_mut(n).and_then(Option::take)
    }
}

impl Store {
    /// Connects when it is first asked.
    pub(crate) fn open(settings: &StoreSettings) -> Result<Self, OpenError> {
        let options = Options { tls: tls(settings)?, user: None, timeout: settings.timeout };
        let client = Client::new(settings.endpoints.iter().map(String::as_str), options)?;
        Ok(Self { client, shared: Mutex::default() })
    }

    /// The members.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    async fn range(&self, what: &'static str, range: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.client.read(what, range, |link, range| async move { link.kv().range(range).await }).await
    }

    /// One entry.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<KeyValue>, StoreError> {
        self.get_at(key, 0).await
    }

    /// One entry as it was at a revision (0: now).
    pub(crate) async fn get_at(&self, key: &str, revision: i64) -> Result<Option<KeyValue>, StoreError> {
        let range = RangeRequest { key: key.to_owned().into(), revision, ..RangeRequest::default() };
        Ok(self.range("get", range).await?.kvs.into_iter().next())
    }

    /// Up to `limit` entries below a prefix, behind the one called `after` (empty: from the first), as they were at a
    /// revision (0: now).
    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
        revision: i64,
    ) -> Result<RangeResponse, StoreError> {
        let mut key = format!("{prefix}{after}").into_bytes();
        if !after.is_empty() {
            key.push(0);
        }
        let range = RangeRequest {
            key: key.into(),
            range_end: end_of(prefix).into(),
            limit: limit as i64,
            revision,
            uncounted: true,
            ..RangeRequest::default()
        };
        self.range("list", range).await
    }

    /// The entries below a prefix from the one called `first` to that called `last`.
    pub(crate) async fn span(
        &self,
        prefix: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let range = RangeRequest {
            key: format!("{prefix}{first}").into(),
            range_end: format!("{prefix}{last}\0").into(),
            ..RangeRequest::default()
        };
        Ok(self.range("span", range).await?.kvs)
    }

    /// How many entries there are below a prefix.
    pub(crate) async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        let range = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end_of(prefix).into(),
            count_only: true,
            ..RangeRequest::default()
        };
        Ok(self.range("count", range).await?.count.unsigned_abs())
    }

    /// Whether a majority of it answers.
    pub(crate) async fn answers(&self) -> Result<(), StoreError> {
        let range = RangeRequest { key: ROOT.into(), limit: 1, keys_only: true, ..RangeRequest::default() };
        self.range("get", range).await.map(drop)
    }

    /// Does `then` if all comparisons hold, and `otherwise` if not.
    pub(crate) async fn txn(
        &self,
        what: &'static str,
        compare: Vec<Compare>,
        then: Vec<RequestOp>,
        otherwise: Vec<RequestOp>,
    ) -> Result<Outcome, StoreError> {
        let request = TxnRequest { compare, success: then, failure: otherwise };
        let txn = self.client.write(what, request, |link, txn| async move { link.kv().txn(txn).await });
        let txn = txn.await;
        if matches!(&txn, Err(StoreError::Refused { failure, .. }) if failure.code == Code::NotFound) {
            // A lease that is shared is gone: somebody has revoked it, or put another store in place.
            self.shared().clear();
        }
        let TxnResponse { header, succeeded, responses } = txn?;
        let reads = responses.into_iter().filter_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
            Some(Response::ResponsePut(put)) => put.prev_kv.map(Some),
            Some(Response::ResponseDeleteRange(deleted)) => deleted.prev_kvs.into_iter().next().map(Some),
            _ => None,
        });
        let revision = header.map_or(0, |header| header.revision);
        Ok(Outcome { held: succeeded, revision, reads: reads.collect() })
    }

    /// Does these, each by itself and in their order, a transaction for as many as one takes.
    pub(crate) async fn do_all(&self, what: &'static str, mut ops: Vec<RequestOp>) -> Result<(), StoreError> {
        while !ops.is_empty() {
            let rest = ops.split_off(ops.len().min(OPS_MAX));
            self.txn(what, Vec::new(), ops, Vec::new()).await?;
            ops = rest;
        }
        Ok(())
    }

    /// A lease for so many seconds.
    pub(crate) async fn grant(&self, ttl: i64) -> Result<i64, StoreError> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let grant = self.client.write("lease grant", request, |link, request| async move {
            link.lease().lease_grant(request).await
        });
        Ok(grant.await?.id)
    }

    /// A lease for what is kept for so many seconds, or up to [`SHARED`] and [`SHARED_MORE`] longer: a lease for each entry would be
    /// as many more in the store. It is nobody's to revoke.
    pub(crate) async fn shared_lease(&self, seconds: i64) -> Result<i64, StoreError> {
        let found = self.shared().get_mut(&seconds).and_then(Shared::find);
        if let Some(id) = found {
            return Ok(id);
        }
        let since = Instant::now();
        let id = self.grant(seconds + (SHARED + SHARED_MORE).as_secs() as i64).await?;
        self.shared().insert(seconds, Shared { id, since, is_old: false });
        Ok(id)
    }

    fn shared(&self) -> MutexGuard<'_, BTreeMap<i64, Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a lease. One that cannot be ended now ends by itself.
    pub(crate) async fn revoke(&self, id: i64) {
        let revoke =
            self.client.write("lease revoke", LeaseRevokeRequest { id }, |link, request| async move {
                link.lease().lease_revoke(request).await
            });
        if let Err(error) = revoke.await {
            tracing::debug!(%error, "a lease is left to end by itself");
        }
    }

    /// Prolongs a lease; whether there still is one.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<bool, StoreError> {
        let ask = self.client.read("lease keep-alive", id, |link, id| async move {
            let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
            let answer = link.lease().lease_keep_alive(requests).await?.into_inner().message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| Status::unavailable("no answer"))
        });
        Ok(ask.await?.ttl > 0)
    }
}

/// The end of the range of all keys with a prefix.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("prefixes are not empty") += 1;
    end
}

/// The part of a key behind the prefix; `None` if it is not UTF-8 or elsewhere.
pub(crate) fn name_of<'a>(prefix: &str, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key).ok()?.strip_prefix(prefix)
}

fn compare(key: &str, result: CompareResult, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(union),
        ..Compare::default()
    }
}

/// There is no such entry.
pub(crate) fn is_absent(key: &str) -> Compare {
    is_made_at(key, 0)
}

/// There is one.
pub(crate) fn is_there(key: &str) -> Compare {
    compare(key, CompareResult::Greater, CompareTarget::Create, TargetUnion::CreateRevision(0))
}

/// It was last changed at this revision.
pub(crate) fn is_at(key: &str, revision: i64) -> Compare {
    compare(key, CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

/// It was made at this revision.
pub(crate) fn is_made_at(key: &str, revision: i64) -> Compare {
    compare(key, CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(revision))
}

/// Writes an entry, which ends with the lease (0: with none).
pub(crate) fn put(key: &str, value: impl Into<Vec<u8>>, lease: i64) -> RequestOp {
    let put =
        PutRequest { key: key.to_owned().into(), value: value.into().into(), lease, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Removes an entry.
pub(crate) fn delete(key: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

/// Tells what the entry was that is written or removed.
pub(crate) fn with_before(mut op: RequestOp) -> RequestOp {
    match &mut op.request {
        Some(Request::RequestPut(put)) => put.prev_kv = true,
        Some(Request::RequestDeleteRange(delete)) => delete.prev_kv = true,
        _ => {}
    }
    op
}

/// Does `then` if all comparisons hold.
pub(crate) fn when(compare: Vec<Compare>, then: Vec<RequestOp>) -> RequestOp {
    let txn = TxnRequest { compare, success: then, failure: Vec::new() };
    RequestOp { request: Some(Request::RequestTxn(txn)) }
}

/// Reads an entry.
pub(crate) fn read(key: &str) -> RequestOp {
    let range = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
    RequestOp { request: Some(Request::RequestRange(range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn while_another_lease_is_granted_the_old_one_is_shared() {
        let mut shared = Shared { id: 7, since: Instant::now(), is_old: false };
        assert_eq!(shared.find(), Some(7));
        tokio::time::advance(SHARED).await;
        // The first has another one granted; nobody waits for that.
        assert_eq!([shared.find(), shared.find(), shared.find()], [None, Some(7), Some(7)]);
        // None could be: what has this would not be kept for long enough.
        tokio::time::advance(SHARED_MORE).await;
        assert_eq!([shared.find(), shared.find()], [None, None]);
    }
}
