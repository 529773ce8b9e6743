//! Compression dictionaries that the settings name.

use dwcp_core::dictionary::{Folder, FolderError};
use novacron_settings::Settings;

/// Dictionaries that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: compression.dictionaries: {source}")]
pub struct DictionariesError {
    /// Where the setting comes from.
    origin: String,
    /// What is wrong with the folder.
    source: FolderError,
}

/// Reads what `compression.dictionaries` names into `endpoint.dictionaries`. What is damaged is left out, and logged: payloads are
/// a little longer without it. `origin`: where the setting comes from, for errors.
///
/// # Errors
/// There is no such folder, or it cannot be read.
pub fn load_dictionaries(settings: &mut Settings, origin: &str) -> Result<(), DictionariesError> {
    let Some(folder) = settings.dictionaries.clone() else { return Ok(()) };
    let failed = |source| DictionariesError { origin: origin.to_owned(), source };
    let found = Folder::new(folder).load().map_err(failed)?;
    for (path, why) in found.left_out {
        tracing::warn!(path = %path.display(), why, "a dictionary is left out");
    }
    settings.endpoint.dictionaries =
        found.dictionaries.into_iter().map(|(_, dictionary)| dictionary).collect();
    Ok(())
}
