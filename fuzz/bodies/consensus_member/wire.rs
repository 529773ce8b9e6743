//! Messages of hostile peers, byte by byte: any of the types, with numbers near those that matter to the receiver.

use bytes::Bytes;
use consensus_raft::{SnapshotMetadata, Status};

use super::{GROUP, OWN, SEED, input::Input};

/// Numbers of message types on the wire.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    Append = 2,
    AppendAnswer = 3,
    VoteAnswer = 5,
    Snapshot = 6,
    ReadIndex = 10,
    ReadIndexAnswer = 11,
    PreVoteAnswer = 13,
    Propose = 1,
    LeaderLost = 14,
    Committed = 15,
}

/// Those that raft-rs gets to see.
const KINDS: u8 = 13;

/// The fields that every message has, in their order.
#[derive(Default)]
struct Head {
    kind: u8,
    to: u64,
    from: u64,
    term: u64,
    log_term: u64,
    index: u64,
    commit: u64,
    commit_term: u64,
    request_snapshot: u64,
    reject_hint: u64,
    priority: u64,
    reject: u8,
}

impl Head {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend([1, self.kind]);
        for number in [
            GROUP,
            self.to,
            self.from,
            self.term,
            self.log_term,
            self.index,
            self.commit,
            self.commit_term,
            self.request_snapshot,
            self.reject_hint,
            self.priority,
        ] {
            out.extend(number.to_le_bytes());
        }
        out.push(self.reject);
    }
}

/// A number near one of `bases`, in one byte: whatever a fuzzer changes stays near something.
fn near(input: &mut Input<'_>, bases: [u64; 8]) -> u64 {
    let byte = input.u8();
    bases[usize::from(byte % 8)].wrapping_add(u64::from(byte >> 3)).wrapping_sub(8)
}

fn index(input: &mut Input<'_>, status: &Status) -> u64 {
    let Status { first, last, commit, applied, .. } = *status;
    near(input, [8, first, last, commit, applied, last, commit, u64::MAX - 8])
}

fn term(input: &mut Input<'_>, status: &Status) -> u64 {
    near(input, [8, status.term, status.term, status.term, status.term, 8, u64::MAX / 2, u64::MAX - 8])
}

/// Mostly one of the other members, sometimes one that is not known, or nobody, or the receiver.
fn id(input: &mut Input<'_>) -> u64 {
    input.pick(&[2, 3, 2, 3, 4, 2, 3, 5, 0, OWN, 2, 3, u64::MAX])
}

/// Any message.
pub(crate) fn message(input: &mut Input<'_>, status: &Status, reads: u64) -> Bytes {
    // One byte alone, so that what was found with the others stays what it was.
    let kind = match input.u8() {
        u8::MAX => Kind::LeaderLost as u8,
        0xfe => Kind::Committed as u8,
        byte => 1 + byte % KINDS,
    };
    let client = kind == Kind::Propose as u8 || kind == Kind::ReadIndex as u8;
    let head = Head {
        kind,
        to: if input.one_in(64) { id(input) } else { OWN },
        from: id(input),
        // Requests of clients have none.
        term: if client && !input.one_in(16) { 0 } else { term(input, status) },
        log_term: term(input, status),
        index: index(input, status),
        commit: index(input, status),
        commit_term: term(input, status),
        request_snapshot: if input.one_in(8) { index(input, status) } else { 0 },
        reject_hint: index(input, status),
        priority: if input.one_in(8) { input.u64() } else { 0 },
        reject: u8::from(input.one_in(3)),
    };
    let mut out = Vec::new();
    head.put(&mut out);
    put_prefixed(&mut out, &context(input, reads));
    entries(input, status, &head, reads, &mut out);
    let snapshot = kind == Kind::Snapshot as u8 || input.one_in(64);
    out.push(snapshot.into());
    if snapshot {
        out.extend(index(input, status).to_le_bytes());
        out.extend(term(input, status).to_le_bytes());
        conf_state(input, &mut out);
        put_prefixed(&mut out, input.bytes(8));
    }
    out.into()
}

/// What an honest member says that agrees.
pub(crate) fn answer(kind: Kind, from: u64, term: u64, index: u64) -> Bytes {
    let mut out = Vec::new();
    Head { kind: kind as u8, to: OWN, from, term, index, ..Head::default() }.put(&mut out);
    out.extend([0; 9]); // no context, entries, snapshot
    out.into()
}

/// Metadata of a snapshot whose members are any.
pub(crate) fn snapshot(input: &mut Input<'_>, status: &Status) -> Option<SnapshotMetadata> {
    let mut out = Vec::new();
    out.extend(index(input, status).to_le_bytes());
    out.extend(term(input, status).to_le_bytes());
    out.extend(index(input, status).to_le_bytes());
    conf_state(input, &mut out);
    let members = input.below(5) as u32;
    out.extend(members.to_le_bytes());
    for id in 1..=u64::from(members) {
        out.extend(id.to_le_bytes());
        out.extend([0; 12]); // no name and no addresses
    }
    let sealed = [&crc32fast::hash(&out).to_le_bytes()[..], &out].concat();
    SnapshotMetadata::decode(sealed.into()).ok()
}

fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// Three voters, unless the fuzzer wants others.
fn conf_state(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let usual = !input.one_in(3);
    for list in 0..4 {
        let ids: Vec<u64> = match (usual, list) {
            (true, 0) => vec![1, 2, 3],
            (true, _) => Vec::new(),
            (false, _) => (0..input.below(5)).map(|_| input.below(6) as u64).collect(),
        };
        out.extend((ids.len() as u32).to_le_bytes());
        ids.iter().for_each(|id| out.extend(id.to_le_bytes()));
    }
    out.push(u8::from(!usual && input.one_in(2)));
}

/// Nothing, the number of one of the member's reads, or anything.
fn context(input: &mut Input<'_>, reads: u64) -> Vec<u8> {
    match input.below(4) {
        0 | 1 => Vec::new(),
        2 => {
            let number = reads.wrapping_sub(input.below(4) as u64);
            [OWN, SEED, number].map(u64::to_le_bytes).concat()
        }
        _ => input.bytes(24).to_vec(),
    }
}

fn entries(input: &mut Input<'_>, status: &Status, head: &Head, reads: u64, out: &mut Vec<u8>) {
    let one = [Kind::Propose, Kind::ReadIndex, Kind::ReadIndexAnswer].map(|kind| kind as u8);
    let count = match head.kind {
        kind if kind == Kind::Append as u8 => input.below(5),
        kind if one.contains(&kind) && !input.one_in(8) => 1,
        _ if input.one_in(16) => input.below(3),
        _ => 0,
    };
    out.extend((count as u32).to_le_bytes());
    for n in 1..=count as u64 {
        let regular = !input.one_in(16);
        let (number, of) = match regular {
            true => (head.index.wrapping_add(n), if input.one_in(4) { head.term } else { head.log_term }),
            false => (index(input, status), term(input, status)),
        };
        entry(input, number, of, reads, out);
    }
}

fn entry(input: &mut Input<'_>, index: u64, term: u64, reads: u64, out: &mut Vec<u8>) {
    let what = input.below(8);
    out.push(if what < 3 { 2 } else { 0 });
    out.extend(term.to_le_bytes());
    out.extend(index.to_le_bytes());
    let id = input.below(6) as u64;
    let (context, data) = match what {
        // A change of the membership, as both sides of the member know it.
        0 | 1 => {
            let kind = input.below(4);
            let conf_kind = [0, 2, 0, 1][kind];
            (change(kind as u8, id), conf_changes(&[(conf_kind, id)], 0))
        }
        // One that no member proposes.
        2 => {
            let changes: Vec<_> = (0..input.below(4)).map(|_| (input.u8() % 3, input.u8() % 6)).collect();
            let changes: Vec<_> = changes.into_iter().map(|(kind, id)| (kind, u64::from(id))).collect();
            let change = change(input.u8() % 6, id);
            (change, conf_changes(&changes, input.u8() % 3))
        }
        3 => (change(4 + input.u8() % 2, id), Vec::new()),
        4 => (Vec::new(), context(input, reads)),
        5 => (input.bytes(40).to_vec(), input.bytes(40).to_vec()),
        6 => (Vec::new(), [&1_u32.to_le_bytes()[..], &[0; 16], &1_u32.to_le_bytes(), b"x"].concat()),
        _ => (Vec::new(), Vec::new()),
    };
    put_prefixed(out, &context);
    put_prefixed(out, &data);
}

/// A membership change as hosts read it: add, add a learner, promote, remove, move, publish.
fn change(kind: u8, id: u64) -> Vec<u8> {
    let after: &[u8] = match kind {
        0 | 1 => &[0; 12],
        4 => &[0; 4],
        5 => &[0; 8],
        _ => &[],
    };
    [&[0; 16][..], &[kind], &id.to_le_bytes(), after].concat()
}

/// The same as raft-rs reads it.
fn conf_changes(changes: &[(u8, u64)], transition: u8) -> Vec<u8> {
    let mut out = Vec::new();
    if transition != 0 {
        out.extend([0x08, transition]);
    }
    for (kind, id) in changes {
        let inner = [0x08, *kind, 0x10, *id as u8];
        let inner = if *kind == 0 { &inner[2..] } else { &inner[..] };
        out.extend([0x12, inner.len() as u8]);
        out.extend(inner);
    }
    out
}
