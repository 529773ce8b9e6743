//! `dwcp-peers`: the other transports, as servers and clients.
//!
//! A server prints the address it is bound to and serves until it is killed. A client does one job and prints what
//! came of it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Args, Parser};
use dwcp_benches::{
    byte_stream, framed, grpc,
    quic::{self, Congestion},
    tar_copy, tls,
    workload::{Mode, Report, peak_rss_kib},
};
use tokio::net::TcpListener;

/// Other transports, to measure against.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Threads of the runtime; by default, as tokio has it, one for each core.
    #[arg(long, global = true)]
    worker_threads: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Raw tokio TCP.
    TcpServer(Listen),
    /// Raw tokio TCP.
    TcpClient {
        #[command(flatten)]
        ask: Ask,
        /// Congestion control of what the client sends [default: the system's].
        #[arg(long)]
        congestion_control: Option<String>,
    },
    /// tokio and LengthDelimitedCodec over TCP.
    FramedServer(Listen),
    /// tokio and LengthDelimitedCodec over TCP.
    FramedClient(Ask),
    /// Raw tokio-rustls over TCP.
    TlsServer(Listen),
    /// Raw tokio-rustls over TCP.
    TlsClient(Ask),
    /// quinn.
    QuinnServer {
        #[command(flatten)]
        listen: Listen,
        /// Congestion control of what the server sends.
        #[arg(long, value_enum, default_value_t)]
        congestion: Congestion,
    },
    /// quinn.
    QuinnClient {
        #[command(flatten)]
        ask: Ask,
        /// Congestion control of what the client sends.
        #[arg(long, value_enum, default_value_t)]
        congestion: Congestion,
    },
    /// tonic.
    TonicServer(Listen),
    /// tonic.
    TonicClient(Ask),
    /// Takes one tree from a tar-client, then ends.
    TarServer {
        #[command(flatten)]
        listen: Listen,
        /// Folder to write to.
        #[arg(long)]
        into: PathBuf,
    },
    /// Sends the content of a folder by tar over one TCP connection and prints the seconds it took.
    TarClient {
        /// A tar-server.
        addr: SocketAddr,
        /// The folder.
        from: PathBuf,
    },
}

#[derive(Args)]
struct Listen {
    /// Address to bind; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[derive(Args)]
struct Ask {
    /// Server to connect to.
    addr: SocketAddr,
    /// Seconds to run.
    #[arg(long, default_value_t = 5.0)]
    time: f64,
    /// What to measure.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Listen {
    async fn bind(&self) -> Result<TcpListener> {
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("bind {}", self.listen))?;
        println!("{}", listener.local_addr()?);
        Ok(listener)
    }
}

impl Ask {
    fn time(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.time).context("--time")
    }

    fn print(&self, mut report: Report) -> Result<()> {
        report.peak_rss_kib = Some(peak_rss_kib("self")?);
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
            return Ok(());
        }
        if let Some(rate) = report.bits_per_second {
            println!("{:.1} Mbit/s in {:.2} s", rate / 1e6, report.seconds);
        }
        if let Some(rate) = report.messages_per_second {
            println!("{:.3} M messages/s in {:.2} s", rate / 1e6, report.seconds);
        }
        if let (Some(p50), Some(p99)) = (report.p50_us, report.p99_us) {
            println!("round trip p50 {p50:.1} us, p99 {p99:.1} us");
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = cli.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build()?;
    // As a task: on the main thread, each of its wake-ups would cross threads.
    runtime.block_on(runtime.spawn(run(cli.command)))?
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::TcpServer(listen) => byte_stream::serve(listen.bind().await?).await,
        Command::TcpClient { ask, congestion_control } => {
            let congestion_control = congestion_control.as_deref();
            ask.print(byte_stream::connect(ask.addr, congestion_control, ask.mode, ask.time()?).await?)
        }
        Command::FramedServer(listen) => framed::serve(listen.bind().await?).await,
        Command::FramedClient(ask) => ask.print(framed::connect(ask.addr, ask.mode, ask.time()?).await?),
        Command::TlsServer(listen) => tls::serve(listen.bind().await?).await,
        Command::TlsClient(ask) => ask.print(tls::connect(ask.addr, ask.mode, ask.time()?).await?),
        Command::TonicServer(listen) => grpc::serve(listen.bind().await?).await,
        Command::TonicClient(ask) => ask.print(grpc::connect(ask.addr, ask.mode, ask.time()?).await?),
        Command::QuinnServer { listen, congestion } => {
            let endpoint = quic::listen(listen.listen, congestion)?;
            println!("{}", endpoint.local_addr()?);
            quic::serve(endpoint).await
        }
        Command::QuinnClient { ask, congestion } => {
            ask.print(quic::connect(ask.addr, congestion, ask.mode, ask.time()?).await?)
        }
        Command::TarServer { listen, into } => {
            let listener = std::net::TcpListener::bind(listen.listen)?;
            println!("{}", listener.local_addr()?);
            tar_copy::serve_once(&listener, &into)
        }
        Command::TarClient { addr, from } => {
            println!("{:.3}", tar_copy::send(addr, &from)?.as_secs_f64());
            Ok(())
        }
    }
}
