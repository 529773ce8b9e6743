//! Settings of the NovaCron daemons: YAML file, then environment, then flags, over the defaults.
//!
//! Owns: units and printing of settings, the order of the sources, and errors that name the key and where it stands
//! ([`Sources`], for the settings of any program); and, made of that, the settings of a process with a DWCP endpoint
//! ([`Layers`]), whose ranges are `dwcp-core`'s own. Reads no file, no environment and no certificates itself: text and
//! variables are arguments, so the whole crate is a function.
//!
//! The schema is closed: an unknown key is an error. An unknown `NOVACRON_*` variable is only reported, because
//! Kubernetes puts variables of that form into pods for every service called `novacron-*`.
//!
//! ```
//! let mut layers = novacron_settings::Layers::new("node-1");
//! layers.file("novacron.yaml", "transport:\n  streams:\n    max: 8\n")?;
//! let unknown = layers.env([("NOVACRON_COMPRESSION_ALGORITHM".to_owned(), "lz4".to_owned())])?;
//! layers.flag("--links", "transport.streams.min", "4")?;
//! let settings = layers.finish()?;
//! assert_eq!(settings.endpoint.transport.streams.max, 8);
//! assert!(unknown.is_empty());
//! # Ok::<(), novacron_settings::SettingsError>(())
//! ```

mod error;
mod keys;
mod layers;
mod log;
mod print;
mod secret;
mod sources;
pub mod value;
mod yaml;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use dwcp_core::EndpointConfig;

pub use error::{Origin, SettingsError};
pub use keys::endpoint_keys;
pub use layers::{Layers, finish_endpoint};
pub use log::{LogFormat, LogSettings, log_keys};
pub use secret::without_password;
pub use sources::{Key, Sources};
pub use value::{DURATION, SIZE, duration, size};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The transport. It has neither `tls` nor dictionaries: reading files is the caller's.
    pub endpoint: EndpointConfig,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificates; `None` means plaintext.
    pub tls: Option<TlsFiles>,
    /// Metrics and status over HTTP.
    pub metrics: MetricsSettings,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Folder of compression dictionaries; `None`: none are used. Reading them is the caller's.
    pub dictionaries: Option<PathBuf>,
    /// Sending of differences.
    pub delta: DeltaSettings,
    /// Where each setting that is not a default comes from.
    origins: BTreeMap<&'static str, Origin>,
}

/// Where metrics, health and status can be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where to listen; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Allows addresses other than loopback: whoever reaches one can read.
    pub allow_plaintext: bool,
}

/// What is sent as a difference, and the store of what it is a difference from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaSettings {
    /// Folder of the store; `None`: everything is sent and received in full.
    pub store: Option<PathBuf>,
    /// Blocks in which disk images and memory are compared, in bytes.
    pub block_bytes: usize,
    /// Versions of one content that a store keeps.
    pub chain_max: usize,
    /// How long a store keeps what nobody uses.
    pub baseline_ttl: Duration,
    /// Bytes that a store keeps.
    pub store_bytes_max: u64,
}

impl Default for DeltaSettings {
    fn default() -> Self {
        Self {
            store: None,
            block_bytes: 4 << 10,
            chain_max: 10,
            baseline_ttl: Duration::from_mins(15),
            store_bytes_max: 64 << 30,
        }
    }
}

/// Paths of PEM files, and who may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Trust anchors for peers.
    pub ca: PathBuf,
    /// Name patterns of allowed peers; empty allows every certificate of the trust anchors.
    pub allow: Vec<String>,
}

impl AsRef<Self> for Settings {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsMut<Self> for Settings {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl Settings {
    /// The defaults, for a node of this name.
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            endpoint: EndpointConfig::new(node_id),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8888)),
            tls: None,
            metrics: MetricsSettings::default(),
            drain_timeout: Duration::from_secs(30),
            dictionaries: None,
            delta: DeltaSettings::default(),
            origins: BTreeMap::new(),
        }
    }

    /// Every setting as YAML; parsed again, it gives the same settings.
    pub fn to_yaml(&self) -> String {
        print::yaml(&endpoint_keys(), self, |_| None)
    }

    /// The same, with where each value comes from as a comment behind it.
    pub fn to_yaml_with_origins(&self) -> String {
        print::yaml(&endpoint_keys(), self, |key| Some(self.origin(key)))
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// The environment variable of a key: `transport.streams.max` is `NOVACRON_TRANSPORT_STREAMS_MAX`.
pub fn variable(key: &str) -> String {
    format!("NOVACRON_{}", key.replace('.', "_").to_uppercase())
}

/// The names of all settings.
pub fn key_names() -> impl Iterator<Item = &'static str> {
    endpoint_keys::<Settings>().into_iter().map(|key| key.name)
}
