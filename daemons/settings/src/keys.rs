//! The table of settings of a process with a DWCP endpoint: name, how it is read, how it is printed.

use std::path::PathBuf;

use dwcp_core::{CompressionAlgorithm, CompressionLevel, Zerocopy};

use crate::{
    Key, Settings, TlsFiles,
    value::{
        DURATION, SIZE, duration, items, parsed, print_duration, print_size, print_unless, printed, size,
        unless,
    },
};

/// What `tls.allow` takes.
pub(crate) const ALLOW: &str = "DNS names, *.suffix, URIs, URIs ending in /*, or IP addresses";

/// `key!(name, expected, |settings, text| place = value?, |settings| text)`
macro_rules! key {
    ($name:literal, $expected:expr, $set:expr, $get:expr) => {
        key!(one $name, $expected, $set, $get)
    };
    ($kind:ident $name:literal, $expected:expr, $set:expr, $get:expr) => {
        Key::$kind(
            $name,
            $expected,
            |s: &mut S, text| {
                let set: fn(&mut Settings, &str) -> Option<()> = $set;
                set(s.as_mut(), text)
            },
            |s: &S| {
                let get: fn(&Settings) -> String = $get;
                get(s.as_ref())
            },
        )
    };
}

/// For the table of keys: `set!(place, read)` assigns what `read` makes of a text, if that is a value.
#[macro_export]
macro_rules! set {
    ($($place:ident).+, $read:expr) => {
        |s, text| {
            let read: fn(&str) -> Option<_> = $read;
            s.$($place).+ = read(text)?;
            Some(())
        }
    };
}

/// Every setting of a process with a DWCP endpoint, in the order in which they are printed: for the table of a program
/// whose settings contain [`Settings`].
pub fn endpoint_keys<S: AsRef<Settings> + AsMut<Settings>>() -> Vec<Key<S>> {
    vec![
        key!("node_id", "1..=255 bytes", set!(endpoint.node_id, parsed), |s| s.endpoint.node_id.clone()),
        key!("region", "1..=255 bytes, or empty", set!(endpoint.region, |t| unless(t, "", parsed)), |s| {
            print_unless(s.endpoint.region.clone(), "", printed)
        }),
        key!("listen", "ADDRESS:PORT", set!(listen, parsed), |s| printed(s.listen)),
        key!("allow_plaintext", "true or false", set!(endpoint.allow_plaintext, parsed), |s| printed(
            s.endpoint.allow_plaintext
        )),
        key!(
            "metrics.listen",
            "off, or ADDRESS:PORT",
            set!(metrics.listen, |t| unless(t, "off", parsed)),
            |s| { print_unless(s.metrics.listen, "off", printed) }
        ),
        key!("metrics.allow_plaintext", "true or false", set!(metrics.allow_plaintext, parsed), |s| printed(
            s.metrics.allow_plaintext
        )),
        key!("drain_timeout", DURATION, set!(drain_timeout, duration), |s| print_duration(s.drain_timeout)),
        key!("transport.streams.min", "1..=1024", set!(endpoint.transport.streams.min, parsed), |s| printed(
            s.endpoint.transport.streams.min
        )),
        key!("transport.streams.max", "min..=1024", set!(endpoint.transport.streams.max, parsed), |s| {
            printed(s.endpoint.transport.streams.max)
        }),
        key!(
            "transport.streams.initial",
            "min..=max",
            set!(endpoint.transport.streams.initial, parsed),
            |s| { printed(s.endpoint.transport.streams.initial) }
        ),
        key!(
            "transport.congestion_control",
            "auto, or the name of one that the kernel has",
            set!(endpoint.transport.congestion_control, |t| unless(t, "auto", congestion_control)),
            |s| print_unless(s.endpoint.transport.congestion_control.clone(), "auto", printed)
        ),
        key!(
            "transport.frame_bytes_max",
            "4 KiB..=4 MiB",
            set!(endpoint.transport.frame_bytes_max, |t| size(t)?.try_into().ok()),
            |s| print_size(s.endpoint.transport.frame_bytes_max.into())
        ),
        key!(
            "transport.pacing_bytes_per_second",
            "off, or at least 1 KiB",
            set!(endpoint.transport.pacing_bytes_per_second, |t| unless(t, "off", size)),
            |s| print_unless(s.endpoint.transport.pacing_bytes_per_second, "off", print_size)
        ),
        key!(
            "transport.zerocopy",
            "auto, on or off",
            set!(endpoint.transport.zerocopy, |t| match t {
                "auto" => Some(Zerocopy::Auto),
                "on" => Some(Zerocopy::On),
                "off" => Some(Zerocopy::Off),
                _ => None,
            }),
            |s| match s.endpoint.transport.zerocopy {
                Zerocopy::Auto => "auto".to_owned(),
                Zerocopy::On => "on".to_owned(),
                Zerocopy::Off => "off".to_owned(),
            }
        ),
        key!(
            "transport.connection_window_bytes",
            SIZE,
            set!(endpoint.transport.connection_window_bytes, size),
            |s| print_size(s.endpoint.transport.connection_window_bytes)
        ),
        key!(
            "transport.streams_open_max",
            "a number below 2^32",
            set!(endpoint.transport.streams_open_max, parsed),
            |s| printed(s.endpoint.transport.streams_open_max)
        ),
        key!("transport.resume_timeout", DURATION, set!(endpoint.transport.resume_timeout, duration), |s| {
            print_duration(s.endpoint.transport.resume_timeout)
        }),
        key!(
            "transport.idle_timeout",
            "off, or a number with ms, s, m or h, more than 0",
            set!(endpoint.transport.idle_timeout, |t| unless(t, "off", duration)),
            |s| print_unless(s.endpoint.transport.idle_timeout, "off", print_duration)
        ),
        key!(
            "transport.keepalive_interval",
            DURATION,
            set!(endpoint.transport.keepalive_interval, duration),
            |s| print_duration(s.endpoint.transport.keepalive_interval)
        ),
        key!(
            "transport.handshake_timeout",
            DURATION,
            set!(endpoint.transport.handshake_timeout, duration),
            |s| { print_duration(s.endpoint.transport.handshake_timeout) }
        ),
        key!(
            list "transport.rdma_zones",
            "prefixes such as 10.1.0.0/16, any number",
            set!(endpoint.transport.rdma_zones, |t| items(t).map(|zone| zone.parse().ok()).collect()),
            |s| {
                let zones: Vec<_> = s.endpoint.transport.rdma_zones.iter().map(printed).collect();
                zones.join(",")
            }
        ),
        key!(
            "compression.algorithm",
            "zstd, lz4 or none",
            set!(endpoint.compression.algorithm, |t| match t {
                "zstd" => Some(CompressionAlgorithm::Zstd),
                "lz4" => Some(CompressionAlgorithm::Lz4),
                "none" => Some(CompressionAlgorithm::None),
                _ => None,
            }),
            |s| match s.endpoint.compression.algorithm {
                CompressionAlgorithm::Zstd => "zstd".to_owned(),
                CompressionAlgorithm::Lz4 => "lz4".to_owned(),
                CompressionAlgorithm::None => "none".to_owned(),
            }
        ),
        key!(
            "compression.level",
            "auto or 1..=19",
            set!(endpoint.compression.level, |t| match t {
                "auto" => Some(CompressionLevel::Auto),
                _ => parsed(t).map(CompressionLevel::Fixed),
            }),
            |s| match s.endpoint.compression.level {
                CompressionLevel::Auto => "auto".to_owned(),
                CompressionLevel::Fixed(level) => printed(level),
            }
        ),
        key!(
            "compression.dictionaries",
            "a path, or empty",
            set!(dictionaries, |t| unless(t, "", parsed)),
            |s| print_unless(s.dictionaries.as_deref(), "", shown)
        ),
        key!("delta.store", "a path, or empty", set!(delta.store, |t| unless(t, "", parsed)), |s| {
            print_unless(s.delta.store.as_deref(), "", shown)
        }),
        key!(
            "delta.block_bytes",
            "4KiB to 64KiB, a power of two",
            set!(delta.block_bytes, |t| {
                let bytes = usize::try_from(size(t)?).ok()?;
                (bytes.is_power_of_two() && (4 << 10..=64 << 10).contains(&bytes)).then_some(bytes)
            }),
            |s| print_size(s.delta.block_bytes as u64)
        ),
        key!(
            "delta.chain_max",
            "1..=100",
            set!(delta.chain_max, |t| parsed(t).filter(|count| (1..=100).contains(count))),
            |s| printed(s.delta.chain_max)
        ),
        key!("delta.baseline_ttl", DURATION, set!(delta.baseline_ttl, duration), |s| print_duration(
            s.delta.baseline_ttl
        )),
        key!("delta.store_bytes_max", SIZE, set!(delta.store_bytes_max, size), |s| print_size(
            s.delta.store_bytes_max
        )),
        key!("tls.cert", "a path, or empty", |s, t| path(s, |tls| &mut tls.cert, t), |s| tls(s, |tls| {
            shown(&tls.cert)
        })),
        key!("tls.key", "a path, or empty", |s, t| path(s, |tls| &mut tls.key, t), |s| tls(s, |tls| {
            shown(&tls.key)
        })),
        key!("tls.ca", "a path, or empty", |s, t| path(s, |tls| &mut tls.ca, t), |s| tls(s, |tls| {
            shown(&tls.ca)
        })),
        key!(
            list "tls.allow",
            ALLOW,
            |s, text| {
                s.tls.get_or_insert_default().allow = items(text).map(str::to_owned).collect();
                Some(())
            },
            |s| tls(s, |tls| tls.allow.join(","))
        ),
    ]
}

/// What the kernel takes as a name: TCP_CA_NAME_MAX is 16 with the final zero.
fn congestion_control(text: &str) -> Option<String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    ((1..16).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

fn path(settings: &mut Settings, place: fn(&mut TlsFiles) -> &mut PathBuf, text: &str) -> Option<()> {
    *place(settings.tls.get_or_insert_default()) = PathBuf::from(text);
    Some(())
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn tls(settings: &Settings, get: impl Fn(&TlsFiles) -> String) -> String {
    settings.tls.as_ref().map(get).unwrap_or_default()
}
