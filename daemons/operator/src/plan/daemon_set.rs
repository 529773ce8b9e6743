//! The DaemonSet of agents, which are in their nodes' networks.
//!
//! They are not privileged. Capabilities of a container's process are only in force for root, so that is what an agent is, with
//! the few of root's that it needs and without the rest.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
        core::v1::{Capabilities, HostPathVolumeSource, PodTemplateSpec, Toleration, Volume, VolumeMount},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{
    Component, PlanError, Region,
    config::{self, AGENT_DATA_DIR, AGENT_RUN_DIR},
    pod, ports,
};

/// XDP, sockets of it, interfaces, and memory that stays where it is for RDMA.
const CAPABILITIES: [&str; 5] = ["BPF", "IPC_LOCK", "NET_ADMIN", "NET_RAW", "PERFMON"];
/// Where XDP's programs are kept over restarts.
const BPF_DIR: &str = "/sys/fs/bpf";

pub(super) fn daemon_set(region: &Region<'_>) -> Result<DaemonSet, PlanError> {
    let component = Component::Dwcp;
    Ok(DaemonSet {
        metadata: region.meta(component, region.name_of(component)),
        spec: Some(DaemonSetSpec {
            selector: region.label_selector(component),
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    // The port is the node's: two agents cannot be there at a time.
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            template: template(region)?,
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    })
}

fn template(region: &Region<'_>) -> Result<PodTemplateSpec, PlanError> {
    let component = Component::Dwcp;
    let mut container = pod::container(region, component, &region.object.spec.resources.dwcp);
    container.env = Some(vec![
        pod::field_variable("HOST_IP", "status.hostIP"),
        pod::field_variable("NOVACRON_NODE_ID", "spec.nodeName"),
        pod::variable("NOVACRON_DISCOVERY_ADVERTISE", format!("$(HOST_IP):{}", ports::DWCP.number)),
    ]);
    if let Some(context) = &mut container.security_context {
        let add = CAPABILITIES.map(str::to_owned).to_vec();
        context.capabilities = Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: Some(add) });
        (context.run_as_non_root, context.run_as_user) = (Some(false), Some(0));
    }
    for port in container.ports.iter_mut().flatten() {
        port.host_port = Some(port.container_port);
    }
    let folders = [("data", AGENT_DATA_DIR), ("run", AGENT_RUN_DIR)];
    let folders = folders
        .into_iter()
        .chain((!region.cluster.agent.xdp_interfaces.is_empty()).then_some(("bpf", BPF_DIR)));
    let mut spec = pod::pod(region, component, container);
    for (name, path) in folders {
        spec.volumes.get_or_insert_default().push(host_folder(name, path));
        for container in &mut spec.containers {
            container.volume_mounts.get_or_insert_default().push(VolumeMount {
                name: name.to_owned(),
                mount_path: path.to_owned(),
                ..VolumeMount::default()
            });
        }
    }
    (spec.host_network, spec.dns_policy) = (Some(true), Some("ClusterFirstWithHostNet".to_owned()));
    spec.priority_class_name = Some("system-node-critical".to_owned());
    spec.tolerations =
        Some(vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }]);
    Ok(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(region.selector(component)),
            annotations: Some(pod::annotations(config::restart_digest(region, component)?)),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    })
}

fn host_folder(name: &str, path: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    }
}
