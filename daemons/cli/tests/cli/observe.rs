//! A real transfer is watched from outside: metrics, health and status while data flows.

use std::{
    ffi::OsStr,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Output,
    thread,
    time::Instant,
};

use crate::support::*;
use serde_json::Value;

/// A running command that tells how it does.
struct Watched {
    process: Process,
    /// Where it listens for DWCP, if it does.
    address: Option<String>,
    metrics: String,
}

impl Watched {
    /// Starts it and reads its first lines: those of standard output if it tells its address there.
    fn start(args: &[&OsStr], listens_on_output: bool, listens_on_errors: bool) -> Self {
        let mut process = Process::spawn(novacron().args(args).args(["--metrics-listen", "127.0.0.1:0"]));
        let (mut output, mut errors) = (process.output_reader(), process.errors_reader());
        let address = match (listens_on_output, listens_on_errors) {
            (true, _) => Some(after(&mut output, LISTENING)),
            (_, true) => Some(after(&mut errors, LISTENING)),
            _ => None,
        };
        let metrics = after(&mut errors, "metrics on http://");
        let metrics = metrics.strip_suffix("/metrics").expect("the path").to_owned();
        swallow(output);
        pass_on(errors);
        Self { process, address, metrics }
    }

    fn scrape(&self) -> String {
        let (code, body) = get(&self.metrics, "/metrics");
        assert_eq!(code, 200);
        body
    }

    /// Looks at the metrics until this is so.
    fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.scrape();
            if is_so(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "still not: {what}\n{text}");
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Looks at the metrics until all that begin so are above zero.
    fn wait_for(&self, series: &[&str]) -> String {
        let above_zero = |text: &str, series: &str| value(text, series).is_some_and(|value| value > 0.0);
        self.wait_until(&format!("{series:?} above zero"), |text| {
            series.iter().all(|series| above_zero(text, series))
        })
    }
}

fn get(address: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (code, body.to_owned())
}

/// The value of the first series that begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn server() -> Watched {
    let args = ["bench", "server", "--listen", "127.0.0.1:0", "--node-id", "receiver"].map(OsStr::new);
    Watched::start(&args, true, false)
}

/// Sends at a rate that leaves this machine time for other tests, until it is killed.
fn client(server: &Watched) -> Watched {
    let to = server.address.as_deref().expect("it listens");
    let args = "--node-id sender --data vm --streams 2 --time 3600 --interval 3600 --pacing 30MiB";
    let mut all = vec!["bench", "client", to];
    all.extend(args.split(' '));
    Watched::start(&all.iter().map(OsStr::new).collect::<Vec<_>>(), false, false)
}

fn status(of: &Watched, flags: &[&str]) -> Output {
    let output = novacron().args(["status", &of.metrics]).args(flags).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    output
}

#[test]
fn every_metric_of_the_transport_is_there_and_makes_sense() {
    let server = server();
    let client = client(&server);
    let busy = [
        "dwcp_wire_bytes_sent_total{",
        "dwcp_wire_bytes_received_total{",
        "dwcp_active_streams{",
        "dwcp_rtt_seconds_sum{",
    ];
    let sending = ["dwcp_bytes_sent_total{peer=\"receiver\"", "dwcp_delivery_rate_bytes_per_second{"];
    let sent = client.wait_for(&[&busy[..], &sending].concat());
    let received = server.wait_for(&[&busy[..], &["dwcp_bytes_received_total{peer=\"sender\""]].concat());

    let at =
        |text: &str, series: &str| value(text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    // Series, and the range in which its value makes sense.
    let above_zero = f64::MIN_POSITIVE..=f64::MAX;
    let everywhere = [
        ("dwcp_active_connections ", 1.0..=1.0),
        ("dwcp_transport_info{kind=\"tcp\"} ", 1.0..=1.0),
        ("dwcp_compression_errors_total ", 0.0..=0.0),
        ("dwcp_integrity_failures_total ", 0.0..=0.0),
        ("dwcp_wire_bytes_sent_total{", above_zero.clone()),
        ("dwcp_wire_bytes_received_total{", above_zero.clone()),
        ("dwcp_resumes_total{", 0.0..=0.0),
        ("dwcp_active_streams{", 1.0..=256.0),
        ("dwcp_packet_loss_ratio{", 0.0..=1.0),
        ("dwcp_rtt_seconds_count{", above_zero.clone()),
        ("dwcp_rtt_seconds_sum{", f64::MIN_POSITIVE..=1e6),
        ("dwcp_rtt_seconds_bucket{", 0.0..=f64::MAX),
        ("dwcp_link_decisions_total{", 0.0..=f64::MAX),
        ("dwcp_delivery_rate_bytes_per_second{", 0.0..=f64::MAX),
    ];
    for text in [&sent, &received] {
        for (series, range) in &everywhere {
            let value = at(text, series);
            assert!(range.contains(&value), "{series} is {value}, not in {range:?}:\n{text}");
        }
        for line in text.lines().filter(|line| line.starts_with("dwcp_") && line.contains("peer=")) {
            assert!(line.contains("region=\"\""), "a peer without its region: {line}");
        }
        let described = text.lines().filter(|line| line.starts_with("# TYPE dwcp_")).count();
        assert_eq!(text.lines().filter(|line| line.starts_with("# HELP dwcp_")).count(), described, "{text}");
    }
    // Headers cost something, and much is sent. A scrape may fall between the counters and what is made of them.
    let settled = client.wait_until("the ratio is payload over wire bytes", |text| {
        let ratio = at(text, "dwcp_compression_ratio{");
        let whole = at(text, "dwcp_bytes_sent_total{") / at(text, "dwcp_wire_bytes_sent_total{");
        ratio > 0.9 && (ratio - whole).abs() < 1e-6 * ratio
    });
    let payload = at(&settled, "dwcp_bytes_sent_total{");
    client.wait_until("the counters count", |text| at(text, "dwcp_bytes_sent_total{") > payload);
    for path in ["/healthz", "/ready"] {
        assert_eq!(get(&client.metrics, path).0, 200);
        assert_eq!(get(&server.metrics, path).0, 200);
    }

    // A connection that ended is not active any more.
    drop(client);
    server.wait_until("no links of a dead peer", |text| at(text, "dwcp_active_streams{") == 0.0);
}

#[test]
fn status_shows_links_and_the_reasons_of_the_controllers() {
    let server = server();
    let client = client(&server);
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let output = status(&client, &["--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let decided =
            told["connections"][0]["link_decision"].as_str().is_some_and(|reason| !reason.is_empty());
        if decided {
            break told;
        }
        assert!(Instant::now() < deadline, "the link controller decides nothing: {told}");
        thread::sleep(LOOK_INTERVAL);
    };
    assert_eq!(told["program"], "novacron bench client");
    assert_eq!(told["node_id"], "sender");
    assert_eq!((&told["ready"], &told["listen"]), (&true.into(), &Value::Null));
    assert_eq!(told["connections_total"], 1);
    let connection = &told["connections"][0];
    assert_eq!(connection["peer"]["node_id"], "receiver");
    assert_eq!(connection["peer"]["address"], server.address.as_deref().unwrap());
    let why = connection["congestion_control_decision"].as_str().unwrap_or_default();
    // At first, or after a segment that a busy machine was late with: what is decided when is the controller's own tests'.
    assert!(why.contains("cubic"), "{told}");
    assert_eq!(connection["pacing_decision"], "251.7 Mbit/s: configured", "{told}");
    assert!(connection["compression_decision"].as_str().is_some_and(|why| why.contains(" data")), "{told}");
    let links = connection["links"].as_array().expect("links");
    assert!(!links.is_empty(), "{told}");
    for link in links {
        for field in
            ["id", "rtt_ms", "rtt_min_ms", "delivery_rate_bytes_per_second", "retransmits", "loss_ratio"]
        {
            assert!(link[field].as_f64().is_some_and(|value| value >= 0.0), "{field} of {link}");
        }
        assert!(link["congestion_control"].as_str().is_some_and(|name| !name.is_empty()), "{link}");
        assert_eq!(link["zerocopy"], "off: within one machine the kernel copies");
    }

    let text = String::from_utf8(status(&client, &[]).stdout).unwrap();
    assert!(text.starts_with("novacron bench client "), "{text}");
    assert!(text.contains("peer receiver, "), "{text}");
    assert!(text.contains("\n  compression: "), "{text}");
    let reason = text.lines().find(|line| line.starts_with("  links: ")).expect("a line about links");
    assert!(!reason.contains("nothing changed yet"), "{text}");
    assert!(text.lines().any(|line| line.contains("Mbit/s") || line.contains("kbit/s")), "{text}");
    let text = String::from_utf8(status(&server, &[]).stdout).unwrap();
    assert!(text.contains("peer sender, ") && text.contains(", listens on 127.0.0.1:"), "{text}");
}

#[test]
fn a_transfer_is_watched_from_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (from, into) = (folder.path().join("from"), folder.path().join("into"));
    // Zeros that are not a hole.
    std::fs::write(&from, vec![0; 64 << 20]).unwrap();
    let args = ["recv", "--listen", "127.0.0.1:0", "--node-id", "store", "--into"].map(OsStr::new);
    let receiver = Watched::start(&[&args[..], &[into.as_os_str()]].concat(), false, true);
    assert_eq!(
        value(&receiver.scrape(), "dwcp_active_connections "),
        Some(0.0),
        "before the first connection"
    );
    let to = format!("{}:f", receiver.address.as_deref().unwrap());
    let args = ["send", "--pacing", "1MiB", "--compression", "none", "--progress", "none"].map(OsStr::new);
    let sender = Watched::start(&[&args[..], &[from.as_os_str(), OsStr::new(&to)]].concat(), false, false);
    sender.wait_for(&["dwcp_bytes_sent_total{peer=\"store\""]);
    receiver.wait_for(&["dwcp_bytes_received_total{"]);
    let text = String::from_utf8(status(&sender, &[]).stdout).unwrap();
    assert!(text.starts_with("novacron send ") && text.contains("compression: none: switched off"), "{text}");
    let text = String::from_utf8(status(&receiver, &[]).stdout).unwrap();
    assert!(text.starts_with("novacron recv ") && text.contains(", ready, listens on"), "{text}");

    // While it drains, it is alive and takes on nothing.
    assert_eq!(get(&receiver.metrics, "/ready").0, 200);
    for (side, process) in [(&sender, &sender.process), (&receiver, &receiver.process)] {
        process.signal(Signal::USR1);
        wait_until("it takes on no more work", || get(&side.metrics, "/ready").0 == 503);
        assert_eq!(get(&side.metrics, "/healthz").0, 200);
    }
}

#[test]
fn what_cannot_be_watched_is_said() {
    let refused = |args: &[&str], code: i32, words: &str| {
        let output = novacron().args(args).output().unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(words), "{words:?} is not in {errors:?}");
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["bench", "server", "--listen", "127.0.0.1:0", "--metrics-listen"];
    refused(&[&serve[..], &["0.0.0.0:0"]].concat(), 4, "--metrics-allow-plaintext");
    refused(&[&serve[..], &[&*address]].concat(), 1, &address);
    refused(&[&serve[..], &["9101"]].concat(), 2, "metrics.listen");
    drop(taken);
    refused(&["status", &address], 1, &address);
    refused(&["status", "nowhere"], 1, "nowhere");
}
