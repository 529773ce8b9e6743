//! The simulated network: loses, doubles, delays and reorders, and is cut one way or both.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use consensus_core::sim::Outbox;
use consensus_raft::{Membership, Message};

use crate::{Mistake, plan::Plan, random::Random};

/// Steps that a message takes that nothing delays, at most.
const QUICK: u64 = 2;
/// Steps of a delay, at most.
const DELAY: u64 = 40;
/// Of a slow link.
const SLOW: u64 = 15;

/// Steps after which a machine that is up again is noticed, at least: later than that it was down.
const NOTICED: u64 = QUICK + 1;

/// Types of messages, by their number.
const APPEND: u8 = 2;
const APPEND_ANSWER: u8 = 3;

pub(crate) struct Network {
    random: Random,
    mistake: Option<Mistake>,
    pub(crate) now: u64,
    loss: u64,
    duplicates: u64,
    delays: u64,
    /// By arrival, and a number that makes arrivals differ.
    on_their_way: BTreeMap<(u64, u64), Bytes>,
    sent: u64,
    /// By arrival, as messages: a member, another, and whether there is a link between them now.
    link_news: BTreeMap<(u64, u64), (u64, u64, bool)>,
    /// Who has heard from whom: connections on which members answer whom they do not know.
    heard: BTreeSet<(u64, u64)>,
    /// From and to.
    cut: BTreeSet<(u64, u64)>,
    slow: BTreeSet<(u64, u64)>,
}

impl Network {
    pub(crate) fn new(seed: u64, plan: &Plan, mistake: Option<Mistake>) -> Self {
        Self {
            random: Random::new(seed, 1),
            mistake,
            now: 0,
            loss: plan.loss,
            duplicates: plan.duplicates,
            delays: plan.delays,
            on_their_way: BTreeMap::new(),
            sent: 0,
            link_news: BTreeMap::new(),
            heard: BTreeSet::new(),
            cut: BTreeSet::new(),
            slow: BTreeSet::new(),
        }
    }

    /// Whether two members reach each other.
    pub(crate) fn connected(&self, a: u64, b: u64) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// Another shape of the network, or none.
    pub(crate) fn reshape(&mut self, ids: &[u64]) -> &'static str {
        self.mend();
        let pairs: Vec<(u64, u64)> =
            ids.iter().flat_map(|a| ids.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect();
        let (Some(one), Some(pair)) = (self.random.pick(ids), self.random.pick(&pairs)) else {
            return "alone";
        };
        match self.random.below(7) {
            0 => {
                self.cut.extend(pairs.iter().filter(|(a, b)| *a == one || *b == one));
                "one is cut off"
            }
            1 => {
                self.cut.insert(pair);
                "a link is cut one way"
            }
            2 => {
                self.cut.extend(pairs.iter().filter(|(_, b)| *b == one));
                "one hears nobody"
            }
            3 => {
                let sides: BTreeSet<u64> = ids.iter().copied().filter(|_| self.random.one_in(2)).collect();
                self.cut.extend(pairs.iter().filter(|(a, b)| sides.contains(a) != sides.contains(b)));
                "two sides"
            }
            4 => {
                self.part(pair.0, pair.1);
                "two do not hear each other"
            }
            5 => {
                let place = |id: u64| ids.iter().position(|other| *other == id).unwrap_or(0);
                let near = |a: u64, b: u64| [1, ids.len() - 1].contains(&place(a).abs_diff(place(b)));
                self.cut.extend(pairs.iter().filter(|(a, b)| !near(*a, *b)));
                "a ring"
            }
            _ => {
                self.slow.extend(pairs.iter().filter(|(a, _)| *a == one));
                "slow links"
            }
        }
    }

    /// Nothing gets from one member to the other.
    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// Two do not reach each other any more.
    pub(crate) fn part(&mut self, a: u64, b: u64) {
        self.cut.extend([(a, b), (b, a)]);
    }

    /// Nothing is cut or slow any more.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        self.slow.clear();
    }

    /// Nothing is lost, doubled or delayed any more.
    pub(crate) fn calm(&mut self) {
        self.mend();
        (self.loss, self.duplicates, self.delays) = (0, 0, 0);
    }

    /// The next message that has arrived.
    pub(crate) fn arrived(&mut self) -> Option<Message> {
        let first = self.on_their_way.first_entry().filter(|first| first.key().0 <= self.now)?;
        let message = Message::decode(first.remove()).expect("what was encoded can be decoded");
        self.heard.insert((message.to(), message.from()));
        Some(message)
    }

    /// A member is down, and with it its connections: the others see that their links are reset.
    pub(crate) fn close(&mut self, id: u64, others: &[u64]) {
        self.heard.retain(|(a, b)| *a != id && *b != id);
        others.iter().for_each(|other| self.reset(*other, id));
    }

    /// The links that one member has with another are reset, as it sees them, if the way there is open.
    pub(crate) fn reset(&mut self, at: u64, with: u64) {
        if self.connected(at, with) {
            let delay = 1 + self.random.below(QUICK);
            self.announce(at, with, false, delay);
        }
    }

    /// A member has links with another again.
    pub(crate) fn relink(&mut self, at: u64, with: u64) {
        let delay = NOTICED + self.random.below(DELAY);
        self.announce(at, with, true, delay);
    }

    fn announce(&mut self, at: u64, with: u64, linked: bool, delay: u64) {
        self.sent += 1;
        self.link_news.insert((self.now + delay, self.sent), (at, with, linked));
    }

    /// The next change of links that a member sees: whose, with whom, and whether there are any now.
    pub(crate) fn link_changed(&mut self) -> Option<(u64, u64, bool)> {
        let first = self.link_news.first_entry().filter(|first| first.key().0 <= self.now)?;
        Some(first.remove())
    }

    /// Whether it went out, as far as the sender knows.
    fn send(&mut self, message: &Message) -> bool {
        let link = (message.from(), message.to());
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        let bytes = bytes.freeze();
        let cut = self.cut.contains(&link);
        if cut || self.random.per_mille(self.loss) {
            if self.mistake == Some(Mistake::AcknowledgedByNobody)
                && let Some(answer) = acknowledge(&bytes)
            {
                self.deliver(answer, 1);
            }
            // Of a connection that is cut, the sender gets to know sooner or later.
            return !(cut && self.random.one_in(2));
        }
        let doubled = self.random.per_mille(self.duplicates) && !message.is_proposal();
        for _ in 0..if doubled { 2 } else { 1 } {
            let slow = if self.slow.contains(&link) { self.random.below(SLOW) } else { 0 };
            let delayed = self.random.per_mille(self.delays);
            let delay = self.random.below(if delayed { DELAY } else { QUICK });
            self.deliver(bytes.clone(), 1 + delay + slow);
        }
        true
    }

    fn deliver(&mut self, bytes: Bytes, delay: u64) {
        self.sent += 1;
        self.on_their_way.insert((self.now + delay, self.sent), bytes);
    }
}

/// The answer that whoever an append is for would give to it. Both are laid out alike: version, type, then eight bytes each:
/// group, to, from, term, log term, index, and more; a flag, the context with its length, the number of entries, the entries.
fn acknowledge(append: &[u8]) -> Option<Bytes> {
    let number = |at: usize| append[at..at + 8].try_into().ok().map(u64::from_le_bytes);
    let (group, to, from, term, index) = (number(2)?, number(10)?, number(18)?, number(26)?, number(42)?);
    let context = u32::from_le_bytes(append[91..95].try_into().ok()?) as usize;
    let entries = u32::from_le_bytes(append[95 + context..99 + context].try_into().ok()?);
    if append[1] != APPEND || entries == 0 {
        return None;
    }
    let mut answer = vec![append[0], APPEND_ANSWER];
    for value in [group, from, to, term, 0, index + u64::from(entries), 0, 0, 0, 0, 0] {
        answer.extend_from_slice(&value.to_le_bytes());
    }
    // Not rejected, no context, no entries, no snapshot.
    answer.extend_from_slice(&[0; 10]);
    Some(answer.into())
}

/// A member's way into the network.
pub(crate) struct SimOutbox {
    pub(crate) id: u64,
    pub(crate) network: Rc<RefCell<Network>>,
    pub(crate) members: BTreeSet<u64>,
}

impl Outbox for SimOutbox {
    fn send(&mut self, messages: Vec<Message>) -> Vec<u64> {
        let mut network = self.network.borrow_mut();
        let mut lost = BTreeSet::new();
        for message in messages {
            let to = message.to();
            let known = self.members.contains(&to);
            let answers = network.heard.contains(&(self.id, to));
            let gone_out = (known || answers) && network.send(&message);
            if known && !gone_out {
                lost.insert(to);
            }
        }
        lost.into_iter().collect()
    }

    fn set_members(&mut self, membership: &Membership) {
        self.members = membership.members.keys().copied().collect();
    }
}
