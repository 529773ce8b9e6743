//! What can be set: the table of keys and the defaults.

mod auth;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use novacron_settings::{
    DURATION, Key, LogSettings, MetricsSettings, SIZE, SettingsError, Sources, duration, log_keys, set, size,
    value::{items, parsed, print_duration, print_size, print_unless, printed, unless},
};

use crate::{http::rate::Rate, vm::is_node};
pub use auth::{AuthSettings, JwtSettings, NamedGrant};

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
    /// Allows other addresses than loopback without TLS: who is in between can read tokens.
    pub allow_plaintext: bool,
    /// Certificates of the API's port.
    pub tls: TlsSettings,
    /// Who may do what.
    pub auth: AuthSettings,
    /// Where changes are recorded.
    pub database: DatabaseSettings,
    /// Where answers are kept that may be a moment old.
    pub cache: CacheSettings,
    /// Metrics and status.
    pub metrics: MetricsSettings,
    /// What this replica is called where others read it.
    pub replica: String,
    /// Where the store is.
    pub store: StoreSettings,
    /// How agents of nodes are asked.
    pub agents: AgentSettings,
    /// Bounds of requests.
    pub limits: Limits,
    /// The queue of jobs.
    pub jobs: JobSettings,
    /// How long requests are still taken after readiness has ended, for load balancers to take note.
    pub drain_delay: Duration,
    /// How long requests and jobs may take to come to their end after that.
    pub drain_timeout: Duration,
    /// Log lines.
    pub log: LogSettings,
}

/// Certificates of the API's port; without any, it speaks plaintext.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsSettings {
    /// Its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority that signs certificates of clients.
    pub ca: PathBuf,
    /// Whoever has no certificate of it is not let in at all.
    pub client_cert_required: bool,
}

/// Where changes are recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DatabaseSettings {
    /// `postgres://` and so on; empty: SQLite, in a file.
    pub url: String,
    /// Folder of that file.
    pub data_dir: PathBuf,
    /// Connections at a time.
    pub connections_max: u32,
    /// How long records are kept.
    pub audit_kept: Duration,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            data_dir: PathBuf::from("novacron-api.data"),
            connections_max: 8,
            audit_kept: Duration::from_secs(365 * 24 * 60 * 60),
        }
    }
}

/// Where answers are kept that may be a moment old.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheSettings {
    /// `redis://` or `rediss://`; empty: in this process alone.
    pub url: String,
    /// The authorities that may have signed Redis's certificate; empty: those that the system trusts.
    pub ca: PathBuf,
    /// How long Redis may take to answer.
    pub timeout: Duration,
    /// What is kept in this process; 0: nothing.
    pub bytes_max: usize,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            ca: PathBuf::new(),
            timeout: Duration::from_millis(50),
            bytes_max: 16 << 20,
        }
    }
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

/// How agents of nodes are asked.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AgentSettings {
    /// The authority that signs their certificates.
    pub ca: PathBuf,
    /// This replica's certificate, whose name is in their `control.allow`.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Control sockets of agents on this machine.
    pub sockets: Vec<AgentSocket>,
}

/// `NODE=PATH`: the control socket of an agent on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSocket {
    /// The node.
    pub node: String,
    /// The socket.
    pub path: PathBuf,
}

impl std::str::FromStr for AgentSocket {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (node, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or(())?;
        is_node(node).then(|| Self { node: node.to_owned(), path: path.into() }).ok_or(())
    }
}

impl std::fmt::Display for AgentSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.node, self.path.display())
    }
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
    /// Streams of events at a time; a principal has a quarter of them.
    pub streams_max: usize,
    /// How often a principal, or an address without one, may ask.
    pub rate: Option<Rate>,
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
    /// The defaults, for a replica of this name.
    pub fn new(replica: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            allow_plaintext: false,
            tls: TlsSettings::default(),
            auth: AuthSettings::default(),
            database: DatabaseSettings::default(),
            cache: CacheSettings::default(),
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
            agents: AgentSettings::default(),
            limits: Limits {
                body_bytes_max: 64 << 10,
                request_timeout: Duration::from_secs(30),
                head_timeout: Duration::from_secs(30),
                requests_max: 1024,
                connections_max: 1024,
                streams_max: 256,
                rate: Some(Rate { per_second: 100, burst: 400 }),
            },
            jobs: JobSettings {
                running_max: 4,
                lease: Duration::from_secs(15),
                poll_interval: Duration::from_secs(1),
            },
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            log: LogSettings::default(),
        }
    }
}

const BOOL: &str = "true or false";
const PATH: &str = "a path, or empty";
const ADDRESS: &str = "ADDRESS:PORT";

/// Every setting, in the order in which they are printed.
pub(crate) fn keys() -> Vec<Key<Settings>> {
    [OWN, auth::KEYS, OTHERS, &log_keys()].concat()
}

const OWN: &[Key<Settings>] = &[
    Key::one("listen", ADDRESS, set!(listen, parsed), |s| printed(s.listen)),
    Key::one("allow_plaintext", BOOL, set!(allow_plaintext, parsed), |s| printed(s.allow_plaintext)),
    Key::one("tls.cert", PATH, set!(tls.cert, path), |s| s.tls.cert.display().to_string()),
    Key::one("tls.key", PATH, set!(tls.key, path), |s| s.tls.key.display().to_string()),
    Key::one("tls.ca", PATH, set!(tls.ca, path), |s| s.tls.ca.display().to_string()),
    Key::one("tls.client_cert_required", BOOL, set!(tls.client_cert_required, parsed), |s| {
        printed(s.tls.client_cert_required)
    }),
];

const OTHERS: &[Key<Settings>] = &[
    Key::one("data_dir", "a path", set!(database.data_dir, |t| path(t).filter(|_| !t.is_empty())), |s| {
        s.database.data_dir.display().to_string()
    }),
    Key::login("database.url", DATABASE, set!(database.url, |t| is_database(t).then(|| t.to_owned())), |s| {
        s.database.url.clone()
    }),
    Key::one(
        "database.connections_max",
        "1..=64",
        set!(database.connections_max, |t| parsed(t).filter(|n| (1..=64).contains(n))),
        |s| printed(s.database.connections_max),
    ),
    Key::one("database.audit_kept", DURATION, set!(database.audit_kept, duration), |s| {
        print_duration(s.database.audit_kept)
    }),
    Key::login("cache.url", CACHE, set!(cache.url, |t| is_cache(t).then(|| t.to_owned())), |s| {
        s.cache.url.clone()
    }),
    Key::one("cache.ca", PATH, set!(cache.ca, path), |s| s.cache.ca.display().to_string()),
    Key::one("cache.timeout", DURATION, set!(cache.timeout, duration), |s| print_duration(s.cache.timeout)),
    Key::one(
        "cache.bytes_max",
        SIZE,
        set!(cache.bytes_max, |t| if t == "0" { Some(0) } else { size(t)?.try_into().ok() }),
        |s| match s.cache.bytes_max {
            0 => printed(0),
            bytes => print_size(bytes as u64),
        },
    ),
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
    Key::one("agents.ca", PATH, set!(agents.ca, path), |s| s.agents.ca.display().to_string()),
    Key::one("agents.cert", PATH, set!(agents.cert, path), |s| s.agents.cert.display().to_string()),
    Key::one("agents.key", PATH, set!(agents.key, path), |s| s.agents.key.display().to_string()),
    Key::list(
        "agents.sockets",
        "NODE=PATH, any number",
        set!(agents.sockets, |t| items(t).map(|item| item.parse().ok()).collect()),
        |s| s.agents.sockets.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    ),
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
    Key::one("limits.streams_max", "1..=65536", set!(limits.streams_max, count), |s| {
        printed(s.limits.streams_max)
    }),
    Key::one(
        "limits.rate",
        "off, or REQUESTS_PER_SECOND/BURST",
        set!(limits.rate, |t| unless(t, "off", parsed)),
        |s| print_unless(s.limits.rate, "off", printed),
    ),
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
];

const DATABASE: &str =
    "a URL of postgres with no other parameters than sqlx knows, or empty for SQLite in data_dir";

/// Of others, sqlx logs the values, and those may be secrets: libpq has `sslpassword`.
const DATABASE_PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

fn is_database(text: &str) -> bool {
    let is_known = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        DATABASE_PARAMETERS.contains(&name) || name.starts_with("options[")
    };
    let is_postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    text.is_empty()
        || is_postgres && text.split_once('?').is_none_or(|(_, query)| query.split('&').all(is_known))
}

const CACHE: &str = "redis://HOST:PORT, rediss://HOST:PORT, or empty for none but in this process";

fn is_cache(text: &str) -> bool {
    text.is_empty() || text.starts_with("redis://") || text.starts_with("rediss://")
}

/// Checks what depends on more than one setting.
pub(crate) fn finish(sources: &Sources<Settings>) -> Result<(), SettingsError> {
    let Settings { tls, store, agents, auth, listen, .. } = &sources.values;
    sources.check_pair(("tls.cert", &tls.cert), ("tls.key", &tls.key))?;
    sources.check_pair(("store.cert", &store.cert), ("store.key", &store.key))?;
    let given = |path: &PathBuf| !path.as_os_str().is_empty();
    if given(&tls.ca) && !given(&tls.cert) {
        let expected = "none without tls.cert: without TLS no client shows a certificate";
        return Err(sources.invalid("tls.ca", tls.ca.display().to_string(), expected));
    }
    if tls.client_cert_required && !given(&tls.ca) {
        let expected = "false without tls.ca, the authority that signs certificates of clients";
        return Err(sources.invalid("tls.client_cert_required", "true".to_owned(), expected));
    }
    let cache = &sources.values.cache;
    if given(&cache.ca) && !cache.url.starts_with("rediss://") {
        let expected = "none without a cache.url of rediss://: without TLS no certificate is shown";
        return Err(sources.invalid("cache.ca", cache.ca.display().to_string(), expected));
    }
    sources.check_pair(("agents.cert", &agents.cert), ("agents.key", &agents.key))?;
    if given(&agents.cert) != given(&agents.ca) {
        let named =
            if given(&agents.cert) { ("agents.cert", &agents.cert) } else { ("agents.ca", &agents.ca) };
        let expected = "a path only where agents.cert, agents.key and agents.ca are all named: agents and the API prove to \
                        each other who they are";
        return Err(sources.invalid(named.0, named.1.display().to_string(), expected));
    }
    auth::finish(sources)?;
    if listen.ip().is_loopback() {
        return Ok(());
    }
    let refused = |expected| Err(sources.invalid("listen", listen.to_string(), expected));
    if !given(&tls.cert) && !sources.values.allow_plaintext {
        return refused(
            "a loopback address: others need TLS (tls.cert and tls.key), or --allow-plaintext (allow_plaintext), which \
             lets everybody in between read tokens",
        );
    }
    if !auth.is_set_up() {
        return refused(
            "a loopback address: others need a login (auth.tokens, auth.certificates or auth.jwt)",
        );
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
        Sources::new(keys(), Settings::new("r"))
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
            ("agents.sockets", "a=/run/a.sock,b=/run/b.sock"),
            ("limits.rate", "5/10"),
            ("tls.cert", "c.pem"),
            ("tls.key", "k.pem"),
            ("tls.ca", "ca.pem"),
            ("tls.client_cert_required", "true"),
            ("auth.tokens", "true"),
            ("auth.certificates", "spiffe://a/b?c=d=admin@*,x.example=viewer@eu"),
            ("auth.jwt.issuer", "https://id.example/"),
            ("auth.jwt.audience", "novacron"),
            ("auth.jwt.jwks", "https://id.example/keys"),
            ("auth.jwt.ca", "roots.pem"),
            ("auth.jwt.algorithms", "ES256,EdDSA"),
            ("auth.jwt.roles", "ops=operator@eu"),
            ("data_dir", "/a b"),
            ("database.url", "postgres://u@h/d"),
            ("cache.url", "rediss://cache:6379/1"),
            ("cache.ca", "ca.pem"),
            ("cache.timeout", "20ms"),
            ("cache.bytes_max", "0"),
            ("limits.streams_max", "8"),
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
            ("agents.sockets", "a="),
            ("agents.sockets", "/run/a.sock"),
            ("limits.requests_max", "0"),
            ("limits.connections_max", "70000"),
            ("jobs.running_max", "65"),
            ("jobs.lease", "2s"),
            ("drain_timeout", "0s"),
            ("log.level", "loud"),
            ("limits.rate", "0/1"),
            ("auth.certificates", "a=root@*"),
            ("auth.certificates", "=admin@*"),
            ("auth.jwt.jwks", "http://id.example/keys"),
            ("auth.jwt.jwks", "ftp://id.example/keys"),
            ("auth.jwt.algorithms", "HS256"),
            ("auth.jwt.algorithms", "RS256,HS256"),
            ("auth.jwt.algorithms", "none"),
            ("auth.jwt.algorithms", ""),
            ("data_dir", ""),
            ("database.url", "mysql://h/d"),
            ("database.connections_max", "0"),
            ("cache.url", "http://cache"),
            ("cache.timeout", "0s"),
            ("limits.streams_max", "0"),
        ] {
            assert!(sources().flag("--x", key, value).is_err(), "{key}: {value}");
        }
        let tls = [("tls.cert", "c.pem"), ("tls.key", "k.pem")];
        let jwt = [("auth.jwt.issuer", "i"), ("auth.jwt.audience", "a")];
        for set in [
            vec![("listen", "0.0.0.0:8080")],
            vec![("store.cert", "c.pem")],
            vec![("agents.ca", "c.pem")],
            vec![("tls.cert", "c.pem")],
            vec![("tls.key", "k.pem")],
            vec![("tls.ca", "ca.pem")],
            vec![("cache.ca", "ca.pem"), ("cache.url", "redis://cache")],
            [&tls[..], &[("tls.client_cert_required", "true")]].concat(),
            [&tls[..], &[("auth.certificates", "a=admin@*")]].concat(),
            jwt.to_vec(),
            [&jwt[..], &[("auth.jwt.jwks", "https://id.example/keys")]].concat(),
            vec![("auth.jwt.jwks", "keys.json")],
        ] {
            let mut given = sources();
            for (key, value) in &set {
                given.flag("--x", key, value).unwrap();
            }
            assert!(finish(&given).is_err(), "{set:?}");
        }
    }

    #[test]
    fn what_agents_are_asked_with_is_whole_or_not_there() {
        for named in [&["agents.ca"][..], &["agents.cert", "agents.key"]] {
            let mut given = sources();
            for key in named {
                given.flag("--x", key, "a.pem").unwrap();
            }
            let error = finish(&given).unwrap_err().to_string();
            assert!(error.contains(named[0]) && error.contains("and agents.ca are all named"), "{error}");
        }
    }

    #[test]
    fn no_error_and_nothing_printed_has_a_password() {
        let secret = "f00d";
        for (key, file, values) in [
            (
                "database.url",
                "database",
                ["mysql://u:f00d@h/d", "u:f00d@h/d", "postgres://u@h/d?sslpassword=f00d"],
            ),
            ("cache.url", "cache", ["http://:f00d@h", "f00d@h", "redis:/:f00d@h"]),
        ] {
            for value in values {
                let flag = sources().flag("--x", key, value).unwrap_err();
                let mut given = sources();
                let variable = novacron_settings::variable(key);
                let environment = given.env([(variable, value.to_owned())]).unwrap_err();
                let line = sources().file("f", &format!("{file}:\n  url: \"{value}\"\n")).unwrap_err();
                let list = sources().file("f", &format!("{file}:\n  url: [\"{value}\"]\n")).unwrap_err();
                for error in [flag, environment, line, list] {
                    assert!(!format!("{error} {error:?}").contains(secret), "{error}");
                    assert!(error.to_string().contains(key), "{error}");
                }
            }
        }
        let mut given = sources();
        given.flag("--x", "database.url", "postgres://u:f00d@h/d?sslmode=require&password=f00d").unwrap();
        given.flag("--x", "cache.url", "redis://:f00d@h/0").unwrap();
        assert!(!given.to_yaml_with_origins().contains(secret));
        given.flag("--x", "cache.ca", "ca.pem").unwrap();
        assert!(!finish(&given).unwrap_err().to_string().contains(secret));
    }

    #[test]
    fn beyond_loopback_it_takes_tls_and_a_login() {
        let refusal = |set: &[(&str, &str)]| {
            let mut given = sources();
            given.flag("--listen", "listen", "0.0.0.0:8080").unwrap();
            for (key, value) in set {
                given.flag("--x", key, value).unwrap();
            }
            finish(&given).err().map(|error| error.to_string())
        };
        let tls = [("tls.cert", "c.pem"), ("tls.key", "k.pem")];
        let (plaintext, tokens) = (("allow_plaintext", "true"), ("auth.tokens", "true"));
        assert!(refusal(&[]).unwrap().contains("--allow-plaintext"));
        assert!(refusal(&[tokens]).unwrap().contains("--allow-plaintext"));
        assert!(refusal(&[plaintext]).unwrap().contains("auth.tokens"));
        assert!(refusal(&tls).unwrap().contains("auth.tokens"));
        assert_eq!(refusal(&[plaintext, tokens]), None);
        assert_eq!(refusal(&[tls[0], tls[1], tokens]), None);
    }
}
