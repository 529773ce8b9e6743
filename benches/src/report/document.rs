//! Documents that hold what benches write between markers, and everything else around it.

use std::path::Path;

use anyhow::{Context as _, Result};

/// A part of a document, between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
pub struct Section {
    /// In the markers.
    pub name: &'static str,
    /// Markdown.
    pub text: String,
}

/// Puts the sections into the document.
///
/// # Errors
///
/// If the document has no markers for a section, or cannot be read or written.
pub fn update(path: &Path, sections: &[Section]) -> Result<()> {
    let mut document =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    for section in sections {
        document = replace(&document, section)
            .with_context(|| format!("{} has no markers bench:{}", path.display(), section.name))?;
    }
    std::fs::write(path, document).with_context(|| format!("writing {}", path.display()))
}

fn replace(document: &str, section: &Section) -> Option<String> {
    let (before, rest) = document.split_once(&format!("<!-- bench:{} -->", section.name))?;
    let (_, after) = rest.split_once(&format!("<!-- /bench:{} -->", section.name))?;
    let (name, text) = (section.name, &section.text);
    Some(format!("{before}<!-- bench:{name} -->\n{text}\n<!-- /bench:{name} -->{after}"))
}

#[cfg(test)]
mod tests {
    use super::{Section, replace};

    #[test]
    fn a_section_goes_between_its_markers_and_nowhere_else() {
        let document =
            "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n<!-- bench:y -->\n<!-- /bench:y -->\n";
        let section = Section { name: "x", text: "new".to_owned() };
        let updated = replace(document, &section);
        let expected = document.replace("old", "new");
        assert_eq!(updated.as_deref(), Some(&*expected));
        assert_eq!(replace(&expected, &section), Some(expected));
        assert_eq!(replace("no markers", &section), None);
    }
}
