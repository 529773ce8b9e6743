//! The settings of a process with a DWCP endpoint: their sources, and the checks that need all of them.

use dwcp_core::security::AllowRule;

use crate::{Settings, SettingsError, Sources, endpoint_keys, keys};

/// Settings while they are put together: call `file`, `env` and `flag` in this order, then `finish`.
pub struct Layers {
    sources: Sources<Settings>,
}

impl Layers {
    /// Largest settings file in bytes.
    pub const FILE_BYTES_MAX: usize = Sources::<Settings>::FILE_BYTES_MAX;

    /// The defaults, for a node of this name.
    pub fn new(node_id: impl Into<String>) -> Self {
        Self { sources: Sources::new(endpoint_keys(), Settings::new(node_id)) }
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
        finish_endpoint(&mut self.sources)?;
        let Sources { values, origins, .. } = self.sources;
        Ok(Settings { origins, ..values })
    }
}

/// Checks what depends on more than one setting of an endpoint, and every range of them.
///
/// # Errors
/// Names the setting that does not go with the others, and where it comes from.
pub fn finish_endpoint<S: AsRef<Settings> + AsMut<Settings>>(
    sources: &mut Sources<S>,
) -> Result<(), SettingsError> {
    // Who sets one bound of the links need not set the others.
    let Sources { values, origins, .. } = sources;
    let streams = &mut values.as_mut().endpoint.transport.streams;
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
    let validated = sources.values.as_ref().endpoint.validate();
    validated.map_err(|error| sources.invalid(error.key, error.value, error.expected))?;
    check_tls(sources)
}

/// Certificate, key and trust anchors come together or not at all; names are those that certificates can carry.
fn check_tls<S: AsRef<Settings> + AsMut<Settings>>(sources: &mut Sources<S>) -> Result<(), SettingsError> {
    let Some(tls) = &sources.values.as_ref().tls else { return Ok(()) };
    let paths = [("tls.cert", &tls.cert), ("tls.key", &tls.key), ("tls.ca", &tls.ca)];
    let missing = paths.iter().find(|(_, path)| path.as_os_str().is_empty());
    if paths.iter().all(|(_, path)| path.as_os_str().is_empty()) && tls.allow.is_empty() {
        sources.values.as_mut().tls = None;
    } else if let Some((key, _)) = missing {
        let expected = "a path, since other tls settings are there";
        return Err(sources.invalid(key, String::new(), expected));
    } else if let Some(pattern) = tls.allow.iter().find(|name| AllowRule::new([name]).is_err()) {
        return Err(sources.invalid("tls.allow", pattern.clone(), keys::ALLOW));
    }
    Ok(())
}
