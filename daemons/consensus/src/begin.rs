//! Who a member is, and its start; and what becomes of one whose data is damaged.
//!
//! A damaged member refuses to start, and says which command brings it back; so does one that was removed. Once that
//! command was given, the next start makes it a new member: `consensus_etcd::rejoin` has the steps. Not here: what damage is.

use std::path::PathBuf;

use anyhow::{Context as _, Error, Result, anyhow};
use consensus_core::Damage;
use consensus_etcd::{
    IdentityError, InitialCluster, MemberFolder, Owner, Server, ServerConfig, ServerError,
    rejoin::{self, Way},
};

/// What a member begins with.
pub(crate) struct Begin {
    config: ServerConfig,
    cluster: InitialCluster,
    /// It joins a cluster that has added it, if it has no log.
    joins: bool,
    folder: MemberFolder,
}

impl Begin {
    pub(crate) fn new(config: ServerConfig, cluster: InitialCluster, joins: bool, data_dir: PathBuf) -> Self {
        let folder = MemberFolder::new(data_dir, &config.node.log_dir);
        Self { config, cluster, joins, folder }
    }

    /// Starts the member; if its data is damaged and the cluster has added a new member in its place, as that one.
    pub(crate) async fn start(&self) -> Result<Server> {
        let rejoins = rejoin::go_on(&self.folder)?;
        let damage = match self.folder.damage()? {
            Some(found_before) => anyhow!(found_before),
            None => match self.try_start(self.joins || rejoins).await {
                Ok(server) => match removed(&server) {
                    None => return Ok(server),
                    Some(removed) => {
                        server.stop().await;
                        removed
                    }
                },
                Err(error) if is_damage(&error) => error,
                Err(error) => return Err(error),
            },
        };
        match self.way_back().await? {
            Way::Join(aside) => {
                let folder = aside.display();
                tracing::warn!(%folder, %damage, "the data of before is kept there; this member joins as a new one");
                self.try_start(true).await
            }
            Way::Wait(advice) => Err(refused(&self.folder, &damage, &advice)),
        }
    }

    /// Finds out who the member is, and starts it.
    async fn try_start(&self, joins: bool) -> Result<Server> {
        let mut config = self.config.clone();
        let (node, name) = (&mut config.node, &config.name);
        let tls = node.tls.as_ref();
        let identity = self.cluster.identity(&self.folder, name, joins, tls, node.allow_plaintext).await?;
        (node.cluster, node.id, node.start) = (identity.cluster, identity.id, identity.start);
        let owner = Owner { cluster: identity.cluster, id: identity.id, name: name.clone() };
        let server = Server::start(config).await?;
        self.folder.set_owner(&owner)?;
        Ok(server)
    }

    /// Writes down that the member must not start from its data any more. Gives what its process ends with.
    pub(crate) async fn damaged(&self, damage: &Damage) -> Error {
        if let Err(error) = self.folder.set_damage(&damage.to_string()) {
            tracing::error!(%error, "what was found cannot be written down: the next start has to find it again");
        }
        let advice = match self.way_back().await {
            Ok(Way::Wait(advice)) => advice,
            Ok(Way::Join(_)) => "it comes back as a new member when it is started again".to_owned(),
            Err(error) => return error.context(damage.clone()),
        };
        refused(&self.folder, &anyhow!(damage.clone()), &advice)
    }

    async fn way_back(&self) -> Result<Way> {
        let node = &self.config.node;
        let (tls, name) = (node.tls.as_ref(), &self.config.name);
        let way = self.cluster.way_back(&self.folder, name, tls, node.allow_plaintext).await;
        way.context("looking for a way to bring this member back")
    }
}

fn refused(folder: &MemberFolder, why: &Error, advice: &str) -> Error {
    let folder = folder.path.display();
    anyhow!("{why:#}\nwith its data in {folder}, this member must not take part; {advice}")
}

/// A member that was removed while it ran knows that from its log. The others do not talk to it any more.
fn removed(server: &Server) -> Option<Error> {
    let (id, membership) = (server.node().id(), server.node().membership());
    (!membership.members.contains_key(&id)).then(|| anyhow!("member {id:x} was removed from the cluster"))
}

fn is_damage(error: &Error) -> bool {
    error.downcast_ref().is_some_and(IdentityError::is_damage)
        || error.downcast_ref().is_some_and(ServerError::is_damage)
}
