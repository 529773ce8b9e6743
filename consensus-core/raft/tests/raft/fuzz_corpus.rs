//! Replays the fuzz corpora that are kept in git through the same bodies that the fuzz targets run, and random bytes as well.
//!
//! `DWCP_WRITE_CORPUS=1 cargo test --release -p consensus-raft --test fuzz_corpus` writes the `seed-*` files again: real
//! encodings and the same with a byte changed, and conversations with a member.

#![allow(clippy::duplicate_mod)] // each body is a crate of its own in `fuzz`, and brings its reader of input along

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Config, Member, MemberInfo, Membership, Message, SnapshotMetadata, bootstrap, proposal::Request,
};
use proptest::prelude::*;

/// On the wire.
const LEADER_LOST: u8 = 14;
const COMMITTED: u8 = 15;

#[path = "../../../../fuzz/bodies/consensus_codec.rs"]
mod codec;
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;
#[path = "../../../../fuzz/bodies/consensus_member.rs"]
mod member;

#[test]
fn consensus_codec_corpus() {
    corpus::replay("consensus_codec", codec_seeds, codec::run);
}

#[test]
fn consensus_member_corpus() {
    corpus::replay("consensus_member", member_seeds, member::run);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_member_bears_whatever_peers_say(data in prop::collection::vec(any::<u8>(), 0..2000)) {
        member::run(&data);
    }

    #[test]
    fn any_records_open_or_are_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
        codec::run(&[&[6], &data[..]].concat());
    }
}

/// A corpus of rubbish would find nothing.
#[test]
fn the_seeds_are_real() {
    for seed in codec_valid() {
        let bytes = bytes::Bytes::copy_from_slice(&seed[1..]);
        let sealed = codec::seal(&bytes);
        let read = match seed[0] {
            0 => Message::decode(bytes).map(drop),
            1 => consensus_raft::proposal::decode(bytes).map(drop),
            2 => Membership::decode(sealed).map(drop),
            3 => SnapshotMetadata::decode(sealed).map(drop),
            4 => consensus_raft::fuzzing::conf_change(&bytes).map(drop),
            _ => consensus_raft::fuzzing::member_change(bytes).map(drop),
        };
        assert_eq!(read, Ok(()), "{seed:?}");
    }
}

/// Each for its reader, which is the first byte.
fn codec_valid() -> Vec<Vec<u8>> {
    let of = |reader: u8, bytes: &[u8]| [&[reader], bytes].concat();
    let mut seeds: Vec<_> = conversation().iter().map(|message| of(0, message)).collect();
    let request = [&[1_u8; 16][..], &3_u32.to_le_bytes(), b"put"].concat();
    seeds.push(of(1, &[&2_u32.to_le_bytes()[..], &request, &request].concat()));
    let info = |n: u64| MemberInfo {
        name: format!("member-{n}"),
        peer_urls: vec![format!("dwcp://10.0.0.{n}:9090")],
        client_urls: Vec::new(),
    };
    let membership = Membership::of_voters((1..=3).map(|id| (id, info(id))).collect());
    seeds.push(of(2, &membership.encode()[4..]));
    seeds.push(of(3, &SnapshotMetadata { index: 9, term: 2, membership }.encode()[4..]));
    for change in [&[0x12, 2, 0x10, 4][..], &[0x08, 2, 0x12, 4, 0x08, 1, 0x10, 2, 0x12, 4, 0x08, 2, 0x10, 3]]
    {
        seeds.push(of(4, change));
    }
    for (kind, after) in [(0_u8, &[0; 12][..]), (1, &[0; 12]), (2, &[]), (3, &[]), (4, &[0; 4]), (5, &[0; 8])]
    {
        seeds.push(of(5, &[&[7; 16][..], &[kind], &4_u64.to_le_bytes(), after].concat()));
    }
    seeds
}

fn codec_seeds() -> Vec<Vec<u8>> {
    let mut seeds = codec_valid();
    for (number, seed) in codec_valid().into_iter().enumerate() {
        let at = 1 + (number * 37) % (seed.len() - 1);
        let mut changed = seed;
        changed[at] ^= 1 << (number % 8);
        seeds.push(changed);
    }
    // Entries 2 and 3 of a log, a gap, and terms that fall.
    let entry = |index: u8, term: u8| {
        let numbers = [u64::from(term).to_le_bytes(), u64::from(index).to_le_bytes()].concat();
        let content = [&[0][..], &numbers, &[0; 8]].concat();
        [&[0, 1, 0, index, content.len() as u8][..], &content].concat()
    };
    for log in
        [vec![entry(2, 1), entry(3, 2)], vec![entry(2, 1), entry(4, 1)], vec![entry(2, 9), entry(3, 1)]]
    {
        seeds.push([&[6], &log.concat()[..]].concat());
    }
    seeds
}

/// What two of three members say until one leads, has something committed, and leads no more.
fn conversation() -> Vec<Vec<u8>> {
    let members: BTreeMap<_, _> = (1..=3).map(|id| (id, MemberInfo::default())).collect();
    let mut pair = [1, 2].map(|id| {
        let disk = Arc::new(MemoryDisk::default());
        let batch = bootstrap(1, &Membership::of_voters(members.clone()));
        disk.write(batch, Durability::Synced).expect("memory");
        let (election_ticks, heartbeat_ticks) = (10, 2);
        let config = Config {
            group: 1,
            id,
            election_ticks,
            heartbeat_ticks,
            election_timeout: Duration::from_secs(1),
            leases: false,
            applied: 0,
            priority: 0,
            entries_per_message_max: 1000,
            seed: id,
        };
        (Member::open(Arc::clone(&disk), config).expect("a new disk"), disk)
    });
    pair[0].0.campaign();
    let mut said: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for round in 0..60 {
        match round {
            20 => {
                let request = Request { origin: 1, id: 1, payload: "put".into() };
                pair[0].0.propose(&mut VecDeque::from([request]), &mut Vec::new()).expect("it leads");
            }
            25 => pair[1].0.read_index(1, Duration::ZERO),
            30 => pair[0].0.tick(Duration::ZERO),
            31 => pair[0].0.tick(Duration::ZERO),
            40 => pair[0].0.transfer_leader(2),
            50 => pair[0].0.links_lost(2),
            _ => {}
        }
        let mut messages = Vec::new();
        for (member, disk) in &mut pair {
            member.tell_commit(true);
            while let Some(work) = member.work() {
                disk.write(work.batch, work.durability).expect("memory");
                messages.extend(work.messages.into_iter().chain(work.messages_after));
                messages.extend(member.written());
            }
        }
        for message in messages {
            let mut bytes = BytesMut::new();
            message.encode(&mut bytes);
            said.insert(bytes[1], bytes.to_vec());
            if let Some((member, _)) = pair.get_mut(message.to() as usize - 1) {
                let _ = member.step(message, Duration::ZERO);
            }
        }
    }
    assert!(said.len() >= 13, "types of messages: {:?}", said.keys());
    assert!(
        said.contains_key(&LEADER_LOST) && said.contains_key(&COMMITTED),
        "types of messages: {:?}",
        said.keys()
    );
    said.into_values().collect()
}

/// Operations of the body by their numbers: 9 works, 13 wins an election, 14 is acknowledged, 15 proposes, 16 changes the
/// membership, 17 reads, 19 hands leadership over, 20 loses the links with a member, 21 compacts, 22 restores, 23 crashes;
/// below 8 a peer says something: its type less one, to whom, from whom and the term, which is the one in force or the next.
fn member_seeds() -> Vec<Vec<u8>> {
    let (elect, work, acknowledge): (&[u8], &[u8], &[u8]) = (&[13], &[9, 0], &[14, 0]);
    let propose: &[u8] = &[15, 2, b'h', b'i'];
    let committed = [propose, work, acknowledge, work].concat();
    let add = [&[16, 4, 0, 0][..], work, acknowledge, work].concat();
    let remove = |id| [&[16, id, 2][..], work, acknowledge, work].concat();
    let crash: &[u8] = &[23, 0, 0];
    // Member 2 leads, its links are reset, and member 3 says that it has lost them too.
    let heartbeat: &[u8] = &[0, 6, 0, 0, 0x49, 0, 0, 0x43, 0, 0, 0, 0, 0, 0, 0, 0];
    let lost = [&[20, 1][..], &[0, 0xff, 0, 1, 0x41, 0x41, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    // The same says that an entry is committed.
    let entries: &[u8] = &[0, 1, 0, 0, 0x49, 0, 0, 0x43, 0, 0, 0, 0, 0, 0, 0, 0];
    let commit = [&[0, 0xfe, 0, 1, 0x41, 0x41, 0x42][..], &[0; 9]].concat();
    vec![
        [elect, &committed, &committed].concat(),
        [elect, &committed, crash, elect, &committed].concat(),
        [elect, &add, &committed, crash].concat(),
        [elect, &remove(3), &committed, &remove(2), &committed].concat(),
        [elect, &remove(1), work, elect].concat(),
        [elect, &[17], work, &[7, 7], work].concat(),
        [elect, &committed, &[19, 1], work, acknowledge, work].concat(),
        [elect, &committed, &committed, &[21, 0], &committed, crash].concat(),
        [elect, &[8, 39], work, elect, work].concat(),
        [&[8, 39], work, heartbeat, work, &lost, &[8, 3], work, &lost, &[8, 39], work].concat(),
        [&[8, 39], work, heartbeat, work, &lost[2..], &lost, work, &[8, 3], work, elect, &committed].concat(),
        [&[8, 39], work, heartbeat, work, entries, work, &commit, work, &commit, entries, work].concat(),
        [&[22, 0, 0x49, 0x49, 0x49, 0, 3, 0, 0, 0, 0][..], work].concat(),
    ]
}
