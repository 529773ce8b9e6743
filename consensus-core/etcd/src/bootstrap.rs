//! The first members of a cluster, as `--initial-cluster` names them, and who a member is that starts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use consensus_core::{
    FoundCluster, MemberInfo, Membership, Start, StartError, TlsConfig, find_cluster, log_owner,
};
use tokio::time::timeout;

use crate::folder::{FolderError, MemberFolder, Owner};

/// For another member to say whether a cluster that seems new is, in fact, not: each is waited for, and few answer then.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// For a member of the cluster that is to be joined to say who its members are.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The first members of a cluster and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    token: String,
    /// Peer URLs by name.
    members: BTreeMap<String, Vec<String>>,
}

/// A list of members that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitialClusterError {
    /// Not of the form NAME=URL.
    #[error("initial cluster: {part:?} is not NAME=URL")]
    NotAPair {
        /// What was found.
        part: String,
    },
    /// A URL without scheme, host or port.
    #[error("initial cluster: {url:?} is not SCHEME://HOST:PORT")]
    NotAUrl {
        /// What was found.
        url: String,
    },
    /// Two members with one URL.
    #[error("initial cluster: {url} is given twice")]
    Twice {
        /// What was found.
        url: String,
    },
    /// The member that is to start is not in it.
    #[error("initial cluster: there is no member {name:?} in it")]
    Missing {
        /// The member.
        name: String,
    },
}

/// Host and port of a URL.
pub fn authority(url: &str) -> Result<&str, InitialClusterError> {
    let wrong = || InitialClusterError::NotAUrl { url: url.to_owned() };
    let (_, rest) = url.split_once("://").ok_or_else(wrong)?;
    let authority = rest.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || authority.contains('/') || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(authority)
}

/// The first 64 bits of a hash over all parts; never 0, which names nobody.
fn id<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let first = hasher.finalize().as_bytes().first_chunk::<8>().copied().unwrap_or_default();
    u64::from_le_bytes(first).max(1)
}

impl InitialCluster {
    /// Reads `NAME=URL,NAME=URL...`; a member of several URLs is given several times.
    pub fn parse(text: &str, token: &str) -> Result<Self, InitialClusterError> {
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let pair = part.split_once('=').filter(|(name, _)| !name.is_empty());
            let (name, url) = pair.ok_or_else(|| InitialClusterError::NotAPair { part: part.to_owned() })?;
            authority(url)?;
            if members.values().flatten().any(|known| known == url) {
                return Err(InitialClusterError::Twice { url: url.to_owned() });
            }
            members.entry(name.to_owned()).or_default().push(url.to_owned());
        }
        members.values_mut().for_each(|urls| urls.sort());
        Ok(Self { token: token.to_owned(), members })
    }

    /// The id of a member, the same for all who are given the same list.
    pub fn member_id(&self, name: &str) -> Result<u64, InitialClusterError> {
        let urls =
            self.members.get(name).ok_or_else(|| InitialClusterError::Missing { name: name.to_owned() })?;
        Ok(id(urls.iter().map(String::as_str).chain([&*self.token])))
    }

    /// The id of the cluster.
    pub fn cluster_id(&self) -> u64 {
        id(self.members.values().flatten().map(String::as_str).chain([&*self.token, "cluster"]))
    }

    /// The id of a cluster of these members that begins with a snapshot of this content.
    pub(crate) fn restored_id(&self, content: &[u8; 32]) -> u64 {
        id([&*format!("{:x}", self.cluster_id()), &*blake3::Hash::from(*content).to_hex(), "restored"])
    }

    /// The members as the log begins with them.
    pub fn membership(&self) -> Membership {
        let member = |(name, urls): (&String, &Vec<String>)| {
            let info = MemberInfo { peer_urls: urls.clone(), ..MemberInfo::default() };
            (self.member_id(name).unwrap_or_default(), info)
        };
        Membership::of_voters(self.members.iter().map(member).collect())
    }
}

/// Who a member is, and how it begins.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub id: u64,
    /// What it does if it has no log.
    pub start: Start,
}

/// A member that does not know who it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StartError),
    /// What is in the folder beside the log cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The list of members does not help.
    #[error(transparent)]
    Cluster(#[from] InitialClusterError),
    /// The log is gone, as the folder says or the others. A member that began anew could vote against what it has
    /// acknowledged.
    #[error("{folder}: the log of member {id:x} is not there any more")]
    LogLost {
        /// The folder.
        folder: String,
        /// Whose log it was.
        id: u64,
    },
    /// The log is of another member of the same cluster.
    #[error(
        "the data in {folder} is of member {found:x}, not of {name} ({expected:x}): was it copied? A new member gets its data from the others"
    )]
    OtherMember {
        /// The folder.
        folder: String,
        /// Whose log it is.
        found: u64,
        /// Who was to be started.
        name: String,
        /// Who was to be started.
        expected: u64,
    },
    /// TLS or plaintext settings are wrong.
    #[error("asking the cluster who its members are: {0}")]
    Ask(#[from] consensus_core::ConfigError),
    /// Nobody to join.
    #[error("none of the cluster's members answers at {}", .urls.join(", "))]
    NobodyAnswers {
        /// Where they should be.
        urls: Vec<String>,
    },
    /// The cluster does not know it.
    #[error("the cluster has no member at {}: add it first, with `novacron member add` or `etcdctl member add`", .urls.join(", "))]
    NotAdded {
        /// Where this member is.
        urls: Vec<String>,
    },
}

impl IdentityError {
    /// Whether this member's data is lost, so that it can only come back as a new member.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(error) => error.is_damage(),
            Self::LogLost { .. } => true,
            _ => false,
        }
    }
}

impl InitialCluster {
    /// Where the member of this name is for the others, and where they are.
    pub(crate) fn urls(&self, name: &str) -> Result<(Vec<String>, Vec<String>), InitialClusterError> {
        let missing = || InitialClusterError::Missing { name: name.to_owned() };
        let own = self.members.get(name).ok_or_else(missing)?.clone();
        let others = self.members.iter().filter(|(other, _)| *other != name);
        Ok((own, others.flat_map(|(_, urls)| urls.clone()).collect()))
    }

    /// Who the member of this name is: what its log says, or else, of a cluster that exists, its other members, or else this
    /// list.
    pub async fn identity(
        &self,
        folder: &MemberFolder,
        name: &str,
        exists: bool,
        tls: Option<&Arc<TlsConfig>>,
        allow_plaintext: bool,
    ) -> Result<Identity, IdentityError> {
        let owner = folder.owner();
        let log_dir = || folder.log_dir.display().to_string();
        if let Some((cluster, id)) = log_owner(&folder.log_dir)? {
            // What the log says as well is written anew if it is damaged.
            let owner = owner.ok().flatten();
            // One that came back as a new member has another id than the first one of its name.
            let known = Owner { cluster, id, name: name.to_owned() };
            let expected = self.member_id(name).unwrap_or(id);
            if cluster == self.cluster_id() && id != expected && owner.is_none_or(|owner| owner != known) {
                return Err(IdentityError::OtherMember {
                    folder: log_dir(),
                    found: id,
                    name: name.to_owned(),
                    expected,
                });
            }
            return Ok(Identity { cluster, id, start: Start::Never });
        }
        if let Some(Owner { id, .. }) = owner? {
            return Err(IdentityError::LogLost { folder: log_dir(), id });
        }
        let (own, urls) = self.urls(name)?;
        let found = self.ask(&own, &urls, exists, tls, allow_plaintext).await?;
        let first = self.member_id(name)?;
        let begins =
            Identity { cluster: self.cluster_id(), id: first, start: Start::Bootstrap(self.membership()) };
        let Some(found) = found else {
            return if exists { Err(IdentityError::NobodyAnswers { urls }) } else { Ok(begins) };
        };
        let at_own = found.membership.at(&own).next();
        let (id, info) = at_own.ok_or_else(|| IdentityError::NotAdded { urls: own.clone() })?;
        if !info.name.is_empty() {
            // It has run, so it has promised and acknowledged what an empty log does not know.
            return Err(IdentityError::LogLost { folder: log_dir(), id });
        }
        if !exists && id == first {
            return Ok(begins);
        }
        Ok(Identity { cluster: found.cluster, id, start: Start::Join(found.membership.members) })
    }

    /// The cluster, as the first member says that knows of one at `own`, or else as the first says that answers at all: a
    /// member may not have heard yet of what was added. Of a cluster that need not exist, only this one counts.
    async fn ask(
        &self,
        own: &[String],
        urls: &[String],
        exists: bool,
        tls: Option<&Arc<TlsConfig>>,
        allow_plaintext: bool,
    ) -> Result<Option<FoundCluster>, IdentityError> {
        let mut first = None;
        for url in urls {
            let asked = find_cluster(std::slice::from_ref(url), tls, allow_plaintext);
            let patience = if exists { JOIN_TIMEOUT } else { ASK_TIMEOUT };
            let Ok(found) = timeout(patience, asked).await else { continue };
            let counts = |found: &FoundCluster| exists || found.cluster == self.cluster_id();
            let Some(found) = found?.filter(counts) else { continue };
            if found.membership.at(own).next().is_some() {
                return Ok(Some(found));
            }
            first.get_or_insert(found);
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_list_gives_the_same_ids_in_any_order() {
        let one = InitialCluster::parse("a=http://h:1,b=http://h:2", "t").unwrap();
        let other = InitialCluster::parse("b=http://h:2,a=http://h:1", "t").unwrap();
        assert_eq!(one.membership(), other.membership());
        assert_eq!(one.cluster_id(), other.cluster_id());
        let token = InitialCluster::parse("a=http://h:1,b=http://h:2", "u").unwrap();
        assert_ne!(one.cluster_id(), token.cluster_id());
        assert_ne!(one.member_id("a").unwrap(), token.member_id("a").unwrap());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "a",
            "=http://h:1",
            "a=h:1",
            "a=http://h",
            "a=http://:1",
            "a=http://h:x",
            "a=http://h:1,b=http://h:1",
        ] {
            assert!(InitialCluster::parse(text, "").is_err(), "{text}");
        }
        assert!(InitialCluster::parse("a=http://h:1", "").unwrap().member_id("b").is_err());
    }
}
