//! The transport and compression flags that every command with a connection takes. What they mean, their ranges and
//! their defaults are the settings' own.

use clap::Args;

use crate::settings::Flag;

/// Flags over the settings below `transport` and `compression`.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Transport")]
pub(crate) struct TransportArgs {
    /// Name of this node, told to the peer [default: the host name].
    #[arg(long, value_name = "NAME")]
    node_id: Option<String>,
    /// Never fewer links than this.
    #[arg(long, value_name = "N")]
    streams_min: Option<String>,
    /// Never more links than this.
    #[arg(long, value_name = "N")]
    streams_max: Option<String>,
    /// Links opened at first.
    #[arg(long, value_name = "N")]
    streams_initial: Option<String>,
    /// TCP congestion control of all links; auto: chosen by measured result.
    #[arg(long, value_name = "NAME|auto")]
    congestion_control: Option<String>,
    /// Largest frame, 4KiB to 4MiB.
    #[arg(long, value_name = "SIZE")]
    frame_bytes_max: Option<String>,
    /// Most bytes per second over all links together, or off.
    #[arg(long, value_name = "SIZE|off")]
    pacing: Option<String>,
    /// Compression of what is sent: zstd, lz4 or none.
    #[arg(long, value_name = "ALGORITHM")]
    compression: Option<String>,
    /// Level of zstd: auto, or 1 to 19.
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Compresses small payloads with dictionaries of this folder that the peer has, too (`novacron dict`).
    #[arg(long, value_name = "DIR")]
    dictionaries: Option<String>,
}

impl TransportArgs {
    pub(crate) fn flags(&self) -> [Flag; 10] {
        [
            ("--node-id", "node_id", self.node_id.clone()),
            ("--streams-min", "transport.streams.min", self.streams_min.clone()),
            ("--streams-max", "transport.streams.max", self.streams_max.clone()),
            ("--streams-initial", "transport.streams.initial", self.streams_initial.clone()),
            ("--congestion-control", "transport.congestion_control", self.congestion_control.clone()),
            ("--frame-bytes-max", "transport.frame_bytes_max", self.frame_bytes_max.clone()),
            ("--pacing", "transport.pacing_bytes_per_second", self.pacing.clone()),
            ("--compression", "compression.algorithm", self.compression.clone()),
            ("--level", "compression.level", self.level.clone()),
            ("--dictionaries", "compression.dictionaries", self.dictionaries.clone()),
        ]
    }
}
