//! The store: takes committed requests in order, and says what became of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
};

use bytes::{Buf, BufMut, Bytes};
use consensus_disk::{Batch, Disk, Order};
use consensus_proto::{
    etcdserverpb::{
        AlarmResponse, AlarmType, CompactionRequest, CompactionResponse, DeleteRangeResponse,
        LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutResponse,
        ResponseHeader, TxnResponse,
    },
    internal::{InternalRequest, internal_request::Request},
    mvccpb::Event,
};
use prost::Message as _;

use crate::{
    StoreError,
    alarm::{self, Alarms},
    auth::{self, Access, Caller, Policy, PublishedPolicy, TokenChange},
    keys::{self, LEASE_KEYS, LEASES, META},
    recent::SharedRecent,
    region::{Region, SharedRegion},
    txn::Txn,
    view::Overlay,
};

const STATE: &[u8] = b"state";
/// Longest time to live of a lease in seconds, as in etcd: 9,000,000,000, some 285 years.
pub(crate) const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Largest revision of a store that is not damaged. There is room above it for whoever asks for the next one.
const REVISION_MAX: i64 = 1 << 62;

/// What readers may rely on: everything up to `current` is on the disk.
#[derive(Debug)]
pub(crate) struct Published<D> {
    disk: RwLock<Arc<D>>,
    pub(crate) current: AtomicI64,
    pub(crate) compacted: AtomicI64,
    pub(crate) policy: PublishedPolicy,
    /// With every change up to the current revision, and perhaps some after it.
    pub(crate) recent: SharedRecent,
    /// With the disk: whoever locks it keeps both from changing.
    pub(crate) region: SharedRegion,
    pub(crate) is_region: AtomicBool,
}

impl<D> Published<D> {
    pub(crate) fn disk(&self) -> Arc<D> {
        Arc::clone(&self.disk.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A lease, and what it keeps alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    pub(crate) ttl: i64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Alarm(AlarmResponse),
    /// Users and roles changed; the answer says no more than that.
    Auth,
    /// What regions have in common; whether there was anything to change.
    Region {
        changed: bool,
    },
}

/// All changes of one revision, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The revision.
    pub revision: i64,
    /// Each with the key's state before.
    pub events: Vec<Event>,
}

/// A lease that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// With its time to live in seconds.
    Granted(i64, i64),
    /// Gone, with the keys that it kept.
    Revoked(i64),
}

/// What became of a batch of requests.
#[derive(Debug, Default)]
pub struct Applied {
    /// One for each request, in order.
    pub responses: Vec<Result<Response, StoreError>>,
    /// What watchers get to know.
    pub changes: Vec<Changes>,
    /// What the lessor gets to know.
    pub leases: Vec<LeaseChange>,
    /// What whoever keeps tokens gets to know.
    pub tokens: Vec<TokenChange>,
    /// Before this revision nothing can be asked for any more: there is something to [remove](crate::Removal).
    pub compacted: Option<i64>,
    /// There are changes to tell other regions of.
    pub region_changed: bool,
    /// They are not to wait.
    pub region_urgent: bool,
}

/// etcd's data model on a disk. One thread applies; readers have [`Reader`](crate::Reader)s.
#[derive(Debug)]
pub struct Store<D> {
    pub(crate) disk: Arc<D>,
    pub(crate) published: Arc<Published<D>>,
    pub(crate) revision: i64,
    compacted: i64,
    applied: u64,
    pub(crate) leases: BTreeMap<i64, Lease>,
    pub(crate) alarms: Alarms,
    policy: Arc<Policy>,
    pub(crate) region: Option<Region>,
    /// When what is being applied was proposed, by whoever did.
    pub(crate) wall_ms: u64,
    /// Of the batch that is being applied.
    pub(crate) overlay: Overlay,
    pub(crate) batch: Batch,
}

impl<D: Disk> Store<D> {
    /// Opens what is there, or begins anew at revision 1. A crash may have come between a compaction and the end of its
    /// [removal](crate::Removal).
    pub fn open(disk: Arc<D>) -> Result<Self, StoreError> {
        let State { applied, revision, compacted } = State::read(&*disk)?;
        let policy = Arc::new(Policy::load(&*disk)?);
        let (region, tree) = Region::load(&*disk)?.unzip();
        let published = Published {
            disk: RwLock::new(Arc::clone(&disk)),
            current: revision.into(),
            compacted: compacted.into(),
            policy: PublishedPolicy::new(&policy),
            recent: SharedRecent::default(),
            is_region: region.is_some().into(),
            region: SharedRegion::of(region.as_ref().zip(tree)),
        };
        Ok(Self {
            leases: read_leases(&*disk)?,
            alarms: Alarms::read(&*disk)?,
            disk,
            published: Arc::new(published),
            revision,
            compacted,
            applied,
            policy,
            region,
            wall_ms: 0,
            overlay: Overlay::new(),
            batch: Batch::default(),
        })
    }

    /// Goes on with what is on another disk, which is of a later time; gives back the one of before. Readers go over to it.
    pub fn replace(&mut self, disk: Arc<D>) -> Result<Arc<D>, StoreError> {
        let State { applied, revision, compacted } = State::read(&*disk)?;
        // It is another member's, which may have said something else of it.
        if applied < self.applied {
            return Err(StoreError::Damaged { what: "copy of another member's state" });
        }
        self.leases = read_leases(&*disk)?;
        self.alarms = Alarms::read(&*disk)?;
        self.policy = Arc::new(Policy::load(&*disk)?);
        let (region, tree) = Region::load(&*disk)?.unzip();
        self.region = region;
        self.published.recent.write().clear();
        (self.applied, self.revision, self.compacted) = (applied, revision, compacted);
        let before = std::mem::replace(&mut self.disk, Arc::clone(&disk));
        self.published.policy.publish(&self.policy);
        // In this order, so that no reader believes to have read what is not there any more.
        self.published.compacted.store(compacted, SeqCst);
        let mut shared = self.published.region.lock();
        self.published.region.set(&mut shared, self.region.as_ref().zip(tree));
        self.published.is_region.store(self.region.is_some(), SeqCst);
        *self.published.disk.write().unwrap_or_else(PoisonError::into_inner) = disk;
        drop(shared);
        self.published.current.store(revision, SeqCst);
        Ok(before)
    }

    /// Index of the last entry that is applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The leases, with their time to live in seconds.
    pub fn leases(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    /// Applies requests, all of them or, if it fails, none. `index` is of the last entry that they came from.
    pub fn apply<'a>(
        &mut self,
        index: u64,
        requests: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<Applied, StoreError> {
        assert!(index > self.applied, "entry {index} after {}", self.applied);
        let mut applied = Applied::default();
        let counter = self.region_counter();
        for payload in requests {
            let response = match InternalRequest::decode(payload.clone()) {
                Ok(InternalRequest { header, request: Some(request) }) => {
                    self.wall_ms = header.as_ref().map_or(0, |header| header.wall_ms);
                    self.apply_as(&header.into(), request, &mut applied)
                }
                Ok(InternalRequest { request: None, .. }) => Err(StoreError::Invalid("nothing is asked for")),
                Err(_) => Err(StoreError::Invalid("it cannot be read")),
            };
            if let Err(error) = &response
                && error.is_fatal()
            {
                return Err(error.clone());
            }
            applied.responses.push(response);
        }
        State { applied: index, revision: self.revision, compacted: self.compacted }.put(&mut self.batch);
        self.write_batch()?;
        self.overlay.clear();
        self.applied = index;
        applied.region_changed = self.region_counter() > counter;
        // Whoever sees the new revision sees under which policy it came to be.
        self.published.policy.publish(&self.policy);
        self.published.compacted.store(self.compacted, SeqCst);
        self.published.current.store(self.revision, SeqCst);
        Ok(applied)
    }

    /// What was allowed when it was asked for may not be any more: what counts is the policy at its place in the log.
    fn apply_as(
        &mut self,
        caller: &Caller,
        request: Request,
        applied: &mut Applied,
    ) -> Result<Response, StoreError> {
        self.policy.check_request(caller, &request)?;
        if self.policy.is_enabled() {
            // Who may not write a key must not decide how long it lives.
            for lease in auth::leases_of(&request).iter().filter_map(|id| self.leases.get(id)) {
                self.policy.check_each_key(caller, Access::Write, &lease.keys)?;
            }
        }
        self.apply_one(request, applied)
    }

    fn apply_one(&mut self, request: Request, applied: &mut Applied) -> Result<Response, StoreError> {
        self.check_alarms(&request)?;
        match request {
            Request::Put(request) => self.transact(applied, |txn| Ok(Response::Put(txn.put(&request)?))),
            Request::DeleteRange(request) => {
                self.transact(applied, |txn| Ok(Response::DeleteRange(txn.delete_range(&request)?)))
            }
            Request::Txn(request) => self.transact(applied, |txn| Ok(Response::Txn(txn.txn(&request)?))),
            Request::Compaction(request) => self.compact(&request, applied),
            Request::LeaseGrant(request) => self.grant(&request, applied),
            Request::LeaseRevoke(request) => self.revoke(&request, applied),
            Request::Alarm(request) => {
                let alarms = self.alarms.apply(&request, &mut self.batch);
                Ok(Response::Alarm(AlarmResponse { header: self.header(), alarms }))
            }
            Request::Authenticate(request) => {
                applied.tokens.push(self.policy.authenticate(&request)?);
                Ok(Response::Auth)
            }
            Request::RegionBegin(request) => self.begin_region(&request),
            Request::RegionChange(request) => self.change_region(request, applied),
            Request::RegionCommand(command) => self.command_region(command, applied),
            change => {
                let tokens = Arc::make_mut(&mut self.policy).apply(&change, &mut self.batch)?;
                applied.tokens.extend(tokens);
                Ok(Response::Auth)
            }
        }
    }

    /// While a member has no room, nothing that needs some is done; if one's data is damaged, nothing at all.
    fn check_alarms(&self, request: &Request) -> Result<(), StoreError> {
        let needs_room = match request {
            Request::Alarm(_) => return Ok(()),
            Request::Put(_) | Request::LeaseGrant(_) => true,
            Request::RegionBegin(_) | Request::RegionChange(_) => true,
            Request::Txn(request) => alarm::needs_room(request),
            _ => false,
        };
        if self.alarms.is_raised(AlarmType::Corrupt) {
            return Err(StoreError::CorruptMember);
        }
        if needs_room && self.alarms.is_raised(AlarmType::Nospace) {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    /// Runs `body` as one revision: all of its changes or none.
    fn transact(
        &mut self,
        applied: &mut Applied,
        body: impl FnOnce(&mut Txn<'_, D>) -> Result<Response, StoreError>,
    ) -> Result<Response, StoreError> {
        let mut txn = Txn::new(self);
        let done = body(&mut txn).and_then(|response| txn.replicate().map(|()| response));
        match done {
            Ok(mut response) => {
                if let Some(changes) = txn.commit() {
                    applied.changes.push(changes);
                }
                let header = self.header();
                match &mut response {
                    Response::Put(response) => response.header = header,
                    Response::DeleteRange(response) => response.header = header,
                    Response::Txn(response) => response.header = header,
                    Response::Compact(_)
                    | Response::LeaseGrant(_)
                    | Response::LeaseRevoke(_)
                    | Response::Alarm(_)
                    | Response::Auth
                    | Response::Region { .. } => {}
                }
                Ok(response)
            }
            Err(error) => {
                txn.roll_back();
                Err(error)
            }
        }
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() })
    }

    fn grant(&mut self, request: &LeaseGrantRequest, applied: &mut Applied) -> Result<Response, StoreError> {
        if request.ttl > LEASE_TTL_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if request.id == 0 || self.leases.contains_key(&request.id) {
            return Err(StoreError::LeaseExists);
        }
        let (id, ttl) = (request.id, request.ttl.max(1));
        self.leases.insert(id, Lease { ttl, keys: BTreeSet::new() });
        self.batch.put(LEASES, keys::lease_key(id), ttl.to_le_bytes());
        applied.leases.push(LeaseChange::Granted(id, ttl));
        let header = self.header();
        Ok(Response::LeaseGrant(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    fn revoke(
        &mut self,
        request: &LeaseRevokeRequest,
        applied: &mut Applied,
    ) -> Result<Response, StoreError> {
        let lease = self.leases.get(&request.id).ok_or(StoreError::LeaseNotFound)?;
        let doomed: Vec<_> = lease.keys.iter().cloned().collect();
        let mut txn = Txn::new(self);
        for key in doomed {
            txn.delete(key)?;
        }
        match txn.replicate() {
            // A lease ends all the same: what a region has that may not write any more is nobody's business.
            Ok(()) | Err(StoreError::Region(_)) => {}
            Err(error) => return Err(error),
        }
        if let Some(changes) = txn.commit() {
            applied.changes.push(changes);
        }
        self.leases.remove(&request.id);
        self.batch.delete(LEASES, keys::lease_key(request.id));
        applied.leases.push(LeaseChange::Revoked(request.id));
        Ok(Response::LeaseRevoke(LeaseRevokeResponse { header: self.header() }))
    }

    fn compact(
        &mut self,
        request: &CompactionRequest,
        applied: &mut Applied,
    ) -> Result<Response, StoreError> {
        if request.revision <= self.compacted {
            return Err(StoreError::Compacted);
        }
        if request.revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        self.compacted = request.revision;
        applied.compacted = Some(request.revision);
        Ok(Response::Compact(CompactionResponse { header: self.header() }))
    }
}

/// Where a store is.
pub(crate) struct State {
    pub(crate) applied: u64,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

impl State {
    pub(crate) fn read(disk: &dyn Disk) -> Result<Self, StoreError> {
        let Some(mut stored) = disk.get(META, STATE)? else {
            return Ok(Self { applied: 0, revision: 1, compacted: 0 });
        };
        let damaged = StoreError::Damaged { what: "state of the store" };
        if stored.len() != 24 {
            return Err(damaged);
        }
        let (applied, revision, compacted) = (stored.get_u64_le(), stored.get_i64_le(), stored.get_i64_le());
        let makes_sense = (1..=REVISION_MAX).contains(&revision) && (0..=revision).contains(&compacted);
        if makes_sense { Ok(Self { applied, revision, compacted }) } else { Err(damaged) }
    }

    pub(crate) fn put(&self, batch: &mut Batch) {
        let mut state = Vec::with_capacity(24);
        state.put_u64_le(self.applied);
        state.put_i64_le(self.revision);
        state.put_i64_le(self.compacted);
        batch.put(META, STATE, state);
    }
}

/// The time to live of a lease, as stored.
pub(crate) fn decode_ttl(stored: &[u8]) -> Result<i64, StoreError> {
    let ttl = stored.try_into().map(i64::from_le_bytes).ok();
    ttl.filter(|ttl| (1..=LEASE_TTL_MAX).contains(ttl)).ok_or(StoreError::Damaged { what: "lease" })
}

pub(crate) fn read_leases(disk: &dyn Disk) -> Result<BTreeMap<i64, Lease>, StoreError> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    let mut failed = None;
    disk.scan(
        LEASES,
        &[],
        None,
        Order::Ascending,
        &mut |key, ttl| match (key.try_into(), decode_ttl(ttl)) {
            (Ok(id), Ok(ttl)) => {
                leases.insert(u64::from_be_bytes(id) as i64, Lease { ttl, keys: BTreeSet::new() });
                ControlFlow::Continue(())
            }
            _ => {
                failed = Some(StoreError::Damaged { what: "lease" });
                ControlFlow::Break(())
            }
        },
    )?;
    disk.scan(LEASE_KEYS, &[], None, Order::Ascending, &mut |attachment, _| {
        let attached = keys::split_attachment_key(attachment).and_then(|(id, key)| {
            let lease = leases.get_mut(&id).ok_or(StoreError::Damaged { what: "attachment to a lease" })?;
            lease.keys.insert(Bytes::copy_from_slice(key));
            Ok(())
        });
        match attached {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(leases), Err)
}
