//! What can be set: the table of keys and the defaults.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use novacron_settings::{
    DURATION, Key, MetricsSettings, SIZE, SettingsError, Sources, duration, set, size,
    value::{items, parsed, print_duration, print_size, print_unless, printed, unless},
};

/// The port of the API.
pub const PORT: u16 = 8080;
/// The port of metrics and status.
pub const METRICS_PORT: u16 = 8081;

/// Longest name of a replica in bytes.
const REPLICA_BYTES_MAX: usize = 253;
/// The store keeps no lease for a shorter time.
const LEASE_MIN: Duration = Duration::from_secs(3);

/// Everything that can be set. Empty paths mean "not set".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Allows other addresses than loopback: whoever reaches one may do everything.
    pub allow_plaintext: bool,
    /// Metrics and status.
    pub metrics: MetricsSettings,
    /// What this replica is called where others read it.
    pub replica: String,
    /// Where the store is.
    pub store: StoreSettings,
    /// Bounds of requests.
    pub limits: Limits,
    /// The queue of jobs.
    pub jobs: JobSettings,
    /// How long requests are still taken after readiness has ended, for load balancers to take note.
    pub drain_delay: Duration,
    /// How long requests and jobs may take to come to their end after that.
    pub drain_timeout: Duration,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Which log lines, where `RUST_LOG` does not say.
    pub log_level: String,
}

/// Where the store is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreSettings {
    /// Its members.
    pub endpoints: Vec<String>,
    /// The authority that signs their certificates.
    pub ca: PathBuf,
    /// This replica's certificate for the store.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// How long a member may take to answer.
    pub timeout: Duration,
}

/// Bounds of requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// A request's body.
    pub body_bytes_max: usize,
    /// For one request, from its head to its answer.
    pub request_timeout: Duration,
    /// For the head of a request; a connection that is idle for so long is closed.
    pub head_timeout: Duration,
    /// Requests at a time.
    pub requests_max: usize,
    /// Connections at a time.
    pub connections_max: usize,
}

/// The queue of jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobSettings {
    /// Jobs that this replica runs at a time; 0: none.
    pub running_max: usize,
    /// How long a job stays with a replica that is not heard of.
    pub lease: Duration,
    /// How often is looked for jobs.
    pub poll_interval: Duration,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Settings {
    /// The defaults, for a replica of this name.
    pub fn new(replica: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            allow_plaintext: false,
            metrics: MetricsSettings {
                listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))),
                allow_plaintext: false,
            },
            replica: replica.into(),
            store: StoreSettings {
                endpoints: vec!["http://127.0.0.1:2379".to_owned()],
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
                timeout: Duration::from_secs(5),
            },
            limits: Limits {
                body_bytes_max: 1 << 20,
                request_timeout: Duration::from_secs(30),
                head_timeout: Duration::from_secs(30),
                requests_max: 256,
                connections_max: 1024,
            },
            jobs: JobSettings {
                running_max: 4,
                lease: Duration::from_secs(15),
                poll_interval: Duration::from_secs(1),
            },
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}

const BOOL: &str = "true or false";
const PATH: &str = "a path, or empty";
const ADDRESS: &str = "ADDRESS:PORT";

/// Every setting, in the order in which they are printed.
pub(crate) const KEYS: &[Key<Settings>] = &[
    Key::one("listen", ADDRESS, set!(listen, parsed), |s| printed(s.listen)),
    Key::one("allow_plaintext", BOOL, set!(allow_plaintext, parsed), |s| printed(s.allow_plaintext)),
    Key::one(
        "metrics.listen",
        "off, or ADDRESS:PORT",
        set!(metrics.listen, |t| unless(t, "off", parsed)),
        |s| print_unless(s.metrics.listen, "off", printed),
    ),
    Key::one("metrics.allow_plaintext", BOOL, set!(metrics.allow_plaintext, parsed), |s| {
        printed(s.metrics.allow_plaintext)
    }),
    Key::one(
        "replica",
        "1..=253 bytes",
        set!(replica, |t| (1..=REPLICA_BYTES_MAX).contains(&t.len()).then(|| t.to_owned())),
        |s| s.replica.clone(),
    ),
    Key::list(
        "store.endpoints",
        "http://HOST:PORT or https://HOST:PORT, 1 to 64",
        set!(store.endpoints, |t| Some(items(t).map(str::to_owned).collect())),
        |s| s.store.endpoints.join(","),
    ),
    Key::one("store.ca", PATH, set!(store.ca, path), |s| s.store.ca.display().to_string()),
    Key::one("store.cert", PATH, set!(store.cert, path), |s| s.store.cert.display().to_string()),
    Key::one("store.key", PATH, set!(store.key, path), |s| s.store.key.display().to_string()),
    Key::one("store.timeout", DURATION, set!(store.timeout, duration), |s| print_duration(s.store.timeout)),
    Key::one("limits.body_bytes_max", SIZE, set!(limits.body_bytes_max, |t| size(t)?.try_into().ok()), |s| {
        print_size(s.limits.body_bytes_max as u64)
    }),
    Key::one("limits.request_timeout", DURATION, set!(limits.request_timeout, duration), |s| {
        print_duration(s.limits.request_timeout)
    }),
    Key::one("limits.head_timeout", DURATION, set!(limits.head_timeout, duration), |s| {
        print_duration(s.limits.head_timeout)
    }),
    Key::one("limits.requests_max", "1..=65536", set!(limits.requests_max, count), |s| {
        printed(s.limits.requests_max)
    }),
    Key::one("limits.connections_max", "1..=65536", set!(limits.connections_max, count), |s| {
        printed(s.limits.connections_max)
    }),
    Key::one(
        "jobs.running_max",
        "0..=64; 0 leaves jobs to other replicas",
        set!(jobs.running_max, |t| parsed(t).filter(|jobs: &usize| *jobs <= 64)),
        |s| printed(s.jobs.running_max),
    ),
    Key::one(
        "jobs.lease",
        "at least 3s",
        set!(jobs.lease, |t| duration(t).filter(|lease| *lease >= LEASE_MIN)),
        |s| print_duration(s.jobs.lease),
    ),
    Key::one("jobs.poll_interval", DURATION, set!(jobs.poll_interval, duration), |s| {
        print_duration(s.jobs.poll_interval)
    }),
    Key::one("drain_delay", DURATION, set!(drain_delay, duration), |s| print_duration(s.drain_delay)),
    Key::one("drain_timeout", DURATION, set!(drain_timeout, duration), |s| print_duration(s.drain_timeout)),
    Key::one(
        "log.format",
        "text or json",
        set!(log_format, |t| match t {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }),
        |s| match s.log_format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        },
    ),
    Key::one(
        "log.level",
        "trace, debug, info, warn or error",
        set!(log_level, |t| {
            ["trace", "debug", "info", "warn", "error"].contains(&t).then(|| t.to_owned())
        }),
        |s| s.log_level.clone(),
    ),
];

/// Checks what depends on more than one setting.
pub(crate) fn finish(sources: &Sources<Settings>) -> Result<(), SettingsError> {
    let settings = &sources.values;
    if !settings.listen.ip().is_loopback() && !settings.allow_plaintext {
        let expected = "a loopback address: others need --allow-plaintext (allow_plaintext), which lets everybody who \
                        reaches them do everything";
        return Err(sources.invalid("listen", settings.listen.to_string(), expected));
    }
    let given = |path: &PathBuf| !path.as_os_str().is_empty();
    if given(&settings.store.cert) != given(&settings.store.key) {
        let cert = settings.store.cert.display().to_string();
        return Err(sources.invalid("store.cert", cert, "a path where store.key is one"));
    }
    Ok(())
}

fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

fn count(text: &str) -> Option<usize> {
    parsed(text).filter(|count: &usize| (1..=1 << 16).contains(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources<Settings> {
        Sources::new(KEYS, Settings::new("r"))
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let mut set = sources();
        for (key, value) in [
            ("listen", "127.0.0.1:9"),
            ("metrics.listen", "off"),
            ("replica", "a"),
            ("store.endpoints", "http://a:1,https://b:2"),
            ("limits.body_bytes_max", "4KiB"),
            ("jobs.running_max", "0"),
            ("jobs.lease", "3s"),
            ("log.format", "json"),
        ] {
            set.flag("--x", key, value).unwrap_or_else(|error| panic!("{error}"));
        }
        finish(&set).unwrap();
        let printed = set.to_yaml_with_origins();
        let mut again = sources();
        again.file("printed", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  # ").next().unwrap_or(line).to_owned()).collect()
        };
        assert_eq!(values(&again.to_yaml_with_origins()), values(&printed));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (key, value) in [
            ("listen", "localhost"),
            ("replica", ""),
            ("limits.requests_max", "0"),
            ("limits.connections_max", "70000"),
            ("jobs.running_max", "65"),
            ("jobs.lease", "2s"),
            ("drain_timeout", "0s"),
            ("log.level", "loud"),
        ] {
            assert!(sources().flag("--x", key, value).is_err(), "{key}: {value}");
        }
        for set in [&[("listen", "0.0.0.0:8080")], &[("store.cert", "c.pem")]] {
            let mut given = sources();
            for (key, value) in set {
                given.flag("--x", key, value).unwrap();
            }
            assert!(finish(&given).is_err(), "{set:?}");
        }
    }

    #[test]
    fn beyond_loopback_the_refusal_names_the_flag() {
        let mut given = sources();
        given.flag("--listen", "listen", "0.0.0.0:8080").unwrap();
        assert!(finish(&given).unwrap_err().to_string().contains("--allow-plaintext"));
        given.flag("--allow-plaintext", "allow_plaintext", "true").unwrap();
        finish(&given).unwrap();
    }
}
