//! `novacron completions|man`: what shells and readers of manuals want to know, made of the command line itself.

use std::{io, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

/// Prints completions for a shell: `source <(novacron completions bash)`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// Which one.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes man pages, one for each command, into a folder.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder, which is made if it is not there; such as /usr/local/share/man/man1.
    folder: PathBuf,
}

/// `novacron completions`.
pub(crate) fn completions(mut command: Command, args: &CompletionsArgs) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    io::Write::write_all(&mut io::stdout(), &text).context("writing to standard output")
}

/// `novacron man`.
pub(crate) fn man(command: Command, args: &ManArgs) -> Result<()> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    clap_mangen::generate_to(command, folder).with_context(|| format!("writing into {}", folder.display()))
}
