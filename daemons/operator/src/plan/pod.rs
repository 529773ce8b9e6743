//! What pods of all components have in common: security contexts, probes, mounts, resources.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
        EnvVar, EnvVarSource, HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference,
        ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, Probe,
        ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction,
        TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::{
    Component, Holder, Region,
    config::{CONFIG_DIR, CONFIG_FILE, GRACE, REGIONS_TLS_DIR, TLS_DIR},
    ports::{self, Port},
};
use crate::api::PartResources;

/// The user of the images.
const USER: i64 = 65532;
/// Digest of the settings that a pod was started with.
pub(super) const CONFIG_DIGEST: &str = "novacron.io/config-digest";
/// Before SIGTERM, for endpoints to be taken out everywhere.
const PRE_STOP_SECONDS: i64 = 10;
/// Of readiness.
const READINESS_PERIOD_SECONDS: i32 = 10;
/// Of liveness.
const LIVENESS_PERIOD_SECONDS: i32 = 30;
/// Of startup: so many, so often, are 150 s.
const STARTUP_PERIOD_SECONDS: i32 = 5;
const STARTUP_FAILURES: i32 = 30;
const PROBE_TIMEOUT_SECONDS: i32 = 5;
const FAILURES: i32 = 3;
/// Volumes of certificates: a component's own, and the one that is shown to other regions.
pub(super) const TLS: &str = "tls";
const REGIONS_TLS: &str = "regions-tls";
/// Labels of nodes.
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// The pod of a component, but for what only it has.
pub(super) fn pod(region: &Region<'_>, component: Component, container: Container) -> PodSpec {
    let images = &region.cluster.images;
    let secrets = images.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        containers: vec![container],
        service_account_name: Some(region.name_of(component)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..Default::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: Some(secrets.collect()).filter(|all: &Vec<_>| !all.is_empty()),
        node_selector: Some(region.object.spec.node_selector.clone()).filter(|all| !all.is_empty()),
        termination_grace_period_seconds: Some(GRACE.as_secs()),
        volumes: Some(volumes(region, component)),
        ..PodSpec::default()
    }
}

/// The container of a component, but for what only it has.
pub(super) fn container(region: &Region<'_>, component: Component, resources: &PartResources) -> Container {
    let metrics = ports::of(component).find(|port| port.name == "metrics");
    let probe = |path, period, failures| metrics.map(|port| probe(port, path, period, failures));
    Container {
        name: component.as_str().to_owned(),
        image: Some(region.image(component)),
        image_pull_policy: Some(region.cluster.images.pull_policy.as_str().to_owned()),
        args: Some(vec!["--config".to_owned(), format!("{CONFIG_DIR}/{CONFIG_FILE}")]),
        ports: Some(region.ports(component).map(container_port).collect()),
        resources: Some(requirements(resources)),
        startup_probe: probe("/startup", STARTUP_PERIOD_SECONDS, STARTUP_FAILURES),
        readiness_probe: probe("/ready", READINESS_PERIOD_SECONDS, FAILURES),
        liveness_probe: probe("/healthz", LIVENESS_PERIOD_SECONDS, FAILURES),
        security_context: Some(restricted()),
        volume_mounts: Some(mounts(region, component)),
        ..Container::default()
    }
}

pub(super) fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Waits before SIGTERM, in the kubelet: the images have no shell.
pub(super) fn pre_stop() -> Lifecycle {
    Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction { seconds: PRE_STOP_SECONDS }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

fn probe(port: Port, path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.name.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(PROBE_TIMEOUT_SECONDS),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn container_port(port: Port) -> ContainerPort {
    ContainerPort {
        name: Some(port.name.to_owned()),
        container_port: i32::from(port.number),
        protocol: Some(port.protocol.as_str().to_owned()),
        ..ContainerPort::default()
    }
}

pub(super) fn requirements(resources: &PartResources) -> ResourceRequirements {
    let quantities = |of: &crate::api::Quantities| {
        let all = [("cpu", &of.cpu), ("memory", &of.memory)];
        Some(all.map(|(name, value)| (name.to_owned(), Quantity(value.clone()))).into_iter().collect())
    };
    ResourceRequirements {
        requests: quantities(&resources.requests),
        limits: quantities(&resources.limits),
        ..ResourceRequirements::default()
    }
}

fn volumes(region: &Region<'_>, component: Component) -> Vec<Volume> {
    let config = Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: region.name_of(component), ..Default::default() }),
        ..Volume::default()
    };
    let tls = region.tls_secret(Holder::Component(component)).map(|secret| tls_volume(TLS, secret));
    let between = region.shows_regions(component).then(|| region.tls_secret(Holder::Regions)).flatten();
    let between = between.map(|secret| tls_volume(REGIONS_TLS, secret));
    [config].into_iter().chain(tls).chain(between).collect()
}

/// A Secret with a certificate.
pub(super) fn tls_volume(name: &str, secret: String) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..Default::default()
        }),
        ..Volume::default()
    }
}

/// A volume that is only read.
pub(super) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn mounts(region: &Region<'_>, component: Component) -> Vec<VolumeMount> {
    let tls = region.has_tls().then(|| mount(TLS, TLS_DIR));
    let between = region.shows_regions(component).then(|| mount(REGIONS_TLS, REGIONS_TLS_DIR));
    [mount("config", CONFIG_DIR)].into_iter().chain(tls).chain(between).collect()
}

/// An empty folder that goes with the pod.
pub(super) fn scratch(name: &str, bytes_max: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(bytes_max.to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A variable with a value.
pub(super) fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() }
}

/// A variable with what the pod's own object says.
pub(super) fn field_variable(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), api_version: None };
    let from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(from), ..EnvVar::default() }
}

/// As even as can be over zones; not two on a node, where `strict`.
pub(super) fn spread(
    region: &Region<'_>,
    component: Component,
    strict: bool,
) -> (Affinity, Vec<TopologySpreadConstraint>) {
    let term = |topology_key: &str| PodAffinityTerm {
        label_selector: Some(region.label_selector(component)),
        topology_key: topology_key.to_owned(),
        ..PodAffinityTerm::default()
    };
    let weighted = |weight, key| WeightedPodAffinityTerm { weight, pod_affinity_term: term(key) };
    let preferred = if strict { vec![weighted(100, ZONE)] } else { vec![weighted(100, HOST)] };
    let affinity = Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: strict.then(|| vec![term(HOST)]),
            preferred_during_scheduling_ignored_during_execution: Some(preferred),
        }),
        ..Affinity::default()
    };
    let constraint = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: ZONE.to_owned(),
        // A zone that is lost must not keep the others from getting its pods.
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(region.label_selector(component)),
        ..TopologySpreadConstraint::default()
    };
    (affinity, vec![constraint])
}

/// The annotation by which a change of settings makes other pods.
pub(super) fn annotations(digest: String) -> BTreeMap<String, String> {
    BTreeMap::from([(CONFIG_DIGEST.to_owned(), digest)])
}
