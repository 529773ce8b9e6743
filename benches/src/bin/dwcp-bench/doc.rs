//! The tables.

use std::fmt::Write as _;

use dwcp_benches::report::{NOT_MET, Section, median, min_max, short, table};

use crate::{
    compression::{self, CODECS, DATA},
    contender::{Group, TCP_CUBIC, dwcp},
    control::{self, TCP_LINKS, Who},
    lab,
    requirement::{requirements, title},
    results::Results,
    shaped::LINKS,
};

/// Everything that was measured.
pub(crate) fn sections(results: &Results) -> Vec<Section> {
    let mut sections = vec![
        Section { name: "machine", text: machine(results) },
        Section { name: "requirements", text: table(&requirements(results)) },
    ];
    let groups = [
        ("plain", Group::Plain),
        ("encrypted", Group::Encrypted),
        ("round_trip", Group::RoundTrip),
        ("messages", Group::Messages),
    ];
    for (name, group) in groups {
        if results.group(group).next().is_some() {
            sections.push(Section { name, text: group_table(results, group) });
        }
    }
    if !results.control.is_empty() {
        sections.push(Section { name: "control", text: control_table(results) });
    }
    if !results.compression.is_empty() {
        sections.push(Section { name: "compression", text: compression_table(results) });
    }
    if let Some(lab) = &results.lab {
        sections.push(Section { name: "lab", text: lab::table(lab) });
    }
    if let Some(course) = &results.course {
        sections.push(Section { name: "course", text: lab::course_table(course) });
    }
    if let Some(counted) = &results.counted {
        sections.push(Section { name: "counted", text: format!("```text\n{}\n```", counted.trim()) });
    }
    sections
}

/// The main figures in short, for the README.
pub(crate) fn summary(results: &Results) -> Section {
    Section { name: "summary", text: summary_table(results) }
}

fn machine(results: &Results) -> String {
    let m = &results.machine;
    format!(
        "{} rounds of {} s, medians. {} cores of {}, Linux {}, default congestion control {}, commit {}, {}, `{}`.",
        results.rounds,
        results.seconds,
        m.processors,
        m.processor,
        m.kernel,
        m.congestion_control,
        m.commit,
        m.date,
        m.command
    )
}

fn summary_table(results: &Results) -> String {
    let mut text = "| | DWCP | against | | ratio |\n|---|---:|---|---:|---:|\n".to_owned();
    let (bulk, tls, one) = (Group::Plain, Group::Encrypted, &*dwcp(1));
    let rows = [
        ("bulk, one link, plain", bulk, bulk, "raw tokio TCP"),
        ("", bulk, bulk, TCP_CUBIC),
        ("", bulk, bulk, "tonic streaming"),
        ("", bulk, tls, "quinn (always encrypted)"),
        ("bulk, one link, TLS", tls, tls, "raw tokio-rustls"),
        ("", tls, tls, "quinn"),
        ("round trip p50, 64 bytes", Group::RoundTrip, Group::RoundTrip, "LengthDelimitedCodec"),
        ("", Group::RoundTrip, Group::RoundTrip, "quinn"),
        ("", Group::RoundTrip, Group::RoundTrip, "tonic unary"),
        ("one-way messages, 64 bytes", Group::Messages, Group::Messages, "LengthDelimitedCodec"),
    ];
    for (what, group, other_group, other) in rows {
        let name = other.split(" (").next().unwrap_or(other);
        let (Some(ours), Some(theirs)) = (results.value(group, one), results.value(other_group, name)) else {
            continue;
        };
        let (unit, scale) = unit(group);
        let [a, b, ratio] = [ours / scale, theirs / scale, ours / theirs];
        let _ = writeln!(text, "| {what} | {a:.1} {unit} | {other} | {b:.1} {unit} | {ratio:.2} |");
    }
    for scenario in results.lab.iter().flat_map(|lab| &lab.scenarios) {
        let (Some(ours), Some((name, best))) = (scenario.median("novacron"), scenario.best_rival()) else {
            continue;
        };
        let (what, ratio) = (&scenario.scenario.name, ours / best);
        let _ = writeln!(text, "| WAN, {what} | {ours:.0} Mbit/s | {name} | {best:.0} Mbit/s | {ratio:.3} |");
    }
    if let Some(rate) = compression::value(&results.compression, "100 Mbit/s", "vm", "auto") {
        let [payload, ratio] = [rate / 1e6, rate / 100e6];
        let _ = writeln!(
            text,
            "| VM-like data over 100 Mbit/s | {payload:.0} Mbit/s | the link's rate | 100 Mbit/s | {ratio:.2} |"
        );
    }
    let judged = requirements(results);
    let met = judged.iter().filter(|requirement| requirement.met() == "yes").count();
    let missed = judged.iter().filter(|requirement| requirement.met() == NOT_MET).count();
    let _ = write!(text, "\nOf the figures that are required, {met} are met and {missed} are not.");
    text
}

/// The unit of a table and what one of it is in the unit of the stored values.
pub(crate) fn unit(group: Group) -> (&'static str, f64) {
    match group {
        Group::Plain | Group::Encrypted | Group::Compression => ("Gbit/s", 1e9),
        Group::RoundTrip | Group::Control => ("µs", 1.0),
        Group::Messages => ("M/s", 1e6),
    }
}

fn group_table(results: &Results, group: Group) -> String {
    let (unit, scale) = unit(group);
    let p99 = group == Group::RoundTrip;
    let mut text = format!("| {} | {unit} | min .. max |", title(group));
    text.push_str(if p99 { " p99 |" } else { "" });
    text.push_str(" server MiB | client MiB |\n|---|---:|---:|---:|---:|");
    text.push_str(if p99 { "---:|\n" } else { "\n" });
    for row in results.group(group) {
        let (min, max) = min_max(&row.values);
        let _ = write!(
            text,
            "| {}{} | {:.2} | {:.2} .. {:.2} |",
            row.name,
            failed(row.failures),
            median(&row.values).unwrap_or(f64::NAN) / scale,
            min / scale,
            max / scale
        );
        if p99 {
            let _ = write!(text, " {:.1} |", median(&row.p99).unwrap_or(f64::NAN));
        }
        let mib = |kib: &[f64]| median(kib).map_or("-".to_owned(), |kib| format!("{:.1}", kib / 1024.0));
        let _ = writeln!(text, " {} | {} |", mib(&row.server_rss_kib), mib(&row.client_rss_kib));
    }
    text.trim_end().to_owned()
}

fn failed(rounds: u32) -> String {
    if rounds == 0 { String::new() } else { format!(", {rounds} failed") }
}

fn control_table(results: &Results) -> String {
    let mut text = "| link | round trip of | idle p50 | idle p99 | beside a stream p50 | min .. max | p99 | \
                    one frame per link |\n|---|---|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (link, mbit) in LINKS {
        for tcp_links in TCP_LINKS {
            for who in [Who::Dwcp, Who::Tcp] {
                let [idle, beside] =
                    [false, true].map(|loaded| control::find(&results.control, link, who, tcp_links, loaded));
                let (Some(idle), Some(beside)) = (idle, beside) else { continue };
                let ms = |values: &[f64]| median(values).map_or("-".to_owned(), |ms| format!("{ms:.2}"));
                let (min, max) = min_max(&beside.p50_ms);
                let bound = mbit.map_or("-".to_owned(), |mbit| short(control::frames_ms(mbit, tcp_links)));
                let _ = writeln!(
                    text,
                    "| {link} | {}{} | {} | {} | {} | {min:.2} .. {max:.2} | {} | {bound} |",
                    control::name(who, tcp_links),
                    failed(idle.failures + beside.failures),
                    ms(&idle.p50_ms),
                    ms(&idle.p99_ms),
                    ms(&beside.p50_ms),
                    ms(&beside.p99_ms),
                );
            }
        }
    }
    text.trim_end().to_owned()
}

fn compression_table(results: &Results) -> String {
    let mut text = "| link | data |".to_owned();
    for (codec, ..) in CODECS {
        let _ = write!(text, " {codec} |");
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---:|".repeat(CODECS.len()));
    text.push('\n');
    for (link, _) in LINKS {
        for data in DATA {
            let _ = write!(text, "| {link} | {data} |");
            for (codec, ..) in CODECS {
                let cell = compression::find(&results.compression, link, data, codec);
                let value = cell.and_then(|cell| median(&cell.values));
                let rate = value.map_or("-".to_owned(), |rate| format!("{:.0}", rate / 1e6));
                let ratio = cell.and_then(|cell| cell.ratio).map(|ratio| format!(" ({ratio:.2})"));
                let failed = failed(cell.map_or(0, |cell| cell.failures));
                let _ = write!(text, " {rate}{}{failed} |", ratio.unwrap_or_default());
            }
            text.push('\n');
        }
    }
    text.trim_end().to_owned()
}
