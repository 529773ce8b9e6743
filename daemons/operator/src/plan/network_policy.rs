//! NetworkPolicies: what may reach a pod, by the registry of ports; everything else may not. What pods reach is left to the
//! policies of those that they reach.
//!
//! Agents are in their nodes' networks, to which policies do not apply.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Component, Region,
    ports::{From, Port},
};

pub(super) fn policies(region: &Region<'_>) -> Vec<NetworkPolicy> {
    if !region.cluster.networking.network_policies {
        return Vec::new();
    }
    [Component::Consensus, Component::Api].map(|component| policy(region, component)).into()
}

fn policy(region: &Region<'_>, component: Component) -> NetworkPolicy {
    NetworkPolicy {
        metadata: region.meta(component, region.name_of(component)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(region.label_selector(component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(region.ports(component).map(|port| rule(region, port)).collect()),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn rule(region: &Region<'_>, port: Port) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: match port.from {
            From::Anywhere => None,
            From::Components(components) => Some(peers(region, components)),
        },
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(i32::from(port.number))),
            protocol: Some(port.protocol.as_str().to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    }
}

/// Those of the region.
fn peers(region: &Region<'_>, components: &[Component]) -> Vec<NetworkPolicyPeer> {
    let own = components.iter().map(|component| NetworkPolicyPeer {
        pod_selector: Some(region.label_selector(*component)),
        ..NetworkPolicyPeer::default()
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;
    use crate::plan::{
        COMPONENT,
        ports::{self, PORTS},
        sample,
    };

    /// Whether a policy lets pods with these labels, in its namespace, reach a port; for tables of who reaches whom.
    fn allows(policy: &NetworkPolicy, from: &BTreeMap<String, String>, port: u16) -> bool {
        let Some(spec) = &policy.spec else { return true };
        let fits = |selector: &LabelSelector| {
            selector.match_labels.iter().flatten().all(|(key, value)| from.get(key) == Some(value))
        };
        spec.ingress.iter().flatten().any(|rule| {
            let by_port = rule
                .ports
                .iter()
                .flatten()
                .any(|allowed| allowed.port == Some(IntOrString::Int(port.into())));
            let by_peer = rule
                .from
                .as_ref()
                .is_none_or(|peers| peers.iter().any(|peer| peer.pod_selector.as_ref().is_some_and(fits)));
            by_port && by_peer
        })
    }

    #[test]
    fn who_reaches_whom_is_what_the_registry_says() {
        let (object, cluster) = sample::replicated();
        let region = Region::new(&object, &cluster).unwrap();
        let policies = policies(&region);
        let of = |component: Component| {
            policies
                .iter()
                .find(|policy| policy.metadata.labels.as_ref().unwrap()[COMPONENT] == component.as_str())
        };
        let mut reached = 0;
        for to in [Component::Consensus, Component::Api] {
            let policy = of(to).unwrap();
            for from in Component::OF_REGION {
                for port in PORTS {
                    let expected = port.component == to
                        && match port.from {
                            From::Anywhere => true,
                            From::Components(all) => all.contains(&from),
                        };
                    // Another component may have a port of the same number.
                    let same_number = ports::of(to).any(|own| own.number == port.number);
                    if port.component != to && same_number {
                        continue;
                    }
                    let is = allows(policy, &region.selector(from), port.number);
                    assert_eq!(is, expected, "{from:?} -> {to:?}:{}", port.number);
                    reached += usize::from(is);
                }
            }
        }
        assert_eq!(reached, 16, "2379, 9091, 8081, 8080 and 8081 for three each, 9090 for members alone");
        let stranger = BTreeMap::from([("app".to_owned(), "x".to_owned())]);
        assert!(!allows(of(Component::Consensus).unwrap(), &stranger, ports::PEER.number));
    }
}
