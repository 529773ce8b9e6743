//! The JSON report on disk, which grows by one scenario after the other.
//!
//! Owns: reading it, and replacing it as a whole, so that whoever reads sees the old or the new one. Its shape is
//! `report`'s.

use crate::report::{Report, ScenarioReport};
use anyhow::{Context, Result, ensure};
use std::fs::File;
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
    ensure!(folder(path).is_dir(), "{}: its folder does not exist", path.display());
    read(path).map(drop)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts one scenario into the report in a file; the others stay. Several commands may extend one file: it is read again,
/// and its folder is locked meanwhile.
pub fn put(path: &Path, scenario: &ScenarioReport) -> Result<()> {
    let lock = || -> std::io::Result<File> {
        let folder = File::open(folder(path))?;
        folder.lock()?;
        Ok(folder)
    };
    let _locked = lock().with_context(|| format!("lock the folder of {}", path.display()))?;
    let mut report = read(path)?;
    report.put(scenario.clone());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let write = || -> Result<()> {
        let mut file = File::create(&new)?;
        file.write_all((serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
        file.sync_all()?;
        Ok(std::fs::rename(&new, path)?)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scenario;
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
    fn commands_that_end_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("lab.json");
        let names: Vec<String> = Scenario::standing().into_iter().map(|scenario| scenario.name).collect();
        std::thread::scope(|threads| {
            for name in &names {
                threads.spawn(move || put(path, &scenario(name, 1)).unwrap());
            }
        });
        assert_eq!(read(path).unwrap().scenarios.len(), names.len());
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
