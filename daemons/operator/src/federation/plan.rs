//! From a federation, and what is known of its clusters, to the objects that are to be in each of them. A function: nothing is read
//! or written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::{Resource as _, ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde_json::json;

use super::shares::{Part, replicas};
use crate::{
    api::{
        ClusterSpec, ConditionType, DWCPFederation, FederatedCluster, FederatedStatus, NovaCronCluster,
        RegionTemplate, ReplicatedRegion, Replication, ServiceKind, Topology,
    },
    plan::{
        COMPONENT, Component, FIELD_MANAGER, INSTANCE, MANAGED_BY, Objects, PlanError, digest,
        ports::{self, Port},
    },
};

/// Label of all that a federation puts into a cluster: its name.
pub const FEDERATION: &str = "novacron.io/federation";
/// Annotation: its id. What another one has put there is left as it is.
pub const FEDERATION_UID: &str = "novacron.io/federation-uid";
/// Label of a StatefulSet's pods: their names.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Of records, where one name has several.
const WEIGHT: &str = "aws/weight";

/// DNSEndpoint, of external-dns.
pub(crate) fn dns_kind() -> ApiResource {
    ApiResource {
        group: "externaldns.k8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "externaldns.k8s.io/v1alpha1".to_owned(),
        kind: "DNSEndpoint".to_owned(),
        plural: "dnsendpoints".to_owned(),
    }
}

/// The name of the region's object in a cluster, with which all names there begin.
pub fn region_name(federation: &DWCPFederation, cluster: &FederatedCluster) -> String {
    format!("{}-{}", federation.name_any(), cluster.name)
}

/// Whether a cluster gets traffic; `None`: it never did.
pub fn serving(status: &FederatedStatus) -> Option<bool> {
    let kind = ConditionType::Serving.as_str();
    status.conditions.iter().find(|condition| condition.type_ == kind).map(|found| found.status == "True")
}

/// Checks what the schema cannot.
///
/// # Errors
/// From a cluster its parents do not lead to the hub.
pub fn check(federation: &DWCPFederation) -> Result<(), PlanError> {
    let spec = &federation.spec;
    if spec.topology != Topology::Hierarchical {
        return Ok(());
    }
    for cluster in &spec.clusters {
        let (mut at, mut passed) = (cluster.name.as_str(), BTreeSet::new());
        while at != spec.hub {
            let parent = spec.clusters.iter().find(|other| other.name == at).map(|found| &found.parent);
            match parent.filter(|_| passed.insert(at)) {
                Some(parent) => at = parent,
                None => {
                    let value = cluster.name.clone();
                    let (field, expected) = ("clusters[].parent", "a way to the hub from every cluster");
                    return Err(PlanError::Invalid { field, value, expected });
                }
            }
        }
    }
    Ok(())
}

/// How many replicas of the API each cluster has.
pub fn divided(federation: &DWCPFederation, known: &[FederatedStatus]) -> Vec<u16> {
    let spec = &federation.spec;
    let out = |at: usize| known.get(at).and_then(serving) == Some(false);
    let parts = spec.clusters.iter().enumerate();
    let parts: Vec<_> = parts
        .map(|(at, cluster)| Part { replicas: cluster.replicas, weight: cluster.weight, out: out(at) })
        .collect();
    replicas(spec.replicas, spec.template.api.min, &parts)
}

/// What the cluster at this place is to trust of the others.
pub fn trust(known: &[FederatedStatus], at: usize) -> String {
    let others = known.iter().enumerate().filter(|(other, _)| *other != at);
    others.map(|(_, status)| status.trust.as_str()).collect()
}

/// What makes the members of a cluster reachable for other regions: a Service for each, since only one of them leads.
///
/// # Errors
/// An object that is no JSON.
pub fn ways_in(federation: &DWCPFederation, at: usize) -> Result<Vec<DynamicObject>, PlanError> {
    let cluster = &federation.spec.clusters[at];
    let region = region_name(federation, cluster);
    let mut objects = Objects::default();
    for ordinal in 0..voters(federation, cluster) {
        let pod = format!("{region}-{}-{ordinal}", Component::Consensus.as_str());
        let selector = [(INSTANCE, &*region), (COMPONENT, Component::Consensus.as_str()), (POD_NAME, &pod)];
        objects.push(&Service {
            metadata: meta(federation, cluster, Component::Consensus, way_in(&region, ordinal)),
            spec: Some(ServiceSpec {
                type_: Some(cluster.expose.kind.as_str().to_owned()),
                selector: Some(owned(selector)),
                ports: Some(vec![service_port(ports::REGIONS)]),
                // A member that is not ready may lead.
                publish_not_ready_addresses: Some(true),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        })?;
    }
    Ok(objects.all)
}

fn way_in(region: &str, ordinal: u16) -> String {
    format!("{region}-{}-{ordinal}-{}", Component::Consensus.as_str(), ports::REGIONS.name)
}

fn voters(federation: &DWCPFederation, cluster: &FederatedCluster) -> u16 {
    cluster.voters.unwrap_or(federation.spec.template.voters)
}

/// Where a Service is reached from other clusters: `HOST:PORT`. None, while it has no address.
pub fn addresses(cluster: &FederatedCluster, service: &Service) -> Vec<String> {
    let expose = &cluster.expose;
    let port = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()?.first());
    let number = port.and_then(|port| match expose.kind {
        ServiceKind::NodePort => port.node_port,
        _ => Some(port.port),
    });
    let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let own: Vec<_> =
        ingress.flatten().filter_map(|one| one.ip.clone().or_else(|| one.hostname.clone())).collect();
    let hosts = if expose.hosts.is_empty() { own } else { expose.hosts.clone() };
    let with = |number: i32| {
        hosts.iter().map(move |host| {
            let is_v6 = host.parse().is_ok_and(|address: IpAddr| address.is_ipv6());
            if is_v6 { format!("[{host}]:{number}") } else { format!("{host}:{number}") }
        })
    };
    number.into_iter().flat_map(with).collect()
}

/// Everything that is to be in the cluster at this place, but for its ways in.
///
/// # Errors
/// An object that is no JSON.
pub fn plan(
    federation: &DWCPFederation,
    known: &[FederatedStatus],
    at: usize,
) -> Result<Vec<DynamicObject>, PlanError> {
    let mut objects = Objects::default();
    objects.push(&cluster_object(federation, known, at))?;
    for (other, cluster) in federation.spec.clusters.iter().enumerate().filter(|(other, _)| *other != at) {
        let Some(status) = known.get(other).filter(|status| !addresses_of(status).is_empty()) else {
            continue;
        };
        let name = format!("{}-{}", region_name(federation, cluster), Component::Api.as_str());
        let metadata =
            |name: &str| meta(federation, &federation.spec.clusters[at], Component::Api, name.to_owned());
        objects.push(&Service {
            metadata: metadata(&name),
            spec: Some(ServiceSpec { ports: Some(vec![service_port(ports::API)]), ..ServiceSpec::default() }),
            ..Service::default()
        })?;
        for (family, slice) in slices(status) {
            let mut metadata = metadata(&format!("{name}-{}", family.to_lowercase()));
            let labels = metadata.labels.get_or_insert_default();
            labels.insert("kubernetes.io/service-name".to_owned(), name.clone());
            labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned());
            objects.push(&EndpointSlice { metadata, address_type: family.to_owned(), ..slice })?;
        }
    }
    Ok(objects.all)
}

/// The NovaCronCluster with the cluster's one region.
fn cluster_object(federation: &DWCPFederation, known: &[FederatedStatus], at: usize) -> NovaCronCluster {
    let (spec, cluster) = (&federation.spec, &federation.spec.clusters[at]);
    let template = spec.template.clone();
    let mut api = template.api;
    api.min = divided(federation, known)[at];
    api.max = api.max.max(api.min);
    let region = RegionTemplate {
        name: cluster.name.clone(),
        voters: voters(federation, cluster),
        api,
        resources: cluster.resources.clone().unwrap_or(template.resources),
        priority: 0,
        node_selector: cluster.node_selector.clone().unwrap_or(template.node_selector),
    };
    let mut networking = template.networking;
    networking.api_service = cluster.expose.kind;
    let mut object = NovaCronCluster::new(
        &federation.name_any(),
        ClusterSpec {
            version: template.version,
            regions: vec![region],
            images: template.images,
            dwcp: template.dwcp,
            agent: template.agent,
            monitoring: template.monitoring,
            storage: template.storage,
            networking,
            security: template.security,
            upgrades: template.upgrades,
            membership: template.membership,
            replication: Some(replication(federation, known, at)),
        },
    );
    let name = federation.name_any();
    object.metadata = meta(federation, cluster, Component::Consensus, name);
    object
}

fn replication(federation: &DWCPFederation, known: &[FederatedStatus], at: usize) -> Replication {
    let spec = &federation.spec;
    // One that was added is a region when it is known where its members are.
    let known_ones = spec.clusters.iter().zip(known).filter(|(_, status)| !status.regions.is_empty());
    let regions = known_ones.map(|(cluster, status)| ReplicatedRegion {
        name: cluster.name.clone(),
        number: cluster.number,
        addresses: status.regions.clone(),
        parent: cluster.parent.clone(),
        cost: cluster.cost,
        location: cluster.location.clone(),
        joins: cluster.joins,
    });
    let others = (0..known.len()).filter(|other| *other != at);
    let are_told = others.clone().all(|other| known[other].told == digest(&trust(known, other)));
    Replication {
        regions: regions.collect(),
        topology: spec.topology,
        hub: spec.hub.clone(),
        strategy: spec.routing.strategy,
        trust: trust(known, at),
        acknowledged: known.get(at).filter(|_| are_told).map(|own| digest(&own.trust)).unwrap_or_default(),
    }
}

/// Where a cluster's API is, as addresses with their port.
fn addresses_of(status: &FederatedStatus) -> Vec<(IpAddr, i32)> {
    let parse = |text: &String| {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.parse().ok()?, port.parse().ok()?))
    };
    status.endpoints.iter().filter_map(parse).collect()
}

/// A cluster's API for another's kube-proxy, by the family of addresses; without any address, while it is out.
fn slices(status: &FederatedStatus) -> BTreeMap<&'static str, EndpointSlice> {
    let mut slices = BTreeMap::new();
    for (address, number) in addresses_of(status) {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let slice: &mut EndpointSlice = slices.entry(family).or_default();
        slice.ports = Some(vec![EndpointPort {
            name: Some(ports::API.name.to_owned()),
            port: Some(number),
            protocol: Some(ports::API.protocol.as_str().to_owned()),
            ..EndpointPort::default()
        }]);
        if serving(status) == Some(true) {
            slice.endpoints.push(Endpoint { addresses: vec![address.to_string()], ..Endpoint::default() });
        }
    }
    slices
}

/// The names under which the API is found: of clusters that get traffic, with their weights.
pub fn records(federation: &DWCPFederation, known: &[FederatedStatus]) -> Option<DynamicObject> {
    let dns = federation.spec.dns.as_ref()?;
    let mut endpoints = Vec::new();
    for (cluster, status) in federation.spec.clusters.iter().zip(known) {
        if serving(status) != Some(true) || cluster.weight == 0 {
            continue;
        }
        let mut by_type: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for endpoint in &status.endpoints {
            let Some((host, _)) = endpoint.rsplit_once(':') else { continue };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let kind = match host.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => "A",
                Ok(IpAddr::V6(_)) => "AAAA",
                Err(_) => "CNAME",
            };
            by_type.entry(kind).or_default().insert(host);
        }
        // A name that is another's has no addresses of its own.
        if by_type.len() > 1 {
            by_type.remove("CNAME");
        }
        endpoints.extend(by_type.into_iter().map(|(kind, hosts)| {
            json!({
                "dnsName": dns.name,
                "recordType": kind,
                "recordTTL": dns.ttl_seconds,
                "targets": hosts,
                "setIdentifier": cluster.name,
                "providerSpecific": [{ "name": WEIGHT, "value": cluster.weight.to_string() }],
            })
        }));
    }
    let name = format!("{}-{}", federation.name_any(), Component::Api.as_str());
    let mut object = DynamicObject::new(&name, &dns_kind()).within(&dns.namespace);
    object.metadata.labels = Some(labels(federation, Component::Api));
    object.metadata.owner_references = federation.controller_owner_ref(&()).map(|owner| vec![owner]);
    object.data = json!({ "spec": { "endpoints": endpoints } });
    Some(object)
}

fn meta(
    federation: &DWCPFederation,
    cluster: &FederatedCluster,
    component: Component,
    name: String,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels(federation, component)),
        annotations: Some(owned([(FEDERATION_UID, &*federation.uid().unwrap_or_default())])),
        ..ObjectMeta::default()
    }
}

fn labels(federation: &DWCPFederation, component: Component) -> BTreeMap<String, String> {
    owned([
        ("app.kubernetes.io/part-of", "novacron"),
        (COMPONENT, component.as_str()),
        (FEDERATION, &*federation.name_any()),
        (MANAGED_BY, FIELD_MANAGER),
    ])
}

fn owned<const N: usize>(all: [(&str, &str); N]) -> BTreeMap<String, String> {
    all.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn service_port(port: Port) -> ServicePort {
    ServicePort {
        name: Some(port.name.to_owned()),
        port: i32::from(port.number),
        protocol: Some(port.protocol.as_str().to_owned()),
        target_port: Some(IntOrString::Int(i32::from(port.number))),
        ..ServicePort::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample;

    #[test]
    fn a_tree_has_a_way_to_its_hub_from_everywhere() {
        let (mut federation, _) = sample::federation();
        federation.spec.topology = Topology::Hierarchical;
        federation.spec.hub = "us".to_owned();
        for (parents, fits) in [
            (["", "us", "eu"], true),
            (["", "us", "us"], true),
            (["", "ap", "eu"], false),
            (["", "us", "mars"], false),
        ] {
            for (cluster, parent) in federation.spec.clusters.iter_mut().zip(parents) {
                cluster.parent = parent.to_owned();
            }
            assert_eq!(check(&federation).is_ok(), fits, "{parents:?}");
        }
    }

    #[test]
    fn where_a_service_is() {
        let (federation, _) = sample::federation();
        let mut cluster = federation.spec.clusters[0].clone();
        let service = |ingress: serde_json::Value| -> Service {
            serde_json::from_value(json!({
                "spec": { "ports": [{ "port": 9091, "nodePort": 30001 }] },
                "status": { "loadBalancer": { "ingress": ingress } },
            }))
            .unwrap()
        };
        cluster.expose.hosts = Vec::new();
        assert!(addresses(&cluster, &service(json!(null))).is_empty());
        let two = service(json!([{ "ip": "192.0.2.1" }, { "hostname": "x.example" }]));
        assert_eq!(addresses(&cluster, &two), ["192.0.2.1:9091", "x.example:9091"]);
        cluster.expose.kind = ServiceKind::NodePort;
        cluster.expose.hosts = vec!["192.0.2.9".to_owned(), "2001:db8::9".to_owned()];
        assert_eq!(addresses(&cluster, &two), ["192.0.2.9:30001", "[2001:db8::9]:30001"]);
    }

    #[test]
    fn an_authority_is_acknowledged_once_all_others_were_told() {
        let (federation, mut known) = sample::federation();
        assert_eq!(replication(&federation, &known, 0).acknowledged, "");
        for at in 0..known.len() {
            known[at].told = digest(&trust(&known, at));
        }
        let all: Vec<_> = (0..3).map(|at| replication(&federation, &known, at).acknowledged).collect();
        assert_eq!(all, known.iter().map(|status| digest(&status.trust)).collect::<Vec<_>>());
        known[0].trust.push_str("another\n");
        assert_eq!(replication(&federation, &known, 0).acknowledged, "", "nobody was told of it");
        assert_eq!(replication(&federation, &known, 1).acknowledged, "", "the third does not know the first");
        known[1].told = digest(&trust(&known, 1));
        known[2].told = digest(&trust(&known, 2));
        assert_eq!(replication(&federation, &known, 0).acknowledged, digest(&known[0].trust));
    }
}
