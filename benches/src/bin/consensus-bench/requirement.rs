//! What the figures must be.

use dwcp_benches::report::{
    Must::{self, AtLeast, AtMost, Reported},
    Requirement, median,
};

use crate::{
    clients::Operation,
    contender::Kind::{self, Floor, Novacron, NovacronLease},
    figure::{
        Figure::{
            self, CpuSeconds, EventsPerSecond, Failed, GapMs, LastWatcherP99Ms, OfDisk, P99Ratio, P99Us,
            PerSecond, RssMib, SwapsPerSecond, WrittenBytes,
        },
        p99, total, worst,
    },
    load::{CRASH_CASES, Load, PLANNED_CASE, steady_case, watch_case},
    results::Results,
};

/// The most clients, and watchers, that are compared.
const MANY: usize = 1000;
/// Clients of the loads that have one number of them.
const USUAL: usize = 64;

/// Every requirement that this bench can judge, and ratios that are reported beside them.
pub(crate) fn requirements(results: &Results) -> Vec<Requirement> {
    let mut all = puts(results);
    all.push(memory(results));
    all.extend(reads(results));
    all.extend(others(results));
    all.extend(leaders(results));
    all.extend(join(results));
    all
}

fn against_etcd(
    results: &Results,
    (load, case): (Load, &str),
    ours: Kind,
    figure: Figure,
    must: Must,
) -> Requirement {
    let (heading, ..) = figure.columns()[0];
    let who = match ours {
        Floor => "answers alone",
        NovacronLease => "lease reads of novacron",
        _ => "novacron",
    };
    Requirement {
        what: format!("{}, {case}: {heading}, {who} / etcd", load.title()),
        value: results.ratio(load, case, ours, figure),
        must,
    }
}

fn puts(results: &Results) -> Vec<Requirement> {
    let bounds = [(1, 1.3, 0.7), (USUAL, 2.0, 0.5), (MANY, 2.0, 0.5)];
    let mut all = Vec::new();
    for (count, rate, latency) in bounds {
        let case = steady_case(Operation::Put, count);
        let put = |figure, must| against_etcd(results, (Load::Put, &case), Novacron, figure, must);
        all.push(put(PerSecond, AtLeast(rate)));
        all.push(put(P99Us, AtMost(latency)));
        all.push(put(CpuSeconds, AtMost(0.7)));
        all.push(put(WrittenBytes, Reported));
    }
    let case = steady_case(Operation::Put, MANY);
    all.push(against_etcd(results, (Load::Put, &case), Novacron, RssMib, Reported));
    all
}

fn memory(results: &Results) -> Requirement {
    let case = only_case(results, Load::Memory);
    against_etcd(results, (Load::Memory, case), Novacron, RssMib, AtMost(0.6))
}

fn reads(results: &Results) -> [Requirement; 4] {
    let linearizable = steady_case(Operation::LinearizableRead, USUAL);
    let serializable = steady_case(Operation::SerializableRead, USUAL);
    let read = |case, ours, must| against_etcd(results, (Load::Read, case), ours, PerSecond, must);
    [
        read(&linearizable, Novacron, AtLeast(2.0)),
        read(&linearizable, NovacronLease, AtLeast(4.0)),
        read(&serializable, Novacron, Reported),
        read(&linearizable, Floor, Reported),
    ]
}

fn others(results: &Results) -> Vec<Requirement> {
    let clients = steady_case(Operation::Mixed, USUAL);
    let watchers = watch_case(MANY);
    let reported = |load, case: &str, figure| against_etcd(results, (load, case), Novacron, figure, Reported);
    vec![
        reported(Load::Mixed, &clients, PerSecond),
        reported(Load::Txn, &clients, PerSecond),
        reported(Load::Txn, &clients, SwapsPerSecond),
        reported(Load::Watch, &watchers, EventsPerSecond),
        reported(Load::Watch, &watchers, LastWatcherP99Ms),
    ]
}

fn leaders(results: &Results) -> Vec<Requirement> {
    let ours = |load, case, figure| results.values(load, case, Novacron, figure);
    let [short, long] = CRASH_CASES;
    let usual = ours(Load::Planned, PLANNED_CASE, GapMs);
    let ratio = |case| {
        let values = |kind| median(results.values(Load::Crash, case, kind, GapMs));
        Some(values(Novacron)? / values(Kind::Etcd)?)
    };
    let crash = |case, what: &str, value, must| Requirement {
        what: format!("{}, {case}: {what}", Load::Crash.title()),
        value,
        must,
    };
    let planned = |what: &str, value, must| Requirement {
        what: format!("{}: {what}", Load::Planned.title()),
        value,
        must,
    };
    let failed = ours(Load::Planned, PLANNED_CASE, Failed);
    vec![
        crash(short, "median, novacron / etcd", ratio(short), AtMost(1.0)),
        crash(long, "median, novacron / etcd", ratio(long), Reported),
        crash(long, "worst of novacron, ms", worst(ours(Load::Crash, long, GapMs)), AtMost(1000.0)),
        planned("p99 of novacron, ms", p99(usual), AtMost(50.0)),
        planned("failed writes of novacron", total(failed).filter(|_| !failed.is_empty()), AtMost(0.0)),
    ]
}

/// The name of a load's only case, whatever size was asked for.
fn only_case(results: &Results, load: Load) -> &str {
    let measured = results.loads.get(&load);
    measured.and_then(|measured| measured.rows.first()).map_or("", |row| &row.case)
}

fn join(results: &Results) -> Vec<Requirement> {
    let case = only_case(results, Load::Join);
    let bound = |figure: Figure, must| {
        let (heading, ..) = figure.columns()[0];
        Requirement {
            what: format!("{}, {case}: novacron, {heading}", Load::Join.title()),
            value: median(results.values(Load::Join, case, Novacron, figure)),
            must,
        }
    };
    vec![bound(OfDisk, AtLeast(0.7)), bound(P99Ratio, AtMost(2.0))]
}
