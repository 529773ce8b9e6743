//! Services: the headless one of the members, which finds those that are not ready too; the store's clients'; the API's; the agents',
//! which is headless and finds their nodes.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Component, Region, ports, ports::Port};

pub(super) fn services(region: &Region<'_>) -> Vec<Service> {
    let mut all = vec![members(region), clients(region), api(region)];
    all.extend(region.runs(Component::Dwcp).then(|| agents(region)));
    all
}

fn service(region: &Region<'_>, component: Component, name: String, ports: Vec<Port>) -> Service {
    Service {
        metadata: region.meta(component, name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(region.selector(component)),
            ports: Some(ports.into_iter().map(service_port).collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn headless(mut service: Service) -> Service {
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".to_owned());
        // Members have to find each other to become ready.
        spec.publish_not_ready_addresses = Some(true);
    }
    service
}

fn members(region: &Region<'_>) -> Service {
    let name = region.name_of(Component::Consensus);
    headless(service(region, Component::Consensus, name, region.ports(Component::Consensus).collect()))
}

fn clients(region: &Region<'_>) -> Service {
    let name = format!("{}-client", region.name_of(Component::Consensus));
    service(region, Component::Consensus, name, vec![ports::CLIENT])
}

fn api(region: &Region<'_>) -> Service {
    let mut made = service(region, Component::Api, region.name_of(Component::Api), vec![ports::API]);
    if let Some(spec) = &mut made.spec {
        spec.type_ = Some(region.cluster.networking.api_service.as_str().to_owned());
    }
    made
}

fn agents(region: &Region<'_>) -> Service {
    let name = region.name_of(Component::Dwcp);
    headless(service(region, Component::Dwcp, name, region.ports(Component::Dwcp).collect()))
}

fn service_port(port: Port) -> ServicePort {
    ServicePort {
        name: Some(port.name.to_owned()),
        port: i32::from(port.number),
        protocol: Some(port.protocol.as_str().to_owned()),
        target_port: Some(IntOrString::String(port.name.to_owned())),
        ..ServicePort::default()
    }
}
