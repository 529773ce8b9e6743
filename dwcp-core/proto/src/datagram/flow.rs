//! A flow at its two ends: packet numbers, key phases and their limits, and what is refused.
//!
//! Owns which number a datagram gets, which key opens one, and when a key has served its time. The keys themselves, and
//! AEADs, are behind two traits.

use super::{
    DatagramHeader, DatagramType, HEADER_LEN, NUMBER_END, PAYLOAD_LEN_MAX, Place, REPLAY_WINDOW,
    ReplayWindow, TAG_LEN,
};

/// Datagrams that one key encrypts (RFC 9001 section 6.6, AES-GCM: confidentiality).
pub const DATAGRAMS_PER_KEY_MAX: u64 = 1 << 23;
/// Datagrams after which a sender goes on to the next key.
pub const UPDATE_AFTER: u64 = 1 << 22;
/// Of [`DATAGRAMS_PER_KEY_MAX`], those that only probes may use: without them a peer could never confirm the key.
pub const PROBES_RESERVED: u64 = 1 << 16;
/// Forged datagrams after which a flow takes none any more (RFC 9001 section 6.6, AES-GCM: integrity).
pub const FORGED_MAX: u64 = 1 << 52;

/// When keys end. Smaller ones than the specification's are for tests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Datagrams after which the sender updates, if it may.
    pub update_after: u64,
    /// Datagrams that one key encrypts.
    pub per_key_max: u64,
    /// The last of them, which are for probes.
    pub reserved: u64,
    /// Forged datagrams that a receiver looks at.
    pub forged_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            update_after: UPDATE_AFTER,
            per_key_max: DATAGRAMS_PER_KEY_MAX,
            reserved: PROBES_RESERVED,
            forged_max: FORGED_MAX,
        }
    }
}

/// The key of a sender.
pub trait SealingKeys {
    /// Encrypts `payload` in place, with `header` as associated data.
    fn seal(&mut self, number: u64, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> [u8; TAG_LEN];

    /// Goes on to the next key, and forgets this one.
    fn update(&mut self);
}

/// Which key a datagram asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// The one before the current one.
    Previous,
    /// That of the newest phase of which a datagram has arrived.
    Current,
    /// The one after it.
    Next,
}

/// The keys of a receiver.
pub trait OpeningKeys {
    /// Decrypts `payload`, whose end is the tag, in place. `false`: it is not the sender's, or there is no such key.
    fn open(&mut self, key: KeyChoice, number: u64, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> bool;

    /// The next key becomes the current one, that one the previous one.
    fn update(&mut self);

    /// The previous key is of no use any more.
    fn forget_previous(&mut self);
}

/// Why a datagram is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendRefused {
    /// Larger than any datagram.
    #[error("a payload of {0} bytes is larger than any datagram")]
    TooLong(usize),
    /// The key, or the numbers, are used up, and the peer has not confirmed the key.
    #[error("the key is used up and the peer does not answer")]
    KeyUsedUp,
}

/// A flow at its sender.
#[derive(Debug)]
pub struct SendFlow<K> {
    keys: K,
    flow: u64,
    limits: Limits,
    next_number: u64,
    /// The first of this key.
    first: u64,
    phase: bool,
    /// The peer has a datagram of this key.
    confirmed: bool,
}

impl<K: SealingKeys> SendFlow<K> {
    /// A flow on which nothing was sent.
    pub fn new(flow: u64, keys: K, limits: Limits) -> Self {
        Self { keys, flow, limits, next_number: 0, first: 0, phase: false, confirmed: false }
    }

    /// Appends the datagram to `out`; returns its number.
    ///
    /// # Errors
    /// [`SendRefused`]; `out` is as it was.
    pub fn seal(&mut self, ty: DatagramType, plain: &[u8], out: &mut Vec<u8>) -> Result<u64, SendRefused> {
        let payload_len = plain.len() + TAG_LEN;
        if payload_len > PAYLOAD_LEN_MAX {
            return Err(SendRefused::TooLong(plain.len()));
        }
        if self.next_number - self.first >= self.limits.update_after {
            self.update();
        }
        let is_probe = matches!(ty, DatagramType::Probe | DatagramType::ProbeReply);
        let left = (self.first + self.limits.per_key_max).min(NUMBER_END).saturating_sub(self.next_number);
        if left <= if is_probe { 0 } else { self.limits.reserved } {
            return Err(SendRefused::KeyUsedUp);
        }
        let number = self.next_number;
        self.next_number += 1;
        let header = DatagramHeader {
            ty,
            key_phase: self.phase,
            payload_len: payload_len as u16,
            flow: self.flow,
            number,
        }
        .encode();
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.keys.seal(number, &header, &mut out[start..]);
        out.extend_from_slice(&tag);
        Ok(number)
    }

    /// Goes on to the next key, unless the peer may not have this one yet: of two it could not tell which is which.
    /// Returns whether it did.
    pub fn update(&mut self) -> bool {
        if self.confirmed {
            self.keys.update();
            self.phase = !self.phase;
            self.first = self.next_number;
            self.confirmed = false;
            return true;
        }
        false
    }

    /// The peer has answered a datagram of ours.
    pub fn on_answer(&mut self, number: u64) {
        self.confirmed |= (self.first..self.next_number).contains(&number);
    }

    /// The first number of the key in use.
    pub fn first_of_key(&self) -> u64 {
        self.first
    }
}

/// Why a datagram is not taken. Nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvRefused {
    /// It has arrived before, or so long after others that nobody knows.
    #[error("replayed, or older than the replay window")]
    Replayed,
    /// The peer has not made it.
    #[error("not authentic")]
    Forged,
    /// So many forged ones came that the keys may be guessed.
    #[error("too many forged datagrams: the flow takes none any more")]
    Closed,
}

/// A datagram of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it is for.
    pub ty: DatagramType,
    /// Its number.
    pub number: u64,
    /// Whether it is newer than all others.
    pub place: Place,
    /// Bytes of plaintext.
    pub len: usize,
}

/// A flow at its receiver.
#[derive(Debug)]
pub struct RecvFlow<K> {
    keys: K,
    limits: Limits,
    window: ReplayWindow,
    /// Lowest number that was opened with the current key; those of the previous one are below.
    first: u64,
    phase: bool,
    has_previous: bool,
    forged: u64,
}

impl<K: OpeningKeys> RecvFlow<K> {
    /// A flow on which nothing has arrived.
    pub fn new(keys: K, limits: Limits) -> Self {
        Self {
            keys,
            limits,
            window: ReplayWindow::default(),
            first: 0,
            phase: false,
            has_previous: false,
            forged: 0,
        }
    }

    /// Decrypts the payload of a datagram in place: afterwards its plaintext is in front.
    ///
    /// # Errors
    /// [`RecvRefused`]; but for the count of forged ones nothing has changed, and the payload is to be thrown away.
    pub fn open(&mut self, header: &DatagramHeader, payload: &mut [u8]) -> Result<Opened, RecvRefused> {
        let number = header.number;
        if self.forged >= self.limits.forged_max {
            return Err(RecvRefused::Closed);
        }
        let place = self.window.place(number).ok_or(RecvRefused::Replayed)?;
        let opened = self.key_for(header.key_phase, number).filter(|&key| {
            payload.len() >= TAG_LEN && self.keys.open(key, number, &header.encode(), payload)
        });
        let Some(key) = opened else {
            self.forged += 1;
            return Err(RecvRefused::Forged);
        };
        match key {
            KeyChoice::Next => {
                self.keys.update();
                self.phase = !self.phase;
                self.first = number;
                self.has_previous = true;
            }
            KeyChoice::Current => self.first = self.first.min(number),
            KeyChoice::Previous => {}
        }
        self.window.take(number);
        if self.has_previous && self.window.end() - self.first > REPLAY_WINDOW {
            self.keys.forget_previous();
            self.has_previous = false;
        }
        Ok(Opened { ty: header.ty, number, place, len: payload.len() - TAG_LEN })
    }

    /// Numbers rise from key to key, so phase and number name the only key that can fit; `None`: no honest sender made
    /// this.
    fn key_for(&self, phase: bool, number: u64) -> Option<KeyChoice> {
        if phase == self.phase {
            return Some(KeyChoice::Current);
        }
        if number >= self.window.end() {
            return Some(KeyChoice::Next);
        }
        (self.has_previous && number < self.first).then_some(KeyChoice::Previous)
    }
}
