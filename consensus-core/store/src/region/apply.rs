//! Entries of the log that are about regions.

use std::ops::ControlFlow;

use bytes::Bytes;
use consensus_disk::Disk;
use consensus_proto::{
    etcdserverpb::AlarmType,
    internal::RegionBeginRequest,
    regions::{ChangeRequest, Field, change_request::Change as Asked},
};
use consensus_regions::{Change, Changed, Command, Refused, RegionId, Replica, Tree, limits};

use super::{PREFIX_BYTES_MAX, PublishedRegion, Region, Replicated, seen, text};
use crate::{
    StoreError,
    store::{Applied, Response, Store},
    txn::Txn,
    view::{KeyRange, View},
};

/// Keys that may be under the prefix when a store becomes one of the first regions: all of them are changes of one entry.
pub const BEGIN_KEYS_MAX: usize = 100_000;

impl<D: Disk> Store<D> {
    /// The store becomes a region. Said again, it changes nothing.
    pub(crate) fn begin_region(&mut self, request: &RegionBeginRequest) -> Result<Response, StoreError> {
        let region = RegionId(request.region);
        let founders: Vec<_> = request
            .founders
            .iter()
            .map(|founder| (RegionId(founder.region), Bytes::copy_from_slice(founder.info.as_bytes())))
            .collect();
        if let Some(known) = &self.region {
            let is_same = known.replica.region() == region && known.prefix == request.prefix;
            return if is_same {
                Ok(Response::Region { changed: false })
            } else {
                Err(StoreError::RegionBegun)
            };
        }
        let makes_sense = region.0 > 0
            && (1..=PREFIX_BYTES_MAX).contains(&request.prefix.len())
            && founders.len() <= limits::REGIONS_MAX
            && founders.iter().all(|(id, info)| id.0 > 0 && info.len() <= limits::INFO_BYTES_MAX)
            && (founders.is_empty() || founders.iter().any(|(id, _)| *id == region));
        if !makes_sense {
            return Err(StoreError::Invalid("a region that makes no sense"));
        }
        let there = self.keys_under(&request.prefix)?;
        for (key, value) in &there {
            if key.len() - request.prefix.len() > limits::KEY_BYTES_MAX {
                return Err(Refused::KeyTooLong { max: limits::KEY_BYTES_MAX }.into());
            }
            if value.len() > limits::VALUE_BYTES_MAX {
                return Err(Refused::ValueTooLong { max: limits::VALUE_BYTES_MAX }.into());
            }
        }
        let (replica, first) = match &founders[..] {
            [] if !there.is_empty() => return Err(StoreError::RegionKeysInTheWay),
            [] => (Replica::joining(region), None),
            _ => {
                let (replica, members) = Replica::founder(region, &founders);
                (replica, Some(members))
            }
        };
        let mut begun = Region::new(request.prefix.clone(), replica.clone());
        begun.write(Replicated { replica, changed: first.into_iter().collect() }, &mut self.batch);
        // What is there already is as good as new: others hear of it.
        let mut replica = begun.replica.clone();
        let mut changed = Vec::new();
        for (key, value) in there {
            let below = begun.below(&key).expect("it is under the prefix");
            let made =
                replica.change(&begun.items(&*self.disk), self.wall_ms, below, Change::Put(value))??;
            changed.extend(made);
        }
        begun.write(Replicated { replica, changed }, &mut self.batch);
        self.region = Some(begun);
        Ok(Response::Region { changed: true })
    }

    fn keys_under(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let end = end_of_prefix(prefix);
        let view = View {
            disk: &*self.disk,
            overlay: Some(&self.overlay),
            recent: Some(&self.published.recent),
            revision: self.revision,
        };
        let mut found = Vec::new();
        view.scan(KeyRange::Span(prefix, end.as_deref()), &mut |entry| {
            found.push((entry.key(), entry.version().value));
            if found.len() > BEGIN_KEYS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if found.len() > BEGIN_KEYS_MAX { Err(StoreError::RegionKeysInTheWay) } else { Ok(found) }
    }

    /// What a client asks of a counter, a set, a map or a register.
    pub(crate) fn change_region(
        &mut self,
        request: ChangeRequest,
        applied: &mut Applied,
    ) -> Result<Response, StoreError> {
        let region = self.region.as_ref().ok_or(StoreError::NoRegion)?;
        let below = region.below(&request.key).ok_or(StoreError::NotUnderPrefix)?;
        let key = Bytes::copy_from_slice(below);
        let change = change(request.change.ok_or(StoreError::Invalid("nothing is asked for"))?);
        let command = Command::Change { wall_ms: self.wall_ms, key, change };
        let response = self.apply_command(command, applied)?;
        applied.region_urgent |= request.urgent;
        Ok(response)
    }

    /// What a leader proposes for other regions, and changes of the members.
    pub(crate) fn command_region(
        &mut self,
        command: Bytes,
        applied: &mut Applied,
    ) -> Result<Response, StoreError> {
        let command = Command::decode(command).map_err(|_| StoreError::Invalid("it cannot be read"))?;
        let needs_room = !matches!(command, Command::Collect { .. } | Command::RemoveRegion { .. });
        if needs_room && self.alarms.is_raised(AlarmType::Nospace) {
            return Err(StoreError::NoSpace);
        }
        // Who is there is to be known soon.
        let urgent = matches!(command, Command::AddRegion { .. } | Command::RemoveRegion { .. });
        let response = self.apply_command(command, applied)?;
        applied.region_urgent |= urgent;
        Ok(response)
    }

    fn apply_command(&mut self, command: Command, applied: &mut Applied) -> Result<Response, StoreError> {
        let region = self.region.as_ref().ok_or(StoreError::NoRegion)?;
        let before = &region.replica;
        let mut replica = before.clone();
        let changed = replica.apply(&region.items(&*self.disk), command)??;
        let is_changed = !changed.is_empty() || replica != *before;
        let versions: Vec<_> = changed.iter().filter_map(|one| version_of(region, one)).collect();
        let mut txn = Txn::new(self);
        for (key, value) in versions {
            txn.set(key, value)?;
        }
        txn.replicated = Some(Replicated { replica, changed });
        applied.changes.extend(txn.commit());
        Ok(Response::Region { changed: is_changed })
    }

    /// Writes what was applied: what the region's leader sees changes with it.
    pub(crate) fn write_batch(&mut self) -> Result<(), StoreError> {
        let finished = self.region.as_mut().and_then(|region| region.finish(&mut self.batch));
        let batch = std::mem::take(&mut self.batch);
        // No sync: after a crash the log brings it again.
        let durability = consensus_disk::Durability::Ordered;
        let (Some(changed), Some(region)) = (finished, &self.region) else {
            return Ok(self.disk.write(batch, durability)?);
        };
        let mut shared = self.published.region.lock();
        self.disk.write(batch, durability)?;
        let published = shared.get_or_insert_with(|| PublishedRegion {
            prefix: region.prefix.clone(),
            replica: region.replica.clone(),
            tree: Tree::default(),
        });
        published.replica = region.replica.clone();
        changed.iter().for_each(|changed| published.tree.update(changed));
        self.published.is_region.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// How many changes the region has made.
    pub(crate) fn region_counter(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.replica.version().get(region.replica.region()))
    }
}

/// The version that clients see, if it is another one; no value: the key is gone.
fn version_of(region: &Region, changed: &Changed) -> Option<(Bytes, Option<Bytes>)> {
    let (before, after) = (seen(changed.before.as_ref()), seen(changed.after.as_ref()));
    (before != after).then(|| (region.above(&changed.key), after.map(text)))
}

fn change(asked: Asked) -> Change {
    match asked {
        Asked::Put(value) => Change::Put(value),
        Asked::Delete(_) => Change::Delete,
        Asked::CounterAdd(amount) => Change::CounterAdd(amount),
        Asked::SetAdd(element) => Change::OrSetAdd { element },
        Asked::SetRemove(element) => Change::OrSetRemove { element },
        Asked::MapPut(Field { field, value }) => Change::OrMapPut { field, value },
        Asked::MapRemove(field) => Change::OrMapRemove { field },
        Asked::RegisterMapPut(Field { field, value }) => Change::RegisterMapPut { field, value },
        Asked::RegisterMapRemove(field) => Change::RegisterMapDelete { field },
    }
}

/// The first key behind all that begin with a prefix; `None`: there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

impl<D: Disk> Txn<'_, D> {
    /// Makes changes of keys under the prefix changes of their items; refused where the region may not write.
    pub(crate) fn replicate(&mut self) -> Result<(), StoreError> {
        let Some(region) = &self.store.region else { return Ok(()) };
        let items = region.items(&*self.store.disk);
        let mut replicated: Option<Replicated> = None;
        for (key, after) in self.changed_keys() {
            let Some(key) = region.below(key) else { continue };
            let change = if after.is_deletion() { Change::Delete } else { Change::Put(after.value.clone()) };
            let Replicated { replica, changed } = replicated
                .get_or_insert_with(|| Replicated { replica: region.replica.clone(), changed: Vec::new() });
            // No key is changed twice in a transaction, so none of its changes has to see another.
            changed.extend(replica.change(&items, self.store.wall_ms, key, change)??);
        }
        self.replicated = replicated;
        Ok(())
    }
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        Self::Region(refused)
    }
}
