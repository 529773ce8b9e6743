//! The sources, one over the other, and the checks that need all of them.

use std::{
    collections::{BTreeMap, btree_map},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dwcp_core::{EndpointConfig, security::AllowRule};

use crate::{
    MetricsSettings, Origin, Settings, SettingsError,
    keys::{self, Key},
    variable, yaml,
};

/// Settings while they are put together: call `file`, `env` and `flag` in this order, then `finish`.
#[derive(Clone, Debug)]
pub struct Layers {
    settings: Settings,
}

impl Layers {
    /// Largest settings file in bytes.
    pub const FILE_BYTES_MAX: usize = 1 << 20;

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
        Self { settings }
    }

    /// Sets what a YAML file says. `name` is for errors. A setting without a value keeps its default.
    pub fn file(&mut self, name: &str, text: &str) -> Result<(), SettingsError> {
        if text.len() > Self::FILE_BYTES_MAX {
            return Err(SettingsError::TooLong { name: name.to_owned(), max: Self::FILE_BYTES_MAX });
        }
        let origin = |line| Origin::File { name: name.to_owned(), line };
        let entries = yaml::entries(text).map_err(|mistake| SettingsError::Syntax {
            origin: origin(mistake.line),
            reason: mistake.reason,
        })?;
        let mut lines = BTreeMap::new();
        for entry in entries {
            let origin = origin(entry.line);
            let is_section = || keys::KEYS.iter().any(|key| key.name.starts_with(&format!("{}.", entry.key)));
            if entry.value.is_none() && is_section() {
                continue;
            }
            let key = known(&origin, &entry.key)?;
            match lines.entry(key.name) {
                btree_map::Entry::Occupied(first) => {
                    return Err(SettingsError::Duplicate {
                        origin,
                        key: entry.key,
                        first_line: *first.get(),
                    });
                }
                btree_map::Entry::Vacant(vacant) => vacant.insert(entry.line),
            };
            let Some(value) = entry.value else { continue };
            if entry.is_list != key.is_list {
                let expected = if key.is_list { "a list" } else { "one value" };
                return Err(SettingsError::Invalid { origin, key: key.name, value, expected });
            }
            self.set(origin, key, &value)?;
        }
        Ok(())
    }

    /// Sets what `NOVACRON_*` variables say; other variables are ignored. Returns those that name no setting.
    pub fn env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<String>, SettingsError> {
        let mut unknown = Vec::new();
        for (name, value) in variables {
            if !name.starts_with("NOVACRON_") {
                continue;
            }
            match keys::KEYS.iter().find(|key| variable(key.name) == name) {
                Some(key) => self.set(Origin::Variable(name), key, &value)?,
                None => unknown.push(name),
            }
        }
        Ok(unknown)
    }

    /// Sets one setting by its name for a flag of the command line.
    pub fn flag(&mut self, flag: &str, key: &str, value: &str) -> Result<(), SettingsError> {
        let origin = Origin::Flag(flag.to_owned());
        let key = known(&origin, key)?;
        self.set(origin, key, value)
    }

    /// Checks what depends on more than one setting, and every range.
    pub fn finish(mut self) -> Result<Settings, SettingsError> {
        // Who sets one bound of the links need not set the others.
        let Settings { endpoint, origins, .. } = &mut self.settings;
        let streams = &mut endpoint.transport.streams;
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
        self.settings.endpoint.validate().map_err(|error| SettingsError::Invalid {
            origin: self.settings.origin(error.key),
            key: error.key,
            value: error.value,
            expected: error.expected,
        })?;
        self.check_tls()?;
        Ok(self.settings)
    }

    /// Certificate, key and trust anchors come together or not at all; names are those that certificates can carry.
    fn check_tls(&mut self) -> Result<(), SettingsError> {
        let Some(tls) = &self.settings.tls else { return Ok(()) };
        let paths = [("tls.cert", &tls.cert), ("tls.key", &tls.key), ("tls.ca", &tls.ca)];
        let missing = paths.iter().find(|(_, path)| path.as_os_str().is_empty());
        if paths.iter().all(|(_, path)| path.as_os_str().is_empty()) && tls.allow.is_empty() {
            self.settings.tls = None;
        } else if let Some((key, _)) = missing {
            return Err(SettingsError::Invalid {
                origin: self.settings.origin(key),
                key,
                value: String::new(),
                expected: "a path, since other tls settings are there",
            });
        } else if let Some(pattern) = tls.allow.iter().find(|name| AllowRule::new([name]).is_err()) {
            return Err(SettingsError::Invalid {
                origin: self.settings.origin("tls.allow"),
                key: "tls.allow",
                value: pattern.clone(),
                expected: keys::ALLOW,
            });
        }
        Ok(())
    }

    fn set(&mut self, origin: Origin, key: &'static Key, value: &str) -> Result<(), SettingsError> {
        let Some(()) = (key.set)(&mut self.settings, value) else {
            let (key, value, expected) = (key.name, value.to_owned(), key.expected);
            return Err(SettingsError::Invalid { origin, key, value, expected });
        };
        self.settings.origins.insert(key.name, origin);
        Ok(())
    }
}

fn known(origin: &Origin, name: &str) -> Result<&'static Key, SettingsError> {
    keys::find(name).ok_or_else(|| SettingsError::UnknownKey {
        origin: origin.clone(),
        key: name.to_owned(),
        nearest: keys::nearest(name),
    })
}
