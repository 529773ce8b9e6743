//! Entries that come again when the log has forgotten them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use consensus_disk::{Disk as _, Durability, MemoryDisk};
use consensus_raft::{
    Class, Config, Member, MemberInfo, Membership, Message, Role, bootstrap, proposal::Request,
};

const GROUP: u64 = 1;

struct Pair {
    disks: BTreeMap<u64, Arc<MemoryDisk>>,
    members: BTreeMap<u64, Member<MemoryDisk>>,
    /// Everything that was sent, in order.
    sent: Vec<Message>,
}

impl Pair {
    fn new() -> Self {
        let infos = [1, 2].map(|id| (id, MemberInfo::default()));
        let begin = bootstrap(GROUP, &Membership::of_voters(infos.into()));
        let (mut disks, mut members) = (BTreeMap::new(), BTreeMap::new());
        for id in [1, 2] {
            let disk = Arc::new(MemoryDisk::default());
            disk.write(begin.clone(), Durability::Synced).unwrap();
            let config = Config {
                group: GROUP,
                id,
                election_ticks: 10,
                heartbeat_ticks: 2,
                election_timeout: Duration::from_secs(1),
                leases: false,
                applied: 0,
                priority: 0,
                entries_per_message_max: 1000,
                seed: id,
            };
            members.insert(id, Member::open(Arc::clone(&disk), config).unwrap());
            disks.insert(id, disk);
        }
        Self { disks, members, sent: Vec::new() }
    }

    /// Does what a member has to do, and gives what it sends.
    fn work(&mut self, id: u64) -> Vec<Message> {
        let mut sent = Vec::new();
        let member = self.members.get_mut(&id).unwrap();
        while let Some(work) = member.work() {
            sent.extend(work.messages);
            self.disks[&id].write(work.batch, work.durability).unwrap();
            sent.extend(work.messages_after);
            sent.extend(member.written());
            if let Some(last) = work.committed.last() {
                member.applied(last.index);
            }
        }
        self.sent.extend(sent.iter().cloned());
        sent
    }

    /// Delivers everything until nobody has anything to say.
    fn talk(&mut self) {
        let mut on_their_way: VecDeque<_> = [1, 2].into_iter().flat_map(|id| self.work(id)).collect();
        while let Some(message) = on_their_way.pop_front() {
            let to = message.to();
            self.members.get_mut(&to).unwrap().step(message, Duration::ZERO).unwrap();
            on_their_way.extend(self.work(to));
        }
    }
}

#[test]
fn entries_that_the_log_has_forgotten_are_acknowledged_when_they_come_again() {
    let mut pair = Pair::new();
    pair.members.get_mut(&1).unwrap().campaign();
    pair.talk();
    assert_eq!(pair.members[&1].status().role, Role::Leader);
    for id in 0..10 {
        let request = Request { origin: 1, id, payload: Bytes::from_static(b"request") };
        pair.members.get_mut(&1).unwrap().propose(&mut VecDeque::from([request]), &mut Vec::new()).unwrap();
        pair.talk();
    }
    pair.members.get_mut(&1).unwrap().tick(Duration::ZERO);
    pair.members.get_mut(&1).unwrap().tick(Duration::ZERO);
    pair.talk();

    let follower = pair.members.get_mut(&2).unwrap();
    let status = follower.status();
    let batch = follower.compact(status.applied).expect("there is something to forget");
    pair.disks[&2].write(batch, Durability::Ordered).unwrap();
    let appends = pair.sent.iter().filter(|message| message.to() == 2 && message.class() == Class::Append);
    for append in appends.cloned().collect::<Vec<_>>() {
        pair.members.get_mut(&2).unwrap().step(append, Duration::ZERO).unwrap();
        let answers = pair.work(2);
        assert_eq!(answers.len(), 1, "the leader has to know, or it sends the same for ever");
    }
    assert!(pair.members[&2].status().first > status.last);
}
