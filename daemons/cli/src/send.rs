//! `novacron send SRC... HOST:PORT[:PATH]`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use dwcp_core::{Connection, Endpoint};
use dwcp_transfer::{DeltaConfig, RelPath, Sender, SenderConfig, Source};
use novacron_process::Signals;

use crate::{
    delta::{self, DeltaArgs},
    exit::{self, Usage},
    observe::Observable,
    progress::OutputArgs,
    settings::SettingsArgs,
};

/// How long to wait, when all is done, for the peer to take note.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends files, directories, block devices or standard input to a receiver.
///
/// Run again after an interruption, it sends only what is missing. Holes in files are kept and not sent. One SRC is
/// called PATH at the receiver; several, or a PATH that ends in a slash, go into the directory PATH.
#[derive(Args, Debug)]
#[command(after_help = crate::exit::HELP, override_usage = "novacron send [OPTIONS] SRC... HOST:PORT[:PATH]")]
pub(crate) struct SendArgs {
    /// What to send (- is standard input, which PATH must name), then the receiver, with what SRC is called below its
    /// folder [default: its own name].
    // One argument: two could not both be left out for --print-config.
    #[arg(num_args = 2.., value_names = ["SRC", "HOST:PORT[:PATH]"])]
    #[arg(required_unless_present_any = ["print_config", "check_config"])]
    sources_and_destination: Vec<OsString>,
    /// Compares content, not only size and time, before a file counts as there already.
    #[arg(long)]
    checksum: bool,
    /// Name that the receiver's certificate must carry [default: HOST].
    #[arg(long, value_name = "NAME", help_heading = "Security")]
    server_name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    delta: DeltaArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Sends; returns the exit code.
pub(crate) async fn run(args: SendArgs) -> Result<u8> {
    let Some(node) = args.settings.load([args.delta.flag()])? else { return Ok(exit::OK) };
    let (destination, paths) = args
        .sources_and_destination
        .split_last()
        .ok_or_else(|| Usage("what to send, and where to, is missing".into()))?;
    let target = Target::parse(destination)?;
    let config = node.settings.endpoint.clone();
    let mut sending = SenderConfig::new(sources(paths, &target)?);
    sending.checksum = args.checksum;
    // Without a store, too: the receiver may have one.
    let delta = delta::config(&node.settings.delta)?;
    sending.delta = Some(delta.unwrap_or_else(|| DeltaConfig::new(None)));
    sending.sender.clone_from(&config.node_id);
    let sender = Sender::new(sending)?;
    let (progress, stopper) = (sender.progress(), sender.stopper());

    let mut signals = Signals::listen()?;
    let observable = Observable::prepare(&node.settings.metrics).await?;
    let endpoint = Endpoint::client(config)?;
    node.keep_fresh(&endpoint);
    let _observed = observable.serve("novacron send", &node.settings, &endpoint, signals.draining());
    let name = args.server_name.as_deref().unwrap_or(&target.host);
    let Some(connected) = signals.unless(connect(&endpoint, &target, name)).await else {
        bail!("told to stop before anything was sent");
    };
    let connection = connected?;
    let display = args.output.display(false);
    let sending = display.watch(&target.host, &progress, &connection, sender.run(&connection));
    let mut sending = std::pin::pin!(sending);
    let drain = async {
        stopper.drain();
        tokio::time::sleep(node.settings.drain_timeout).await;
    };
    let Some(code) = signals.let_finish(&mut sending, drain).await else {
        stopper.stop();
        let code = sending.await;
        connection.close(0, "stopped");
        return Ok(code);
    };
    // Everything is committed already, or has failed: a peer that does not answer any more changes nothing.
    let _ = signals.unless(tokio::time::timeout(DRAIN_TIMEOUT, connection.drain())).await;
    Ok(code)
}

/// Connects to a node whose certificate must carry `name`.
pub(crate) async fn connect(endpoint: &Endpoint, target: &Target, name: &str) -> Result<Connection> {
    let addresses = tokio::net::lookup_host((&*target.host, target.port))
        .await
        .with_context(|| format!("cannot resolve {}", target.host))?;
    let mut connected = Err(anyhow::anyhow!("{} has no address", target.host));
    for address in addresses {
        connected = endpoint.connect(address, name).await.map_err(anyhow::Error::from);
        if connected.is_ok() {
            break;
        }
    }
    connected.with_context(|| format!("cannot connect to {}:{}", target.host, target.port))
}

/// Where to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    port: u16,
    pub(crate) path: Option<Vec<u8>>,
}

impl Target {
    pub(crate) fn parse(text: &OsStr) -> Result<Self> {
        let usage = || {
            let text = text.display();
            Usage(format!("{text}: expected HOST:PORT or HOST:PORT:PATH, with an IPv6 address in brackets"))
        };
        let bytes = text.as_bytes();
        let (host, rest) = match bytes.strip_prefix(b"[") {
            Some(bracketed) => {
                let end = bracketed.iter().position(|&byte| byte == b']').ok_or_else(usage)?;
                (&bracketed[..end], bracketed[end + 1..].strip_prefix(b":").ok_or_else(usage)?)
            }
            None => {
                let end = bytes.iter().position(|&byte| byte == b':').ok_or_else(usage)?;
                (&bytes[..end], &bytes[end + 1..])
            }
        };
        let (port, path) = match rest.iter().position(|&byte| byte == b':') {
            Some(colon) => (&rest[..colon], Some(rest[colon + 1..].to_vec())),
            None => (rest, None),
        };
        let host = str::from_utf8(host).ok().filter(|host| !host.is_empty()).ok_or_else(usage)?;
        let port = str::from_utf8(port).ok().and_then(|port| port.parse().ok()).ok_or_else(usage)?;
        Ok(Self { host: host.to_owned(), port, path: path.filter(|path| !path.is_empty()) })
    }
}

fn sources(paths: &[OsString], target: &Target) -> Result<Vec<Source>> {
    let folder = paths.len() > 1 || target.path.as_ref().is_some_and(|path| path.ends_with(b"/"));
    paths
        .iter()
        .map(|path| {
            let path = Path::new(path);
            let stream = path.as_os_str() == "-";
            let given = target.path.as_deref().map(|path| path.strip_suffix(b"/").unwrap_or(path));
            let dest = match (given, folder) {
                (Some(given), false) => given.to_vec(),
                _ if stream => return Err(Usage("standard input needs a name: HOST:PORT:PATH".into()).into()),
                (Some(given), true) => [given, b"/", &own_name(path)?].concat(),
                (None, _) => own_name(path)?,
            };
            let dest = RelPath::new(dest).map_err(|error| {
                Usage(format!("{error}: PATH names something below the receiver's folder"))
            })?;
            Ok(if stream {
                Source::Stream { reader: Box::new(std::io::stdin()), dest }
            } else {
                Source::Path { path: path.to_owned(), dest }
            })
        })
        .collect()
}

/// The name of a path; for `.` or `..` that of the directory it is.
fn own_name(path: &Path) -> Result<Vec<u8>> {
    let name = match path.file_name() {
        Some(name) if !path.as_os_str().as_bytes().ends_with(b"/.") => name.to_owned(),
        _ => {
            let path = path.canonicalize().with_context(|| path.display().to_string())?;
            path.file_name().ok_or_else(|| Usage("/ needs a name: HOST:PORT:PATH".into()))?.to_owned()
        }
    };
    Ok(name.into_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let parsed = |text: &str| {
            let target = Target::parse(OsStr::new(text)).ok()?;
            Some((target.host, target.port, target.path.map(|path| String::from_utf8(path).unwrap())))
        };
        let some = |host: &str, port, path: Option<&str>| Some((host.into(), port, path.map(str::to_owned)));
        assert_eq!(parsed("node:8888"), some("node", 8888, None));
        assert_eq!(parsed("10.0.0.1:1:a/b:c"), some("10.0.0.1", 1, Some("a/b:c")));
        assert_eq!(parsed("[::1]:8888:x"), some("::1", 8888, Some("x")));
        assert_eq!(parsed("node:8888:"), some("node", 8888, None));
        for bad in ["node", "node:", ":8888", "node:99999", "::1:8888", "[::1]8888", "[::1", "node:x"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_things_are_called_at_the_receiver() {
        let named = |paths: &[&str], target: &str| -> Option<Vec<String>> {
            let paths: Vec<_> = paths.iter().map(OsString::from).collect();
            let sources = sources(&paths, &Target::parse(OsStr::new(target)).unwrap()).ok()?;
            let name = |source| match source {
                Source::Path { dest, .. } | Source::Beneath { dest, .. } | Source::Stream { dest, .. } => {
                    RelPath::to_string(&dest)
                }
            };
            Some(sources.into_iter().map(name).collect())
        };
        let some = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&["/var/vm.img"], "h:1"), some(&["vm.img"]));
        assert_eq!(named(&["/var/vm.img"], "h:1:new"), some(&["new"]));
        assert_eq!(named(&["/var/vm.img"], "h:1:dir/"), some(&["dir/vm.img"]));
        assert_eq!(named(&["a", "b/c/"], "h:1:dir"), some(&["dir/a", "dir/c"]));
        assert_eq!(named(&["-"], "h:1:name"), some(&["name"]));
        for (paths, target) in
            [(&["-"][..], "h:1"), (&["a"], "h:1:/abs"), (&["a"], "h:1:../up"), (&["/"], "h:1")]
        {
            assert_eq!(named(paths, target), None, "{paths:?} {target}");
        }
    }
}
