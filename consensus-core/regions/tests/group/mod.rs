//! Regions whose leaders are called by hand, with a log that commits at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consensus_regions::{
    Alarm, Body, Change, Changed, Command, Config, Hashes, Local, MemoryItems, Message, Node, Output,
    RegionId, Replica, Replicator, Status, Tree, View,
};

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) replica: Replica,
    items: MemoryItems,
    tree: Tree,
}

impl State {
    fn write(&mut self, changed: &Changed) {
        self.items.write(changed);
        self.tree.update(changed);
    }
}

struct Region {
    state: State,
    replicator: Replicator,
    config: Config,
}

impl Region {
    fn call<T>(&mut self, call: impl FnOnce(&mut Replicator, Local<'_, MemoryItems>) -> T) -> T {
        let State { replica, items, tree } = &self.state;
        call(&mut self.replicator, Local { replica, items, tree })
    }
}

pub(crate) struct Group {
    regions: BTreeMap<RegionId, Region>,
    pub(crate) now_ms: u64,
    cut: BTreeSet<(RegionId, RegionId)>,
    pub(crate) alarms: Vec<Alarm>,
    /// And not fetched yet.
    said: BTreeMap<RegionId, Vec<Message>>,
}

pub(crate) fn put(value: &'static str) -> Change {
    Change::Put(Bytes::from_static(value.as_bytes()))
}

/// Who says what to whom.
pub(crate) fn kinds(said: &[Message]) -> Vec<String> {
    let kind = |body: &Body| match body {
        Body::Status(_) => "status",
        Body::Ack(_) => "ack",
        Body::Delta(_) => "delta",
        Body::Hashes(_) => "hashes",
        Body::Leaves(_) => "leaves",
        Body::Want(_) => "want",
        Body::SnapshotRequest(_) => "request",
        Body::Chunk(_) => "chunk",
    };
    said.iter().map(|message| format!("{}>{} {}", message.from, message.to, kind(&message.body))).collect()
}

impl Group {
    pub(crate) fn new(count: u32, config: Config) -> Self {
        let founders: Vec<_> = (1..=count).map(|id| (RegionId(id), Bytes::new())).collect();
        let mut group = Self {
            regions: BTreeMap::new(),
            now_ms: 1_000_000,
            cut: BTreeSet::new(),
            alarms: Vec::new(),
            said: BTreeMap::new(),
        };
        for (id, _) in &founders {
            let (replica, members) = Replica::founder(*id, &founders);
            let mut state = State { replica, items: MemoryItems::default(), tree: Tree::default() };
            state.write(&members);
            group.insert(*id, state, config.clone());
        }
        group
    }

    /// All have heard of each other.
    pub(crate) fn acquainted(count: u32, config: Config) -> Self {
        let mut group = Self::new(count, config);
        group.rounds(3);
        group
    }

    fn insert(&mut self, id: RegionId, state: State, config: Config) {
        let replicator = Replicator::new(config.clone(), id, self.now_ms, 0);
        self.regions.insert(id, Region { state, replicator, config });
    }

    pub(crate) fn join(&mut self, id: RegionId, seeds: &[RegionId]) {
        let state =
            State { replica: Replica::joining(id), items: MemoryItems::default(), tree: Tree::default() };
        self.insert(id, state, Config { seeds: seeds.to_vec(), ..Config::default() });
    }

    /// Another member leads.
    pub(crate) fn lead(&mut self, id: RegionId) {
        let region = self.regions.get_mut(&id).expect("it exists");
        region.replicator = Replicator::new(region.config.clone(), id, self.now_ms, 0);
    }

    pub(crate) fn backup(&self, id: RegionId) -> State {
        self.regions[&id].state.clone()
    }

    pub(crate) fn restore(&mut self, id: RegionId, state: State) {
        let config = self.regions[&id].config.clone();
        self.insert(id, state, config);
    }

    pub(crate) fn region(&self, id: RegionId) -> &State {
        &self.regions[&id].state
    }

    pub(crate) fn cut(&mut self, a: RegionId, b: RegionId) {
        self.cut.extend([(a, b), (b, a)]);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn apply(&mut self, id: RegionId, command: Command) {
        let now_ms = self.now_ms;
        let region = self.regions.get_mut(&id).expect("it exists");
        let Ok(outcome) = region.state.replica.apply(&region.state.items, command.clone());
        let is_applied = outcome.is_ok();
        outcome.into_iter().flatten().for_each(|changed| region.state.write(&changed));
        match command {
            Command::Merge(delta) => region.call(|replicator, local| {
                let Ok(()) = replicator.handle_merged(now_ms, delta.from, is_applied, local);
            }),
            Command::Take(_) => region.call(|replicator, local| replicator.handle_taken(now_ms, local)),
            Command::Collect { .. } => {}
            _ => region.call(|replicator, local| {
                let Ok(()) = replicator.handle_change(now_ms, false, local);
            }),
        }
    }

    pub(crate) fn change(&mut self, id: RegionId, key: &str, change: Change) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.apply(id, Command::Change { wall_ms: self.now_ms, key, change });
    }

    pub(crate) fn urgent(&mut self, id: RegionId, key: &str, change: Change) {
        self.change(id, key, change);
        let now_ms = self.now_ms;
        self.regions.get_mut(&id).expect("it exists").call(|replicator, local| {
            let Ok(()) = replicator.handle_change(now_ms, true, local);
        });
    }

    /// What a leader says, after what it proposes is applied.
    pub(crate) fn outputs(&mut self, id: RegionId) -> Vec<Message> {
        let mut said = self.said.remove(&id).unwrap_or_default();
        while let Some(output) = self.regions.get_mut(&id).expect("it exists").replicator.poll_output() {
            match output {
                Output::Send(message) => said.push(message),
                Output::Propose(command) => self.apply(id, command),
                Output::Alarm(alarm) => self.alarms.push(alarm),
            }
        }
        said
    }

    pub(crate) fn timeout(&mut self, id: RegionId) {
        let now_ms = self.now_ms;
        self.regions.get_mut(&id).expect("it exists").call(|replicator, local| {
            let Ok(()) = replicator.handle_timeout(now_ms, local);
        });
    }

    /// An interval of one region begins; what it says.
    pub(crate) fn interval_of(&mut self, id: RegionId) -> Vec<Message> {
        self.now_ms += 5_000;
        self.timeout(id);
        self.outputs(id)
    }

    pub(crate) fn hand(&mut self, to: RegionId, message: Message) {
        let now_ms = self.now_ms;
        let message = Message::decode(message.encode()).expect("what was sent can be read");
        self.regions.get_mut(&to).expect("it exists").call(|replicator, local| {
            let Ok(()) = replicator.handle_message(now_ms, message, local);
        });
        let said = self.outputs(to);
        self.said.entry(to).or_default().extend(said);
    }

    /// What is proposed stays so.
    pub(crate) fn hand_without_applying(&mut self, to: RegionId, message: Message) {
        let now_ms = self.now_ms;
        let region = self.regions.get_mut(&to).expect("it exists");
        region.call(|replicator, local| {
            let Ok(()) = replicator.handle_message(now_ms, message, local);
        });
        while let Some(output) = region.replicator.poll_output() {
            if let Output::Alarm(alarm) = output {
                self.alarms.push(alarm);
            }
        }
    }

    /// Delivers, and gives the answers.
    pub(crate) fn deliver(&mut self, said: Vec<Message>) -> Vec<Message> {
        let mut answers = Vec::new();
        for message in said {
            let (from, to) = (message.from, message.to);
            if !self.cut.contains(&(from, to)) && self.regions.contains_key(&to) {
                self.hand(to, message);
                answers.extend(self.outputs(to));
            }
        }
        answers
    }

    /// Delivers until nobody has anything to say; everything that was answered.
    pub(crate) fn settle(&mut self, mut said: Vec<Message>) -> Vec<Message> {
        let mut all = Vec::new();
        while !said.is_empty() {
            said = self.deliver(said);
            all.extend(said.clone());
        }
        all
    }

    /// An interval of every region, one after the other; everything that was said.
    pub(crate) fn round(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        self.now_ms += 5_000;
        for id in self.regions.keys().copied().collect::<Vec<_>>() {
            self.timeout(id);
            let said = self.outputs(id);
            all.extend(said.clone());
            all.extend(self.settle(said));
        }
        all
    }

    pub(crate) fn rounds(&mut self, count: usize) -> Vec<Message> {
        (0..count).flat_map(|_| self.round()).collect()
    }

    pub(crate) fn item(&self, id: RegionId, key: &str) -> Option<&consensus_regions::Item> {
        let mut items = self.regions[&id].state.items.iter();
        items.find(|(found, _)| found[..] == *key.as_bytes()).map(|(_, item)| item)
    }

    pub(crate) fn views(&self, id: RegionId, key: &str) -> Option<View> {
        self.item(id, key)?.view()
    }

    /// The register under a key in each region; empty if there is none.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        let value = |id: &RegionId| match self.views(*id, key) {
            Some(View::Register(value)) => String::from_utf8(value.to_vec()).expect("text"),
            _ => String::new(),
        };
        self.regions.keys().map(value).collect()
    }

    pub(crate) fn items_of(&self, id: RegionId) -> usize {
        self.regions[&id].state.items.len()
    }

    /// How many changes of `of` a region knows.
    pub(crate) fn version_of(&self, id: RegionId, of: RegionId) -> u64 {
        self.regions[&id].state.replica.version().get(of)
    }

    pub(crate) fn lag_ms(&self, id: RegionId, of: RegionId) -> u64 {
        self.regions[&id].replicator.lag_ms(of, self.now_ms)
    }

    pub(crate) fn status_of(&self, id: RegionId) -> Status {
        let replica = &self.regions[&id].state.replica;
        Status {
            phase: replica.phase(),
            version: replica.version().clone(),
            horizon: replica.horizon().clone(),
            latest: replica.latest(),
            sent_ms: self.now_ms,
            rows: Vec::new(),
        }
    }

    pub(crate) fn hashes_of(&self, id: RegionId) -> Hashes {
        let State { replica, tree, .. } = &self.regions[&id].state;
        Hashes { version: replica.version().clone(), nodes: vec![(Node::ROOT, tree.children(Node::ROOT))] }
    }

    /// As if the disk had.
    pub(crate) fn lose_item(&mut self, id: RegionId, key: &str) {
        let before = self.item(id, key).cloned();
        let state = &mut self.regions.get_mut(&id).expect("it exists").state;
        state.write(&Changed { key: Bytes::copy_from_slice(key.as_bytes()), before, after: None });
    }
}
