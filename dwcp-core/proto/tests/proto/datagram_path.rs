//! What probes tell of a path, in virtual time: paths with delays, losses and lengths that are known.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use dwcp_proto::datagram::{
    BASE_LEN, BLACK_HOLE_PROBES, CONFIRM_INTERVAL, LEN_MAX, LOSS_WINDOW, PROBE_TIMEOUT_MAX,
    PROBE_TIMEOUT_MIN, PathProber, Probe, Purpose, RAISE_INTERVAL, Rtt, SEARCH_STEP,
};
use proptest::prelude::*;

const SPECIFICATION: &str = include_str!("../../../../docs/spec/datagram-1.md");
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// Bytes of a probe for measuring, about.
const SHORT: u16 = 48;

/// A path, and the prober at its one end.
struct World {
    prober: PathProber,
    now: Duration,
    number: u64,
    /// When answers arrive, and to which probes.
    answers: BinaryHeap<Reverse<(Duration, u64)>>,
    carries: u16,
    /// Lengths of the probes for the MTU so far.
    tried: Vec<u16>,
}

impl World {
    fn new(limit: u16, carries: u16) -> Self {
        Self {
            prober: PathProber::new(Duration::ZERO, SECOND, limit),
            now: Duration::ZERO,
            number: 0,
            answers: BinaryHeap::new(),
            carries,
            tried: Vec::new(),
        }
    }

    /// `round_trip`: of the probe of this number; `None`: it is lost.
    fn run(&mut self, time: Duration, round_trip: impl Fn(u64) -> Option<Duration>) {
        let until = self.now + time;
        loop {
            while let Some(probe) = self.prober.poll(self.now, self.number as u32 ^ 0x5555_5555) {
                self.prober.sent(self.now, probe, self.number);
                let len = match probe.purpose {
                    Purpose::Measure => SHORT,
                    Purpose::Carry(len) => len,
                };
                if len != SHORT {
                    self.tried.push(len);
                }
                if let Some(after) = round_trip(self.number).filter(|_| len <= self.carries) {
                    self.answers.push(Reverse((self.now + after, self.number)));
                }
                self.number += 1;
            }
            let timeout = self.prober.poll_timeout();
            assert!(timeout > self.now, "the prober spins at {:?}", self.now);
            let answer = self.answers.peek().map(|Reverse((at, _))| *at);
            let next = answer.into_iter().chain([timeout, until]).min().unwrap();
            self.now = next;
            if next == until {
                return;
            }
            while let Some(&Reverse((at, number))) = self.answers.peek()
                && at <= next
            {
                self.answers.pop();
                self.prober.answered(next, number);
            }
        }
    }
}

// DATAGRAM-7.3
#[test]
fn estimates_are_those_of_the_rfcs() {
    let mut rtt = Rtt::first(100 * MS);
    assert_eq!((rtt.smoothed, rtt.variation, rtt.jitter), (100 * MS, 50 * MS, Duration::ZERO));
    rtt.add(180 * MS);
    // 7/8 * 100 + 1/8 * 180; 3/4 * 50 + 1/4 * 80; 1/16 * 80
    assert_eq!((rtt.smoothed, rtt.variation, rtt.jitter), (110 * MS, Duration::from_micros(57_500), 5 * MS));
    assert_eq!((rtt.latest, rtt.min), (180 * MS, 100 * MS));
    assert_eq!(rtt.timeout(), 340 * MS);
    rtt.add(60 * MS);
    assert_eq!((rtt.latest, rtt.min), (60 * MS, 60 * MS));
    assert_eq!(rtt.jitter, Duration::from_nanos(4_687_500 + 7_500_000));
}

// DATAGRAM-7.1, DATAGRAM-7.3
#[test]
fn a_steady_path_is_measured_as_it_is() {
    let mut world = World::new(1472, 1472);
    world.run(100 * SECOND, |_| Some(20 * MS));
    let rtt = world.prober.rtt().unwrap();
    assert_eq!((rtt.latest, rtt.min, rtt.jitter), (20 * MS, 20 * MS, Duration::ZERO));
    assert!(rtt.smoothed.abs_diff(20 * MS) < Duration::from_micros(1), "{:?}", rtt.smoothed);
    assert_eq!(world.prober.loss_ratio(), 0.0);
    let (sent, answered) = world.prober.counts();
    assert_eq!(sent, answered);
    let measured = sent - world.tried.len() as u64;
    assert!((90..=112).contains(&measured), "one a second: {measured}");
}

// DATAGRAM-7.3: an answer that comes late takes the loss back, and one that comes twice is one.
#[test]
fn loss_is_what_was_not_answered() {
    let mut world = World::new(BASE_LEN, BASE_LEN);
    world.run(100 * SECOND, |number| (number % 4 != 0).then_some(20 * MS));
    assert!((0.24..=0.27).contains(&world.prober.loss_ratio()), "{}", world.prober.loss_ratio());
    world.run(200 * SECOND, |_| Some(20 * MS));
    assert_eq!(world.prober.loss_ratio(), 0.0, "only the last {LOSS_WINDOW} count");
    let before = world.prober.counts();
    world.run(20 * SECOND, |_| Some(5 * SECOND));
    world.run(10 * SECOND, |_| Some(20 * MS));
    assert_eq!(world.prober.loss_ratio(), 0.0, "they came late");
    let (sent, answered) = world.prober.counts();
    assert!(sent > before.0 + 25 && sent - answered <= before.0 - before.1 + 1);
    let number = world.number - 2;
    assert_eq!(world.prober.answered(world.now, number), None, "a second answer");
    assert_eq!(world.prober.answered(world.now, world.number + 7), None, "to what was never sent");
    assert_eq!(world.prober.counts(), (sent, answered));
}

// DATAGRAM-7.3: probes so dense that most of the window may still be answered.
#[test]
fn loss_is_not_taken_for_less_while_answers_may_come() {
    let mut world = World::new(BASE_LEN, BASE_LEN);
    world.prober = PathProber::new(Duration::ZERO, 10 * MS, BASE_LEN);
    world.run(3 * SECOND, |_| Some(20 * MS));
    for _ in 0..20 {
        world.run(2 * SECOND, |number| (number % 2 == 0).then_some(20 * MS));
        assert!((0.4..=0.6).contains(&world.prober.loss_ratio()), "{}", world.prober.loss_ratio());
    }
}

// DATAGRAM-7.4
#[test]
fn the_first_hops_length_is_found_at_once_if_the_path_carries_it() {
    for limit in [BASE_LEN, BASE_LEN + 1, 1472, 8928, LEN_MAX, u16::MAX] {
        let mut world = World::new(limit, LEN_MAX);
        assert_eq!(world.prober.len_max(), BASE_LEN);
        world.run(SECOND, |_| Some(20 * MS));
        assert_eq!(world.prober.len_max(), limit.min(LEN_MAX));
        assert!(world.tried.len() <= 1, "{limit}: {:?}", world.tried);
    }
}

// DATAGRAM-7.4
#[test]
fn what_the_first_hop_takes_and_the_path_does_not() {
    let mut world = World::new(8928, 1372);
    world.run(60 * SECOND, |_| Some(20 * MS));
    let found = world.prober.len_max();
    assert!(found <= 1372 && 1372 - found < SEARCH_STEP, "{found}");
    let times = |len| world.tried.iter().filter(|&&tried| tried == len).count() as u32;
    assert_eq!(times(8928), BLACK_HOLE_PROBES, "{:?}", world.tried);
    // The kernel may know better than the search.
    world.prober.refused(world.now, 1300);
    assert_eq!(world.prober.len_max(), BASE_LEN);
    world.run(60 * SECOND, |_| Some(20 * MS));
    assert!((1300 - SEARCH_STEP..1300).contains(&world.prober.len_max()));
}

// DATAGRAM-7.5
#[test]
fn a_path_that_carries_less_than_before_is_noticed_and_one_that_carries_more_later() {
    let mut world = World::new(8928, 8928);
    world.run(10 * SECOND, |_| Some(20 * MS));
    assert_eq!(world.prober.len_max(), 8928);
    world.carries = 1400;
    world.run(CONFIRM_INTERVAL + 4 * SECOND, |_| Some(20 * MS));
    assert_ne!(world.prober.len_max(), 8928, "the black hole is not noticed");
    world.run(60 * SECOND, |_| Some(20 * MS));
    assert!((1400 - SEARCH_STEP..=1400).contains(&world.prober.len_max()));
    world.carries = 8928;
    world.run(RAISE_INTERVAL, |_| Some(20 * MS));
    assert_eq!(world.prober.len_max(), 8928);
}

// DATAGRAM-7.4: the first hop's length is another when somebody changes the interface.
#[test]
fn a_first_hop_that_takes_more_or_less_is_searched_anew() {
    let mut world = World::new(1472, 8000);
    world.run(10 * SECOND, |_| Some(20 * MS));
    assert_eq!((world.prober.len_max(), world.prober.is_searching()), (1472, false));
    world.prober.search(world.now, 8972);
    assert!(world.prober.is_searching());
    world.run(60 * SECOND, |_| Some(20 * MS));
    let found = world.prober.len_max();
    assert!(found <= 8000 && 8000 - found < SEARCH_STEP && !world.prober.is_searching(), "{found}");
    world.carries = 8972;
    world.prober.search(world.now, 8972);
    world.run(SECOND, |_| Some(20 * MS));
    assert_eq!((world.prober.len_max(), world.prober.is_searching()), (8972, false));
    world.prober.search(world.now, 1472);
    assert_eq!((world.prober.len_max(), world.prober.is_searching()), (1472, false));
}

// DATAGRAM-7.5: a path that carries nothing says nothing about lengths.
#[test]
fn an_outage_is_no_black_hole() {
    let mut world = World::new(8928, 8928);
    world.run(10 * SECOND, |_| Some(20 * MS));
    world.run(300 * SECOND, |_| None);
    assert_eq!((world.prober.len_max(), world.prober.loss_ratio() > 0.9), (8928, true));
    world.run(300 * SECOND, |_| Some(20 * MS));
    assert_eq!((world.prober.len_max(), world.prober.loss_ratio()), (8928, 0.0));
}

// DATAGRAM-4.4: nothing of the old path is taken over.
#[test]
fn another_path_is_measured_anew() {
    let mut world = World::new(1472, 1472);
    world.run(10 * SECOND, |_| Some(20 * MS));
    let counts = world.prober.counts();
    world.prober.moved(world.now, 1452);
    assert_eq!((world.prober.len_max(), world.prober.rtt()), (BASE_LEN, None));
    assert_eq!(world.prober.counts(), counts);
    world.run(10 * SECOND, |_| Some(90 * MS));
    assert_eq!((world.prober.len_max(), world.prober.rtt().unwrap().min), (1452, 90 * MS));
}

// DATAGRAM-7.3, DATAGRAM-7.4, DATAGRAM-7.5: the numbers of the specification are those of the code.
#[test]
fn bounds_are_those_of_the_specification() {
    let specification: Vec<_> = SPECIFICATION.split_whitespace().collect();
    let specification = specification.join(" ");
    for text in [
        format!("{BASE_LEN} bytes"),
        format!("less than {SEARCH_STEP} bytes"),
        format!("{} seconds, and", CONFIRM_INTERVAL.as_secs()),
        format!("{} minutes", RAISE_INTERVAL.as_secs() / 60),
        format!("last {LOSS_WINDOW} "),
        format!("{} to {} seconds", PROBE_TIMEOUT_MIN.as_secs(), PROBE_TIMEOUT_MAX.as_secs()),
    ] {
        assert!(specification.contains(&text), "the specification says: {text}");
    }
    assert!(BLACK_HOLE_PROBES == 3 && specification.contains("three probes"));
}

proptest! {
    // DATAGRAM-7.4, DATAGRAM-7.5: whatever is lost and however late answers are, the length found is one that the path
    // carries, and the prober neither spins nor stops.
    #[test]
    fn whatever_the_path_does(
        limit in 1000..9500_u16,
        carries in BASE_LEN..9500,
        loss in 0..60_u64,
        delay in 1..3000_u64,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(limit, carries);
        let random = |number: u64| (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        world.run(200 * SECOND, |number| {
            let random = random(number);
            (random % 100 >= loss).then(|| MS * (1 + (random / 100 % delay) as u32))
        });
        let found = world.prober.len_max();
        prop_assert!(found == BASE_LEN || found <= carries.min(limit), "{} of {}", found, carries);
        prop_assert!(world.prober.counts().0 >= 170, "it stopped");
        let losses = world.prober.loss_ratio();
        prop_assert!(loss > 0 || losses < 0.05 || delay > 900, "{}", losses);
    }

    // A small first hop, probes that answer anything and some that cannot be sent: no arithmetic overflows, and it does not spin.
    #[test]
    fn any_calls(calls in prop::collection::vec((0..6_u8, any::<u16>(), any::<u32>()), 0..200)) {
        let mut prober = PathProber::new(Duration::ZERO, 10 * MS, 1472);
        let (mut now, mut number) = (Duration::ZERO, 0);
        for (call, len, random) in calls {
            match call {
                0 => now += MS * u32::from(len),
                1 => { prober.answered(now, u64::from(random % 100)); }
                2 => prober.refused(now, len),
                3 => prober.moved(now, len),
                4 => {
                    while prober.poll(now, random).is_some() {
                        prober.not_sent();
                    }
                    prop_assert!(prober.poll_timeout() > now);
                }
                _ => while let Some(probe) = prober.poll(now, random) {
                    if let Probe { purpose: Purpose::Carry(len) } = probe {
                        prop_assert!((BASE_LEN..=LEN_MAX).contains(&len));
                    }
                    prober.sent(now, probe, number);
                    number += 1;
                },
            }
            prop_assert!((BASE_LEN..=LEN_MAX).contains(&prober.len_max()));
        }
    }
}
