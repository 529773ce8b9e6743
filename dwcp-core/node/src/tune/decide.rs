//! What is wanted of each item, and what has to change for it. Pure.

use super::{Decision, Item, Outcome, Settings};

/// What an item should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// This value.
    Exactly(&'static str),
    /// This number or more.
    AtLeast(u64),
    /// Three numbers, least, first and most, of which the last is this or more. The others are left.
    MostAtLeast(u64),
    /// `fq`, in place of a qdisc that nobody has chosen.
    Fq,
}

/// The sysctls, then the qdiscs: a multi-queue qdisc takes its children from a sysctl.
pub(super) fn wants(settings: &Settings) -> Vec<(Item, Want)> {
    let bytes = settings.buffer_bytes_max;
    let mut wants = vec![
        ("net.core.rmem_max", Want::AtLeast(bytes)),
        ("net.core.wmem_max", Want::AtLeast(bytes)),
        ("net.ipv4.tcp_rmem", Want::MostAtLeast(bytes)),
        ("net.ipv4.tcp_wmem", Want::MostAtLeast(bytes)),
        ("net.ipv4.tcp_congestion_control", Want::Exactly("bbr")),
        ("net.core.default_qdisc", Want::Exactly("fq")),
    ];
    if settings.forwarding {
        wants.push((super::FORWARDING, Want::Exactly("1")));
    }
    let sysctls = wants.into_iter().map(|(name, want)| (Item::Sysctl(name.to_owned()), want));
    let qdiscs = settings.interfaces.iter().map(|name| (Item::RootQdisc(name.clone()), Want::Fq));
    sysctls.chain(qdiscs).collect()
}

/// What has to happen to an item that has this value.
pub(super) fn decide(want: &Want, present: &str) -> Decision {
    let already = || Decision::Stay(Outcome::Already { value: present.to_owned() });
    let change = |to: String| Decision::Change { from: present.to_owned(), to };
    let cannot = |reason| Decision::Stay(Outcome::Cannot { reason });
    match want {
        Want::Exactly(value) if *value == present => already(),
        Want::Exactly(value) => change((*value).to_owned()),
        Want::AtLeast(least) => match present.parse::<u64>() {
            Ok(number) if number >= *least => already(),
            Ok(_) => change(least.to_string()),
            Err(_) => cannot(format!("it is {present:?}, which is no number")),
        },
        Want::MostAtLeast(least) => {
            let numbers: Result<Vec<u64>, _> = present.split_whitespace().map(str::parse).collect();
            match numbers.as_deref() {
                Ok([_, _, most]) if most >= least => already(),
                Ok([low, first, _]) => change(format!("{low} {first} {least}")),
                _ => cannot(format!("it is {present:?}, which is not three numbers")),
            }
        }
        Want::Fq => match present.strip_prefix(super::kernel::DEFAULT) {
            // One qdisc for each queue of the card. A single one at the root would put all queues behind one lock; made
            // anew, each gets the qdisc of the sysctl.
            Some("mq") => change("mq".to_owned()),
            Some("fq") => already(),
            Some(_) => change("fq".to_owned()),
            None if present == "fq" => already(),
            None => cannot(format!(
                "somebody has put {present} there: remove it (`tc qdisc del dev INTERFACE root`) or leave it"
            )),
        },
    }
}
