use dwcp_lab::namespace::Namespace;
use dwcp_node::state;

use super::*;

const ROTATION: Duration = Duration::from_secs(60);

fn end(folder: &std::path::Path) -> WireGuard {
    let wanted = Tunnels { keys: folder.join("keys.json"), rotation: Some(ROTATION), ..Tunnels::default() };
    let mut end = WireGuard::new(&wanted, ([10, 99, 0, 1].into(), 24), 1420);
    end.read_keys(Instant::now());
    end
}

fn peer_with(key: &str) -> Peer {
    Peer {
        name: "b".to_owned(),
        public_keys: vec![key.parse().expect("a key")],
        preshared_key: None,
        endpoint: None,
        allowed_ips: vec!["10.99.0.2/32".parse().expect("a network")],
        keepalive_s: None,
    }
}

/// In a namespace, up; not where that is impossible.
fn with_interface(test: impl FnOnce(&mut WireGuard, &Namespace) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = Namespace::create().expect("a namespace");
    place.enter(|| {
        let mut end = end(folder.path());
        end.look(&[], Instant::now());
        match end.errors.first() {
            Some(error) if error.contains("open /dev/net/tun") => println!("SKIP: {error}"),
            error => {
                assert_eq!(error, None);
                test(&mut end, &place);
            }
        }
    });
}

#[test]
fn a_key_that_the_interface_did_not_take_is_set_by_a_later_look_and_told_only_then() {
    with_interface(|end, _| {
        let begin = SystemTime::now();
        assert!(end.turn_keys(begin + ROTATION), "the next is announced");
        let keys = end.own_end().public_keys;
        let [first, next] = &keys[..] else { panic!("{keys:?}") };
        // The interface refuses a key that a peer has.
        end.look(&[peer_with(next)], Instant::now());
        let later = begin + 2 * ROTATION;
        assert!(!end.turn_keys(later), "it has not changed");
        assert!(end.errors.first().is_some(), "and that is told");
        assert!(!end.turn_keys(later + 2 * ROTATION), "no other is announced meanwhile");
        assert_eq!(end.own_end().public_keys.len(), 1);
        end.look(&[], Instant::now());
        assert!(end.turn_keys(later), "{:?}", end.errors.first());
        assert_eq!(end.errors.first(), None);
        assert!(end.own_end().public_keys.contains(next) && !end.own_end().public_keys.contains(first));
    });
}

#[test]
fn an_mtu_that_was_refused_is_tried_again_and_told_of_until_it_is_set() {
    with_interface(|end, _| {
        end.set_mtu(70_000);
        end.look(&[], Instant::now());
        assert!(end.errors.first().is_some());
        end.look(&[peer_with(&other_key())], Instant::now());
        assert!(end.errors.first().is_some(), "peers that are set are another matter");
        assert_eq!((end.config.mtu, end.count()), (1420, 1));
        end.set_mtu(1400);
        end.look(&[peer_with(&other_key())], Instant::now());
        assert_eq!((end.config.mtu, end.errors.first()), (1400, None));
    });
}

#[test]
fn what_leaves_too_little_makes_it_as_small_as_it_may_be_and_is_told() {
    with_interface(|end, _| {
        end.set_mtu(1100);
        end.look(&[], Instant::now());
        assert_eq!(end.config.mtu, MTU_MIN);
        let error = end.errors.first().expect("it is told");
        assert!(error.contains("1100") && error.contains("1280"), "{error}");
        end.set_mtu(1400);
        end.look(&[], Instant::now());
        assert_eq!((end.config.mtu, end.errors.first()), (1400, None));
    });
}

#[test]
fn an_interface_that_somebody_removed_is_made_anew() {
    with_interface(|end, place| {
        end.check();
        assert!(end.interface.is_some(), "it is there");
        end.look(&[peer_with(&other_key())], Instant::now());
        place.ip(&["link del dwcp-wg0"]).expect("removed");
        end.check();
        assert_eq!(end.count(), 0, "there is no tunnel");
        // A process that another test forks holds the port until it is another program.
        for attempt in 0..10 {
            end.look(&[peer_with(&other_key())], Instant::now() + attempt * Duration::from_secs(60));
            if end.count() == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!((end.count(), end.errors.first()), (1, None));
        place.ip(&["link show dev dwcp-wg0"]).expect("it is there again");
    });
}

#[test]
fn without_usable_keys_that_is_told_and_they_are_read_when_they_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    state::write(&file, b"half a ke").expect("written");
    let (mut end, begin) = (end(folder.path()), Instant::now());
    let error = end.view().error.expect("it is told");
    assert!(error.contains("damaged"), "{error}");
    assert_eq!((end.end(), end.turn_keys(SystemTime::now())), (None, false));
    end.look(&[], begin);
    assert!(!end.read_keys(begin), "not all the time");
    std::fs::remove_file(&file).expect("removed");
    assert!(end.read_keys(begin + Duration::from_secs(2)));
    assert_eq!(end.view().error, None);
    assert_eq!(end.end().map(|end| end.public_keys.len()), Some(1));
    assert!(!end.read_keys(begin + Duration::from_secs(4)), "there is nothing new to tell");
}

fn other_key() -> String {
    "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=".to_owned()
}
