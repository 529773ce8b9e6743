//! Adaptive compression against static levels, over links of different rates.

use std::time::Duration;

use anyhow::{Context as _, Result};
use dwcp_benches::report::median;
use serde::{Deserialize, Serialize};

use crate::{
    contender::Tools,
    process::{GRACE, Server, client},
    shaped::{LINKS, Link},
};

pub(crate) const DATA: [&str; 3] = ["random", "text", "vm"];
/// Name in the table, `--compression`, `--level`.
pub(crate) const CODECS: [(&str, &str, &str); 7] = [
    ("none", "none", "auto"),
    // A level makes it static; lz4 has only one.
    ("lz4", "lz4", "1"),
    ("zstd 1", "zstd", "1"),
    ("zstd 3", "zstd", "3"),
    ("zstd 7", "zstd", "7"),
    ("zstd 9", "zstd", "9"),
    ("auto", "zstd", "auto"),
];

/// One place in the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) link: String,
    pub(crate) data: String,
    pub(crate) codec: String,
    /// Payload bits per second at the receiver, one value per round.
    pub(crate) values: Vec<f64>,
    /// Rounds without a value.
    pub(crate) failures: u32,
    /// Payload over wire bytes in the last round.
    pub(crate) ratio: Option<f64>,
}

#[derive(Deserialize)]
struct Report {
    bits_per_second: f64,
    ratio: Option<f64>,
}

/// The median of one cell.
pub(crate) fn value(cells: &[Cell], link: &str, data: &str, codec: &str) -> Option<f64> {
    median(&find(cells, link, data, codec)?.values)
}

/// One cell.
pub(crate) fn find<'a>(cells: &'a [Cell], link: &str, data: &str, codec: &str) -> Option<&'a Cell> {
    cells.iter().find(|cell| cell.link == link && cell.data == data && cell.codec == codec)
}

/// Measures every cell, in rounds.
pub(crate) fn measure(tools: &Tools, rounds: usize, time: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (name, mbit) in LINKS {
        let link = match Link::open(mbit) {
            Ok(link) => link,
            Err(error) => {
                eprintln!("SKIP: compression over {name}: {error:#}");
                continue;
            }
        };
        let first = cells.len();
        for data in DATA {
            cells.extend(CODECS.map(|(codec, ..)| Cell {
                link: name.to_owned(),
                data: data.to_owned(),
                codec: codec.to_owned(),
                values: Vec::new(),
                failures: 0,
                ratio: None,
            }));
        }
        for round in 1..=rounds {
            for cell in &mut cells[first..] {
                let what = format!("round {round}: {name}, {}, {}", cell.data, cell.codec);
                match run(tools, &link, cell, time) {
                    Ok(report) => {
                        eprintln!("{what}: {:.1} Mbit/s", report.bits_per_second / 1e6);
                        cell.values.push(report.bits_per_second);
                        cell.ratio = report.ratio;
                    }
                    Err(error) => {
                        eprintln!("{what}: failed: {error:#}");
                        cell.failures += 1;
                    }
                }
            }
        }
    }
    cells
}

fn run(tools: &Tools, link: &Link, cell: &Cell, time: Duration) -> Result<Report> {
    let (_, algorithm, level) =
        CODECS.into_iter().find(|(codec, ..)| *codec == cell.codec).context("unknown codec")?;
    let mut server = tools.novacron("server");
    server.args(["--allow-plaintext", "--listen", &format!("{}:0", link.server_address())]);
    let server = Server::start(link.on_server(server))?;
    let mut command = tools.novacron("client");
    command.args(["--allow-plaintext", "--compression", algorithm, "--level", level]);
    command.args([&server.addr.to_string(), "--json", "--data", &cell.data]);
    command.arg("--time").arg(time.as_secs_f64().to_string());
    client(link.on_client(command), time + GRACE)
}
