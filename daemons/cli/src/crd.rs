//! `novacron crd`.
//!
//! The operator derives the definitions from its types; a test of it keeps the file here the same. With the file, this command
//! needs nothing of Kubernetes' client.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

const DEFINITIONS: &str = include_str!("../../../deploy/crds/novacron.yaml");

/// Prints them.
pub(crate) fn run() -> Result<()> {
    match io::stdout().write_all(DEFINITIONS.as_bytes()) {
        // A reader that went away has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to standard output"),
    }
}
