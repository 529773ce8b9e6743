//! Which packet numbers have arrived: a bitmap that slides with the highest one (RFC 6479).

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: u64 = 64;

/// How far behind the highest number one may be and still be taken. One word of the bitmap is always in part ahead.
pub const REPLAY_WINDOW: u64 = (WORDS - 1) * WORD_BITS;

/// Where a number lies that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Above all that have arrived.
    Newest,
    /// Below one that has: the path has reordered.
    Late,
}

/// The numbers that have arrived, of the last [`REPLAY_WINDOW`].
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// Above the highest that has arrived; 0: none has.
    end: u64,
    seen: [u64; WORDS as usize],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { end: 0, seen: [0; WORDS as usize] }
    }
}

impl ReplayWindow {
    /// The number above the highest that has arrived.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether a number may be taken: neither has it arrived, nor is it too old to know. Takes nothing: that is for
    /// datagrams that have proved to be the peer's.
    pub fn place(&self, number: u64) -> Option<Place> {
        if number >= self.end {
            return Some(Place::Newest);
        }
        let is_old = self.end - number > REPLAY_WINDOW;
        (!is_old && self.seen[word(number)] & bit(number) == 0).then_some(Place::Late)
    }

    /// Takes a number that [has a place](Self::place).
    pub fn take(&mut self, number: u64) {
        if number >= self.end {
            // Words that the window reaches for the first time hold numbers of long ago.
            let next = self.end.div_ceil(WORD_BITS);
            for fresh in (next..=number / WORD_BITS).take(WORDS as usize) {
                self.seen[(fresh % WORDS) as usize] = 0;
            }
            self.end = number + 1;
        }
        self.seen[word(number)] |= bit(number);
    }
}

fn word(number: u64) -> usize {
    (number / WORD_BITS % WORDS) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD_BITS)
}
