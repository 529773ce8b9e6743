//! Arbitrary records on the disk of the store, over those of a good one: opening, reading and applying give typed errors, and
//! never a panic or a read without an end.

use std::sync::Arc;

use bytes::Bytes;
use consensus_disk::{Batch, Disk as _, Durability, MemoryDisk, Space};
use consensus_proto::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
        RangeRequest,
    },
    internal::{InternalRequest, internal_request::Request},
};
use consensus_store::{SPACES, Store, StoreError, WatchRange};
use prost::Message as _;

#[path = "input.rs"]
mod input;

use input::Input;

const KEYS: [&[u8]; 4] = [b"a", b"a\0\xff", b"b", b""];
/// The newest revision of the good store.
const NEWEST: i64 = 7;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = good();
    let mut batch = Batch::default();
    while !input.is_empty() {
        let (space, key, value) = record(&mut input);
        batch.put(space, key, value);
    }
    disk.write(batch, Durability::Synced).expect("memory");
    let _ = use_store(disk);
}

fn encode(request: Request) -> Bytes {
    InternalRequest { header: None, request: Some(request) }.encode_to_vec().into()
}

fn put(key: &[u8], lease: i64) -> Bytes {
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::from_static(b"value"));
    encode(Request::Put(PutRequest { key, value, lease, ..Default::default() }))
}

fn delete(key: &[u8]) -> Bytes {
    let key = Bytes::copy_from_slice(key);
    encode(Request::DeleteRange(DeleteRangeRequest { key, ..Default::default() }))
}

/// A store that has something of everything.
fn good() -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::default());
    let mut store = Store::open(Arc::clone(&disk)).expect("an empty disk");
    let grant = encode(Request::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 60 }));
    let log = [grant, put(b"a", 1), put(b"a", 0), put(b"a\0", 1), delete(b"a"), put(b"a", 1), put(b"b", 0)];
    store.apply(1, &log).expect("a good disk");
    assert_eq!(store.reader().revision(), NEWEST);
    disk
}

/// Small numbers, and those at the ends.
fn number(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        small @ ..200 => u64::from(small % 12),
        200..220 => i64::MAX as u64 - u64::from(input.u8() % 3),
        220..240 => u64::MAX - u64::from(input.u8() % 3),
        _ => input.u64(),
    }
}

/// One that looks like those that the store writes, or anything.
fn record(input: &mut Input<'_>) -> (Space, Vec<u8>, Vec<u8>) {
    if input.one_in(8) {
        let space = Space(input.u8() % SPACES);
        return (space, input.bytes(20).to_vec(), input.bytes(30).to_vec());
    }
    let key = input.pick(&KEYS);
    let little = |input: &mut Input<'_>, count| {
        (0..count).flat_map(|_| number(input).to_le_bytes()).collect::<Vec<u8>>()
    };
    let damaged = |input: &mut Input<'_>, mut value: Vec<u8>| {
        if input.one_in(8) {
            value.truncate(input.below(value.len() + 1));
        }
        value
    };
    match input.below(6) {
        0 | 1 => {
            let disk_key = [key, &[0, 1], &(!number(input)).to_be_bytes()].concat();
            let value = [&little(input, 3), input.bytes(4)].concat();
            (Space(0), disk_key, damaged(input, value))
        }
        2 => {
            let change = [&number(input).to_be_bytes()[..], &[0, 0, 0, input.u8() % 3]].concat();
            (Space(1), damaged(input, change), key.to_vec())
        }
        3 => {
            let state = little(input, 3);
            (Space(2), b"state".to_vec(), damaged(input, state))
        }
        4 => {
            let (id, ttl) = (number(input).to_be_bytes().to_vec(), little(input, 1));
            (Space(3), damaged(input, id), damaged(input, ttl))
        }
        _ => {
            let id = number(input).to_be_bytes();
            (Space(4), damaged(input, [&id, key].concat()), Vec::new())
        }
    }
}

fn all() -> (Bytes, Bytes) {
    (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))
}

fn use_store(disk: Arc<MemoryDisk>) -> Result<(), StoreError> {
    let mut store = Store::open(Arc::clone(&disk))?;
    let reader = store.reader();
    let newest = reader.revision();
    for revision in [0, 1, 3, NEWEST, newest] {
        for (key, range_end) in [all(), (Bytes::from_static(b"a"), Bytes::new())] {
            let _ = reader.range(&RangeRequest { key, range_end, revision, ..Default::default() });
        }
        let _ = reader.hash_of_keys(revision);
    }
    let (key, range_end) = all();
    let range = WatchRange { key, range_end };
    let mut next = reader.compacted().max(1);
    while next <= newest.min(NEWEST + 20) {
        let Ok((_, after)) = reader.changes(&range, next, newest) else { break };
        assert!(after > next, "it gets on");
        next = after;
    }
    let _ = (reader.leases(), reader.lease_ttl(1), reader.lease_keys(1), reader.alarms());
    for (id, ttl) in store.leases() {
        assert!(ttl > 0, "lease {id}");
    }
    let _ = reader.hash_of_everything();

    let before = store.applied();
    let compaction = Request::Compaction(CompactionRequest { revision: newest, physical: false });
    let revocation = encode(Request::LeaseRevoke(LeaseRevokeRequest { id: 1 }));
    let log = [put(b"a", 0), put(b"b", 1), delete(b"a"), revocation, put(b"c", 0), encode(compaction)];
    if before < u64::MAX {
        store.apply(before + 1, &log)?;
    }
    if let Ok(mut other) = Store::open(Arc::new(MemoryDisk::default())) {
        other.replace(disk)?;
    }
    Ok(())
}
