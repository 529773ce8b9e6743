//! Where settings come from: a file, the environment, the machine's name.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use novacron_settings::Layers;

/// What is no good as a source of settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A settings file that cannot be read, or is no text.
    #[error("cannot read {}: {source}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A variable of the environment.
    #[error("environment: {} is not UTF-8", .text.display())]
    Variable {
        /// Its name, or its value.
        text: OsString,
    },
}

/// The text of a settings file, and hardly more of it than a settings file may have.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn settings_text(path: &Path) -> Result<String, SourceError> {
    let mut text = String::new();
    // One byte more: what is too long has to be seen to be.
    let read = File::open(path)
        .and_then(|file| file.take(Layers::FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    read.map_err(|source| SourceError::File { path: path.to_owned(), source })?;
    Ok(text)
}

/// The environment's variables whose names begin with one of these.
///
/// # Errors
/// If one of them is not UTF-8.
pub fn environment(prefixes: &[&str]) -> Result<Vec<(String, String)>, SourceError> {
    let ours = |name: &OsString| {
        prefixes.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    };
    std::env::vars_os()
        .filter(|(name, _)| ours(name))
        .map(|(name, value)| {
            let wrong = |text| SourceError::Variable { text };
            Ok((name.into_string().map_err(wrong)?, value.into_string().map_err(wrong)?))
        })
        .collect()
}

/// What the machine calls itself; `novacron` if it has no name.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "novacron".to_owned() } else { name }
}
