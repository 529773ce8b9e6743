//! `novacron status [ADDR]`: how the connections of a running process do, and why.

use std::{fmt, io::Write as _};

use anyhow::{Context as _, Result};
use clap::Args;
use novacron_admin::{ConnectionStatus, LinkStatus, PORT, TransportStatus};
use novacron_store::printable;

use crate::{bench::rate, exit, size};

/// Shows the connections of a running process, and why its controllers decided as they did.
///
/// The process is one that was started with --metrics-listen (or the setting metrics.listen).
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Where it serves metrics and status.
    #[arg(value_name = "HOST:PORT", default_value_t = format!("127.0.0.1:{PORT}"))]
    address: String,
    /// Prints what the process answers, which is JSON.
    #[arg(long)]
    json: bool,
}

/// Fetches and prints; returns the exit code.
pub(crate) async fn run(args: StatusArgs) -> Result<u8> {
    let answer = novacron_admin::fetch(&args.address, "/status").await?;
    let mut text = if args.json {
        answer.to_vec()
    } else {
        let status: TransportStatus = serde_json::from_slice(&answer)
            .with_context(|| format!("{}: not the status of a process with connections", args.address))?;
        Table(&status).to_string().into_bytes()
    };
    text.push(b'\n');
    // A reader that went away has seen enough.
    let _ = std::io::stdout().write_all(&text);
    Ok(exit::OK)
}

/// A status for people. What peers say of themselves may have anything in it: control characters are not passed on
/// to a terminal.
struct Table<'a>(&'a TransportStatus);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        let seconds = status.uptime_seconds as u64;
        let node = named(&status.node_id, status.region.as_deref());
        let ready = if status.ready { "ready" } else { "not ready" };
        write!(f, "{} {}, node {node}, pid {}", status.program, status.version, status.pid)?;
        write!(f, ", up {}:{:02}:{:02}, {ready}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if let Some(listen) = &status.listen {
            write!(f, ", listens on {listen}")?;
        }
        write!(f, "\nconnections: {}", status.connections_total)?;
        for connection in &status.connections {
            write!(f, "\n\n{}", Connection(connection))?;
        }
        let untold = status.connections_total.saturating_sub(status.connections.len());
        if untold > 0 {
            write!(f, "\n\n{untold} more connections")?;
        }
        Ok(())
    }
}

struct Connection<'a>(&'a ConnectionStatus);

impl fmt::Display for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.0;
        write!(f, "peer {}, {}", named(&c.peer.node_id, c.peer.region.as_deref()), c.peer.address)?;
        if !c.peer.names.is_empty() {
            write!(f, ", certified as {}", printable(&c.peer.names.join(", ")))?;
        }
        // Of the way on which less goes, most is headers and acknowledgements.
        let sends = c.bytes_sent >= c.bytes_received;
        write!(f, "\n  sent {}", moved(c.bytes_sent, c.wire_bytes_sent, sends))?;
        write!(f, "; received {}", moved(c.bytes_received, c.wire_bytes_received, !sends))?;
        let decision = if c.link_decision.is_empty() { "nothing changed yet" } else { &c.link_decision };
        write!(f, "\n  links: {} up, {} lost; {}", c.links.len(), c.resumes, printable(decision))?;
        write!(f, "\n  congestion control: {}", printable(&c.congestion_control_decision))?;
        write!(f, "\n  compression: {}", printable(&c.compression_decision))?;
        write!(f, "\n  pacing: {}", printable(&c.pacing_decision))?;
        if c.links.is_empty() {
            return Ok(());
        }
        write!(
            f,
            "\n  {:>4}  {:<8} {:>9} {:>9} {:>14} {:>8} {:>7} {:>11} {:>11}",
            "link", "control", "rtt ms", "min ms", "delivers", "retrans", "loss %", "sent", "received"
        )?;
        c.links.iter().try_for_each(|link| write!(f, "\n{}", Link(link)))
    }
}

struct Link<'a>(&'a LinkStatus);

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.0;
        write!(
            f,
            "  {:>4}  {:<8} {:>9.3} {:>9.3} {:>14} {:>8} {:>7.2} {:>11} {:>11}",
            link.id,
            printable(&link.congestion_control),
            link.rtt_ms,
            link.rtt_min_ms,
            rate(link.delivery_rate_bytes_per_second as f64 * 8.0),
            link.retransmits,
            link.loss_ratio * 100.0,
            size::show(link.wire_bytes_sent),
            size::show(link.wire_bytes_received),
        )
    }
}

fn moved(payload: u64, wire: u64, with_ratio: bool) -> String {
    let sizes = format!("{} ({} on the wire", size::show(payload), size::show(wire));
    match wire {
        1.. if with_ratio => format!("{sizes}, ratio {:.2})", payload as f64 / wire as f64),
        _ => format!("{sizes})"),
    }
}

fn named(node_id: &str, region: Option<&str>) -> String {
    match region {
        Some(region) => format!("{} ({})", printable(node_id), printable(region)),
        None => printable(node_id),
    }
}

#[cfg(test)]
mod tests {
    use novacron_admin::PeerStatus;

    use super::*;

    #[test]
    fn a_table_has_every_link_with_its_figures_and_the_reasons() {
        let link = LinkStatus {
            id: 3,
            congestion_control: "bbr".into(),
            rtt_ms: 80.5,
            rtt_min_ms: 80.0,
            delivery_rate_bytes_per_second: 12_500_000,
            bbr_bandwidth_bytes_per_second: Some(12_600_000),
            bbr_rtt_min_ms: Some(80.0),
            path_mtu_bytes: Some(1500),
            retransmits: 17,
            loss_ratio: 0.0125,
            wire_bytes_sent: 2 << 20,
            wire_bytes_received: 1024,
            zerocopy: "off: over TLS".into(),
        };
        let connection = ConnectionStatus {
            peer: PeerStatus {
                node_id: "b\x1b[2J".into(),
                region: Some("eu".into()),
                names: vec!["b.example".into()],
                address: "192.0.2.1:8888".into(),
            },
            bytes_sent: 6 << 20,
            bytes_received: 0,
            wire_bytes_sent: 2 << 20,
            wire_bytes_received: 1024,
            compression_ratio: Some(3.0),
            resumes: 1,
            link_decision: String::new(),
            congestion_control_decision: "bbr at first: round trip 80.0ms".into(),
            compression_decision: "zstd 3 for redundant data: why not".into(),
            pacing_decision: "100.0 Mbit/s: configured".into(),
            links: vec![link],
        };
        let status = TransportStatus {
            program: "novacron send".into(),
            version: "0.1.0".into(),
            pid: 42,
            uptime_seconds: 3661.5,
            node_id: "a".into(),
            region: None,
            listen: None,
            ready: true,
            connections_total: 2,
            connections: vec![connection],
        };
        let expected = "\
novacron send 0.1.0, node a, pid 42, up 1:01:01, ready
connections: 2

peer b?[2J (eu), 192.0.2.1:8888, certified as b.example
  sent 6.00 MiB (2.00 MiB on the wire, ratio 3.00); received 0 B (1.00 KiB on the wire)
  links: 1 up, 1 lost; nothing changed yet
  congestion control: bbr at first: round trip 80.0ms
  compression: zstd 3 for redundant data: why not
  pacing: 100.0 Mbit/s: configured
  link  control     rtt ms    min ms       delivers  retrans  loss %        sent    received
     3  bbr         80.500    80.000   100.0 Mbit/s       17    1.25    2.00 MiB    1.00 KiB

1 more connections";
        assert_eq!(Table(&status).to_string(), expected);
    }
}
