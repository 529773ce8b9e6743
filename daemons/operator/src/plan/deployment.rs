//! The Deployment of the API.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{PodTemplateSpec, VolumeMount},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{Component, PlanError, Region, config, pod};

/// Records of changes, where no database is named.
const SCRATCH_BYTES_MAX: &str = "1Gi";
const REVISIONS_KEPT: i32 = 5;

pub(super) fn deployment(region: &Region<'_>) -> Result<Deployment, PlanError> {
    let component = Component::Api;
    let api = &region.object.spec.api;
    let mut container = pod::container(region, component, &region.object.spec.resources.api);
    container.lifecycle = Some(pod::pre_stop());
    container.env = Some(vec![pod::field_variable("NOVACRON_REPLICA", "metadata.name")]);
    container.volume_mounts.get_or_insert_default().push(VolumeMount {
        name: "data".to_owned(),
        mount_path: config::DATA_DIR.to_owned(),
        ..VolumeMount::default()
    });
    let mut spec = pod::pod(region, component, container);
    spec.volumes.get_or_insert_default().push(pod::scratch("data", SCRATCH_BYTES_MAX));
    let (affinity, spread) = pod::spread(region, component, false);
    (spec.affinity, spec.topology_spread_constraints) = (Some(affinity), Some(spread));
    Ok(Deployment {
        metadata: region.meta(component, region.name_of(component)),
        spec: Some(DeploymentSpec {
            // The autoscaler's, where there is one: who writes it as well fights with it.
            replicas: (!api.autoscaling).then(|| i32::from(api.min)),
            revision_history_limit: Some(REVISIONS_KEPT),
            selector: region.label_selector(component),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(region.selector(component)),
                    annotations: Some(pod::annotations(config::restart_digest(region, component)?)),
                    ..ObjectMeta::default()
                }),
                spec: Some(spec),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    })
}
