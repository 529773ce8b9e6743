//! The JSON report on disk, which grows by one scenario after the other.
//!
//! Owns: reading it, and replacing it as a whole, so that whoever reads sees the old or the new one. Its shape is
//! `report`'s.

use crate::report::{Report, ScenarioReport};
use anyhow::{Context, Result, ensure};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// The report in a file; empty when there is no file. A file that holds something else is an error.
pub fn read(path: &Path) -> Result<Report> {
    match std::fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .with_context(|| format!("{} is not a report of dwcp-lab compare", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Report::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Refuses, before anything is measured, a file that [`put`] could not write.
pub fn check(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    ensure!(folder.is_none_or(Path::is_dir), "{}: its folder does not exist", path.display());
    read(path).map(drop)
}

/// Puts one scenario into the report in a file; the others stay. The file is read again, so that several commands may
/// extend it, though not in the same moment.
pub fn put(path: &Path, scenario: &ScenarioReport) -> Result<()> {
    let mut report = read(path)?;
    report.put(scenario.clone());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let write = || -> Result<()> {
        let mut file = std::fs::File::create(&new)?;
        file.write_all((serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
        file.sync_all()?;
        Ok(std::fs::rename(&new, path)?)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::scenario;

    #[test]
    fn scenarios_come_one_by_one_and_replace_their_older_selves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.json");
        assert_eq!(read(&path).unwrap(), Report::default());
        let (later, earlier) = (scenario("rtt300-loss1", 3), scenario("rtt80-loss0.1", 3));
        put(&path, &later).unwrap();
        put(&path, &earlier).unwrap();
        assert_eq!(read(&path).unwrap().scenarios, [earlier.clone(), later], "in the standing order");
        let again = scenario("rtt300-loss1", 5);
        put(&path, &again).unwrap();
        assert_eq!(read(&path).unwrap().scenarios, [earlier, again]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
    }

    #[test]
    fn what_is_no_report_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        for other in ["", "{}", "[]", r#"{"time_s": 30, "runs": 5, "scenarios": []}"#] {
            std::fs::write(&path, other).unwrap();
            let error = put(&path, &scenario("rtt80-loss0.1", 1)).unwrap_err();
            assert!(format!("{error:#}").contains("other.json is not a report"), "{error:#}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
        assert!(read(folder.path()).is_err(), "a folder");
        assert!(check(&path).is_err() && check(&folder.path().join("no/lab.json")).is_err());
        check(&folder.path().join("lab.json")).unwrap();
    }
}
