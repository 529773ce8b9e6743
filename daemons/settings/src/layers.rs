//! The settings of a process with a DWCP endpoint: their sources, and the checks that need all of them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dwcp_core::{EndpointConfig, security::AllowRule};

use crate::{
    MetricsSettings, Settings, SettingsError, Sources,
    keys::{self, KEYS},
};

/// Settings while they are put together: call `file`, `env` and `flag` in this order, then `finish`.
pub struct Layers {
    sources: Sources<Settings>,
}

impl Layers {
    /// Largest settings file in bytes.
    pub const FILE_BYTES_MAX: usize = Sources::<Settings>::FILE_BYTES_MAX;

    /// The defaults, for a node of this name.
    pub fn new(node_id: impl Into<String>) -> Self {
        let settings = Settings {
            endpoint: EndpointConfig::new(node_id),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8888)),
            tls: None,
            metrics: MetricsSettings::default(),
            drain_timeout: Duration::from_secs(30),
            origins: BTreeMap::new(),
        };
        Self { sources: Sources::new(KEYS, settings) }
    }

    /// Sets what a YAML file says. `name` is for errors. A setting without a value keeps its default.
    pub fn file(&mut self, name: &str, text: &str) -> Result<(), SettingsError> {
        self.sources.file(name, text)
    }

    /// Sets what `NOVACRON_*` variables say; other variables are ignored. Returns those that name no setting.
    pub fn env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<String>, SettingsError> {
        self.sources.env(variables)
    }

    /// Sets one setting by its name for a flag of the command line.
    pub fn flag(&mut self, flag: &str, key: &str, value: &str) -> Result<(), SettingsError> {
        self.sources.flag(flag, key, value)
    }

    /// Checks what depends on more than one setting, and every range.
    pub fn finish(mut self) -> Result<Settings, SettingsError> {
        // Who sets one bound of the links need not set the others.
        let Sources { values, origins, .. } = &mut self.sources;
        let streams = &mut values.endpoint.transport.streams;
        let unset = |key| !origins.contains_key(key);
        if unset("transport.streams.min") {
            streams.min = streams.min.min(streams.max).max(1);
        }
        if unset("transport.streams.max") {
            streams.max = streams.max.max(streams.min);
        }
        if unset("transport.streams.initial") && streams.min <= streams.max {
            streams.initial = streams.initial.clamp(streams.min, streams.max);
        }
        let validated = self.sources.values.endpoint.validate();
        validated.map_err(|error| self.sources.invalid(error.key, error.value, error.expected))?;
        self.check_tls()?;
        let Sources { values, origins, .. } = self.sources;
        Ok(Settings { origins, ..values })
    }

    /// Certificate, key and trust anchors come together or not at all; names are those that certificates can carry.
    fn check_tls(&mut self) -> Result<(), SettingsError> {
        let Some(tls) = &self.sources.values.tls else { return Ok(()) };
        let paths = [("tls.cert", &tls.cert), ("tls.key", &tls.key), ("tls.ca", &tls.ca)];
        let missing = paths.iter().find(|(_, path)| path.as_os_str().is_empty());
        if paths.iter().all(|(_, path)| path.as_os_str().is_empty()) && tls.allow.is_empty() {
            self.sources.values.tls = None;
        } else if let Some((key, _)) = missing {
            let expected = "a path, since other tls settings are there";
            return Err(self.sources.invalid(key, String::new(), expected));
        } else if let Some(pattern) = tls.allow.iter().find(|name| AllowRule::new([name]).is_err()) {
            return Err(self.sources.invalid("tls.allow", pattern.clone(), keys::ALLOW));
        }
        Ok(())
    }
}
