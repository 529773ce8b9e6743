//! Where a command's settings come from: defaults, then `--config FILE`, then `NOVACRON_*` variables, then flags.
//!
//! What settings there are, and what they may be, is `novacron-settings`' own; here files, variables and certificates
//! are read.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use clap::Args;
use dwcp_core::{
    Endpoint,
    security::{RELOAD_INTERVAL, TlsFiles, watch},
};
use novacron_settings::{Layers, Settings};

use crate::{
    exit::Usage,
    observe::MetricsArgs,
    tls::{self, TlsArgs},
    transport::TransportArgs,
};

/// A flag, the setting it is for, and what was given.
pub(crate) type Flag = (&'static str, &'static str, Option<String>);

/// The flags of every command that has a connection.
#[derive(Args, Debug, Default)]
pub(crate) struct SettingsArgs {
    /// YAML file with settings; environment variables NOVACRON_* go over it, and flags over these.
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Prints all settings, with where each comes from, as a YAML file that --config takes, and ends.
    #[arg(long, help_heading = "Configuration")]
    print_config: bool,
    /// Checks settings and certificates and ends: exit code 0, or 2 with what is wrong and where.
    #[arg(long, help_heading = "Configuration", conflicts_with = "print_config")]
    check_config: bool,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    transport: TransportArgs,
}

/// Everything that a command needs to know to take its place among nodes.
pub(crate) struct Node {
    /// With the certificates, if there are any, in `endpoint.tls`.
    pub(crate) settings: Settings,
    tls_files: Option<TlsFiles>,
}

impl SettingsArgs {
    /// Puts all sources together, `more` being flags of the command itself. `None`: the settings were printed or
    /// checked, and that was all that was asked for.
    pub(crate) fn load(&self, more: impl IntoIterator<Item = Flag>) -> Result<Option<Node>> {
        let mut layers = Layers::new(host_name());
        if let Some(path) = &self.config {
            layers.file(&path.display().to_string(), &read(path)?)?;
        }
        for variable in layers.env(variables()?)? {
            tracing::warn!(variable, "there is no such setting: ignored");
        }
        let flags = self.transport.flags().into_iter().chain(self.tls.flags()).chain(self.metrics.flags());
        for (flag, key, value) in flags.chain(more) {
            if let Some(value) = value {
                layers.flag(flag, key, &value)?;
            }
        }
        let mut settings = layers.finish()?;
        if self.print_config {
            // A reader that went away has seen enough.
            let _ = std::io::stdout().write_all(settings.to_yaml_with_origins().as_bytes());
            return Ok(None);
        }
        let tls_files = load_certificates(&mut settings)?;
        Ok((!self.check_config).then_some(Node { settings, tls_files }))
    }
}

impl Node {
    /// Keeps an endpoint's certificates fresh, for as long as the process runs.
    pub(crate) fn keep_fresh(&self, endpoint: &Endpoint) {
        if let Some(files) = self.tls_files.clone() {
            let endpoint = endpoint.clone();
            tokio::spawn(watch(files, RELOAD_INTERVAL, move |tls| endpoint.reload_tls(tls)));
        }
    }
}

/// Reads what the settings name, so that a mistake shows before anything is opened.
fn load_certificates(settings: &mut Settings) -> Result<Option<TlsFiles>> {
    let Some(named) = &settings.tls else { return Ok(None) };
    let files = tls::files(named)?;
    let loaded = files.load().map_err(|error| {
        let origin = settings.origin("tls.cert");
        Usage(format!("{origin}: tls: {error}"))
    })?;
    settings.endpoint.tls = Some(Arc::new(loaded));
    Ok(Some(files))
}

/// The text of a settings file, and not more of it than a settings file may have.
fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    // One byte more: what is too long has to be seen to be.
    let read = File::open(path)
        .and_then(|file| file.take(Layers::FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    read.map_err(|error| Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// The environment's variables that are ours.
fn variables() -> Result<Vec<(String, String)>> {
    let ours = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"NOVACRON_"));
    ours.map(|(name, value)| {
        let wrong = |text: std::ffi::OsString| Usage(format!("environment: {} is not UTF-8", text.display()));
        Ok((name.into_string().map_err(wrong)?, value.into_string().map_err(wrong)?))
    })
    .collect()
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "novacron".to_owned() } else { name }
}
