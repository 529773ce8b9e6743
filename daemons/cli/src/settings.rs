//! Where a command's settings come from: defaults, then `--config FILE`, then `NOVACRON_*` variables, then flags.
//!
//! What settings there are, and what they may be, is `novacron-settings`' own; files, variables and certificates are read
//! by `novacron-process`.

use std::{io::Write as _, path::PathBuf};

use anyhow::Result;
use clap::Args;
use dwcp_core::Endpoint;
use novacron_process::{Certificates, environment, host_name, load_dictionaries, settings_text};
use novacron_settings::{Layers, Settings};

use crate::{observe::MetricsArgs, tls::TlsArgs, transport::TransportArgs};

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
    certificates: Certificates,
}

impl SettingsArgs {
    /// Puts all sources together, `more` being flags of the command itself. `None`: the settings were printed or
    /// checked, and that was all that was asked for.
    pub(crate) fn load(&self, more: impl IntoIterator<Item = Flag>) -> Result<Option<Node>> {
        let mut layers = Layers::new(host_name());
        if let Some(path) = &self.config {
            layers.file(&path.display().to_string(), &settings_text(path)?)?;
        }
        for variable in layers.env(environment(&["NOVACRON_"])?)? {
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
        let origin = settings.origin("tls.cert").to_string();
        let certificates = Certificates::load(&mut settings, &origin)?;
        let origin = settings.origin("compression.dictionaries").to_string();
        load_dictionaries(&mut settings, &origin)?;
        Ok((!self.check_config).then_some(Node { settings, certificates }))
    }
}

impl Node {
    /// Keeps an endpoint's certificates fresh, for as long as the process runs.
    pub(crate) fn keep_fresh(&self, endpoint: &Endpoint) {
        self.certificates.keep_fresh(endpoint);
    }
}
