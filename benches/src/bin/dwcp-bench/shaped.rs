//! A link of a given rate: two network namespaces, a veth pair, a token bucket. No delay; that is the lab's.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Links of the tables that compare over several: name, and Mbit/s unless it is loopback.
pub(crate) const LINKS: [(&str, Option<u32>); 3] =
    [("loopback", None), ("1 Gbit/s", Some(1000)), ("100 Mbit/s", Some(100))];

/// Address of the server's end.
const SERVER: &str = "10.0.0.2";

/// Where a client meets its server.
pub(crate) enum Link {
    Loopback,
    Shaped(ShapedLink),
}

impl Link {
    /// A link of this many Mbit/s, or loopback.
    pub(crate) fn open(mbit: Option<u32>) -> Result<Self> {
        Ok(match mbit {
            None => Self::Loopback,
            Some(mbit) => Self::Shaped(ShapedLink::new(mbit)?),
        })
    }

    pub(crate) fn server_address(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Shaped(_) => SERVER,
        }
    }

    /// The same command, at the client's end.
    pub(crate) fn on_client(&self, command: Command) -> Command {
        match self {
            Self::Loopback => command,
            Self::Shaped(link) => inside(&link.client, &command),
        }
    }

    /// The same command, at the server's end.
    pub(crate) fn on_server(&self, command: Command) -> Command {
        match self {
            Self::Loopback => command,
            Self::Shaped(link) => inside(&link.server, &command),
        }
    }
}

/// Removed with everything in it when dropped.
pub(crate) struct ShapedLink {
    client: String,
    server: String,
}

impl ShapedLink {
    /// A link of this many Mbit/s from the client to the server, with a queue of 50 ms.
    fn new(mbit: u32) -> Result<Self> {
        let name = |side| format!("dwcp-bench-{}-{side}", std::process::id());
        let link = Self { client: name("client"), server: name("server") };
        let Self { client, server } = &link;
        ip(&format!("netns add {client}"))?;
        ip(&format!("netns add {server}"))?;
        ip(&format!("-n {client} link add veth0 type veth peer name veth0 netns {server}"))?;
        for (namespace, address) in [(client, "10.0.0.1"), (server, SERVER)] {
            ip(&format!("-n {namespace} address add {address}/24 dev veth0"))?;
            ip(&format!("-n {namespace} link set veth0 up"))?;
        }
        let rate = format!("{mbit}mbit");
        let bucket = ["root", "tbf", "rate", &rate, "burst", "128kb", "latency", "50ms"];
        run(Command::new("tc").args(["-n", client, "qdisc", "add", "dev", "veth0"]).args(bucket))?;
        Ok(link)
    }
}

impl Drop for ShapedLink {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            // It may not exist if `new` failed half-way.
            let _ = ip(&format!("netns delete {namespace}"));
        }
    }
}

fn inside(namespace: &str, command: &Command) -> Command {
    let mut outer = Command::new("ip");
    outer.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    outer.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    outer
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split(' ')))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
