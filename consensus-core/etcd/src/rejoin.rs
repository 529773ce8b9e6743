//! How a member whose data is damaged comes back as a new one.
//!
//! `novacron member rejoin` has the cluster remove it and add a new member at the same URLs; this is the other half, which
//! the damaged member does itself at its next start, because only it is where the folder is. It asks the others who is at
//! its URLs now. If that is a member of another id that has never started, the folder makes way, and it joins as that one.
//! Until then it refuses to start. Deliberately not here: the cluster's half, and what damage is.

use std::{path::PathBuf, sync::Arc};

use consensus_core::{Membership, TlsConfig, find_cluster, log_owner};

use crate::{
    IdentityError, InitialCluster,
    folder::{FolderError, MemberFolder, Rejoining},
};

/// What a member is to do whose data is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Start again, as a new member that joins. What was there is in this folder.
    Join(PathBuf),
    /// Nothing: this is what an operator is to do.
    Wait(String),
}

/// A member that cannot find out what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejoinError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Ends what an interruption has left undone. Whether the member is on its way to be a new one, and joins.
pub fn go_on(folder: &MemberFolder) -> Result<bool, FolderError> {
    match folder.rejoining()? {
        None => Ok(false),
        Some(Rejoining::HasMadeWay(_)) => Ok(true),
        Some(Rejoining::MakesWay(id, name)) => folder.go_on_making_way(id, &name).map(|_| true),
    }
}

impl InitialCluster {
    /// The way of the member of this name, whose data in `folder` is damaged.
    pub async fn way_back(
        &self,
        folder: &MemberFolder,
        name: &str,
        tls: Option<&Arc<TlsConfig>>,
        allow_plaintext: bool,
    ) -> Result<Way, RejoinError> {
        let (own, others) = self.urls(name).map_err(IdentityError::from)?;
        if others.is_empty() {
            return Ok(Way::Wait(
                "there is no other member that has its data: `novacron cluster snapshot restore` makes a new cluster \
                 out of a snapshot"
                    .to_owned(),
            ));
        }
        let found = find_cluster(&others, tls, allow_plaintext).await.map_err(IdentityError::from)?;
        // Without its old id it could take itself for the new one, and forget what it has promised as that.
        let old = match folder.rejoining()? {
            Some(Rejoining::HasMadeWay(id)) => Some(id),
            _ => {
                let in_log = log_owner(&folder.log_dir).ok().flatten().map(|(_, id)| id);
                in_log.or_else(|| Some(folder.owner().ok()??.id))
            }
        };
        // Where nothing is left the others know who it was.
        let old = old.or_else(|| found.as_ref().and_then(|found| has_run(&found.membership, &own)));
        let now = found.as_ref().and_then(|found| successor(&found.membership, &own, old?));
        match now {
            Some(id) => Ok(Way::Join(folder.make_way(id)?)),
            None => Ok(Way::Wait(advice(&own, found.map(|found| found.membership).as_ref(), old))),
        }
    }
}

/// Who has taken the place of a member, and has not begun yet.
fn successor(membership: &Membership, own: &[String], old: u64) -> Option<u64> {
    membership.at(own).find(|(id, info)| *id != old && info.name.is_empty()).map(|(id, _)| id)
}

fn has_run(membership: &Membership, own: &[String]) -> Option<u64> {
    membership.at(own).find(|(_, info)| !info.name.is_empty()).map(|(id, _)| id)
}

fn advice(own: &[String], membership: Option<&Membership>, old: Option<u64>) -> String {
    let others = membership.into_iter().flat_map(|membership| membership.members.values());
    let others = others.filter(|info| !info.peer_urls.iter().any(|url| own.contains(url)));
    let clients: Vec<_> = others.flat_map(|info| info.client_urls.clone()).collect();
    let endpoints =
        if clients.is_empty() { "HOST:PORT,... of the other members".to_owned() } else { clients.join(",") };
    if old.is_none() {
        return format!(
            "nothing says any more which member this was: remove it with `novacron member remove`, add it with `novacron \
             member add --learner`, move its folder aside, and start it with --initial-cluster-state existing \
             (--endpoints {endpoints})"
        );
    }
    format!(
        "to bring it back as a new member, run `novacron member rejoin --peer-urls {} --endpoints {endpoints}`, and start \
         this one again; its folder is kept beside the new one",
        own.join(",")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use consensus_core::MemberInfo;

    use super::*;

    fn member(url: &str, name: &str) -> MemberInfo {
        MemberInfo {
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            client_urls: vec![url.replace("peer", "client")],
        }
    }

    #[test]
    fn only_a_member_of_another_id_that_never_began_takes_the_place() {
        let own = ["http://peer:1".to_owned()];
        let of = |id, name| {
            let members = BTreeMap::from([(id, member(&own[0], name)), (2, member("http://peer:2", "b"))]);
            Membership::of_voters(members)
        };
        assert_eq!(successor(&of(1, "a"), &own, 1), None, "itself");
        assert_eq!(successor(&of(1, ""), &own, 1), None, "itself, before it began");
        assert_eq!(successor(&of(3, "a"), &own, 1), None, "somebody who runs");
        assert_eq!(successor(&of(3, ""), &own, 1), Some(3));
        assert_eq!(has_run(&of(3, ""), &own), None);
        assert_eq!(has_run(&of(1, "a"), &own), Some(1));
    }

    #[test]
    fn the_advice_can_be_copied() {
        let members = BTreeMap::from([(1, member("http://peer:1", "a")), (2, member("http://peer:2", "b"))]);
        let membership = Membership::of_voters(members);
        let advice = |old| advice(&["http://peer:1".to_owned()], Some(&membership), old);
        let command = "novacron member rejoin --peer-urls http://peer:1 --endpoints http://client:2`";
        assert!(advice(Some(1)).contains(command), "{}", advice(Some(1)));
        assert!(advice(None).contains("novacron member remove"), "{}", advice(None));
    }
}
