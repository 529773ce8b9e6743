//! Who the members are: ids and roles as Raft needs them, names and addresses as people and peers do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use crate::{
    codec::{self, DecodeError, MEMBERS_MAX, Reader},
    limits::INDEX_MAX,
};

/// Where the log of a new group begins: not at nothing, so that whoever joins later begins with a snapshot. The state
/// machine of before it is the empty one.
pub const BOOTSTRAP_INDEX: u64 = 1;
/// Addresses of one member.
const URLS_MAX: usize = 16;

/// What is known of a member beside its role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where peers find it.
    pub peer_urls: Vec<String>,
    /// Where clients find it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
}

/// The members as of some entry of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// Index of the last entry that changed it.
    pub index: u64,
    pub(crate) conf: ConfState,
    /// By id.
    pub members: BTreeMap<u64, MemberInfo>,
}

/// A change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member.
    Add {
        /// Its id.
        id: u64,
        /// What is known of it.
        info: MemberInfo,
        /// Whether it has no vote at first.
        learner: bool,
    },
    /// A learner gets a vote.
    Promote {
        /// Its id.
        id: u64,
    },
    /// A member leaves for ever.
    Remove {
        /// Its id.
        id: u64,
    },
    /// Peers find it elsewhere.
    Move {
        /// Its id.
        id: u64,
        /// Where peers find it now.
        peer_urls: Vec<String>,
    },
    /// A member says its name and where clients find it.
    Publish {
        /// Its id.
        id: u64,
        /// Its name.
        name: String,
        /// Where clients find it now.
        client_urls: Vec<String>,
    },
}

impl MemberInfo {
    fn put(&self, out: &mut BytesMut) {
        codec::put_prefixed(out, self.name.as_bytes());
        put_texts(out, &self.peer_urls);
        put_texts(out, &self.client_urls);
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { name: text(reader)?, peer_urls: texts(reader)?, client_urls: texts(reader)? })
    }
}

fn put_texts(out: &mut BytesMut, texts: &[String]) {
    out.put_u32_le(texts.len() as u32);
    texts.iter().for_each(|text| codec::put_prefixed(out, text.as_bytes()));
}

fn texts(reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
    (0..reader.count(4, URLS_MAX)?).map(|_| text(reader)).collect()
}

fn text(reader: &mut Reader) -> Result<String, DecodeError> {
    let bytes = reader.prefixed()?;
    String::from_utf8(bytes.into())
        .map_err(|error| DecodeError::Unknown { what: "text", value: error.as_bytes().len() as u64 })
}

impl MemberChange {
    /// Whom it is about.
    pub fn id(&self) -> u64 {
        match self {
            Self::Add { id, .. }
            | Self::Promote { id }
            | Self::Remove { id }
            | Self::Move { id, .. }
            | Self::Publish { id, .. } => *id,
        }
    }

    /// What raft-rs has to know of it: who has a vote and who gets the log.
    pub(crate) fn conf_change(&self) -> Option<ConfChangeV2> {
        if self.id() == raft::INVALID_ID {
            return None; // whoever asks for it is told that it was not done
        }
        let kind = match self {
            Self::Add { learner: true, .. } => ConfChangeType::AddLearnerNode,
            Self::Add { .. } | Self::Promote { .. } => ConfChangeType::AddNode,
            Self::Remove { .. } => ConfChangeType::RemoveNode,
            Self::Move { .. } | Self::Publish { .. } => return None,
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = self.id();
        let mut change = ConfChangeV2::default();
        change.mut_changes().push(single);
        Some(change)
    }

    pub(crate) fn encode(&self, request: (u64, u64)) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64_le(request.0);
        out.put_u64_le(request.1);
        match self {
            Self::Add { learner, info, .. } => {
                out.put_u8(if *learner { 1 } else { 0 });
                out.put_u64_le(self.id());
                info.put(&mut out);
            }
            Self::Promote { id } => {
                out.put_u8(2);
                out.put_u64_le(*id);
            }
            Self::Remove { id } => {
                out.put_u8(3);
                out.put_u64_le(*id);
            }
            Self::Move { id, peer_urls } => {
                out.put_u8(4);
                out.put_u64_le(*id);
                put_texts(&mut out, peer_urls);
            }
            Self::Publish { id, name, client_urls } => {
                out.put_u8(5);
                out.put_u64_le(*id);
                codec::put_prefixed(&mut out, name.as_bytes());
                put_texts(&mut out, client_urls);
            }
        }
        out.freeze()
    }

    /// The change, and (origin, id) of the request.
    pub(crate) fn decode(bytes: Bytes) -> Result<((u64, u64), Self), DecodeError> {
        let mut reader = Reader::new(bytes, "membership change");
        let request = (reader.u64()?, reader.u64()?);
        let kind = reader.u8()?;
        let id = reader.u64()?;
        let change = match kind {
            0 | 1 => Self::Add { id, info: MemberInfo::read(&mut reader)?, learner: kind == 1 },
            2 => Self::Promote { id },
            3 => Self::Remove { id },
            4 => Self::Move { id, peer_urls: texts(&mut reader)? },
            5 => Self::Publish { id, name: text(&mut reader)?, client_urls: texts(&mut reader)? },
            kind => return Err(DecodeError::Unknown { what: "membership change", value: kind.into() }),
        };
        reader.end()?;
        Ok((request, change))
    }
}

impl Membership {
    /// The voters of a new cluster.
    pub fn of_voters(members: BTreeMap<u64, MemberInfo>) -> Self {
        let mut conf = ConfState::default();
        conf.set_voters(members.keys().copied().collect());
        Self { index: BOOTSTRAP_INDEX, conf, members }
    }

    /// As sent, with a checksum.
    pub fn encode(&self) -> Bytes {
        codec::seal(|out| self.put(out)).into()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = codec::unseal(bytes, "membership")?;
        let membership = Self::read(&mut reader)?;
        reader.end().map(|()| membership)
    }

    /// Whether a member has a vote.
    pub fn is_voter(&self, id: u64) -> bool {
        self.conf.get_voters().contains(&id) || self.conf.get_voters_outgoing().contains(&id)
    }

    /// Whether a member receives the log, with or without a vote.
    pub(crate) fn has_role(&self, id: u64) -> bool {
        self.is_voter(id) || self.conf.get_learners().contains(&id)
    }

    /// Whether a member receives the log without a vote.
    pub fn is_learner(&self, id: u64) -> bool {
        !self.is_voter(id) && self.members.contains_key(&id)
    }

    /// Members that are at one of these peer URLs.
    pub fn at(&self, peer_urls: &[String]) -> impl Iterator<Item = (u64, &MemberInfo)> {
        let is_there = |info: &MemberInfo| info.peer_urls.iter().any(|url| peer_urls.contains(url));
        self.members.iter().filter(move |(_, info)| is_there(info)).map(|(id, info)| (*id, info))
    }

    /// How many have a vote.
    pub fn voters(&self) -> usize {
        self.conf.get_voters().len()
    }

    /// Whether a change makes sense for these members.
    pub fn allows(&self, change: &MemberChange) -> bool {
        let known = self.members.contains_key(&change.id());
        match change {
            MemberChange::Add { id, .. } => {
                !known && *id != raft::INVALID_ID && self.members.len() < MEMBERS_MAX
            }
            MemberChange::Promote { id } => known && self.is_learner(*id),
            MemberChange::Remove { .. } => known && !(self.voters() == 1 && self.is_voter(change.id())),
            MemberChange::Move { .. } | MemberChange::Publish { .. } => known,
        }
    }

    /// Takes over what a committed change did.
    pub(crate) fn apply(&mut self, index: u64, change: &MemberChange, conf: Option<ConfState>) {
        self.index = index;
        if let Some(conf) = conf {
            self.conf = conf;
        }
        match change {
            MemberChange::Add { id, info, .. } => {
                self.members.insert(*id, info.clone());
            }
            MemberChange::Move { id, peer_urls } => {
                self.members.entry(*id).or_default().peer_urls.clone_from(peer_urls);
            }
            MemberChange::Publish { id, name, client_urls } => {
                let info = self.members.entry(*id).or_default();
                info.name.clone_from(name);
                info.client_urls.clone_from(client_urls);
            }
            MemberChange::Promote { .. } => {}
            MemberChange::Remove { id } => {
                self.members.remove(id);
            }
        }
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.index);
        codec::put_conf_state(out, &self.conf);
        out.put_u32_le(self.members.len() as u32);
        for (id, info) in &self.members {
            out.put_u64_le(*id);
            info.put(out);
        }
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let index = reader.position(INDEX_MAX)?;
        let conf = reader.conf_state()?;
        let count = reader.count(20, MEMBERS_MAX)?;
        let mut members = BTreeMap::new();
        for _ in 0..count {
            members.insert(reader.u64()?, MemberInfo::read(reader)?);
        }
        let membership = Self { index, conf, members };
        match membership.makes_sense() && membership.members.len() == count {
            true => Ok(membership),
            false => Err(DecodeError::Contradiction { what: "membership" }),
        }
    }

    /// Whether everyone has one role, as after changes that were made one at a time; or nobody has one, before one joins.
    /// raft-rs panics on anything else.
    fn makes_sense(&self) -> bool {
        let (voters, learners) = (self.conf.get_voters(), self.conf.get_learners());
        let joint = !self.conf.get_voters_outgoing().is_empty()
            || !self.conf.get_learners_next().is_empty()
            || self.conf.get_auto_leave();
        let ids: BTreeSet<u64> = voters.iter().chain(learners).copied().collect();
        let once = ids.len() == voters.len() + learners.len();
        let nobody = ids.is_empty();
        !joint
            && once
            && nobody == voters.is_empty()
            && !self.members.contains_key(&raft::INVALID_ID)
            && (nobody || ids.iter().eq(self.members.keys()))
    }
}
