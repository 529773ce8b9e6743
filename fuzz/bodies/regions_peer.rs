//! A region's leader among hostile ones: whatever they say, nothing panics, all that it proposes is applied or refused, what is
//! stored can be read back, and its own changes are never taken from it.

use bytes::Bytes;
use consensus_regions::{
    Body, Change, Changed, Command, Config, Item, Local, MEMBERS_KEY, MemoryItems, Message, Output, Phase,
    RegionId, Replica, Replicator, Tree,
};

#[path = "input.rs"]
mod input;

use input::Input;

const START_MS: u64 = 1_000_000;
const STEPS_MAX: usize = 200;
const OUTPUTS_MAX: usize = 10_000;

struct Region {
    replica: Replica,
    items: MemoryItems,
    tree: Tree,
    replicator: Replicator,
    now_ms: u64,
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut region = if input.one_in(4) { joining() } else { founder() };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        region.step(&mut input);
    }
    region.check();
}

fn founder() -> Region {
    let founders: Vec<_> = (1..=3).map(|id| (RegionId(id), Bytes::new())).collect();
    let (replica, members) = Replica::founder(RegionId(1), &founders);
    let mut region = Region::new(replica);
    region.write(&members);
    region
}

fn joining() -> Region {
    Region::new(Replica::joining(RegionId(1)))
}

impl Region {
    fn new(replica: Replica) -> Self {
        let config = Config { seeds: vec![RegionId(2), RegionId(3)], ..Config::default() };
        let replicator = Replicator::new(config, RegionId(1), START_MS, 0);
        Self { replica, items: MemoryItems::default(), tree: Tree::default(), replicator, now_ms: START_MS }
    }

    fn write(&mut self, changed: &Changed) {
        self.items.write(changed);
        self.tree.update(changed);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(5) {
            0 => self.now_ms = self.replicator.poll_timeout().max(self.now_ms),
            1 => {
                let change = match input.below(3) {
                    0 => Change::Put(Bytes::copy_from_slice(input.bytes(4))),
                    1 => Change::CounterAdd(i64::from(input.u8())),
                    _ => Change::Delete,
                };
                let key = Bytes::copy_from_slice(input.bytes(2));
                self.apply(Command::Change { wall_ms: self.now_ms, key, change });
            }
            // What a peer says, from its type on.
            _ => {
                let from = [2, 3, 2, 9][input.below(4)];
                let kind = 1 + input.u8() % 8;
                let body = input.bytes(200);
                let message = [&[1, kind, from, 1][..], body].concat();
                if let Ok(message) = Message::decode(message.into()) {
                    self.hear(message);
                }
            }
        }
        let local = Local { replica: &self.replica, items: &self.items, tree: &self.tree };
        let Ok(()) = self.replicator.handle_timeout(self.now_ms, local);
        self.outputs();
    }

    fn hear(&mut self, message: Message) {
        let local = Local { replica: &self.replica, items: &self.items, tree: &self.tree };
        let Ok(()) = self.replicator.handle_message(self.now_ms, message, local);
        self.outputs();
    }

    fn outputs(&mut self) {
        let mut count = 0;
        while let Some(output) = self.replicator.poll_output() {
            count += 1;
            assert!(count < OUTPUTS_MAX, "there is no end to it");
            match output {
                Output::Send(message) => {
                    let bytes = message.encode();
                    assert_eq!(Message::decode(bytes), Ok(message), "what is sent can be read");
                }
                Output::Propose(command) => self.apply(command),
                Output::Alarm(_) => {}
            }
        }
    }

    fn apply(&mut self, command: Command) {
        let entry = command.encode();
        let command = Command::decode(entry).expect("what was proposed can be read");
        let own = self.replica.version().get(RegionId(1));
        let Ok(outcome) = self.replica.apply(&self.items, command.clone());
        let is_applied = outcome.is_ok();
        outcome.into_iter().flatten().for_each(|changed| self.write(&changed));
        assert!(self.replica.version().get(RegionId(1)) >= own, "changes are not forgotten");
        let local = Local { replica: &self.replica, items: &self.items, tree: &self.tree };
        match command {
            Command::Merge(delta) => {
                let Ok(()) = self.replicator.handle_merged(self.now_ms, delta.from, is_applied, local);
            }
            Command::Take(_) => self.replicator.handle_taken(self.now_ms, local),
            _ => {
                let Ok(()) = self.replicator.handle_change(self.now_ms, true, local);
            }
        }
    }

    fn check(&self) {
        let mut tree = Tree::default();
        for (key, item) in self.items.iter() {
            assert_eq!(Item::from_record(item.to_record()).as_ref(), Ok(item));
            tree.update(&Changed { key: key.clone(), before: None, after: Some(item.clone()) });
        }
        assert_eq!(tree, self.tree);
        let members = self.items.iter().find(|(key, _)| *key == MEMBERS_KEY).map(|(_, item)| item);
        assert_eq!(Replica::from_record(self.replica.to_record(), members).as_ref(), Ok(&self.replica));
        let _ = (self.replica.phase() == Phase::Active, self.replicator.lag_ms(RegionId(2), self.now_ms));
    }
}

/// A conversation as this body reads it.
pub(crate) fn said(message: &Message) -> Option<Vec<u8>> {
    let bytes = message.encode();
    let is_from_peer = message.to == RegionId(1) && [2, 3].contains(&message.from.0) && bytes.len() < 204;
    let kind = match &message.body {
        Body::Chunk(_) => 8,
        _ => bytes[1],
    };
    let from = (message.from.0 == 3).into();
    is_from_peer.then(|| [&[2, from, kind - 1, (bytes.len() - 4) as u8][..], &bytes[4..]].concat())
}
