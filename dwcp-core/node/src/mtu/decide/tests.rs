//! Plans as a table, what holds of every plan, and the course of an uplink over time.

use proptest::prelude::*;

use super::*;

const FLAT: Uplink = Uplink { former: 1500, device: 1500, traffic: 1500, limit: 9000 };
const TRIED: Uplink = Uplink { device: 9000, ..FLAT };
const LIFTED: Uplink = Uplink { traffic: 9000, ..TRIED };

fn peer(offered: Option<u32>, taken: u32, carried: u32, is_searching: bool) -> Peer {
    Peer { name: "p".to_owned(), offered, taken: Some(taken), carried, is_searching }
}

fn ready() -> Peer {
    peer(Some(9000), 9000, 9000, false)
}

#[test]
fn what_an_uplink_should_be() {
    let name = || "p".to_owned();
    let willing = peer(Some(9000), 1500, 1500, false);
    let searching = peer(Some(9000), 9000, 1228, true);
    let narrow = peer(Some(9000), 9000, 1492, false);
    let partial = peer(Some(9000), 9000, 7990, false);
    let smaller = peer(Some(4000), 4000, 4000, false);
    let unwilling = peer(None, 0, 9000, false);
    for (uplink, peers, missing, device, traffic, reason) in [
        (FLAT, vec![], 0, 1500, 1500, Reason::NoPeers),
        (FLAT, vec![willing.clone()], 0, 9000, 1500, Reason::Waits { name: name() }),
        (FLAT, vec![willing.clone()], 1, 1500, 1500, Reason::Missing(1)),
        (FLAT, vec![willing.clone(), smaller.clone()], 0, 4000, 1500, Reason::Waits { name: name() }),
        (
            FLAT,
            vec![willing.clone(), unwilling.clone()],
            0,
            1500,
            1500,
            Reason::Peer { name: name(), offered: None },
        ),
        (Uplink { limit: 1500, ..FLAT }, vec![ready()], 0, 1500, 1500, Reason::Already),
        (TRIED, vec![willing.clone(), ready()], 0, 9000, 1500, Reason::Waits { name: name() }),
        (TRIED, vec![searching.clone(), ready()], 0, 9000, 1500, Reason::Searching { name: name() }),
        (TRIED, vec![ready(), ready()], 0, 9000, 9000, Reason::Carried { peers: 2 }),
        (TRIED, vec![ready()], 2, 9000, 1500, Reason::Missing(2)),
        (TRIED, vec![partial.clone(), ready()], 0, 9000, 7990, Reason::Path { name: name(), carried: 7990 }),
        (TRIED, vec![narrow.clone(), ready()], 0, 1500, 1500, Reason::Path { name: name(), carried: 1492 }),
        (TRIED, vec![smaller, ready()], 0, 9000, 4000, Reason::Carried { peers: 2 }),
        (LIFTED, vec![ready()], 1, 9000, 9000, Reason::Carried { peers: 1 }),
        // One that has just come, or come back, has proved nothing yet.
        (LIFTED, vec![searching, ready()], 0, 9000, 1500, Reason::Searching { name: name() }),
        (LIFTED, vec![ready(), unwilling], 0, 1500, 1500, Reason::Peer { name: name(), offered: None }),
        // What a path carries is measured again from time to time.
        (
            Uplink { traffic: 7990, ..LIFTED },
            vec![Peer { is_searching: true, ..partial }],
            0,
            9000,
            7990,
            Reason::Searching { name: name() },
        ),
        (LIFTED, vec![narrow], 0, 1500, 1500, Reason::Path { name: name(), carried: 1492 }),
    ] {
        assert_eq!(plan(uplink, &peers, missing), Plan { device, traffic, reason }, "{uplink:?} {peers:?}");
    }
}

/// An uplink that does what it is told.
struct World {
    uplink: Uplink,
    pace: Pace,
    now: Duration,
}

impl World {
    fn new() -> Self {
        Self { uplink: FLAT, pace: Pace::default(), now: Duration::ZERO }
    }

    fn run(&mut self, time: Duration, peers: &[Peer]) -> Reason {
        let until = self.now + time;
        loop {
            let plan = self.pace.follow(self.now, self.uplink, plan(self.uplink, peers, 0));
            (self.uplink.device, self.uplink.traffic) = (plan.device, plan.traffic);
            if self.now >= until {
                return plan.reason;
            }
            self.now += Duration::from_secs(1);
        }
    }
}

#[test]
fn larger_packets_end_at_once_and_the_interface_follows() {
    let mut world = World::new();
    world.run(Duration::from_secs(2), &[ready()]);
    assert_eq!(world.uplink, LIFTED);
    let other = peer(None, 1500, 1500, false);
    world.run(Duration::ZERO, &[ready(), other.clone()]);
    assert_eq!(world.uplink, TRIED);
    assert!(world.pace.is_leaving());
    // It was only looking for its interface.
    world.run(Duration::from_secs(5), &[ready(), ready()]);
    assert_eq!((world.uplink, world.pace.is_leaving()), (LIFTED, false));
    world.run(PUT_BACK_AFTER, &[ready(), other]);
    assert_eq!(world.uplink, FLAT);
    assert!(world.pace.rests(world.now));
    assert_eq!(world.run(Duration::ZERO, &[ready()]), Reason::Rests);
    world.run(REST_MIN + Duration::from_secs(2), &[ready()]);
    assert_eq!(world.uplink, LIFTED);
}

#[test]
fn a_path_that_refuses_is_tried_less_and_less_often() {
    let mut world = World::new();
    let narrow = [peer(Some(9000), 9000, 1492, false)];
    let mut raised = 0;
    for _ in 0..10 * 3600 {
        let before = world.uplink;
        world.run(Duration::from_secs(1), &narrow);
        assert_eq!(world.uplink.traffic, 1500);
        raised += u32::from(!before.is_raised() && world.uplink.is_raised());
    }
    assert!((10..=20).contains(&raised), "raised {raised} times in ten hours");
}

#[test]
fn peers_are_not_waited_for_for_ever() {
    let mut world = World::new();
    let waits = [peer(Some(9000), 1500, 1500, false)];
    world.run(RAISE_TIME_MAX, &waits);
    assert!(world.uplink.is_raised());
    world.run(PUT_BACK_AFTER + Duration::from_secs(1), &waits);
    assert!(!world.uplink.is_raised());
}

fn any_peer() -> impl Strategy<Value = Peer> {
    let size = || prop_oneof![Just(1500), Just(9000), 1280..10000_u32];
    (prop::option::of(size()), size(), size(), any::<bool>())
        .prop_map(|(offered, taken, carried, is_searching)| peer(offered, taken, carried, is_searching))
}

proptest! {
    #[test]
    fn nothing_is_sent_that_somebody_has_not_agreed_to_take_and_proved_to_carry(
        former in 1280..9000_u32, limit in 1280..10000_u32, raised in any::<bool>(), lifted in any::<bool>(),
        peers in prop::collection::vec(any_peer(), 0..5), missing in 0..2_usize,
    ) {
        let device = if raised { limit.max(former) } else { former };
        let uplink = Uplink { former, limit, device, traffic: if lifted { device } else { former } };
        let Plan { device, traffic, .. } = plan(uplink, &peers, missing);
        prop_assert!(former <= traffic && traffic <= device && device <= former.max(limit));
        if traffic > former {
            prop_assert!(!peers.is_empty() && uplink.is_raised());
            for peer in &peers {
                prop_assert!(peer.carried >= traffic && peer.taken >= Some(traffic) && peer.offered >= Some(traffic));
            }
            prop_assert!(missing == 0 || uplink.traffic > former);
        }
        if device > former {
            prop_assert!(peers.iter().all(|peer| peer.offered > Some(former)));
        }
    }
}
