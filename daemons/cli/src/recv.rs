//! `novacron recv --listen ADDR --into DIR`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use dwcp_core::{Connection, Endpoint};
use dwcp_transfer::{Destination, ProgressSource, Receiver, ReceiverConfig, clean_partials};
use novacron_process::{Signals, raise_open_files};
use tokio::task::JoinSet;

use crate::{
    delta::{self, DeltaArgs},
    exit::{self, Usage},
    observe::Observable,
    progress::{Display, OutputArgs},
    settings::SettingsArgs,
    size,
};

/// Transfers received at once; more wait.
const SESSIONS_MAX: usize = 16;
/// How long to wait for the peer to take note of the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// For transfers to tell their result, when all connections have ended.
const RESULTS_TIME_MAX: Duration = Duration::from_secs(1);

/// Receives what senders send, below one folder.
///
/// Nothing outside the folder is touched. A file appears under its name only when all of it is there and matches its
/// hash; until then it grows in DIR/.novacron-partial, where an interrupted transfer finds it when it is run again.
#[derive(Args, Debug)]
#[command(after_help = crate::exit::HELP)]
pub(crate) struct RecvArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Folder to receive into; - is standard output (one file, and only its exit code says whether it was whole).
    #[arg(long, value_name = "DIR", required_unless_present_any = ["clean_partials", "print_config", "check_config"])]
    into: Option<PathBuf>,
    /// Existing files may be replaced.
    #[arg(long)]
    overwrite: bool,
    /// Ends after the first transfer that was not interrupted.
    #[arg(long)]
    once: bool,
    /// The destination is a block device, written in place: not atomic, and only what differs travels.
    #[arg(long)]
    device: bool,
    /// Does not wait for the disk: after a power failure files may be empty or damaged.
    #[arg(long)]
    no_fsync: bool,
    /// Also takes over owner, setuid bits and extended attributes outside user., as root and from senders you trust.
    #[arg(long)]
    privileged_metadata: bool,
    /// Removes the partial files of DIR and ends; interrupted transfers begin anew.
    #[arg(long, value_name = "DIR", exclusive = true)]
    clean_partials: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    delta: DeltaArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Receives; returns the exit code.
pub(crate) async fn run(args: RecvArgs) -> Result<u8> {
    if let Some(folder) = &args.clean_partials {
        let report = clean_partials(folder)?;
        eprintln!("removed {} files, {}", report.files, size::show(report.bytes));
        return Ok(exit::OK);
    }
    let listen = ("--listen", "listen", args.listen.clone());
    let Some(node) = args.settings.load([listen, args.delta.flag()])? else { return Ok(exit::OK) };
    let into = args.into.clone().ok_or_else(|| Usage("--into is missing".into()))?;
    let to_output = into.as_os_str() == "-";
    let destination = match (to_output, args.device) {
        (true, true) => return Err(Usage("--device needs a path".into()).into()),
        (true, false) => Destination::Output(Box::new(std::io::stdout())),
        (false, true) => Destination::Device(into),
        (false, false) => Destination::Folder(into),
    };
    raise_open_files();
    let mut receiving = ReceiverConfig::new(destination);
    receiving.overwrite = args.overwrite;
    receiving.fsync = !args.no_fsync;
    receiving.delta = delta::config(&node.settings.delta)?;
    receiving.privileged_metadata = args.privileged_metadata;
    let receiver = Arc::new(Receiver::open(receiving)?);
    let mut signals = Signals::listen()?;
    let observable = Observable::prepare(&node.settings.metrics).await?;
    let endpoint = Endpoint::listen(node.settings.listen, node.settings.endpoint.clone()).await?;
    node.keep_fresh(&endpoint);
    if let Some(address) = endpoint.local_addr() {
        eprintln!("listening on {address}");
    }
    let _observed = observable.serve("novacron recv", &node.settings, &endpoint, signals.draining());
    // What was written to standard output cannot be taken back: there is no second try.
    let once = args.once || to_output;
    let display = args.output.display(to_output);
    let drain_timeout = node.settings.drain_timeout;
    let work = serve(&endpoint, receiver, display, Serve { once, only_one: to_output });
    let drain = async {
        endpoint.shutdown(drain_timeout).await;
        tokio::time::sleep(RESULTS_TIME_MAX).await;
    };
    signals.let_finish(work, drain).await.unwrap_or(Ok(exit::OK))
}

/// When to end.
struct Serve {
    /// After the first transfer that was not interrupted.
    once: bool,
    /// After the first transfer, however it ended.
    only_one: bool,
}

/// Serves until it is time to end, or the endpoint takes on no more and what it took on has ended.
async fn serve(endpoint: &Endpoint, receiver: Arc<Receiver>, display: Display, serve: Serve) -> Result<u8> {
    let mut sessions: JoinSet<Ended> = JoinSet::new();
    let mut accepting = true;
    loop {
        tokio::select! {
            connection = endpoint.accept(), if accepting && sessions.len() < SESSIONS_MAX => match connection {
                Some(connection) => {
                    sessions.spawn(session(receiver.clone(), connection, display.clone()));
                }
                None => accepting = false,
            },
            Some(ended) = sessions.join_next() => {
                let ended = ended?;
                // An interrupted transfer is expected back.
                if serve.once && (ended.complete || serve.only_one) {
                    return Ok(ended.code);
                }
            }
            else => return Ok(exit::OK),
        }
    }
}

struct Ended {
    code: u8,
    /// The sender said that it was all.
    complete: bool,
}

async fn session(receiver: Arc<Receiver>, connection: Connection, display: Display) -> Ended {
    let peer = connection.peer();
    // Certificates prove names; without them the node id is only a courtesy, and plaintext is for trusted places.
    let name = peer.names.first().unwrap_or(&peer.node_id).clone();
    let progress = ProgressSource::default();
    let mut complete = false;
    let work = async {
        let ended = receiver.serve(&connection, &name, &progress).await;
        complete = ended.is_ok();
        ended
    };
    let code = display.watch(&name, &progress, &connection, work).await;
    if tokio::time::timeout(DRAIN_TIMEOUT, connection.drain()).await.is_err() {
        connection.close(0, "transfer ended");
    }
    Ended { code, complete }
}
