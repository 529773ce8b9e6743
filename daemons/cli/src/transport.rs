//! The transport and compression flags that every command with a connection takes.

use anyhow::Result;
use clap::{Args, ValueEnum};
use dwcp_core::{CompressionAlgorithm, CompressionLevel, EndpointConfig};

use crate::{size, tls::TlsArgs};

/// Flags that become an [`EndpointConfig`]; what is not given keeps its default.
#[derive(Args, Debug, Default)]
pub(crate) struct TransportArgs {
    /// Name of this node, told to the peer [default: the host name].
    #[arg(long, value_name = "NAME", help_heading = "Transport")]
    node_id: Option<String>,
    /// Never fewer links than this.
    #[arg(long, value_name = "N", help_heading = "Transport")]
    streams_min: Option<u16>,
    /// Never more links than this.
    #[arg(long, value_name = "N", help_heading = "Transport")]
    streams_max: Option<u16>,
    /// Links opened at first.
    #[arg(long, value_name = "N", help_heading = "Transport")]
    streams_initial: Option<u16>,
    /// TCP congestion control of all links [default: chosen by measured result, beginning with bbr].
    #[arg(long, value_name = "NAME", help_heading = "Transport")]
    congestion_control: Option<String>,
    /// Largest frame, 4KiB to 4MiB.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, help_heading = "Transport")]
    frame_bytes_max: Option<u64>,
    /// Most bytes per second over all links together.
    #[arg(long, value_name = "SIZE", value_parser = size::parse, help_heading = "Transport")]
    pacing: Option<u64>,
    /// Compression of what is sent [default: zstd].
    #[arg(long, value_enum, help_heading = "Transport")]
    compression: Option<Compression>,
    /// Level of zstd: auto, or 1 to 19 [default: auto].
    #[arg(long, value_name = "LEVEL", value_parser = level, help_heading = "Transport")]
    level: Option<CompressionLevel>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compression {
    Zstd,
    Lz4,
    None,
}

fn level(text: &str) -> Result<CompressionLevel, String> {
    match text.parse() {
        _ if text == "auto" => Ok(CompressionLevel::Auto),
        Ok(level @ 1..=19) => Ok(CompressionLevel::Fixed(level)),
        _ => Err("expected auto or 1..=19".to_owned()),
    }
}

impl TransportArgs {
    /// The endpoint's configuration, with every range checked.
    pub(crate) fn endpoint_config(&self, tls: &TlsArgs) -> Result<EndpointConfig> {
        let node_id = self.node_id.clone().unwrap_or_else(host_name);
        let mut config = EndpointConfig::new(node_id);
        tls.apply(&mut config)?;
        let transport = &mut config.transport;
        let streams = &mut transport.streams;
        streams.min = self.streams_min.unwrap_or(streams.min);
        streams.max = self.streams_max.unwrap_or(streams.max.max(streams.min));
        streams.initial = match self.streams_initial {
            Some(initial) => initial,
            None => streams.initial.min(streams.max).max(streams.min),
        };
        transport.congestion_control.clone_from(&self.congestion_control);
        if let Some(bytes) = self.frame_bytes_max {
            transport.frame_bytes_max = bytes.try_into().unwrap_or(u32::MAX);
        }
        transport.pacing_bytes_per_second = self.pacing;
        if let Some(compression) = self.compression {
            config.compression.algorithm = match compression {
                Compression::Zstd => CompressionAlgorithm::Zstd,
                Compression::Lz4 => CompressionAlgorithm::Lz4,
                Compression::None => CompressionAlgorithm::None,
            };
        }
        if let Some(level) = self.level {
            config.compression.level = level;
        }
        config.validate()?;
        Ok(config)
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "novacron".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        transport: TransportArgs,
    }

    fn config(flags: &[&str]) -> Result<EndpointConfig> {
        let flags = Flags::try_parse_from(["x"].iter().chain(flags))?;
        flags.transport.endpoint_config(&TlsArgs::default())
    }

    #[test]
    fn flags_become_settings_and_ranges_are_checked() {
        let given =
            config(&["--streams-max", "1", "--frame-bytes-max", "1MiB", "--pacing", "10MiB"]).unwrap();
        assert_eq!(given.transport.streams.initial, 1, "the default gives way to what was asked for");
        assert_eq!(given.transport.frame_bytes_max, 1 << 20);
        assert_eq!(given.transport.pacing_bytes_per_second, Some(10 << 20));
        let given = config(&["--compression", "lz4", "--level", "7"]).unwrap();
        assert_eq!(given.compression.algorithm, CompressionAlgorithm::Lz4);
        assert_eq!(given.compression.level, CompressionLevel::Fixed(7));
        let bad: [&[&str]; 6] = [
            &["--level", "20"],
            &["--streams-min", "4", "--streams-max", "2"],
            &["--streams-max", "0"],
            &["--frame-bytes-max", "1GiB"],
            &["--frame-bytes-max", "99GiB"],
            &["--compression", "gzip"],
        ];
        for flags in bad {
            assert!(config(flags).is_err(), "{flags:?}");
        }
    }
}
