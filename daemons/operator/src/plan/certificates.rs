//! Who has certificates, in which Secrets, and for which names.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Component, Region};
use crate::api::TlsMode;

/// Who shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A component of the region.
    Component(Component),
    /// Who uses the store beside these: the operator, backups, people.
    Client,
    /// Members, to other regions'.
    Regions,
}

impl Holder {
    /// All of a region.
    pub const ALL: [Self; 5] = [
        Self::Component(Component::Consensus),
        Self::Component(Component::Api),
        Self::Component(Component::Dwcp),
        Self::Client,
        Self::Regions,
    ];

    /// As its Secret's name has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component(component) => component.as_str(),
            Self::Client => "client",
            Self::Regions => "regions",
        }
    }
}

impl Region<'_> {
    /// There are certificates.
    pub fn has_tls(&self) -> bool {
        self.cluster.security.tls.mode != TlsMode::Plaintext
    }

    /// The operator makes them.
    pub fn has_own_authority(&self) -> bool {
        self.cluster.security.tls.mode == TlsMode::Managed
    }

    /// The Secret with a certificate, its key, and whom to trust.
    pub fn tls_secret(&self, holder: Holder) -> Option<String> {
        let tls = &self.cluster.security.tls;
        match tls.mode {
            TlsMode::Plaintext => None,
            TlsMode::Secret => Some(tls.secret_name.clone().unwrap_or_else(|| format!("{}-tls", self.name))),
            TlsMode::Managed => Some(format!("{}-{}-tls", self.name, holder.as_str())),
        }
    }

    /// Those that the operator makes certificates for.
    pub fn holders(&self) -> impl Iterator<Item = Holder> {
        Holder::ALL.into_iter().filter(|holder| match holder {
            Holder::Component(component) => self.runs(*component),
            Holder::Client => true,
            Holder::Regions => self.replication().is_some(),
        })
    }

    /// The names of a certificate; members are let in by the first one of theirs.
    pub fn certificate_names(&self, holder: Holder) -> BTreeSet<String> {
        if holder == Holder::Regions {
            return self.names_between_regions();
        }
        let own = self.service_host(&format!("{}-{}", self.name, holder.as_str()));
        let more = match holder {
            Holder::Component(Component::Consensus) => {
                vec![
                    format!("*.{own}"),
                    self.service_host(&format!("{}-client", self.name_of(Component::Consensus))),
                ]
            }
            // As clients in the cluster call it that do not know its domain.
            Holder::Component(Component::Api) => {
                vec![format!("{}.{}.svc", self.name_of(Component::Api), self.namespace)]
            }
            _ => Vec::new(),
        };
        more.into_iter().chain([own]).collect()
    }

    /// Of a Secret that the operator makes.
    pub fn certificate_meta(&self, holder: Holder) -> ObjectMeta {
        let component = match holder {
            Holder::Component(component) => component,
            Holder::Client => Component::Operator,
            Holder::Regions => Component::Consensus,
        };
        self.meta(component, format!("{}-{}-tls", self.name, holder.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample;

    #[test]
    fn names_are_those_that_clients_use() {
        let (object, cluster) = sample::production();
        let region = Region::new(&object, &cluster).unwrap();
        let names = |holder| region.certificate_names(holder).into_iter().collect::<Vec<_>>();
        let consensus = "nova-eu-west-consensus.novacron.svc.cluster.local";
        assert_eq!(
            names(Holder::ALL[0]),
            [
                format!("*.{consensus}"),
                "nova-eu-west-consensus-client.novacron.svc.cluster.local".to_owned(),
                consensus.to_owned(),
            ]
        );
        assert!(names(Holder::ALL[1]).contains(&"nova-eu-west-api.novacron.svc".to_owned()));
        assert_eq!(names(Holder::Client), ["nova-eu-west-client.novacron.svc.cluster.local"]);
        assert_eq!(region.tls_secret(Holder::Client).as_deref(), Some("nova-eu-west-client-tls"));
    }
}
