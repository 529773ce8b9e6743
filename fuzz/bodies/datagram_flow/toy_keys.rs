//! Keys that anybody could break, and that nobody breaks by chance: two 64-bit hashes are the tag, the plaintext stays.

use std::hash::{DefaultHasher, Hash, Hasher};

use dwcp_proto::datagram::{HEADER_LEN, KeyChoice, OpeningKeys, SealingKeys, TAG_LEN};

/// A sender's key.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToySealing {
    pub(crate) generation: u64,
}

/// A receiver's keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToyOpening {
    pub(crate) generation: u64,
    pub(crate) has_previous: bool,
}

fn tag(generation: u64, number: u64, header: &[u8; HEADER_LEN], plain: &[u8]) -> [u8; TAG_LEN] {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, generation, number, header, plain).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(0) << 64 | half(1)).to_le_bytes()
}

impl SealingKeys for ToySealing {
    fn seal(&mut self, number: u64, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> [u8; TAG_LEN] {
        tag(self.generation, number, header, payload)
    }

    fn update(&mut self) {
        self.generation += 1;
    }
}

impl OpeningKeys for ToyOpening {
    fn open(&mut self, key: KeyChoice, number: u64, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> bool {
        let generation = match key {
            KeyChoice::Previous => {
                assert!(self.has_previous, "the flow asks for a key that it has let go");
                self.generation - 1
            }
            KeyChoice::Current => self.generation,
            KeyChoice::Next => self.generation + 1,
        };
        let (plain, found) = payload.split_last_chunk::<TAG_LEN>().expect("the flow looks at lengths");
        *found == tag(generation, number, header, plain)
    }

    fn update(&mut self) {
        self.generation += 1;
        self.has_previous = true;
    }

    fn forget_previous(&mut self) {
        assert!(std::mem::take(&mut self.has_previous), "forgotten once");
    }
}
