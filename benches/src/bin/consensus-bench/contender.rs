//! Kinds of members that are measured beside each other.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Settings of the kind that reads by lease.
const LEASE_SETTINGS: &str = "consensus:\n  reads: lease\n";

/// Which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    Novacron,
    /// Novacron that answers linearizable reads by its leader's lease.
    NovacronLease,
    Etcd,
    /// Answers, and nothing else: what the clients and the kernel leave.
    Floor,
}

/// A kind of member that is there.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    /// With etcd's version.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Beside those that say where the members are.
    pub(crate) flags: Vec<String>,
}

impl Contender {
    pub(crate) fn novacron(program: PathBuf) -> Self {
        Self { kind: Kind::Novacron, name: "novacron".to_owned(), program, flags: Vec::new() }
    }

    /// An error if the program does not know the setting. The file with it goes into `folder`.
    pub(crate) fn novacron_lease(program: PathBuf, folder: &Path) -> Result<Self> {
        let file = folder.join("lease-reads.yaml");
        std::fs::write(&file, LEASE_SETTINGS).with_context(|| file.display().to_string())?;
        let flags = vec![format!("--config={}", file.display())];
        let checked = Command::new(&program)
            .args(&flags)
            .arg("--check-config")
            .output()
            .with_context(|| program.display().to_string())?;
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr).trim());
        Ok(Self { kind: Kind::NovacronLease, name: "novacron, lease reads".to_owned(), program, flags })
    }

    /// The one beside this program.
    pub(crate) fn floor() -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("consensus-floor");
        Ok(Self { kind: Kind::Floor, name: "answers alone".to_owned(), program, flags: Vec::new() })
    }

    pub(crate) fn etcd(program: PathBuf) -> Result<Self> {
        let output = Command::new(&program).arg("--version").output().with_context(|| {
            format!("{}: etcd is what is compared with (scripts/etcd-build.sh)", program.display())
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().and_then(|line| line.split_whitespace().last());
        let version = version.with_context(|| format!("{} tells no version", program.display()))?;
        Ok(Self { kind: Kind::Etcd, name: format!("etcd {version}"), program, flags: Vec::new() })
    }
}
