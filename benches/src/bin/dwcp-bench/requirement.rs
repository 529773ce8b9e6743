//! What the figures must be, and whether they are.

use dwcp_benches::report::{Must, Requirement, median, ratio};

use crate::{
    compression::{self, CODECS, DATA},
    contender::{Group, IPERF3_CUBIC, TCP_CUBIC, TLS_LINKS, dwcp},
    control::{self, TCP_LINKS, Who},
    lab::Lab,
    results::Results,
    shaped::LINKS,
};

/// Every requirement that this bench can judge.
pub(crate) fn requirements(results: &Results) -> Vec<Requirement> {
    let mut all = Vec::new();
    let mut compare = |(group, ours): (Group, &str), (other_group, theirs): (Group, &str), must| {
        let value = results.ratio((group, ours), (other_group, theirs));
        all.push(Requirement { what: format!("{}: {ours} / {theirs}", title(group)), value, must });
    };
    use Must::{AtLeast, AtMost, Reported};
    for links in [1, 4] {
        let ours = &*dwcp(links);
        compare((Group::Plain, ours), (Group::Plain, "raw tokio TCP"), AtLeast(0.95));
        compare((Group::Plain, ours), (Group::Plain, TCP_CUBIC), Reported);
        compare((Group::Plain, ours), (Group::Plain, "iperf3"), Reported);
        compare((Group::Plain, ours), (Group::Plain, IPERF3_CUBIC), Reported);
        compare((Group::Plain, ours), (Group::Plain, "tonic streaming"), AtLeast(3.0));
        // quinn is never without encryption; DWCP over TLS beside it follows.
        compare((Group::Plain, ours), (Group::Encrypted, "quinn"), AtLeast(3.0));
    }
    for links in TLS_LINKS {
        let ours = &*dwcp(links);
        compare((Group::Encrypted, ours), (Group::Encrypted, "raw tokio-rustls"), AtLeast(0.95));
        // Every byte is encrypted here, so what several links carry is a matter of processors; one link is the default on
        // a path as short as this.
        let must = if links == 1 { AtLeast(3.0) } else { Reported };
        compare((Group::Encrypted, ours), (Group::Encrypted, "quinn"), must);
    }
    let ours = &*dwcp(1);
    compare((Group::RoundTrip, ours), (Group::RoundTrip, "LengthDelimitedCodec"), AtMost(1.0));
    compare((Group::RoundTrip, ours), (Group::RoundTrip, "quinn"), AtMost(0.5));
    compare((Group::RoundTrip, ours), (Group::RoundTrip, "tonic unary"), AtMost(0.5));
    compare((Group::Messages, ours), (Group::Messages, "LengthDelimitedCodec"), AtLeast(1.5));
    // What no transport over one TCP socket can exceed on loopback.
    compare((Group::Plain, "raw tokio TCP"), (Group::Plain, "tonic streaming"), Reported);
    compare((Group::Plain, "raw tokio TCP"), (Group::Encrypted, "quinn"), Reported);
    compare((Group::Encrypted, "raw tokio-rustls"), (Group::Encrypted, "quinn"), Reported);
    for (link, mbit) in LINKS {
        // Loopback has no rate that a frame could be held against.
        if let Some(mbit) = mbit {
            all.extend(TCP_LINKS.into_iter().flat_map(|links| beside_a_stream(results, link, mbit, links)));
        }
    }
    for (link, _) in LINKS {
        for data in DATA {
            all.push(adaptive(results, link, data));
        }
    }
    let vm = compression::value(&results.compression, "100 Mbit/s", "vm", "auto");
    all.push(Requirement {
        what: "compression, 100 Mbit/s: payload of vm data / link rate".to_owned(),
        value: vm.map(|rate| rate / 100e6),
        must: AtLeast(3.0),
    });
    all.extend(results.counted.iter().flat_map(|counted| crate::counted::requirements(counted)));
    all.extend(results.lab.iter().flat_map(lab));
    all
}

/// The name of a table.
pub(crate) fn title(group: Group) -> &'static str {
    match group {
        Group::Plain => "bulk, plain",
        Group::Encrypted => "bulk, encrypted",
        Group::RoundTrip => "round trip p50, 64 bytes",
        Group::Messages => "one-way messages, 64 bytes",
        Group::Control => "round trip beside a stream, 64 bytes",
        Group::Compression => "compression",
    }
}

/// What a stream adds to the round trip of control messages beyond what it adds to that of a second TCP connection,
/// which is the network's own queue; and the latter.
fn beside_a_stream(results: &Results, link: &str, mbit: u32, tcp_links: u16) -> [Requirement; 2] {
    let added = |who| control::added_ms(&results.control, link, who, tcp_links);
    let what = |who| format!("{}, {link}: {}", title(Group::Control), control::name(who, tcp_links));
    [
        Requirement {
            what: format!("{}, p50 less idle p50 less that of TCP beside, ms", what(Who::Dwcp)),
            value: added(Who::Dwcp).zip(added(Who::Tcp)).map(|(ours, network)| ours - network),
            must: Must::AtMost(control::frames_ms(mbit, tcp_links)),
        },
        Requirement {
            what: format!("{}, p50 less idle p50, ms", what(Who::Tcp)),
            value: added(Who::Tcp),
            must: Must::Reported,
        },
    ]
}

/// Random data must not lose against `none`, other data little against the best static level.
fn adaptive(results: &Results, link: &str, data: &str) -> Requirement {
    let cell = |codec| compression::find(&results.compression, link, data, codec);
    let (against, other, must) = if data == "random" {
        ("none", cell("none"), Must::AtLeast(0.97))
    } else {
        let static_levels = CODECS.iter().map(|(codec, ..)| *codec).filter(|&codec| codec != "auto");
        let best = static_levels
            .filter_map(cell)
            .max_by(|a, b| median(&a.values).unwrap_or(0.0).total_cmp(&median(&b.values).unwrap_or(0.0)));
        ("the best static level", best, Must::AtLeast(0.9))
    };
    Requirement {
        what: format!("compression, {link}: {data}, auto / {against}"),
        value: cell("auto").zip(other).and_then(|(auto, other)| ratio(&auto.values, &other.values)),
        must,
    }
}

fn lab(lab: &Lab) -> impl Iterator<Item = Requirement> {
    lab.scenarios.iter().flat_map(|scenario| {
        let best = scenario.best_rival().map(|(_, best)| best);
        let (name, rate) = (&scenario.scenario.name, scenario.scenario.rate_mbit);
        let ours = scenario.median("novacron");
        let against_best = Requirement {
            what: format!("lab {name}: novacron / the best of the others"),
            value: ours.zip(best).map(|(ours, best)| ours / best),
            must: Must::AtLeast(1.0),
        };
        let fills = best.is_some_and(|best| best >= 0.9 * rate).then(|| Requirement {
            what: format!("lab {name}: novacron / the link's rate, where another reaches 0.9"),
            value: ours.map(|ours| ours / rate),
            must: Must::AtLeast(0.85),
        });
        std::iter::once(against_best).chain(fills)
    })
}
