//! The folder of a member: whose it is, whether it is known to be damaged, and how it makes way for a new member's.
//!
//! Besides log and data there are small files in it, which are there whole or not at all:
//!
//! ```text
//! member      whose folder it is: without the log it still says which member must not begin anew
//! damaged     what was found while the member ran: it does not start any more
//! rejoining   the damaged data makes way, or has, and the member joins as a new one
//! damaged-TIME/   what has made way; nobody but an operator removes it
//! ```
//!
//! Deliberately not here: when to do so ([`rejoin`](crate::rejoin)).

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use time::OffsetDateTime;

const OWNER: &str = "member";
const DAMAGED: &str = "damaged";
const REJOINING: &str = "rejoining";
/// What a member has in its folder, and takes with it when it makes way. The log may be elsewhere.
const CONTENTS: [&str; 5] = ["log", "data", "snapshots", OWNER, DAMAGED];
/// Of one of the small files. A longer one is not ours.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where a member keeps everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFolder {
    /// The folder.
    pub path: PathBuf,
    /// Its log, in it or elsewhere.
    pub log_dir: PathBuf,
}

/// Whose folder it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Id of the cluster.
    pub cluster: u64,
    /// Id of the member.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// How far a member is that comes back as a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejoining {
    /// The new member's id, and the folder that takes what was there.
    MakesWay(u64, PathBuf),
    /// The folder is the new member's.
    HasMadeWay(u64),
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// One of the small files is not what was written.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// A line that says of the rest whether it is what was written.
fn check(text: &str) -> String {
    format!("check {}", &blake3::hash(text.as_bytes()).to_hex()[..16])
}

impl MemberFolder {
    /// Where a member keeps everything.
    pub fn new(path: impl Into<PathBuf>, log_dir: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), log_dir: log_dir.into() }
    }

    /// Whose it is; `None`: nobody's, or it is from before this was written down.
    pub fn owner(&self) -> Result<Option<Owner>, FolderError> {
        let Some(text) = self.read(OWNER)? else { return Ok(None) };
        let parse = || {
            let mut lines = text.lines();
            let cluster = u64::from_str_radix(lines.next()?.strip_prefix("cluster ")?, 16).ok()?;
            let id = u64::from_str_radix(lines.next()?.strip_prefix("member ")?, 16).ok()?;
            Some(Owner { cluster, id, name: lines.next()?.strip_prefix("name ")?.to_owned() })
        };
        parse().map(Some).ok_or_else(|| FolderError::Damaged { path: self.path.join(OWNER) })
    }

    /// The member has started, and the folder is its own. If it came back as a new one, that is done.
    pub fn set_owner(&self, owner: &Owner) -> Result<(), FolderError> {
        if self.owner().ok().flatten().as_ref() != Some(owner) {
            let Owner { cluster, id, name } = owner;
            self.write(OWNER, &format!("cluster {cluster:x}\nmember {id:x}\nname {}\n", one_line(name)))?;
        }
        self.remove(REJOINING)
    }

    /// What was found while the member ran.
    pub fn damage(&self) -> Result<Option<String>, FolderError> {
        Ok(self.read(DAMAGED)?.map(|text| text.trim_end().to_owned()))
    }

    /// The member must not start from what is here any more.
    pub fn set_damage(&self, text: &str) -> Result<(), FolderError> {
        self.write(DAMAGED, &format!("{}\n", one_line(text)))
    }

    pub(crate) fn rejoining(&self) -> Result<Option<Rejoining>, FolderError> {
        let Some(text) = self.read(REJOINING)? else { return Ok(None) };
        let parse = || {
            let mut words = text.split_whitespace();
            let (step, id) = (words.next()?, u64::from_str_radix(words.next()?, 16).ok()?);
            match (step, words.next()) {
                ("has-made-way", None) => Some(Rejoining::HasMadeWay(id)),
                ("makes-way", Some(name)) => Some(Rejoining::MakesWay(id, name.into())),
                _ => None,
            }
        };
        parse().map(Some).ok_or_else(|| FolderError::Damaged { path: self.path.join(REJOINING) })
    }

    /// Everything that is here makes way for a new member, whose id this is. Gives the folder where it is now.
    pub(crate) fn make_way(&self, id: u64) -> Result<PathBuf, FolderError> {
        let name = format!("damaged-{}", utc(SystemTime::now()));
        self.write(REJOINING, &format!("makes-way {id:x} {name}\n"))?;
        self.go_on_making_way(id, Path::new(&name))
    }

    /// The same again, after an interruption. What has made way stays there.
    pub(crate) fn go_on_making_way(&self, id: u64, name: &Path) -> Result<PathBuf, FolderError> {
        let aside = self.path.join(name);
        move_into(&aside, CONTENTS.map(|name| self.path.join(name)))?;
        if !self.log_dir.starts_with(&self.path) && self.log_dir.exists() {
            // It may be a file system of its own, which stays where it is.
            let mut contents = Vec::new();
            for entry in fs::read_dir(&self.log_dir).map_err(failed(&self.log_dir))? {
                contents.push(entry.map_err(failed(&self.log_dir))?.path());
            }
            let is_aside = |path: &PathBuf| {
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"damaged-"))
            };
            contents.retain(|path| !is_aside(path));
            move_into(&self.log_dir.join(name), contents)?;
        }
        self.write(REJOINING, &format!("has-made-way {id:x}\n"))?;
        Ok(aside)
    }

    fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(found) if found.len() > FILE_BYTES_MAX => return Err(FolderError::Damaged { path }),
            found => found.map_err(failed(&path))?,
        };
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => FolderError::Damaged { path: path.clone() },
            _ => FolderError::Io { path: path.clone(), source: error },
        })?;
        let content = text.trim_end().rfind('\n').map(|end| text.split_at(end + 1));
        let whole = content.filter(|(content, line)| line.trim_end() == check(content));
        whole.map(|(content, _)| Some(content.to_owned())).ok_or(FolderError::Damaged { path })
    }

    fn write(&self, name: &str, content: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let part = self.path.join(format!("{name}.part"));
        let written = (|| {
            let mut file = File::create(&part)?;
            writeln!(file, "{content}{}", check(content))?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&self.path)?.sync_all()
        })();
        written.map_err(failed(&path))
    }

    fn remove(&self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&path)(error)),
            Ok(()) => File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed(&path)),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Moves what is there, for good.
fn move_into(folder: &Path, paths: impl IntoIterator<Item = PathBuf>) -> Result<(), FolderError> {
    fs::create_dir_all(folder).map_err(failed(folder))?;
    for path in paths {
        let Some(name) = path.file_name() else { continue };
        match fs::rename(&path, folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(failed(&path))?,
        }
    }
    let folders = [Some(folder), folder.parent()];
    for folder in folders.into_iter().flatten() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    }
    Ok(())
}

/// Date and time as a part of a file's name.
fn utc(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}-{minute:02}-{second:02}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn folder() -> (tempfile::TempDir, MemberFolder) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("m");
        fs::create_dir_all(path.join("log")).unwrap();
        let folder = MemberFolder::new(&path, path.join("log"));
        (parent, folder)
    }

    #[test]
    fn what_is_written_down_is_read_back_or_refused() {
        let (_parent, folder) = folder();
        assert_eq!((folder.owner().unwrap(), folder.damage().unwrap()), (None, None));
        let owner = Owner { cluster: 0xabc, id: 7, name: "m 1".to_owned() };
        folder.set_owner(&owner).unwrap();
        folder.set_damage("two\nlines").unwrap();
        assert_eq!(folder.owner().unwrap(), Some(owner));
        assert_eq!(folder.damage().unwrap().as_deref(), Some("two lines"));
        let path = folder.path.join(OWNER);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(matches!(folder.owner(), Err(FolderError::Damaged { .. })), "byte {at}");
        }
    }

    #[test]
    fn everything_makes_way_wherever_it_is_interrupted() {
        let parent = tempfile::tempdir().unwrap();
        let (path, log) = (parent.path().join("m"), parent.path().join("log"));
        let folder = MemberFolder::new(&path, &log);
        for (folder, file) in [(&path, "data"), (&path, "lock"), (&log, "1.log"), (&log, "damaged-before")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(file), file).unwrap();
        }
        // Cut off after the first of the moves.
        folder.write(REJOINING, "makes-way 9 damaged-now\n").unwrap();
        fs::create_dir_all(path.join("damaged-now")).unwrap();
        fs::rename(path.join("data"), path.join("damaged-now/data")).unwrap();
        let Some(Rejoining::MakesWay(9, name)) = folder.rejoining().unwrap() else { panic!() };
        let aside = folder.go_on_making_way(9, &name).unwrap();
        assert_eq!(folder.rejoining().unwrap(), Some(Rejoining::HasMadeWay(9)));
        assert_eq!(fs::read_to_string(aside.join("data")).unwrap(), "data");
        assert_eq!(fs::read_to_string(log.join("damaged-now/1.log")).unwrap(), "1.log");
        assert!(path.join("lock").exists() && log.join("damaged-before").exists());
        assert!(!path.join("data").exists() && !log.join("1.log").exists());
        folder.set_owner(&Owner { cluster: 1, id: 9, name: "m".to_owned() }).unwrap();
        assert_eq!(folder.rejoining().unwrap(), None);
    }

    #[test]
    fn times_are_dates() {
        let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00-00-00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12-34-56Z");
    }
}
