//! Sizes in bytes as people write them.

/// Reads a size as the settings do.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    novacron_settings::size(text).ok_or_else(|| format!("expected {}", novacron_settings::SIZE))
}

/// Writes a size with three digits.
pub(crate) fn show(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
