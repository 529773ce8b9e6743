//! What can be set: the table of keys and the defaults.

use std::net::{Ipv4Addr, SocketAddr};

use novacron_settings::{
    Key, LogSettings, MetricsSettings, SettingsError, Sources, log_keys, set,
    value::{parsed, print_unless, printed, unless},
};

/// The port of metrics and health.
const METRICS_PORT: u16 = 8081;
/// Reconciliations of one kind at a time at most.
const CONCURRENCY_MAX: u16 = 64;
/// Longest name of an object, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// Everything that can be set. Empty texts mean "not set".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Objects of this namespace are looked after; empty: of all.
    pub namespace: String,
    /// Reconciliations of one kind at a time.
    pub concurrency: u16,
    /// Who of several operators works.
    pub lease: LeaseSettings,
    /// Metrics and health.
    pub metrics: MetricsSettings,
    /// Log lines.
    pub log: LogSettings,
}

/// Who of several operators works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseSettings {
    /// The Lease's name; empty: there is one operator, which works.
    pub name: String,
    /// Its namespace; empty: the operator's own.
    pub namespace: String,
    /// What this operator is called there, beside a number of its own.
    pub identity: String,
}

impl AsRef<LogSettings> for Settings {
    fn as_ref(&self) -> &LogSettings {
        &self.log
    }
}

impl AsMut<LogSettings> for Settings {
    fn as_mut(&mut self) -> &mut LogSettings {
        &mut self.log
    }
}

impl Settings {
    /// The defaults, for an operator of this name.
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            namespace: String::new(),
            concurrency: 4,
            lease: LeaseSettings {
                name: "novacron-operator".to_owned(),
                namespace: String::new(),
                identity: identity.into(),
            },
            metrics: MetricsSettings {
                listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT))),
                allow_plaintext: false,
            },
            log: LogSettings::default(),
        }
    }
}

const NAME: &str = "the name of an object, or empty";

/// Every setting, in the order in which they are printed.
pub(crate) fn keys() -> Vec<Key<Settings>> {
    [OWN, &log_keys()].concat()
}

const OWN: &[Key<Settings>] = &[
    Key::one("namespace", NAME, set!(namespace, name), |s| s.namespace.clone()),
    Key::one(
        "concurrency",
        "1..=64",
        set!(concurrency, |t| parsed(t).filter(|n| (1..=CONCURRENCY_MAX).contains(n))),
        |s| printed(s.concurrency),
    ),
    Key::one("lease.name", NAME, set!(lease.name, name), |s| s.lease.name.clone()),
    Key::one("lease.namespace", NAME, set!(lease.namespace, name), |s| s.lease.namespace.clone()),
    Key::one(
        "lease.identity",
        "1..=200 bytes",
        set!(lease.identity, |t| (1..=200).contains(&t.len()).then(|| t.to_owned())),
        |s| s.lease.identity.clone(),
    ),
    Key::one(
        "metrics.listen",
        "off, or ADDRESS:PORT",
        set!(metrics.listen, |t| unless(t, "off", parsed)),
        |s| print_unless(s.metrics.listen, "off", printed),
    ),
    Key::one("metrics.allow_plaintext", "true or false", set!(metrics.allow_plaintext, parsed), |s| {
        printed(s.metrics.allow_plaintext)
    }),
];

fn name(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    (text.len() <= NAME_BYTES_MAX && text.chars().all(fits)).then(|| text.to_owned())
}

/// Checks what depends on more than one setting.
pub(crate) fn finish(sources: &Sources<Settings>) -> Result<(), SettingsError> {
    let metrics = &sources.values.metrics;
    if let Some(listen) = metrics.listen.filter(|listen| !listen.ip().is_loopback())
        && !metrics.allow_plaintext
    {
        let expected =
            "a loopback address, or --metrics-allow-plaintext beside it: whoever reaches it can read";
        return Err(sources.invalid("metrics.listen", listen.to_string(), expected));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources<Settings> {
        Sources::new(keys(), Settings::new("o"))
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let mut set = sources();
        for (key, value) in [
            ("namespace", "nova"),
            ("concurrency", "9"),
            ("lease.name", ""),
            ("lease.namespace", "kube-system"),
            ("lease.identity", "me"),
            ("metrics.listen", "off"),
            ("log.level", "debug"),
        ] {
            set.flag("--x", key, value).unwrap();
        }
        let printed = set.to_yaml_with_origins();
        let mut again = sources();
        again.file("printed", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(format!("{:?}", again.values), format!("{:?}", set.values));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (key, value) in
            [("concurrency", "0"), ("namespace", "A"), ("lease.identity", ""), ("metrics.listen", "x")]
        {
            assert!(sources().flag("--x", key, value).is_err(), "{key}: {value}");
        }
        let mut open = sources();
        open.flag("--x", "metrics.listen", "0.0.0.0:8081").unwrap();
        assert!(finish(&open).is_err());
        open.flag("--x", "metrics.allow_plaintext", "true").unwrap();
        assert!(finish(&open).is_ok());
    }
}
