//! Conversations of leaders, told step by step.

mod group;
mod long;

use consensus_regions::{
    Ack, Alarm, Body, Change, Command, Config, Hashes, Message, Phase, RegionId, Stamp, Status, View, limits,
    topology::Topology,
};
use group::{Group, kinds, put};

const A: RegionId = RegionId(1);
const B: RegionId = RegionId(2);
const C: RegionId = RegionId(3);
const D: RegionId = RegionId(4);

fn deltas(said: &[Message]) -> Vec<(u32, u32)> {
    let deltas = said.iter().filter(|message| matches!(message.body, Body::Delta(_)));
    deltas.map(|message| (message.from.0, message.to.0)).collect()
}

/// REGIONS-6.1, REGIONS-6.2, REGIONS-6.3, REGIONS-6.5
#[test]
fn a_change_is_told_once_to_each() {
    let mut group = Group::new(3, Config::default());
    // The first thing is to ask how far the others are.
    group.change(A, "k", put("v"));
    let first = group.interval_of(A);
    assert_eq!(kinds(&first), ["1>2 status", "1>3 status"]);
    let answers = group.deliver(first);
    assert_eq!(kinds(&answers), ["2>1 ack", "3>1 ack"]);
    assert_eq!(kinds(&group.deliver(answers)), [""; 0], "they have not said whether they are active");
    for region in [B, C] {
        let statuses = group.interval_of(region);
        group.settle(statuses);
    }
    assert_eq!(group.values("k"), ["v", "v", "v"]);
    // From now on each has been told by each; nothing is told again.
    let said = group.rounds(3);
    assert_eq!(deltas(&said), []);
    group.change(A, "k", put("w"));
    assert_eq!(deltas(&group.rounds(3)), [(1, 2), (1, 3)]);
    assert_eq!(group.values("k"), ["w", "w", "w"]);
}

/// REGIONS-6.6
#[test]
fn an_urgent_change_does_not_wait() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    assert_eq!(kinds(&group.outputs(A)), [""; 0]);
    group.urgent(A, "l", put("w"));
    let said = group.outputs(A);
    assert_eq!(kinds(&said), ["1>2 delta"]);
    group.settle(said);
    assert_eq!([group.values("k"), group.values("l")], [["v", "v"], ["w", "w"]]);
}

/// REGIONS-6.2
#[test]
fn others_changes_are_told_to_who_has_not_heard_of_them() {
    let mut group = Group::acquainted(3, Config::default());
    group.cut(A, C);
    group.change(A, "k", put("v"));
    let said = group.round();
    assert_eq!(deltas(&said), [(1, 2), (1, 3)], "the second is lost");
    assert_eq!(group.values("k"), ["v", "v", ""]);
    let said = group.rounds(2);
    assert!(deltas(&said).contains(&(2, 3)), "{:?}", kinds(&said));
    assert_eq!(group.values("k"), ["v", "v", "v"]);
}

/// REGIONS-6.2
#[test]
fn a_hub_passes_on_at_once() {
    let topology = Topology::HubSpoke { hub: A };
    let mut group = Group::acquainted(3, Config { topology, ..Config::default() });
    group.change(B, "k", put("v"));
    let said = group.interval_of(B);
    assert_eq!(kinds(&said), ["2>1 status", "2>1 delta"]);
    let said = group.settle(said);
    assert_eq!(deltas(&said), [(1, 3)]);
    assert_eq!(group.values("k"), ["v", "v", "v"]);
}

/// REGIONS-6.8
#[test]
fn without_the_hub_others_are_reached_directly() {
    let topology = Topology::HubSpoke { hub: A };
    let mut group = Group::acquainted(3, Config { topology, ..Config::default() });
    group.cut(A, B);
    group.cut(A, C);
    group.change(B, "k", put("v"));
    group.rounds(3);
    assert_eq!(group.values("k"), ["", "v", ""]);
    group.rounds(4);
    assert_eq!(group.values("k"), ["", "v", "v"]);
    group.heal();
    group.rounds(3);
    assert_eq!(group.values("k"), ["v", "v", "v"]);
}

/// REGIONS-4.3, REGIONS-6.4
#[test]
fn what_is_behind_a_gap_is_not_taken_and_sent_again() {
    let mut group = Group::acquainted(2, Config::default());
    group.urgent(A, "k", put("v"));
    let lost = group.outputs(A);
    assert_eq!(kinds(&lost), ["1>2 delta"]);
    group.urgent(A, "l", put("w"));
    let said = group.outputs(A);
    let answer = group.deliver(said);
    assert_eq!((kinds(&answer).len(), group.version_of(B, A)), (0, 0));
    assert_eq!(group.values("l"), ["w", ""]);
    // In time it counts as lost; nothing is sent until B has said how far it is.
    group.now_ms += limits::RESEND_MS_MIN;
    group.timeout(A);
    assert_eq!(kinds(&group.outputs(A)), [""; 0]);
    let said = group.rounds(1);
    assert_eq!(deltas(&said), [(1, 2)]);
    assert_eq!(group.values("k"), ["v", "v"]);
    assert_eq!(group.version_of(B, A), 2);
}

/// REGIONS-3.2, REGIONS-4.4
#[test]
fn an_old_message_brings_nothing_back() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    group.change(A, "n", Change::CounterAdd(5));
    let old = group.interval_of(A);
    group.settle(old.clone());
    for key in ["k", "n"] {
        group.change(B, key, Change::Delete);
    }
    group.rounds(4);
    assert_eq!(group.items_of(A) + group.items_of(B), 2, "the members are left");
    group.change(B, "n", Change::CounterAdd(1));
    group.settle(old);
    assert_eq!(group.values("k"), ["", ""]);
    assert_eq!(group.views(B, "n"), Some(View::Counter(1)));
}

/// REGIONS-7.1, REGIONS-7.2, REGIONS-7.3
#[test]
fn a_tombstone_goes_when_all_know_of_it() {
    let mut group = Group::acquainted(3, Config::default());
    group.change(A, "k", put("v"));
    group.rounds(2);
    group.cut(A, C);
    group.cut(B, C);
    group.change(A, "k", Change::Delete);
    group.rounds(5);
    assert_eq!([A, B, C].map(|region| group.items_of(region)), [2, 2, 2], "C has not heard of it");
    assert_eq!(group.values("k"), ["", "", "v"]);
    group.heal();
    group.rounds(5);
    assert_eq!([A, B, C].map(|region| group.items_of(region)), [1, 1, 1]);
    assert_eq!(group.region(A).replica.horizon().get(A), 2);
    assert_eq!(group.values("k"), ["", "", ""]);
}

/// REGIONS-7.2
#[test]
fn rows_are_passed_on() {
    let topology = Topology::HubSpoke { hub: A };
    let mut group = Group::acquainted(3, Config { topology, ..Config::default() });
    group.change(B, "k", put("v"));
    group.rounds(1);
    group.change(B, "k", Change::Delete);
    group.rounds(6);
    assert_eq!([A, B, C].map(|region| group.items_of(region)), [1, 1, 1]);
}

/// REGIONS-5.1, REGIONS-5.3, REGIONS-5.4, REGIONS-5.5
#[test]
fn a_region_is_added_by_snapshot_and_goes_on_after_its_leader_is_lost() {
    let mut group = Group::acquainted(2, Config::default());
    for number in 0..900 {
        group.change(A, &format!("k{number}"), Change::Put(vec![b'x'; 1000].into()));
    }
    group.change(B, "gone", put("v"));
    group.rounds(2);
    group.change(A, "gone", Change::Delete);
    group.rounds(4);
    group.join(C, &[A]);
    assert_eq!(group.values("k1").len(), 3);
    group.apply(A, Command::AddRegion { wall_ms: 1, region: C, info: "late".into() });
    let mut parts = 0;
    for round in 0..40 {
        let said = group.round();
        let chunks = said.iter().filter(|message| matches!(message.body, Body::Chunk(_))).count();
        parts += chunks;
        if round == 2 {
            assert_eq!(group.region(C).replica.phase(), Phase::Active);
        }
    }
    assert!((4..8).contains(&parts), "{parts} parts, each once");
    assert_eq!(group.items_of(C), 901);
    group.change(C, "k1", put("w"));
    group.rounds(3);
    assert_eq!(group.values("k1"), ["w", "w", "w"]);
}

/// REGIONS-5.5
#[test]
fn another_leader_goes_on_with_a_snapshot_and_another_source_begins_anew() {
    let mut group = Group::acquainted(2, Config::default());
    for number in 0..900 {
        group.change(A, &format!("k{number}"), Change::Put(vec![b'x'; 1000].into()));
    }
    group.rounds(2);
    group.apply(A, Command::AddRegion { wall_ms: 1, region: C, info: "late".into() });
    group.rounds(1);
    group.join(C, &[A, B]);
    let mut said = group.interval_of(C);
    let source = (0..20).find_map(|_| {
        said = if said.is_empty() { group.interval_of(C) } else { group.deliver(std::mem::take(&mut said)) };
        group.region(C).replica.catch_up().map(|catch_up| catch_up.source)
    });
    let source = source.expect("it has begun");
    // The next question is lost with the leader. Another one asks for what comes next.
    group.lead(C);
    let statuses = group.interval_of(C);
    let acks = group.deliver(statuses);
    group.deliver(acks);
    let asked: Vec<_> = group
        .interval_of(C)
        .into_iter()
        .filter(|message| matches!(message.body, Body::SnapshotRequest(_)))
        .collect();
    let Some(Body::SnapshotRequest(request)) = asked.first().map(|message| &message.body) else {
        panic!("{:?}", kinds(&asked))
    };
    assert!(request.after.is_some() && asked[0].to == source);
    // Its source is gone for good.
    group.cut(C, source);
    group.rounds(12);
    assert_eq!((group.region(C).replica.phase(), group.items_of(C)), (Phase::Active, 901));
}

/// REGIONS-5.2, REGIONS-3.3
#[test]
fn a_removed_region_is_not_listened_to() {
    let mut group = Group::acquainted(3, Config::default());
    group.apply(A, Command::RemoveRegion { wall_ms: 1, region: C });
    group.cut(B, C);
    group.change(C, "k", put("v"));
    let said = group.interval_of(C);
    assert_eq!(kinds(&group.deliver(said)), [""; 0]);
    group.rounds(2);
    assert_eq!(group.values("k"), ["", "", "v"]);
    // It hears of it from nobody; the others do without it.
    group.change(A, "l", put("v"));
    group.change(A, "l", Change::Delete);
    group.rounds(5);
    assert_eq!([A, B].map(|region| group.items_of(region)), [1, 1]);
    // Who is no member, or is meant by nobody, is not heard.
    let ack = Body::Ack(Ack { version: Default::default(), echo_ms: 1 });
    let status = group.status_of(A);
    for (from, to) in [(RegionId(9), A), (B, D)] {
        let bodies = [ack.clone(), Body::Status(status.clone())];
        let said = bodies.map(|body| Message { from, to, body });
        for message in said {
            group.hand(A, message);
        }
    }
    assert_eq!(kinds(&group.outputs(A)), [""; 0]);
}

/// REGIONS-5.6, REGIONS-6.7
#[test]
fn a_region_that_has_lost_its_data_is_noticed() {
    let mut group = Group::acquainted(2, Config::default());
    let backup = group.backup(B);
    group.change(B, "k", put("v"));
    group.rounds(2);
    group.restore(B, backup);
    group.rounds(1);
    assert!(
        matches!(group.alarms[..], [Alarm::Forgotten { region: A, theirs: 1, ours: 0 }, ..]),
        "{:?}",
        group.alarms
    );

    let mut group = Group::acquainted(2, Config::default());
    let backup = group.backup(B);
    group.change(A, "k", put("v"));
    group.rounds(1);
    group.change(A, "k", Change::Delete);
    group.rounds(4);
    assert_eq!(group.region(A).replica.horizon().get(A), 2);
    group.restore(B, backup);
    group.lead(A);
    let said = group.rounds(2);
    assert!(group.alarms.contains(&Alarm::Behind { region: A }), "{:?}", group.alarms);
    assert_eq!(deltas(&said), []);
}

/// REGIONS-8.2, REGIONS-8.3, REGIONS-8.4
#[test]
fn a_comparison_finds_what_was_lost() {
    let mut group = Group::acquainted(2, Config::default());
    for number in 0..50 {
        group.change(A, &format!("k{number}"), put("v"));
    }
    group.rounds(2);
    group.lose_item(B, "k7");
    group.lose_item(A, "k8");
    assert_eq!([group.values("k7"), group.values("k8")], [["v", ""], ["", "v"]]);
    let said = group.rounds(8);
    assert_eq!([group.values("k7"), group.values("k8")], [["v", "v"], ["v", "v"]]);
    assert!(matches!(group.alarms[..], [Alarm::Differs { .. }, ..]), "{:?}", group.alarms);
    let said = kinds(&said);
    for kind in ["hashes", "leaves", "want"] {
        assert!(said.iter().any(|what| what.ends_with(kind)), "{kind}: {said:?}");
    }
    group.alarms.clear();
    let said = kinds(&group.rounds(14));
    assert!(group.alarms.is_empty() && said.iter().any(|what| what.ends_with("hashes")));
    assert!(!said.iter().any(|what| what.ends_with("leaves")), "equal trees need no more than a root");
}

/// REGIONS-8.3
#[test]
fn a_comparison_leaves_alone_what_is_on_its_way() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    group.rounds(2);
    group.change(A, "k", put("w"));
    group.change(B, "l", put("w"));
    let root = group.hashes_of(A);
    let mut said = vec![Message { from: A, to: B, body: Body::Hashes(root) }];
    let mut all = Vec::new();
    while !said.is_empty() {
        said = group.deliver(said);
        all.extend(said.clone());
    }
    assert!(kinds(&all).iter().any(|what| what.ends_with("leaves")));
    assert_eq!(deltas(&all), []);
    assert!(group.alarms.is_empty());
}

/// REGIONS-8.3
#[test]
fn what_was_there_when_a_message_was_sent_is_not_lost_if_it_is_deleted_when_it_arrives() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    group.rounds(2);
    // A comparison of which the last message comes late.
    let whole = group.backup(A);
    group.lose_item(A, "k");
    let root = group.hashes_of(A);
    let mut said = vec![Message { from: A, to: B, body: Body::Hashes(root) }];
    while !said.is_empty() && !kinds(&said)[0].ends_with("leaves") {
        said = group.deliver(said);
    }
    let late = said.remove(0);
    group.restore(A, whole);
    group.rounds(2);
    group.change(B, "k", Change::Delete);
    group.rounds(4);
    assert_eq!(group.items_of(A), 1, "it is collected");
    group.hand(A, late);
    assert_eq!((kinds(&group.outputs(A)).len(), &group.alarms[..]), (0, &[][..]));
}

/// C tells the others that it has changed something, not what, and is cut off.
fn with_a_region_that_is_lost() -> Group {
    let mut group = Group::acquainted(3, Config::default());
    for number in 0..50 {
        group.change(A, &format!("k{number}"), put("v"));
    }
    group.rounds(2);
    group.change(C, "x", put("v"));
    for message in group.interval_of(C) {
        if matches!(message.body, Body::Status(_)) {
            group.hand(message.to, message);
        }
    }
    group
}

/// REGIONS-8.2, REGIONS-5.2
#[test]
fn what_a_removed_region_has_kept_to_itself_is_not_waited_for() {
    let mut group = with_a_region_that_is_lost();
    for region in [A, B] {
        group.cut(region, C);
    }
    group.lose_item(B, "k7");
    group.rounds(8);
    assert_eq!([group.values("k7"), group.values("x")], [["v", "v", "v"], ["", "", "v"]]);
    assert_eq!(group.alarms, [], "what C has may be in its place");
    group.apply(A, Command::RemoveRegion { wall_ms: group.now_ms, region: C });
    group.rounds(3);
    assert!(matches!(group.alarms[..], [Alarm::Differs { .. }, ..]), "{:?}", group.alarms);
    group.alarms.clear();
    group.rounds(14);
    assert_eq!(group.alarms, []);
}

/// REGIONS-8.2, REGIONS-5.2
#[test]
fn of_a_removed_region_nothing_is_said_that_was_to_become_clear() {
    let mut group = with_a_region_that_is_lost();
    group.lose_item(A, "k8");
    let root = group.hashes_of(A);
    let mut said = vec![Message { from: A, to: C, body: Body::Hashes(root) }];
    let mut all = Vec::new();
    while !said.is_empty() {
        said = group.deliver(said);
        // It does not come to tell what it has changed.
        said.retain(|message| !matches!(message.body, Body::Ack(_)));
        all.extend(kinds(&said));
    }
    assert!(all.contains(&"1>3 want".to_owned()), "{all:?}");
    assert_eq!([group.values("k8"), group.values("x")], [["v", "v", "v"], ["", "", "v"]]);
    for region in [A, B] {
        group.cut(region, C);
    }
    group.apply(A, Command::RemoveRegion { wall_ms: group.now_ms, region: C });
    group.rounds(8);
    assert_eq!(group.alarms, []);
}

/// REGIONS-8.5
#[test]
fn who_is_behind_is_not_compared_with() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    group.rounds(1);
    group.lead(A);
    let Hashes { version, .. } = group.hashes_of(B);
    let nodes = vec![(consensus_regions::Node::ROOT, [7; 16])];
    // A has not heard whether B is active.
    group.hand(A, Message { from: B, to: A, body: Body::Hashes(Hashes { version, nodes }) });
    assert_eq!(kinds(&group.outputs(A)), [""; 0]);
}

/// REGIONS-9.1, REGIONS-9.2
#[test]
fn a_clock_that_is_far_ahead_is_not_listened_to() {
    let mut group = Group::acquainted(2, Config::default());
    let ahead = Stamp::new(group.now_ms + 5_001, 0);
    let status = Status { latest: ahead, ..group.status_of(B) };
    group.hand(A, Message { from: B, to: A, body: Body::Status(status.clone()) });
    assert_eq!(kinds(&group.outputs(A)), [""; 0]);
    assert!(matches!(group.alarms[..], [Alarm::ClockAhead { region: B, error }] if error.ahead_ms == 5_001));
    // Time catches up.
    group.now_ms += 1;
    group.hand(A, Message { from: B, to: A, body: Body::Status(status) });
    assert_eq!(kinds(&group.outputs(A)), ["1>2 ack"]);
    // A merge sets the clock: what is changed then is later.
    group.apply(B, Command::Change { wall_ms: group.now_ms + 4_000, key: "k".into(), change: put("v") });
    group.rounds(1);
    group.apply(A, Command::Change { wall_ms: 1, key: "k".into(), change: put("w") });
    group.rounds(2);
    assert_eq!(group.values("k"), ["w", "w"]);
    assert_eq!(group.region(A).replica.latest(), Stamp::new(group.region(A).replica.latest().millis(), 1));
}

/// REGIONS-6.5
#[test]
fn a_new_leader_asks_before_it_sends() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    group.rounds(2);
    group.change(A, "l", put("v"));
    group.lead(A);
    let said = group.interval_of(A);
    assert_eq!(kinds(&said), ["1>2 status"]);
    let said = group.rounds(1);
    let sent = said.iter().filter_map(|message| match &message.body {
        Body::Delta(delta) => Some(delta.items.keys().cloned().collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(sent.collect::<Vec<_>>().concat(), ["l"], "and not what B has already");
}

#[test]
fn lag_is_the_age_of_what_a_region_has_not_heard_of() {
    let mut group = Group::acquainted(2, Config::default());
    assert_eq!(group.lag_ms(A, B), 0);
    group.cut(A, B);
    group.change(A, "k", put("v"));
    group.rounds(3);
    assert!((10_000..=15_000).contains(&group.lag_ms(A, B)), "{}", group.lag_ms(A, B));
    group.heal();
    group.rounds(2);
    assert_eq!(group.lag_ms(A, B), 0);
}

#[test]
fn a_region_that_sends_too_fast_is_told_of_and_loses_nothing() {
    let mut group = Group::acquainted(2, Config::default());
    group.change(A, "k", put("v"));
    let said = group.interval_of(A);
    let delta = said.iter().find(|message| matches!(message.body, Body::Delta(_))).expect("one").clone();
    for _ in 0..=limits::MERGES_MAX {
        group.hand_without_applying(B, delta.clone());
    }
    assert_eq!(group.alarms, [Alarm::Busy { region: A }]);
}
