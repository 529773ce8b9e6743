//! A sender and a receiver of datagrams, and bytes of anybody between them: what is delivered was sent, with the same
//! content, and once; what an honest sender's newest datagram brings is always delivered.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};
use dwcp_proto::datagram::{
    DatagramHeader, DatagramType, HEADER_LEN, Limits, Place, REPLAY_WINDOW, RecvFlow, RecvRefused, SendFlow,
};

#[path = "datagram_flow/toy_keys.rs"]
mod toy_keys;
use toy_keys::{ToyOpening, ToySealing};

const FLOW: u64 = 7;
/// Updates come often, and flows close.
const LIMITS: Limits = Limits { update_after: 5, per_key_max: 10_000, reserved: 100, forged_max: 64 };
const STEPS_MAX: usize = 400;

struct Pair {
    send: SendFlow<ToySealing>,
    recv: RecvFlow<ToyOpening>,
    sent: Vec<Vec<u8>>,
    next: u64,
    contents: BTreeMap<u64, Vec<u8>>,
    delivered: BTreeSet<u64>,
    highest: Option<u64>,
    forged: u64,
}

pub(crate) fn run(data: &[u8]) {
    let mut pair = Pair {
        send: SendFlow::new(FLOW, ToySealing::default(), LIMITS),
        recv: RecvFlow::new(ToyOpening::default(), LIMITS),
        sent: Vec::new(),
        next: 0,
        contents: BTreeMap::new(),
        delivered: BTreeSet::new(),
        highest: None,
        forged: 0,
    };
    let mut input = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            return;
        }
        if pair.step(&mut input).is_err() {
            return; // the input is used up
        }
    }
}

impl Pair {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=9)? {
            // A datagram leaves; the peer gets it at once, or later, or never.
            0..=2 => {
                let ty = DatagramType::from_wire(input.int_in_range(1..=4)?).expect("a type");
                let (len, arrives) = (input.arbitrary()?, input.arbitrary()?);
                if let Some(datagram) = self.send(ty, len) {
                    if arrives {
                        self.arrives(&datagram, true);
                    }
                    self.sent.push(datagram);
                }
            }
            // Many that nobody gets, a little more than the window at most.
            3 => {
                for _ in 0..u64::from(input.arbitrary::<u8>()?) * REPLAY_WINDOW / 250 {
                    self.send(DatagramType::Message, 0);
                }
            }
            // One that was sent arrives, again perhaps.
            4 | 5 => {
                if let Some(datagram) = self.pick(input)? {
                    self.arrives(&datagram, true);
                }
            }
            // One that was sent arrives altered.
            6 => {
                if let Some(mut datagram) = self.pick(input)? {
                    let (at, xor) = (input.choose_index(datagram.len())?, input.arbitrary::<u8>()?);
                    datagram[at] ^= xor;
                    self.arrives(&datagram, xor == 0);
                }
            }
            // Bytes of anybody.
            7 => {
                let bytes: Vec<u8> = input.arbitrary()?;
                self.arrives(&bytes, false);
            }
            // The peer's answer to one comes back.
            8 => {
                if let Some(datagram) = self.pick(input)? {
                    let (header, _) = DatagramHeader::decode(&datagram).expect("an honest one");
                    if self.delivered.contains(&header.number) {
                        self.send.on_answer(header.number);
                    }
                }
            }
            _ => {
                self.send.update();
            }
        }
        Ok(())
    }

    fn send(&mut self, ty: DatagramType, len: u8) -> Option<Vec<u8>> {
        let mut datagram = Vec::new();
        let content = vec![self.next as u8; usize::from(len)];
        let number = self.send.seal(ty, &content, &mut datagram).ok()?;
        assert_eq!(number, self.next, "no number comes twice");
        self.next += 1;
        self.contents.insert(number, content);
        Some(datagram)
    }

    fn pick(&self, input: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
        Ok(if self.sent.is_empty() { None } else { Some(input.choose(&self.sent)?.clone()) })
    }

    fn arrives(&mut self, datagram: &[u8], is_honest: bool) {
        let mut bytes = datagram.to_vec();
        let Ok((header, _)) = DatagramHeader::decode(datagram) else {
            assert!(!is_honest, "an honest datagram has a header");
            return;
        };
        if header.flow != FLOW {
            return; // is not this receiver's
        }
        let is_newest = self.highest.is_none_or(|highest| header.number > highest);
        match self.recv.open(&header, &mut bytes[HEADER_LEN..]) {
            Ok(opened) => {
                assert!(is_honest, "what nobody has sent is delivered: {header:?}");
                let content = &bytes[HEADER_LEN..HEADER_LEN + opened.len];
                assert_eq!(content, self.contents[&opened.number], "altered");
                assert!(self.delivered.insert(opened.number), "delivered twice: {header:?}");
                assert_eq!(opened.place == Place::Newest, is_newest);
                self.highest = self.highest.max(Some(opened.number));
            }
            Err(RecvRefused::Replayed) => {
                let highest = self.highest.expect("something has arrived");
                let is_old = highest + 1 - header.number > REPLAY_WINDOW;
                assert!(is_old || self.delivered.contains(&header.number), "new: {header:?}");
            }
            Err(RecvRefused::Forged) => {
                self.forged += 1;
                // The sender goes on to the next key only when the receiver has something of this one.
                assert!(
                    !is_honest || !is_newest,
                    "an honest sender's newest datagram is refused: {header:?}"
                );
            }
            Err(_) => assert_eq!(self.forged, LIMITS.forged_max, "closed early"),
        }
    }
}
