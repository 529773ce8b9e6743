//! The settings of any program: a table of keys, and the sources that set them, one over the other.

use std::{
    collections::{BTreeMap, btree_map},
    path::Path,
};

use crate::{Origin, SettingsError, print, secret, variable, yaml};

/// One setting of a program whose settings are an `S`.
pub struct Key<S: 'static> {
    /// Full name, sections separated by dots.
    pub name: &'static str,
    /// What may be written.
    pub expected: &'static str,
    /// A sequence in YAML, comma-separated elsewhere.
    pub is_list: bool,
    /// May have a password in it, which is neither printed nor shown in errors.
    pub is_login: bool,
    /// Reads a value into the settings; `None` if it does not fit.
    pub set: fn(&mut S, &str) -> Option<()>,
    /// The value as it is written.
    pub get: fn(&S) -> String,
}

impl<S> Clone for Key<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Key<S> {}

impl<S> Key<S> {
    /// A setting that has one value.
    pub const fn one(
        name: &'static str,
        expected: &'static str,
        set: fn(&mut S, &str) -> Option<()>,
        get: fn(&S) -> String,
    ) -> Self {
        Self { name, expected, is_list: false, is_login: false, set, get }
    }

    /// A setting that has any number of values, which `set` and `get` see separated by commas.
    pub const fn list(
        name: &'static str,
        expected: &'static str,
        set: fn(&mut S, &str) -> Option<()>,
        get: fn(&S) -> String,
    ) -> Self {
        Self { name, expected, is_list: true, is_login: false, set, get }
    }

    /// A setting whose value is a URL that may have a password in it.
    pub const fn login(
        name: &'static str,
        expected: &'static str,
        set: fn(&mut S, &str) -> Option<()>,
        get: fn(&S) -> String,
    ) -> Self {
        Self { name, expected, is_list: false, is_login: true, set, get }
    }

    /// A value of it as others may see it.
    pub(crate) fn shown(&self, value: String) -> String {
        if self.is_login { secret::without_password(&value) } else { value }
    }
}

/// Settings while they are put together: call `file`, `env` and `flag` in this order.
pub struct Sources<S: 'static> {
    keys: Vec<Key<S>>,
    /// What is set so far.
    pub values: S,
    pub(crate) origins: BTreeMap<&'static str, Origin>,
}

impl<S> Sources<S> {
    /// Largest settings file in bytes.
    pub const FILE_BYTES_MAX: usize = 1 << 20;

    /// The defaults.
    pub fn new(keys: impl Into<Vec<Key<S>>>, defaults: S) -> Self {
        Self { keys: keys.into(), values: defaults, origins: BTreeMap::new() }
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
            let is_section = || self.keys.iter().any(|key| key.name.starts_with(&format!("{}.", entry.key)));
            if entry.value.is_none() && is_section() {
                continue;
            }
            let key = self.known(&origin, &entry.key)?;
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
                let value = key.shown(value);
                return Err(SettingsError::Invalid { origin, key: key.name, value, expected });
            }
            self.assign(origin, key, &value)?;
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
            match self.keys.iter().copied().find(|key| variable(key.name) == name) {
                Some(key) => self.assign(Origin::Variable(name), key, &value)?,
                None => unknown.push(name),
            }
        }
        Ok(unknown)
    }

    /// Sets one setting by its name for a flag of the command line.
    pub fn flag(&mut self, flag: &str, key: &str, value: &str) -> Result<(), SettingsError> {
        self.set(Origin::Flag(flag.to_owned()), key, value)
    }

    /// Sets one setting by its name.
    pub fn set(&mut self, origin: Origin, key: &str, value: &str) -> Result<(), SettingsError> {
        let key = self.known(&origin, key)?;
        self.assign(origin, key, value)
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Whether nothing has set this key.
    pub fn is_default(&self, key: &str) -> bool {
        !self.origins.contains_key(key)
    }

    /// The error that the value of a key does not go with the other settings.
    pub fn invalid(&self, key: &'static str, value: String, expected: &'static str) -> SettingsError {
        let known = self.keys.iter().find(|known| known.name == key);
        let value = match known {
            Some(known) => known.shown(value),
            None => value,
        };
        SettingsError::Invalid { origin: self.origin(key), key, value, expected }
    }

    /// Checks that a certificate and its key belong together: both are named, or neither is.
    ///
    /// # Errors
    /// Names the one that is there.
    pub fn check_pair(
        &self,
        cert: (&'static str, &Path),
        key: (&'static str, &Path),
    ) -> Result<(), SettingsError> {
        let is_named = |path: &Path| !path.as_os_str().is_empty();
        let (there, path) = match (is_named(cert.1), is_named(key.1)) {
            (true, false) => cert,
            (false, true) => key,
            _ => return Ok(()),
        };
        let expected = "a path only where both the certificate and its key are named";
        Err(self.invalid(there, path.display().to_string(), expected))
    }

    /// Every setting as YAML, with where each value comes from as a comment behind it; parsed again, it gives the same
    /// settings.
    pub fn to_yaml_with_origins(&self) -> String {
        print::yaml(&self.keys, &self.values, |key| Some(self.origin(key)))
    }

    fn assign(&mut self, origin: Origin, key: Key<S>, value: &str) -> Result<(), SettingsError> {
        let Some(()) = (key.set)(&mut self.values, value) else {
            let (key, value, expected) = (key.name, key.shown(value.to_owned()), key.expected);
            return Err(SettingsError::Invalid { origin, key, value, expected });
        };
        self.origins.insert(key.name, origin);
        Ok(())
    }

    fn known(&self, origin: &Origin, name: &str) -> Result<Key<S>, SettingsError> {
        self.keys.iter().copied().find(|key| key.name == name).ok_or_else(|| SettingsError::UnknownKey {
            origin: origin.clone(),
            key: name.to_owned(),
            nearest: self.nearest(name),
        })
    }

    /// The most similar name, if one is similar enough to have been meant.
    fn nearest(&self, name: &str) -> Option<&'static str> {
        const SIMILAR: f64 = 0.6;
        let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
        let similarity = |key: &Key<S>| {
            // Someone may know the setting and not its section.
            let whole = strsim::normalized_damerau_levenshtein(name, key.name);
            whole.max(0.9 * strsim::normalized_damerau_levenshtein(name, last(key.name)))
        };
        let best = self.keys.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
        (similarity(best) >= SIMILAR).then_some(best.name)
    }
}
