//! Flags, and etcd's environment variables: which setting each is for. etcd's own names are taken as etcd takes them, with
//! one dash or two.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

/// One flag that has a value.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// What stands for the value in the help; [`BOOL`] for those that need none.
    value: &'static str,
    pub(crate) does: Does,
    /// Empty: not shown.
    help: &'static str,
}

/// What a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Sets this key.
    Sets(&'static str),
    /// Sets this key; a number without a unit is in milliseconds.
    SetsMs(&'static str),
    /// Sets this key; a number without a unit is in seconds.
    SetsS(&'static str),
    /// Sets `metrics.listen` to where an `http` URL points.
    SetsMetrics,
    /// `debug` and `fatal` and the like, as etcd has them.
    SetsLogLevel,
    /// True sets `log.level` to `debug`.
    SetsDebug,
    /// True allows, and means, `consensus.sync_writes: false`.
    AllowsNoSync,
    /// Means nothing here. A value other than these is worth a warning.
    Ignored(&'static [&'static str]),
    /// Cannot be honoured, and must not be ignored: anything but these values is an error.
    Refused(&'static [&'static str], &'static str),
}

use Does::{AllowsNoSync, Ignored, Refused, Sets, SetsDebug, SetsLogLevel, SetsMetrics, SetsMs, SetsS};

/// The value of a flag that is on when nothing follows.
const BOOL: &str = "BOOL";
const FALSE: &[&str] = &["false"];
const EMPTY: &[&str] = &[""];

const fn flag(name: &'static str, value: &'static str, does: Does, help: &'static str) -> Flag {
    Flag { name, value, does, help }
}

/// Flags of etcd, which have a variable `ETCD_*` too.
pub(crate) static ETCD: &[Flag] = &[
    flag("name", "NAME", Sets("name"), "Name of this member in --initial-cluster"),
    flag("data-dir", "DIR", Sets("data_dir"), "Folder for its data; NAME.consensus if not given"),
    flag("wal-dir", "DIR", Sets("wal_dir"), "Folder for its log; in the data folder if not given"),
    flag(
        "listen-client-urls",
        "URLS",
        Sets("listen_client_urls"),
        "Where it listens for clients: http and https",
    ),
    flag(
        "advertise-client-urls",
        "URLS",
        Sets("advertise_client_urls"),
        "Where clients find it; --listen-client-urls if not given",
    ),
    flag("listen-peer-urls", "URL", Sets("listen_peer_urls"), "Where it listens for the other members"),
    flag(
        "initial-advertise-peer-urls",
        "URLS",
        Sets("initial_advertise_peer_urls"),
        "Where the other members find it, if --initial-cluster is not given; --listen-peer-urls if not given",
    ),
    flag(
        "initial-cluster",
        "LIST",
        Sets("initial_cluster"),
        "All first members as NAME=URL,NAME=URL; this one alone if not given",
    ),
    flag(
        "initial-cluster-state",
        "STATE",
        Sets("initial_cluster_state"),
        "`new`, or `existing`: it joins others",
    ),
    flag(
        "initial-cluster-token",
        "TEXT",
        Sets("initial_cluster_token"),
        "Tells clusters apart that are made of the same members",
    ),
    flag(
        "heartbeat-interval",
        "MS",
        SetsMs("consensus.heartbeat"),
        "Between heartbeats of the leader; milliseconds, or a number with a unit",
    ),
    flag(
        "election-timeout",
        "MS",
        SetsMs("consensus.election_timeout"),
        "Without a heartbeat, a member campaigns after this; at least five heartbeats",
    ),
    flag(
        "snapshot-count",
        "N",
        Sets("consensus.snapshot_entries"),
        "Entries after which a snapshot is taken",
    ),
    flag("unsafe-no-fsync", BOOL, AllowsNoSync, "Does not sync writes: a power cut loses acknowledged ones"),
    flag("max-request-bytes", "BYTES", Sets("max_request_bytes"), "Largest request of a client"),
    flag("max-txn-ops", "N", Sets("max_txn_ops"), "Most operations in a transaction"),
    flag(
        "quota-backend-bytes",
        "BYTES",
        Sets("quota_backend_bytes"),
        "Bytes of data with which nothing that needs room is taken any more; 0: 2 GiB",
    ),
    flag(
        "auto-compaction-mode",
        "MODE",
        Sets("auto_compaction.mode"),
        "Compacts by itself to what was there some time ago (periodic), or some revisions ago (revision)",
    ),
    flag(
        "auto-compaction-retention",
        "TIME|N",
        Sets("auto_compaction.retention"),
        "That time, in hours without a unit, or that number of revisions; 0: does not",
    ),
    flag(
        "auth-token",
        "KIND",
        Sets("auth.token"),
        "What stands for a user: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=NAME,ttl=TIME",
    ),
    flag(
        "auth-token-ttl",
        "S",
        SetsS("auth.token_ttl"),
        "How long a simple token lives after its last use; seconds",
    ),
    flag(
        "bcrypt-cost",
        "COST",
        Sets("auth.bcrypt_cost"),
        "bcrypt's cost of new passwords: one more takes twice as long",
    ),
    flag(
        "force-new-cluster",
        BOOL,
        Sets("force_new_cluster"),
        "The last resort when a majority is gone for ever: goes on alone, and what only the others had is lost",
    ),
    flag(
        "grpc-keepalive-interval",
        "TIME",
        Sets("grpc_keepalive.interval"),
        "Silence of a client after which it is asked whether it is there",
    ),
    flag("grpc-keepalive-timeout", "TIME", Sets("grpc_keepalive.timeout"), "For its answer"),
    flag("cert-file", "FILE", Sets("client_tls.cert"), "Certificate for clients (PEM)"),
    flag("key-file", "FILE", Sets("client_tls.key"), "Its private key (PEM)"),
    flag(
        "trusted-ca-file",
        "FILE",
        Sets("client_tls.ca"),
        "Authority of the clients' certificates (PEM): with it, each client needs one",
    ),
    flag(
        "client-cert-auth",
        BOOL,
        Sets("client_tls.client_cert_auth"),
        "Clients need a certificate of --trusted-ca-file",
    ),
    flag(
        "auto-tls",
        BOOL,
        Sets("client_tls.auto"),
        "Without --cert-file, serves clients with a certificate that it signs itself at each start",
    ),
    flag("peer-cert-file", "FILE", Sets("peer_tls.cert"), "Certificate for the other members (PEM)"),
    flag("peer-key-file", "FILE", Sets("peer_tls.key"), "Its private key (PEM)"),
    flag("peer-trusted-ca-file", "FILE", Sets("peer_tls.ca"), "Authority of all members' certificates (PEM)"),
    flag(
        "peer-cert-allowed-hostname",
        "NAMES",
        Sets("peer_tls.allow"),
        "Names of which a member's certificate has to carry one; any if not given",
    ),
    flag("listen-metrics-urls", "URL", SetsMetrics, "The same as --metrics-listen, as an http URL"),
    flag("log-level", "LEVEL", SetsLogLevel, "Least severe lines that are logged, unless RUST_LOG says"),
    flag("debug", BOOL, SetsDebug, ""),
    // What is the case anyway.
    flag("peer-client-cert-auth", BOOL, Ignored(&["true"]), ""),
    flag("strict-reconfig-check", BOOL, Ignored(&["true"]), ""),
    flag("pre-vote", BOOL, Ignored(&["true"]), ""),
    flag("logger", "NAME", Ignored(&["zap"]), ""),
    flag("log-outputs", "LIST", Ignored(&["default", "stderr"]), ""),
    flag("enable-v2", BOOL, Ignored(FALSE), ""),
    flag("enable-pprof", BOOL, Ignored(FALSE), ""),
    flag("enable-grpc-gateway", BOOL, Ignored(FALSE), ""),
    // What is not to be had.
    flag("backend-batch-interval", "TIME", Ignored(&[]), ""),
    flag("backend-batch-limit", "N", Ignored(&[]), ""),
    flag("backend-bbolt-freelist-type", "TYPE", Ignored(&[]), ""),
    flag("cors", "LIST", Ignored(EMPTY), ""),
    flag("experimental-corrupt-check-time", "TIME", Ignored(&["0"]), ""),
    flag("experimental-initial-corrupt-check", BOOL, Ignored(FALSE), ""),
    flag("grpc-keepalive-min-time", "TIME", Ignored(&[]), ""),
    flag("host-whitelist", "LIST", Ignored(EMPTY), ""),
    flag("initial-election-tick-advance", BOOL, Ignored(&[]), ""),
    flag("log-package-levels", "LIST", Ignored(EMPTY), ""),
    flag("max-snapshots", "N", Ignored(&[]), ""),
    flag("max-wals", "N", Ignored(&[]), ""),
    flag("metrics", "KIND", Ignored(&["basic"]), ""),
    // What someone relies on who gives it.
    flag(
        "peer-auto-tls",
        BOOL,
        Refused(
            FALSE,
            "certificates are not made here: --peer-cert-file, --peer-key-file and --peer-trusted-ca-file name them",
        ),
        "",
    ),
    flag("cipher-suites", "LIST", Refused(EMPTY, "ciphers cannot be chosen: they are those of rustls"), ""),
    flag("client-crl-file", "FILE", Refused(EMPTY, "lists of revoked certificates are not read"), ""),
    flag("peer-crl-file", "FILE", Refused(EMPTY, "lists of revoked certificates are not read"), ""),
    flag(
        "peer-cert-allowed-cn",
        "NAME",
        Refused(
            EMPTY,
            "common names are not looked at: --peer-cert-allowed-hostname names alternative names",
        ),
        "",
    ),
    flag(
        "discovery",
        "URL",
        Refused(EMPTY, "there is no discovery: --initial-cluster names the members"),
        "",
    ),
    flag(
        "discovery-srv",
        "NAME",
        Refused(EMPTY, "there is no discovery: --initial-cluster names the members"),
        "",
    ),
    flag("proxy", "MODE", Refused(&["off"], "there is no proxy"), ""),
    flag(
        "config-file",
        "FILE",
        Refused(EMPTY, "etcd's file is not read: --config names one with this program's own settings"),
        "",
    ),
];

/// Flags that etcd does not have.
pub(crate) static OWN: &[Flag] = &[
    flag(
        "initial-cluster-from-headless",
        "SERVICE",
        Sets("initial_cluster_from_headless"),
        "In a StatefulSet: the first members are the --replicas pods behind this headless service",
    ),
    flag(
        "replicas",
        "N",
        Sets("replicas"),
        "How many members the cluster begins with, for --initial-cluster-from-headless",
    ),
    flag("region", "NAME", Sets("region"), "Region of this store, one of --replication-regions"),
    flag(
        "replication-regions",
        "LIST",
        Sets("replication.regions"),
        "The first regions as NUMBER=NAME,NUMBER=NAME, the same in all: what is under the prefix they have in common",
    ),
    flag(
        "replication-initial-state",
        "STATE",
        Sets("replication.initial_state"),
        "`new`, or `existing`: this region was added to others",
    ),
    flag("replication-listen", "ADDR", Sets("replication.listen"), "Where it listens for other regions"),
    flag(
        "replication-peers",
        "LIST",
        Sets("replication.peers"),
        "Members of other regions as NAME=URL,NAME=URL",
    ),
    flag("replication-interval", "TIME", Sets("replication.interval"), "Between two deltas to other regions"),
    flag(
        "allow-plaintext",
        BOOL,
        Sets("allow_plaintext"),
        "Allows plaintext on addresses other than loopback: whoever reaches one can read and write everything",
    ),
    flag(
        "metrics-listen",
        "ADDR|off",
        Sets("metrics.listen"),
        "Where it serves /metrics, /healthz, /ready, /startup, /status over HTTP",
    ),
    flag(
        "metrics-allow-plaintext",
        BOOL,
        Sets("metrics.allow_plaintext"),
        "Allows that on addresses other than loopback: whoever reaches one can read",
    ),
    flag(
        "disk-reserve-bytes",
        "BYTES",
        Sets("disk_reserve_bytes"),
        "Bytes that the file system must have left, or nothing that needs room is taken",
    ),
    flag("drain-timeout", "TIME", Sets("drain_timeout"), "How long a drain may take"),
    flag("log-format", "FORMAT", Sets("log.format"), "Log lines, which go to standard error: text or json"),
];

/// Exit codes, for the help and for `main`.
pub(crate) const OK: u8 = 0;
pub(crate) const FAILURE: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const CUT_SHORT: u8 = 3;

const AFTER_HELP: &str = "\
Every setting can stand in the file that --config names (--print-config shows all), in a variable NOVACRON_*, or on the
command line; each goes over those before it. etcd's variables ETCD_* go between file and NOVACRON_*. Flags of etcd that
mean nothing here are taken, and a warning says so.

Signals:
  SIGTERM, SIGINT, SIGUSR1  drain: leadership is handed over, what was accepted is finished, then the member ends
  SIGTERM or SIGINT again   stop now
  SIGHUP                    read the certificates again; they are looked at every 10 s anyway

Exit codes:
  0  drained and stopped, or the settings are good
  1  failure: a listener, a disk, data that is in use or damaged
  2  wrong usage: a flag, a variable, a setting or a file that they name
  3  stopped before the drain was over: at a second signal, or after drain_timeout";

/// What is on the command line beside settings.
pub(crate) fn command() -> Command {
    let mut command = Command::new("novacron-consensus")
        .version(env!("CARGO_PKG_VERSION"))
        .about("One member of a replicated store that etcd's clients can use")
        .after_help(AFTER_HELP)
        // The last one counts, as in etcd.
        .args_override_self(true)
        .arg(Arg::new("config").long("config").value_name("FILE").help("YAML file with settings"))
        .arg(switch("print-config").help("Prints all settings, with where each comes from, and ends"))
        .arg(
            switch("check-config")
                .help("Checks settings and certificates and ends: exit code 0, or 2 with what is wrong and where")
                .conflicts_with("print-config"),
        );
    for flag in OWN.iter().chain(ETCD) {
        let arg = Arg::new(flag.name).long(flag.name).value_name(flag.value).help(flag.help);
        let arg = arg.hide(flag.help.is_empty()).action(ArgAction::Set);
        command = command.arg(match flag.value {
            BOOL => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg.allow_hyphen_values(true),
        });
    }
    command
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

/// The command line with two dashes where Go's flags have one.
pub(crate) fn with_two_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let known = |name: &str| {
        ["config", "print-config", "check-config", "help", "version"].contains(&name)
            || OWN.iter().chain(ETCD).any(|flag| flag.name == name)
    };
    args.into_iter()
        .map(|arg| {
            let single =
                arg.to_str().and_then(|text| text.strip_prefix('-')).filter(|rest| !rest.starts_with('-'));
            match single {
                Some(rest) if known(rest.split('=').next().unwrap_or(rest)) => format!("--{rest}").into(),
                _ => arg,
            }
        })
        .collect()
}

/// Flags that were given, with their values.
pub(crate) fn given<'a>(
    flags: &'static [Flag],
    matches: &'a ArgMatches,
) -> impl Iterator<Item = (&'static Flag, &'a str)> {
    flags.iter().filter_map(|flag| Some((flag, matches.get_one::<String>(flag.name)?.as_str())))
}

impl Flag {
    /// The value as a setting has it: Go knows more words for true and false.
    pub(crate) fn normalised<'a>(&self, value: &'a str) -> &'a str {
        match value {
            "1" | "t" | "T" | "TRUE" | "True" if self.value == BOOL => "true",
            "0" | "f" | "F" | "FALSE" | "False" if self.value == BOOL => "false",
            value => value,
        }
    }

    /// etcd's environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::KEYS;

    #[test]
    fn flags_are_well_formed_and_name_settings_that_exist() {
        command().debug_assert();
        for flag in ETCD.iter().chain(OWN) {
            let (Sets(key) | SetsMs(key)) = flag.does else { continue };
            assert!(KEYS.iter().any(|known| known.name == key), "--{}: {key}", flag.name);
        }
    }

    #[test]
    fn one_dash_is_enough_where_the_flag_is_known() {
        let args = ["x", "-name", "a", "--name=b", "-data-dir=/d", "-unknown", "-h", "-", "--", "-1"];
        let two = with_two_dashes(args.map(OsString::from));
        let expected = ["x", "--name", "a", "--name=b", "--data-dir=/d", "-unknown", "-h", "-", "--", "-1"];
        assert_eq!(two, expected.map(OsString::from));
    }
}
