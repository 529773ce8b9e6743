//! Where settings come from: `--config FILE`, etcd's variables, `NOVACRON_*` variables, flags. What the settings
//! mean together is checked elsewhere.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ArgMatches;
use consensus_etcd::authority;
use novacron_process::settings_text;
use novacron_settings::{Origin, Sources};

use crate::{
    flags::{Does, ETCD, Flag, OWN, given},
    settings::{KEYS, Settings},
};

/// etcd's variables begin like this, and so do those that Kubernetes makes for a service called `etcd`.
pub(crate) const ETCD_PREFIX: &str = "ETCD_";

/// All settings, and what should be said about them once there is a log.
pub(crate) struct Loaded {
    pub(crate) sources: Sources<Settings>,
    pub(crate) warnings: Vec<String>,
    no_sync_allowed: bool,
}

/// Puts all sources together.
pub(crate) fn load(matches: &ArgMatches, environment: &[(String, String)]) -> Result<Loaded> {
    let mut loaded = Loaded {
        sources: Sources::new(KEYS, Settings::default()),
        warnings: Vec::new(),
        no_sync_allowed: false,
    };
    if let Some(path) = matches.get_one::<String>("config") {
        loaded.sources.file(path, &settings_text(Path::new(path))?)?;
    }
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(ETCD_PREFIX)) {
        match ETCD.iter().find(|flag| flag.variable() == *name) {
            // As in Go's flags: set to nothing is not set.
            Some(_) if value.is_empty() => {}
            Some(flag) => loaded.take(flag, value, Origin::Variable(name.clone()))?,
            None => loaded.warnings.push(format!("environment variable {name}: unknown, ignored")),
        }
    }
    for name in loaded.sources.env(environment.iter().cloned())? {
        loaded.warnings.push(format!("environment variable {name}: there is no such setting: ignored"));
    }
    for (flag, value) in given(ETCD, matches).chain(given(OWN, matches)) {
        loaded.take(flag, value, Origin::Flag(format!("--{}", flag.name)))?;
    }
    loaded.check_sync()?;
    Ok(loaded)
}

impl Loaded {
    fn take(&mut self, flag: &Flag, value: &str, origin: Origin) -> Result<()> {
        let value = flag.normalised(value);
        match flag.does {
            Does::Sets(key) => self.sources.set(origin, key, value)?,
            Does::SetsMs(key) | Does::SetsS(key) => {
                let only_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let unit = match flag.does {
                    _ if !only_digits => "",
                    Does::SetsS(_) => "s",
                    _ => "ms",
                };
                self.sources.set(origin, key, &format!("{value}{unit}"))?;
            }
            Does::SetsMetrics => {
                ensure!(value.starts_with("http://"), "{origin}: {value}: only an http URL is served");
                let address = authority(value).with_context(|| origin.to_string())?;
                self.sources.set(origin, "metrics.listen", address)?;
            }
            Does::SetsLogLevel => {
                let level = if ["panic", "fatal", "dpanic"].contains(&value) { "error" } else { value };
                self.sources.set(origin, "log.level", level)?;
            }
            Does::SetsDebug => {
                if value == "true" {
                    self.sources.set(origin, "log.level", "debug")?;
                }
            }
            Does::AllowsNoSync => {
                self.no_sync_allowed = value == "true";
                if self.no_sync_allowed {
                    self.sources.set(origin, "consensus.sync_writes", "false")?;
                }
            }
            Does::Ignored(expected) if expected.contains(&value) => {}
            Does::Ignored(_) => self.warnings.push(format!("{origin}: means nothing here: ignored")),
            Does::Refused(harmless, why) if !harmless.contains(&value) => bail!("{origin}: {why}"),
            Does::Refused(..) => {}
        }
        Ok(())
    }

    /// A file alone must not turn off what keeps acknowledged writes.
    fn check_sync(&self) -> Result<()> {
        if !self.sources.values.sync_writes && !self.no_sync_allowed {
            let expected = "true, or --unsafe-no-fsync beside it: a power cut would lose acknowledged writes";
            return Err(self.sources.invalid("consensus.sync_writes", "false".to_owned(), expected).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flags::{command, with_two_dashes},
        settings::LogLevel,
    };

    fn loaded(args: &[&str], environment: &[(&str, &str)]) -> Result<Loaded> {
        let args = [&["novacron-consensus"], args].concat().into_iter().map(Into::into);
        let matches = command().try_get_matches_from(with_two_dashes(args))?;
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(&matches, &environment)
    }

    fn values(args: &[&str]) -> Settings {
        loaded(args, &[]).unwrap().sources.values
    }

    #[test]
    fn each_source_goes_over_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, "name: file\ndata_dir: file\nwal_dir: file\nmax_txn_ops: 7\n").unwrap();
        let args = ["--config", file.to_str().unwrap(), "-name=flag"];
        let environment = [
            ("ETCD_NAME", "etcd"),
            ("ETCD_DATA_DIR", "etcd"),
            ("ETCD_WAL_DIR", "etcd"),
            ("ETCD_LOG_LEVEL", ""),
            ("NOVACRON_NAME", "ours"),
            ("NOVACRON_DATA_DIR", "ours"),
            ("ETCD_SERVICE_HOST", "10.0.0.1"),
            ("NOVACRON_API_SERVICE_HOST", "10.0.0.1"),
        ];
        let loaded = loaded(&args, &environment).unwrap();
        let values = &loaded.sources.values;
        assert_eq!(values.name, "flag");
        assert_eq!(values.data_dir.to_str(), Some("ours"));
        assert_eq!(values.wal_dir.to_str(), Some("etcd"));
        assert_eq!(values.txn_ops_max, 7);
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    }

    #[test]
    fn etcds_values_are_taken_as_etcd_takes_them() {
        let settings = values(&[
            "--heartbeat-interval=50",
            "-election-timeout",
            "2s",
            "--client-cert-auth",
            "--listen-metrics-urls=http://127.0.0.1:99",
            "--name",
            "first",
            "--name",
            "second",
            "--log-level=fatal",
            "--pre-vote=1",
        ]);
        assert_eq!(settings.heartbeat.as_millis(), 50);
        assert_eq!(settings.election_timeout.as_secs(), 2);
        assert!(settings.client_tls.client_cert_auth);
        assert_eq!(settings.metrics_listen, Some(([127, 0, 0, 1], 99).into()));
        assert_eq!(settings.name, "second");
        assert_eq!(settings.log_level, LogLevel::Error);
        assert!(!values(&["--client-cert-auth=F"]).client_tls.client_cert_auth);
        assert_eq!(values(&["--debug"]).log_level, LogLevel::Debug);
    }

    #[test]
    fn every_flag_of_etcd_is_taken_refused_or_ignored_with_a_warning() {
        for (arg, warnings) in [
            ("--strict-reconfig-check=true", 0),
            ("--strict-reconfig-check=false", 1),
            ("--quota-backend-bytes=1000", 0),
            ("--max-wals=5", 1),
            ("--enable-v2=true", 1),
            ("--enable-v2=false", 0),
            ("--cors=*", 1),
            ("--auto-compaction-retention=1h", 0),
            ("--logger=zap", 0),
            ("--auto-tls", 0),
            ("--experimental-initial-corrupt-check", 1),
            ("--force-new-cluster=false", 0),
        ] {
            let found = loaded(&[arg], &[]).unwrap().warnings;
            assert_eq!(found.len(), warnings, "{arg}: {found:?}");
        }
        for arg in [
            "--peer-auto-tls",
            "--client-crl-file=x",
            "--discovery=http://x",
            "--config-file=etcd.yaml",
            "--listen-metrics-urls=https://127.0.0.1:1",
        ] {
            let error = loaded(&[arg], &[]).err().unwrap_or_else(|| panic!("{arg} is taken")).to_string();
            let flag = arg.split('=').next().unwrap();
            assert!(error.starts_with(&format!("flag {flag}: ")), "{arg}: {error}");
        }
        assert!(loaded(&[], &[("ETCD_PEER_AUTO_TLS", "true")]).is_err());
        for flag in ETCD {
            let variable = flag.variable();
            // Whatever becomes of the value: the name is known.
            if let Ok(loaded) = loaded(&[], &[(&variable, "x")]) {
                assert!(loaded.warnings.iter().all(|warning| !warning.contains("unknown")), "{variable}");
            }
        }
    }

    #[test]
    fn syncs_are_not_turned_off_by_a_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, "\nconsensus:\n  sync_writes: false\n").unwrap();
        let file = file.to_str().unwrap();
        let error = loaded(&["--config", file], &[]).err().unwrap().to_string();
        assert!(
            error.contains("c.yaml:3: consensus.sync_writes") && error.contains("--unsafe-no-fsync"),
            "{error}"
        );
        assert!(!loaded(&["--config", file, "--unsafe-no-fsync"], &[]).unwrap().sources.values.sync_writes);
        assert!(!values(&["--unsafe-no-fsync"]).sync_writes);
        assert!(values(&["--unsafe-no-fsync=false"]).sync_writes);
    }
}
