//! Replication with other regions: settings, names, and whom it trusts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Component, Holder, Region,
    config::{Config, REGIONS_TLS_DIR, listen, set_tls_in},
    ports::{self, Port},
};
use crate::api::{ReplicatedRegion, Replication, RoutingStrategy, Topology};

impl Region<'_> {
    /// What it has in common with other regions, if anything.
    pub(crate) fn replication(&self) -> Option<(&Replication, &ReplicatedRegion)> {
        let all = self.cluster.replication.as_ref()?;
        let own = all.regions.iter().find(|other| other.name == self.object.spec.region)?;
        Some((all, own))
    }

    /// The ports of a component here.
    pub(super) fn ports(&self, component: Component) -> impl Iterator<Item = Port> + use<> {
        let replicates = self.replication().is_some();
        ports::of(component).filter(move |port| replicates || port.name != ports::REGIONS.name)
    }

    /// Pods of this component show other regions a certificate.
    pub(super) fn shows_regions(&self, component: Component) -> bool {
        component == Component::Consensus && self.has_tls() && self.replication().is_some()
    }

    /// Who members are to other regions, and where these find them.
    pub(super) fn names_between_regions(&self) -> BTreeSet<String> {
        let Some((_, own)) = self.replication() else { return BTreeSet::new() };
        let hosts = own.addresses.iter().filter_map(|address| host(address));
        hosts.map(str::to_owned).chain([format!("region-{}", own.number)]).collect()
    }

    /// Whom a holder trusts, where the cluster's own authorities are these.
    pub(crate) fn trusted(&self, holder: Holder, own: &str) -> String {
        match self.replication() {
            Some((all, _)) if holder == Holder::Regions => format!("{own}{}", all.trust),
            _ => own.to_owned(),
        }
    }
}

/// Of `HOST:PORT`, without the brackets of an address of IPv6.
fn host(address: &str) -> Option<&str> {
    let (host, _) = address.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']'))
}

pub(super) fn set(config: &mut Config, region: &Region<'_>) {
    let Some((all, own)) = region.replication() else { return };
    let scheme = region.scheme();
    let list = |of: &dyn Fn(&ReplicatedRegion) -> Vec<String>| -> Value {
        all.regions.iter().flat_map(of).collect::<Vec<_>>().into()
    };
    let one = |value: Option<String>| value.into_iter().collect::<Vec<_>>();
    config.set("region", own.name.clone());
    config.set("replication.regions", list(&|r| vec![format!("{}={}", r.number, r.name)]));
    config.set("replication.initial_state", if own.joins { "existing" } else { "new" });
    config.set("replication.listen", listen(ports::REGIONS));
    // Its own members it knows.
    config.set(
        "replication.peers",
        list(&|r| {
            let addresses = r.addresses.iter().filter(|_| r.name != own.name);
            addresses.map(|address| format!("{}={scheme}://{address}", r.name)).collect()
        }),
    );
    if region.has_tls() {
        let keys = ["replication.tls.cert", "replication.tls.key", "replication.tls.ca"];
        set_tls_in(config, REGIONS_TLS_DIR, keys);
    }
    let (topology, prefer) = (
        match all.topology {
            Topology::Mesh => "mesh",
            Topology::HubSpoke => "hub-spoke",
            Topology::Hierarchical => "hierarchical",
        },
        match all.strategy {
            RoutingStrategy::Latency => "latency",
            RoutingStrategy::Cost => "cost",
            RoutingStrategy::Geo => "geography",
        },
    );
    config.set("replication.topology", topology);
    config.set("replication.prefer", prefer);
    match all.topology {
        Topology::Mesh => {}
        Topology::HubSpoke => config.set("replication.hub", json!(all.hub)),
        Topology::Hierarchical => {
            let below =
                |r: &ReplicatedRegion| (r.name != all.hub).then(|| format!("{}={}", r.name, r.parent));
            config.set("replication.parents", list(&|r| one(below(r))));
        }
    }
    let costs = list(&|r| one(r.cost.map(|cost| format!("{}={cost}", r.name))));
    let places = list(&|r| one(r.location.as_ref().map(|place| format!("{}={place}", r.name))));
    for (key, values) in [("replication.costs", costs), ("replication.locations", places)] {
        if values != json!([]) {
            config.set(key, values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample;

    #[test]
    fn others_find_a_region_by_its_certificate_and_are_let_in_by_their_authorities() {
        let (object, cluster) = sample::replicated();
        let region = Region::new(&object, &cluster).unwrap();
        let names: Vec<_> = region.certificate_names(Holder::Regions).into_iter().collect();
        assert_eq!(names, ["192.0.2.1", "eu.example", "region-1"]);
        assert_eq!(region.trusted(Holder::Regions, "own\n"), "own\nother authorities\n");
        for holder in Holder::ALL.into_iter().filter(|holder| *holder != Holder::Regions) {
            assert_eq!(region.trusted(holder, "own\n"), "own\n", "{holder:?}");
        }
        assert_eq!(host("[2001:db8::1]:9091"), Some("2001:db8::1"));
        let (object, cluster) = sample::production();
        let alone = Region::new(&object, &cluster).unwrap();
        assert!(alone.ports(Component::Consensus).all(|port| port.number != 9091));
        assert!(alone.holders().all(|holder| holder != Holder::Regions));
    }
}
