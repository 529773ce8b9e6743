//! What can be set: the table of keys and the defaults, beside those of any process with a DWCP endpoint.

mod checks;
mod tunnels;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use dwcp_ebpf::{Failure, Limit, Mode, Prefix};
use novacron_settings::{
    Key, LogSettings, Settings as Transport, SettingsError, Sources, endpoint_keys, finish_endpoint,
    log_keys, set,
    value::{duration, items, parsed, print_duration, print_size, print_unless, printed, size, unless},
};

use novacron_control::Target;
pub use tunnels::{Tunnels, VxlanEnd};

/// Where the control API listens if nobody says otherwise.
pub const SOCKET: &str = "/run/dwcp/agent.sock";

/// The largest MTU that probes can prove (datagram-1, 2.5).
const MTU_MAX: u32 = 9000;

/// What buffers of sockets may grow to: at least what the kernel makes the least of them, and as much as it counts to.
const BUFFER_BYTES: std::ops::RangeInclusive<u64> = 4096..=i32::MAX as u64;

/// Everything that can be set. Empty texts and lists mean "not set".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The endpoint, certificates, metrics, drain.
    pub transport: Transport,
    /// The socket of the control API.
    pub control_socket: PathBuf,
    /// Names of certificates that may use the control API over DWCP.
    pub control_allow: Vec<String>,
    /// Peers by configuration.
    pub peers: Vec<Target>,
    /// A peer's name has to be among those of its certificate.
    pub peers_certified: bool,
    /// Peers by name and otherwise.
    pub discovery: Discovery,
    /// Folder that transfers are received into; empty: none are taken.
    pub transfers_into: PathBuf,
    /// What comes replaces files that are there and differ.
    pub transfers_overwrite: bool,
    /// Folder of which those may have transfers sent who control this agent over DWCP; empty: of none.
    pub transfers_from: PathBuf,
    /// The guard in XDP.
    pub xdp: Xdp,
    /// Tunnels to other nodes.
    pub tunnels: Tunnels,
    /// Sysctls and queueing disciplines are set, and put back at the end.
    pub tune: bool,
    /// What they are set to, and on which interfaces.
    pub tuning: dwcp_node::tune::Settings,
    /// Where is recorded what they were before.
    pub tune_state: PathBuf,
    /// The MTU of interfaces that lead to peers is raised where all peers can take it.
    pub set_mtu: bool,
    /// What it is raised to, in bytes.
    pub mtu: u32,
    /// If there are any: the only interfaces.
    pub mtu_interfaces: Vec<String>,
    /// Where is recorded what it was before.
    pub mtu_state: PathBuf,
    /// Log lines.
    pub log: LogSettings,
}

/// Peers that are found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Discovery {
    /// A headless service, each of whose addresses is an agent.
    pub headless: Option<Target>,
    /// The store that agents enter themselves into: URLs of members.
    pub store: Vec<String>,
    /// The authority that signs the store's certificates.
    pub store_ca: PathBuf,
    /// This agent's certificate for the store.
    pub store_cert: PathBuf,
    /// Its key.
    pub store_key: PathBuf,
    /// What peers reach this agent by, if it is not the address on which it listens.
    pub advertise: Option<Target>,
    /// How often is looked.
    pub interval: Duration,
}

/// The guard in XDP.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Xdp {
    /// Interfaces that are guarded; none: it is off.
    pub interfaces: Vec<String>,
    /// `None`: native where the driver can, else generic.
    pub mode: Option<Mode>,
    /// Sources that are dropped.
    pub deny: Vec<Prefix>,
    /// If there are any: the only sources that pass.
    pub allow: Vec<Prefix>,
    /// How much a source may send.
    pub limit: Option<Limit>,
    /// What happens where that cannot be told.
    pub failure: Failure,
    /// A folder in a BPF file system, where programs and counters outlive the agent.
    pub pins: PathBuf,
    /// Datagrams of known peers go to AF_XDP sockets.
    pub sockets: bool,
}

impl AsRef<Transport> for Settings {
    fn as_ref(&self) -> &Transport {
        &self.transport
    }
}

impl AsMut<Transport> for Settings {
    fn as_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }
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
    /// The defaults, for a node of this name.
    pub fn new(node_id: impl Into<String>) -> Self {
        let mut transport = Transport::new(node_id);
        transport.metrics.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, novacron_admin::PORT)));
        transport.endpoint.datagrams.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8889)));
        Self {
            transport,
            control_socket: PathBuf::from(SOCKET),
            control_allow: Vec::new(),
            peers: Vec::new(),
            peers_certified: false,
            discovery: Discovery { interval: Duration::from_secs(10), ..Discovery::default() },
            transfers_into: PathBuf::new(),
            transfers_overwrite: false,
            transfers_from: PathBuf::new(),
            xdp: Xdp {
                limit: dwcp_ebpf::Config::default().limit,
                pins: dwcp_ebpf::Config::default().root,
                sockets: true,
                ..Xdp::default()
            },
            tunnels: Tunnels::default(),
            tune: false,
            tuning: dwcp_node::tune::Settings::default(),
            tune_state: PathBuf::from("/run/dwcp/tune.json"),
            set_mtu: false,
            mtu: MTU_MAX,
            mtu_interfaces: Vec::new(),
            mtu_state: PathBuf::from(dwcp_node::mtu::STATE_PATH),
            log: LogSettings::default(),
        }
    }

    /// Where datagrams arrive; `None`: none are taken.
    pub fn datagrams(&self) -> Option<SocketAddr> {
        self.transport.endpoint.datagrams.listen
    }

    /// What this agent is called.
    pub fn node_id(&self) -> &str {
        &self.transport.endpoint.node_id
    }
}

/// Between looks for peers at least: each may ask the store three times.
const DISCOVERY_INTERVAL_MIN: Duration = Duration::from_millis(100);

const BOOL: &str = "true or false";
const PATH: &str = "a path, or empty";
const PREFIXES: &str = "prefixes such as 10.0.0.0/8, any number";

/// Every setting, in the order in which they are printed.
pub(crate) fn keys() -> Vec<Key<Settings>> {
    let mut keys = endpoint_keys();
    keys.extend(OWN);
    keys.extend(tunnels::KEYS);
    keys.extend(log_keys());
    keys
}

const OWN: &[Key<Settings>] = &[
    Key::one(
        "datagrams.listen",
        "off, or ADDRESS:PORT",
        set!(transport.endpoint.datagrams.listen, |t| unless(t, "off", parsed)),
        |s| print_unless(s.datagrams(), "off", printed),
    ),
    Key::one(
        "datagrams.probe_interval",
        "10ms..=1m",
        set!(transport.endpoint.datagrams.probe_interval, duration),
        |s| print_duration(s.transport.endpoint.datagrams.probe_interval),
    ),
    Key::one("control.socket", "the path of a file", set!(control_socket, file), |s| {
        s.control_socket.display().to_string()
    }),
    Key::list(
        "control.allow",
        "names of certificates, any number",
        set!(control_allow, |t| Some(items(t).map(str::to_owned).collect())),
        |s| s.control_allow.join(","),
    ),
    Key::list("peers", "HOST:PORT or NAME=HOST:PORT, any number", set!(peers, all), |s| joined(&s.peers)),
    Key::one("discovery.certified", BOOL, set!(peers_certified, parsed), |s| printed(s.peers_certified)),
    Key::one(
        "discovery.headless",
        "HOST:PORT of a headless service, or empty",
        set!(discovery.headless, |t| unless(t, "", parsed)),
        |s| print_unless(s.discovery.headless.clone(), "", printed),
    ),
    Key::list(
        "discovery.store",
        "http://HOST:PORT or https://HOST:PORT, any number",
        set!(discovery.store, |t| items(t)
            .map(|url| {
                let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
                rest.parse::<Target>().ok().map(|_| url.to_owned())
            })
            .collect()),
        |s| s.discovery.store.join(","),
    ),
    Key::one("discovery.store_ca", PATH, set!(discovery.store_ca, maybe_path), |s| {
        s.discovery.store_ca.display().to_string()
    }),
    Key::one("discovery.store_cert", PATH, set!(discovery.store_cert, maybe_path), |s| {
        s.discovery.store_cert.display().to_string()
    }),
    Key::one("discovery.store_key", PATH, set!(discovery.store_key, maybe_path), |s| {
        s.discovery.store_key.display().to_string()
    }),
    Key::one(
        "discovery.advertise",
        "HOST:PORT, or empty",
        set!(discovery.advertise, |t| unless(t, "", parsed)),
        |s| print_unless(s.discovery.advertise.clone(), "", printed),
    ),
    Key::one(
        "discovery.interval",
        "100ms or more",
        set!(discovery.interval, |t| duration(t).filter(|interval| *interval >= DISCOVERY_INTERVAL_MIN)),
        |s| print_duration(s.discovery.interval),
    ),
    Key::one("transfers.into", PATH, set!(transfers_into, maybe_path), |s| {
        s.transfers_into.display().to_string()
    }),
    Key::one("transfers.overwrite", BOOL, set!(transfers_overwrite, parsed), |s| {
        printed(s.transfers_overwrite)
    }),
    Key::one("transfers.from", PATH, set!(transfers_from, maybe_path), |s| {
        s.transfers_from.display().to_string()
    }),
    Key::list(
        "xdp.interfaces",
        "names of interfaces, any number",
        set!(xdp.interfaces, |t| Some(items(t).map(str::to_owned).collect())),
        |s| s.xdp.interfaces.join(","),
    ),
    Key::one(
        "xdp.mode",
        "auto, native or generic",
        set!(xdp.mode, |t| match t {
            "auto" => Some(None),
            "native" => Some(Some(Mode::Native)),
            "generic" => Some(Some(Mode::Generic)),
            _ => None,
        }),
        |s| print_unless(s.xdp.mode, "auto", printed),
    ),
    Key::list("xdp.deny", PREFIXES, set!(xdp.deny, all), |s| joined(&s.xdp.deny)),
    Key::list("xdp.allow", PREFIXES, set!(xdp.allow, all), |s| joined(&s.xdp.allow)),
    Key::one(
        "xdp.limit",
        "off, or DATAGRAMS_PER_SECOND/BURST",
        set!(xdp.limit, |t| unless(t, "off", |t| {
            let (rate, burst) = t.split_once('/')?;
            Some(Limit { datagrams_per_second: rate.parse().ok()?, burst: burst.parse().ok()? })
        })),
        |s| {
            print_unless(s.xdp.limit, "off", |limit| {
                format!("{}/{}", limit.datagrams_per_second, limit.burst)
            })
        },
    ),
    Key::one(
        "xdp.on_failure",
        "pass or drop",
        set!(xdp.failure, |t| match t {
            "pass" => Some(Failure::Open),
            "drop" => Some(Failure::Closed),
            _ => None,
        }),
        |s| match s.xdp.failure {
            Failure::Open => "pass".to_owned(),
            Failure::Closed => "drop".to_owned(),
        },
    ),
    Key::one("xdp.pins", "a path in a BPF file system", set!(xdp.pins, path), |s| {
        s.xdp.pins.display().to_string()
    }),
    Key::one("xdp.sockets", BOOL, set!(xdp.sockets, parsed), |s| printed(s.xdp.sockets)),
    Key::one("node.tune", BOOL, set!(tune, parsed), |s| printed(s.tune)),
    Key::list(
        "node.tune_interfaces",
        "names of interfaces, any number",
        set!(tuning.interfaces, |t| Some(items(t).map(str::to_owned).collect())),
        |s| s.tuning.interfaces.join(","),
    ),
    Key::one(
        "node.tune_buffer_bytes_max",
        "bytes, or a number with KiB, MiB or GiB, from 4KiB to less than 2GiB",
        set!(tuning.buffer_bytes_max, |t| size(t).filter(|bytes| BUFFER_BYTES.contains(bytes))),
        |s| print_size(s.tuning.buffer_bytes_max),
    ),
    Key::one("node.forwarding", BOOL, set!(tuning.forwarding, parsed), |s| printed(s.tuning.forwarding)),
    Key::one("node.tune_state", "a path", set!(tune_state, path), |s| s.tune_state.display().to_string()),
    Key::one("node.set_mtu", BOOL, set!(set_mtu, parsed), |s| printed(s.set_mtu)),
    Key::one(
        "node.mtu",
        "1280..=9000",
        set!(mtu, |t| parsed(t).filter(|mtu| (dwcp_node::mtu::MTU_MIN..=MTU_MAX).contains(mtu))),
        |s| printed(s.mtu),
    ),
    Key::list(
        "node.mtu_interfaces",
        "names of interfaces, any number",
        set!(mtu_interfaces, |t| Some(items(t).map(str::to_owned).collect())),
        |s| s.mtu_interfaces.join(","),
    ),
    Key::one("node.mtu_state", "a path", set!(mtu_state, path), |s| s.mtu_state.display().to_string()),
];

/// Checks what depends on more than one setting.
pub(crate) fn finish(sources: &mut Sources<Settings>) -> Result<(), SettingsError> {
    finish_endpoint(sources)?;
    tunnels::finish(sources)?;
    let allowed = &sources.values.control_allow;
    if !allowed.is_empty() && sources.values.transport.tls.is_none() {
        let expected = "no names without tls.cert, tls.key and tls.ca: nobody has a certificate then, and so nobody would match";
        return Err(sources.invalid("control.allow", allowed.join(","), expected));
    }
    let discovery = &sources.values.discovery;
    sources.check_pair(
        ("discovery.store_cert", &discovery.store_cert),
        ("discovery.store_key", &discovery.store_key),
    )?;
    let listens = sources.values.transport.listen;
    if !discovery.store.is_empty() && discovery.advertise.is_none() && listens.ip().is_unspecified() {
        let expected = "HOST:PORT that peers reach this node by, since it listens on all addresses";
        return Err(sources.invalid("discovery.advertise", String::new(), expected));
    }
    checks::plaintext(sources)?;
    checks::xdp(sources)
}

fn all<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    items(text).map(|item| item.parse().ok()).collect()
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// A path that can be a file's.
fn file(text: &str) -> Option<PathBuf> {
    path(text).filter(|path| path.file_name().is_some())
}

fn maybe_path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources<Settings> {
        Sources::new(keys(), Settings::new("n"))
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let mut set = sources();
        for (key, value) in [
            ("node_id", "a"),
            ("datagrams.listen", "127.0.0.1:1"),
            ("peers", "b=10.0.0.2:8888,c.example:1"),
            ("control.allow", "api.novacron,ops"),
            ("tls.cert", "c.pem"),
            ("tls.key", "k.pem"),
            ("tls.ca", "ca.pem"),
            ("transfers.from", "/var/lib/novacron/vms"),
            ("transfers.overwrite", "true"),
            ("discovery.headless", "dwcp.novacron.svc:8888"),
            ("discovery.store", "http://a:2379,https://[::1]:2379"),
            ("discovery.interval", "1s"),
            ("xdp.interfaces", "eth0,eth1"),
            ("xdp.mode", "generic"),
            ("xdp.sockets", "false"),
            ("node.tune", "true"),
            ("node.tune_interfaces", "eth0"),
            ("node.set_mtu", "true"),
            ("node.mtu", "8950"),
            ("node.mtu_interfaces", "eth0,eth1"),
            ("datagrams.probe_interval", "2s"),
            ("xdp.deny", "10.0.0.0/8,2001:db8::/32"),
            ("xdp.limit", "5/6"),
            ("xdp.on_failure", "drop"),
            ("transport.rdma_zones", "10.1.0.0/16"),
            ("tunnels.between", "nodes"),
            ("wireguard.address", "fd00::1/64"),
            ("wireguard.rotation", "24h"),
            ("vxlan.local", "wireguard"),
            ("vxlan.vni", "5"),
            ("log.level", "debug"),
        ] {
            set.flag("--x", key, value).unwrap_or_else(|error| panic!("{error}"));
        }
        finish(&mut set).unwrap();
        let printed = set.to_yaml_with_origins();
        let mut again = sources();
        again.file("printed", &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(
            again.to_yaml_with_origins().lines().map(value_of).collect::<Vec<_>>(),
            printed.lines().map(value_of).collect::<Vec<_>>()
        );
    }

    fn value_of(line: &str) -> &str {
        line.split("  # ").next().unwrap_or(line)
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (key, value) in [
            ("peers", "b"),
            ("peers", "b=h:x"),
            ("discovery.store", "ftp://a:1"),
            ("xdp.mode", "fast"),
            ("xdp.deny", "10.0.0.1/8"),
            ("xdp.limit", "5"),
            ("control.socket", ""),
            ("control.socket", "/"),
            ("control.socket", "/run/.."),
            ("node.tune_buffer_bytes_max", "0"),
            ("node.tune_buffer_bytes_max", "2GiB"),
            ("transport.rdma_zones", "10.1.0.1/16"),
            ("tunnels.underlay_mtu", "100"),
            ("wireguard.address", "0.0.0.0/0"),
            ("wireguard.address", "10.99.0.0/16"),
            ("wireguard.address", "10.99.255.255/16"),
            ("wireguard.address", "fd00::/64"),
            ("wireguard.address", "224.0.0.1/4"),
            ("node.mtu", "1279"),
            ("node.mtu", "9001"),
            ("log.level", "loud"),
            ("wireguard.address", "10.0.0.1"),
            ("wireguard.address", "10.0.0.1/33"),
            ("wireguard.rotation", "5s"),
            ("vxlan.vni", "0"),
            ("discovery.interval", "1ns"),
            ("discovery.interval", "99ms"),
            ("wireguard.endpoint", "0.0.0.0:51820"),
            ("wireguard.endpoint", "[::]:51820"),
            ("wireguard.endpoint", "192.0.2.1:0"),
            ("vxlan.local", "eth0"),
        ] {
            assert!(sources().flag("--x", key, value).is_err(), "{key}: {value}");
        }
        let too_many = vec!["10.0.0.0/8"; dwcp_ebpf::PREFIXES_MAX + 1].join(",");
        for set in [
            &[("xdp.limit", "0/1"), ("xdp.interfaces", "eth0")][..],
            &[("xdp.deny", too_many.as_str()), ("xdp.interfaces", "eth0")],
            &[("xdp.interfaces", "eth0"), ("datagrams.listen", "off")],
            &[("listen", "192.0.2.1:8888")],
            &[("datagrams.listen", "192.0.2.1:8889")],
            &[("metrics.listen", "0.0.0.0:9090"), ("allow_plaintext", "true")],
            &[("tunnels.underlay_mtu", "1300"), ("wireguard.address", "10.99.0.1/16")],
            &[("discovery.store_cert", "c.pem")],
            &[("vxlan.local", "wireguard")],
            &[
                ("wireguard.interface", "dwcp-vx100"),
                ("wireguard.address", "10.99.0.1/16"),
                ("vxlan.local", "wireguard"),
            ],
            &[("wireguard.keys", "/var/lib/dwcp/tunnels.json"), ("wireguard.address", "10.99.0.1/16")],
            &[("wireguard.keys", "/var/lib//dwcp/./tunnels.json"), ("wireguard.address", "10.99.0.1/16")],
            &[("wireguard.keys", "/run/dwcp/tune.json"), ("wireguard.address", "10.99.0.1/16")],
            &[("control.allow", "api.novacron")],
            &[("discovery.store", "http://a:1"), ("listen", "0.0.0.0:8888")],
        ] {
            let mut given = sources();
            for (key, value) in set {
                given.flag("--x", key, value).unwrap();
            }
            let error = finish(&mut given).unwrap_err().to_string();
            let key = set[0].0;
            assert!(error.contains(key) || key == "discovery.store", "{key}: {error}");
        }
        let mut open = sources();
        open.flag("--x", "listen", "192.0.2.1:8888").unwrap();
        let error = finish(&mut open).unwrap_err().to_string();
        assert!(error.contains("--allow-plaintext"), "{error}");
    }

    #[test]
    fn nobody_is_told_of_a_guard_that_there_is_not() {
        for (key, value) in [("datagrams.listen", "127.0.0.1:0"), ("xdp.limit", "0/1")] {
            let mut given = sources();
            given.flag("--x", key, value).unwrap();
            finish(&mut given).unwrap_or_else(|error| panic!("{error}"));
        }
        let mut guarded = sources();
        guarded.flag("--x", "datagrams.listen", "127.0.0.1:0").unwrap();
        guarded.flag("--x", "xdp.interfaces", "lo").unwrap();
        finish(&mut guarded).unwrap_or_else(|error| panic!("any port: {error}"));
    }
}
