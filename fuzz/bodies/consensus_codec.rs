//! Any bytes as what a peer of the consensus store says, and as the records of its log: they are read or refused, and what is
//! accepted is written as it was read. The first byte chooses who reads them.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use consensus_disk::{Batch, Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Config, LOG, Member, MemberInfo, Membership, Message, STATE, SnapshotMetadata, bootstrap,
    codec::MEMBERS_MAX, fuzzing, limits::ENTRY_REQUESTS_MAX, proposal,
};

#[path = "input.rs"]
mod input;

use input::Input;

const GROUP: u64 = 1;
/// The three records of a group that are not entries.
const KINDS: [u8; 3] = *b"bhm";

pub(crate) fn run(data: &[u8]) {
    let Some((&reader, bytes)) = data.split_first() else { return };
    let owned = || Bytes::copy_from_slice(bytes);
    match reader % 7 {
        0 => message(owned()),
        1 => requests(owned()),
        2 => membership(bytes),
        3 => snapshot(bytes),
        4 => conf_change(bytes),
        5 => member_change(owned()),
        _ => log(Input::new(bytes)),
    }
}

fn message(bytes: Bytes) {
    let Ok(message) = Message::decode(bytes.clone()) else { return };
    let mut again = BytesMut::new();
    message.encode(&mut again);
    assert_eq!(again, bytes, "a message has one encoding");
}

fn requests(bytes: Bytes) {
    let Ok(requests) = proposal::decode(bytes.clone()) else { return };
    assert!(requests.len() <= ENTRY_REQUESTS_MAX);
    let sum: usize = requests.iter().map(|request| 20 + request.payload.len()).sum();
    assert_eq!(4 + sum, bytes.len(), "requests are all there is");
}

fn membership(bytes: &[u8]) {
    let _ = Membership::decode(Bytes::copy_from_slice(bytes));
    let Ok(membership) = Membership::decode(seal(bytes)) else { return };
    assert!(membership.members.len() <= MEMBERS_MAX);
    assert_eq!(Membership::decode(membership.encode()), Ok(membership));
}

fn snapshot(bytes: &[u8]) {
    let _ = SnapshotMetadata::decode(Bytes::copy_from_slice(bytes));
    let Ok(metadata) = SnapshotMetadata::decode(seal(bytes)) else { return };
    assert!(metadata.membership.index <= metadata.index);
    assert_eq!(SnapshotMetadata::decode(metadata.encode()), Ok(metadata));
}

fn conf_change(bytes: &[u8]) {
    let Ok(again) = fuzzing::conf_change(bytes) else { return };
    assert_eq!(fuzzing::conf_change(&again), Ok(again.clone()), "what was accepted can be said again");
}

fn member_change(bytes: Bytes) {
    let Ok(again) = fuzzing::member_change(bytes.clone()) else { return };
    assert_eq!(again, bytes, "a change has one encoding");
}

/// The records of a good log, over which others are written. What opens has a member that can be asked.
fn log(mut input: Input<'_>) {
    let disk = Arc::new(MemoryDisk::default());
    let members = (1..=3).map(|id| (id, MemberInfo::default())).collect();
    disk.write(bootstrap(GROUP, &Membership::of_voters(members)), Durability::Synced).expect("memory");
    let mut batch = Batch::default();
    while !input.is_empty() {
        let sealed = !input.one_in(8);
        let entry = input.one_in(2);
        let group = GROUP.to_be_bytes();
        let (space, key) = if entry {
            let index = if input.one_in(8) { input.u64() } else { input.u8().into() };
            (LOG, [group, index.to_be_bytes()].concat())
        } else {
            (STATE, [&group[..], &[input.pick(&KINDS)]].concat())
        };
        let content = input.bytes(120);
        batch.put(space, key, if sealed { seal(content) } else { Bytes::copy_from_slice(content) });
    }
    disk.write(batch, Durability::Synced).expect("memory");
    let config = Config {
        group: GROUP,
        id: 1,
        election_ticks: 10,
        heartbeat_ticks: 2,
        election_timeout: Duration::from_millis(10),
        leases: false,
        applied: 0,
        priority: 0,
        entries_per_message_max: 1000,
        seed: 1,
    };
    let Ok(mut member) = Member::open(disk, config) else { return };
    let status = member.status();
    assert!(status.applied <= status.commit && status.commit <= status.last);
    let _ = member.describe(status.commit);
    (0..30).for_each(|tick| member.tick(Duration::from_millis(tick)));
    while member.work().is_some() {
        member.written();
    }
}

/// A record with its checksum, which no fuzzer guesses.
pub(crate) fn seal(content: &[u8]) -> Bytes {
    [&crc32fast::hash(content).to_le_bytes(), content].concat().into()
}
