//! Probes of one path, and what their answers and their absence tell: round trips, jitter, loss, and the MTU.
//!
//! Owns when a probe is due, how long it is, and which one an answer belongs to: probes are known by their packet numbers.
//! Sending them, and drawing random numbers, is the driver's.

use std::{collections::VecDeque, time::Duration};

use super::{PathMtu, Rtt};

/// Probes over which loss is counted, those that may still be answered among them.
pub const LOSS_WINDOW: usize = 128;
/// How long an answer is waited for, at least, and when no round trip is known: RFC 6298 section 2 has a second as well.
pub const PROBE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// How long it is waited for at most.
pub const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Round trip and loss. As short as can be.
    Measure,
    /// Whether the path carries a datagram of this length in bytes.
    Carry(u16),
}

/// A probe that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What for.
    pub purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Answered,
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    at: Duration,
    fate: Fate,
}

/// A probe for the MTU.
#[derive(Clone, Copy, Debug)]
struct Carrying {
    number: u64,
    at: Duration,
    len: u16,
    /// Its time is over. It was too long if a short one that was sent later is answered; if that is lost too, nobody knows.
    is_overdue: bool,
}

/// What is known of a path. Times count from any moment.
#[derive(Clone, Debug)]
pub struct PathProber {
    interval: Duration,
    measure_at: Duration,
    /// The last ones for measuring, in the order of their numbers.
    measured: VecDeque<Sent>,
    /// The one for the MTU that waits for an answer.
    carrying: Option<Carrying>,
    /// There is none before.
    carry_at: Duration,
    rtt: Option<Rtt>,
    mtu: PathMtu,
    sent: u64,
    answered: u64,
}

impl PathProber {
    /// Measures from now on, every `interval`. `limit`: what the first hop takes at most.
    pub fn new(now: Duration, interval: Duration, limit: u16) -> Self {
        Self {
            interval,
            measure_at: now,
            measured: VecDeque::with_capacity(LOSS_WINDOW),
            carrying: None,
            carry_at: now,
            rtt: None,
            mtu: PathMtu::new(now, limit),
            sent: 0,
            answered: 0,
        }
    }

    /// It is another path: nothing of what was measured holds, but for what was counted.
    pub fn moved(&mut self, now: Duration, limit: u16) {
        let Self { interval, sent, answered, .. } = *self;
        *self = Self { sent, answered, ..Self::new(now, interval, limit) };
    }

    /// Searches anew for what the path carries, up to `limit`.
    pub fn search(&mut self, now: Duration, limit: u16) {
        self.mtu.search(now, limit);
    }

    /// The probe that is due, if one is. `random`: any number, which spreads probes of many connections.
    pub fn poll(&mut self, now: Duration, random: u32) -> Option<Probe> {
        self.give_up(now);
        if now >= self.measure_at {
            // A tenth of the interval sooner or later.
            let spread = self.interval.mul_f64(0.2 * f64::from(random) / f64::from(u32::MAX));
            self.measure_at = now + self.interval.mul_f64(0.9) + spread;
            return Some(Probe { purpose: Purpose::Measure });
        }
        // Nothing is known of a path that has not answered yet.
        if self.carrying.is_some() || self.rtt.is_none() || now < self.carry_at {
            return None;
        }
        self.mtu.poll(now).map(|len| Probe { purpose: Purpose::Carry(len) })
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn poll_timeout(&self) -> Duration {
        let timeout = self.timeout();
        let waiting =
            self.measured.iter().find(|sent| sent.fate == Fate::Waits).map(|sent| sent.at + timeout);
        let carrying = match &self.carrying {
            Some(carrying) => (!carrying.is_overdue).then_some(carrying.at + timeout),
            None => self.rtt.and_then(|_| self.mtu.poll_timeout()).map(|at| at.max(self.carry_at)),
        };
        [waiting, carrying].into_iter().flatten().fold(self.measure_at, Duration::min)
    }

    /// A probe was sent, or will be at once, with this packet number.
    pub fn sent(&mut self, now: Duration, probe: Probe, number: u64) {
        self.sent += 1;
        match probe.purpose {
            Purpose::Measure => {
                if self.measured.len() == LOSS_WINDOW {
                    self.measured.pop_front();
                }
                self.measured.push_back(Sent { number, at: now, fate: Fate::Waits });
            }
            Purpose::Carry(len) => {
                self.carrying = Some(Carrying { number, at: now, len, is_overdue: false });
            }
        }
    }

    /// The probe that was due could not be sent, whatever its length: for want of a key, for instance. It tells nothing of the
    /// path, and the next one is one that measures.
    pub fn not_sent(&mut self) {
        self.carry_at = self.measure_at;
    }

    /// The kernel does not take datagrams of this length.
    pub fn refused(&mut self, now: Duration, len: u16) {
        self.carrying.take_if(|carrying| carrying.len == len);
        self.mtu.on_refusal(now, len);
    }

    /// An answer has come to the probe of this number. Returns the round trip, if it is one that is measured.
    pub fn answered(&mut self, now: Duration, number: u64) -> Option<Duration> {
        if let Some(carrying) = self.carrying.take_if(|carrying| carrying.number == number) {
            self.answered += 1;
            self.mtu.on_answer(now, carrying.len);
            return None;
        }
        let index = self.measured.binary_search_by_key(&number, |sent| sent.number).ok()?;
        let sent = &mut self.measured[index];
        // One that was given up may come all the same; it is not lost then.
        if std::mem::replace(&mut sent.fate, Fate::Answered) == Fate::Answered {
            return None;
        }
        self.answered += 1;
        let round_trip = now.saturating_sub(sent.at);
        match &mut self.rtt {
            Some(rtt) => rtt.add(round_trip),
            none => *none = Some(Rtt::first(round_trip)),
        }
        if let Some(long) = self.carrying.take_if(|long| long.is_overdue && long.number < number) {
            self.mtu.on_loss(now, long.len);
        }
        Some(round_trip)
    }

    /// Round trips; `None` before the first.
    pub fn rtt(&self) -> Option<Rtt> {
        self.rtt
    }

    /// Of the probes of the window, how many were lost, 0.0..=1.0. Only those before the first that may still be answered
    /// count: of the others, what is answered would be known earlier than what is lost.
    pub fn loss_ratio(&self) -> f64 {
        let known = self.measured.iter().take_while(|sent| sent.fate != Fate::Waits);
        let (lost, all) =
            known.fold((0, 0), |(lost, all), sent| (lost + u32::from(sent.fate == Fate::Lost), all + 1));
        if lost == 0 { 0.0 } else { f64::from(lost) / f64::from(all) }
    }

    /// The longest datagram that the path carries, in bytes.
    pub fn len_max(&self) -> u16 {
        self.mtu.carried()
    }

    /// Whether that is still being looked for.
    pub fn is_searching(&self) -> bool {
        self.mtu.is_unsettled()
    }

    /// Probes sent and answered since the beginning.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.answered)
    }

    fn timeout(&self) -> Duration {
        let estimate = self.rtt.map_or(PROBE_TIMEOUT_MIN, |rtt| rtt.timeout());
        estimate.clamp(PROBE_TIMEOUT_MIN, PROBE_TIMEOUT_MAX)
    }

    /// Probes whose time is over are lost.
    fn give_up(&mut self, now: Duration) {
        let timeout = self.timeout();
        let is_over = |at: Duration| now >= at + timeout;
        for sent in self.measured.iter_mut().filter(|sent| sent.fate == Fate::Waits && is_over(sent.at)) {
            sent.fate = Fate::Lost;
            self.carrying.take_if(|long| long.is_overdue && long.number < sent.number);
        }
        if let Some(long) = self.carrying.as_mut().filter(|long| !long.is_overdue && is_over(long.at)) {
            long.is_overdue = true;
            self.measure_at = now; // is it the length, or the path?
        }
    }
}
