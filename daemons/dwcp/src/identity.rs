//! Which certificates may be which node.

use crate::settings::Settings;

/// What an agent wants of its peers' certificates.
#[derive(Debug)]
pub(crate) struct Identities {
    /// A node's name has to be among those of its certificate.
    certified: bool,
    /// These control agents, and are no nodes.
    controllers: Vec<String>,
}

impl Identities {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { certified: settings.peers_certified, controllers: settings.control_allow.clone() }
    }

    /// Whether a certificate of these names may be this node's.
    ///
    /// # Errors
    /// In words: why not.
    pub(crate) fn check(&self, node_id: &str, names: &[String]) -> Result<(), String> {
        if let Some(name) = names.iter().find(|name| self.controllers.contains(name)) {
            return Err(format!("{name} controls agents (control.allow), and is no node"));
        }
        if self.certified && !names.iter().any(|name| name == node_id) {
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!(
                "{node_id:?} is not among the names of its certificate ({names}), as discovery.certified asks for"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_no_nodes_and_names_are_proved_where_that_is_asked_for() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let open = Identities { certified: false, controllers: names(&["api"]) };
        assert_eq!(open.check("b", &names(&["agents"])), Ok(()));
        assert_eq!(open.check("b", &[]), Ok(()));
        assert!(open.check("b", &names(&["b", "api"])).is_err());
        let certified = Identities { certified: true, controllers: Vec::new() };
        assert_eq!(certified.check("b", &names(&["x", "b"])), Ok(()));
        assert!(certified.check("b", &names(&["agents"])).is_err());
        assert!(certified.check("b", &[]).is_err());
    }
}
