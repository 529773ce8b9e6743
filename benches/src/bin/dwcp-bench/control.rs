//! Control messages beside a stream that saturates the connection: their round trip, and what it should not exceed.
//!
//! A small message that comes while a link is writing a frame waits for that frame, which is why a frame on every link
//! is the bound. What waits in the network's own queue delays everybody: a second TCP connection beside the same stream
//! shows how much that is.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow};
use dwcp_benches::{
    report::median,
    workload::{BLOCK, Report},
};
use serde::{Deserialize, Serialize};

use crate::{
    contender::{Tools, dwcp},
    process::{GRACE, Server, client},
    shaped::{LINKS, Link},
};

/// TCP links of a DWCP connection.
pub(crate) const TCP_LINKS: [u16; 2] = [1, 4];
/// What a stream gets before something else is measured beside it.
const WARM_UP: Duration = Duration::from_millis(500);

/// Whose round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    /// A control message of the connection that carries the stream.
    Dwcp,
    /// A raw TCP connection of its own.
    Tcp,
}

/// One round trip, in milliseconds, one value per round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) link: String,
    pub(crate) who: Who,
    /// TCP links of the DWCP connection.
    pub(crate) tcp_links: u16,
    /// Beside a stream, or idle.
    pub(crate) loaded: bool,
    pub(crate) p50_ms: Vec<f64>,
    pub(crate) p99_ms: Vec<f64>,
    /// Rounds without a value.
    pub(crate) failures: u32,
}

/// One cell.
pub(crate) fn find<'a>(
    cells: &'a [Cell],
    link: &str,
    who: Who,
    tcp_links: u16,
    loaded: bool,
) -> Option<&'a Cell> {
    cells
        .iter()
        .find(|cell| (&*cell.link, cell.who, cell.tcp_links, cell.loaded) == (link, who, tcp_links, loaded))
}

/// What the stream adds to the median round trip, in milliseconds.
pub(crate) fn added_ms(cells: &[Cell], link: &str, who: Who, tcp_links: u16) -> Option<f64> {
    let p50 = |loaded| median(&find(cells, link, who, tcp_links, loaded)?.p50_ms);
    Some(p50(true)? - p50(false)?)
}

/// How long a frame for each TCP link takes at a rate, in milliseconds.
pub(crate) fn frames_ms(mbit: u32, tcp_links: u16) -> f64 {
    (BLOCK * 8 * usize::from(tcp_links)) as f64 / (f64::from(mbit) * 1e3)
}

/// The name of a row.
pub(crate) fn name(who: Who, tcp_links: u16) -> String {
    match who {
        Who::Dwcp => dwcp(tcp_links),
        Who::Tcp => format!("TCP beside {}", dwcp(tcp_links)),
    }
}

/// Measures every cell, in rounds.
pub(crate) fn measure(tools: &Tools, rounds: usize, time: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (name, mbit) in LINKS {
        let link = match Link::open(mbit) {
            Ok(link) => link,
            Err(error) => {
                eprintln!("SKIP: control messages over {name}: {error:#}");
                continue;
            }
        };
        let first = cells.len();
        for tcp_links in TCP_LINKS {
            for (who, loaded) in [(Who::Dwcp, false), (Who::Dwcp, true), (Who::Tcp, false), (Who::Tcp, true)]
            {
                let (p50_ms, p99_ms) = (Vec::new(), Vec::new());
                let link = name.to_owned();
                cells.push(Cell { link, who, tcp_links, loaded, p50_ms, p99_ms, failures: 0 });
            }
        }
        for round in 1..=rounds {
            for cell in &mut cells[first..] {
                measure_once(tools, &link, cell, time, round);
            }
        }
    }
    cells
}

fn measure_once(tools: &Tools, link: &Link, cell: &mut Cell, time: Duration, round: usize) {
    let beside = if cell.loaded { "beside a stream" } else { "idle" };
    let what = format!("round {round}: {}, {} {beside}", cell.link, name(cell.who, cell.tcp_links));
    let report = match cell.who {
        Who::Dwcp => run_dwcp(tools, link, cell, time),
        Who::Tcp => run_tcp(tools, link, cell, time),
    };
    match report.map(|report| report.p50_us.zip(report.p99_us)) {
        Ok(Some((p50, p99))) => {
            eprintln!("{what}: p50 {p50:.1} us, p99 {p99:.1} us");
            cell.p50_ms.push(p50 / 1e3);
            cell.p99_ms.push(p99 / 1e3);
        }
        Ok(None) => {
            eprintln!("{what}: failed: the client's report lacks the figure");
            cell.failures += 1;
        }
        Err(error) => {
            eprintln!("{what}: failed: {error:#}");
            cell.failures += 1;
        }
    }
}

fn run_dwcp(tools: &Tools, link: &Link, cell: &Cell, time: Duration) -> Result<Report> {
    novacron(tools, link, cell.tcp_links, time, ["rtt", if cell.loaded { "1" } else { "0" }])
}

fn run_tcp(tools: &Tools, link: &Link, cell: &Cell, time: Duration) -> Result<Report> {
    let mut server = tools.peer("tcp-server");
    server.args(["--listen", &format!("{}:0", link.server_address())]);
    let server = Server::start(link.on_server(server))?;
    let mut command = tools.peer("tcp-client");
    command.args([&server.addr.to_string(), "--json", "--mode", "rtt"]);
    command.arg("--time").arg(time.as_secs_f64().to_string());
    let trips = || client(link.on_client(command), time + GRACE);
    if !cell.loaded {
        return trips();
    }
    thread::scope(|scope| {
        let time = time + 2 * WARM_UP;
        let stream = scope.spawn(move || novacron(tools, link, cell.tcp_links, time, ["throughput", "1"]));
        thread::sleep(WARM_UP);
        let report = trips();
        stream.join().map_err(|_| anyhow!("the stream's thread panicked"))??;
        report
    })
}

/// One run of `novacron bench` in this mode with so many streams.
fn novacron(
    tools: &Tools,
    link: &Link,
    tcp_links: u16,
    time: Duration,
    [mode, streams]: [&str; 2],
) -> Result<Report> {
    let mut server = tools.novacron("server");
    server.args(["--allow-plaintext", "--compression", "none"]);
    server.args(["--listen", &format!("{}:0", link.server_address())]);
    let server = Server::start(link.on_server(server))?;
    let mut command = tools.novacron("client");
    command.args(["--allow-plaintext", "--compression", "none", "--data", "random", "--json"]);
    command.args([&server.addr.to_string(), "--links", &tcp_links.to_string()]);
    command.args(["--mode", mode, "--streams", streams]);
    command.arg("--time").arg(time.as_secs_f64().to_string());
    client(link.on_client(command), time + GRACE)
}

#[cfg(test)]
mod tests {
    use super::frames_ms;

    #[test]
    fn a_frame_on_each_link_takes_its_time() {
        assert!((frames_ms(100, 1) - 20.971_52).abs() < 1e-9);
        assert!((frames_ms(1000, 4) - 8.388_608).abs() < 1e-9);
    }
}
