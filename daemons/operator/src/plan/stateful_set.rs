//! The StatefulSet of consensus.
//!
//! Pods start together: one after the other, the first would wait for a quorum for ever. Which of them are members, and which one
//! gets another version next, is [`membership`](crate::membership)'s: the set's own order knows nothing of leaders and of data.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{
            PersistentVolumeClaim, PersistentVolumeClaimSpec, PodReadinessGate, PodTemplateSpec, VolumeMount,
            VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{Component, PlanError, Region, Seen, config, jobs, pod, ports};
use crate::api::ClaimPolicy;

/// Condition of a member's pod, set by the operator: the member has a vote and what the others have.
pub const CAUGHT_UP: &str = "novacron.io/consensus-caught-up";
/// The volume, and the first part of its claims' names.
pub(crate) const VOLUME: &str = "data";

pub(super) fn stateful_set(region: &Region<'_>, seen: &Seen) -> Result<StatefulSet, PlanError> {
    let component = Component::Consensus;
    Ok(StatefulSet {
        metadata: region.meta(component, region.name_of(component)),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::from(seen.pods.unwrap_or(region.object.spec.voters))),
            service_name: Some(region.name_of(component)),
            selector: region.label_selector(component),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            persistent_volume_claim_retention_policy: Some(retention(region)),
            template: template(region)?,
            volume_claim_templates: Some(vec![claim(region)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    })
}

/// What is on a volume outlives the set: the finalizer of the region decides.
fn retention(region: &Region<'_>) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_scaled = match region.cluster.storage.claims {
        ClaimPolicy::Keep => "Retain",
        ClaimPolicy::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some("Retain".to_owned()),
        when_scaled: Some(when_scaled.to_owned()),
    }
}

fn template(region: &Region<'_>) -> Result<PodTemplateSpec, PlanError> {
    let component = Component::Consensus;
    let mut container = pod::container(region, component, &region.object.spec.resources.consensus);
    let host = format!("$(POD_NAME).{}", region.headless_host());
    let url = format!("{}://{host}:{}", region.scheme(), ports::CLIENT.number);
    // What a member says that must not take part is how the operator knows of it.
    container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    container.env = Some(vec![
        pod::field_variable("POD_NAME", "metadata.name"),
        pod::variable("NOVACRON_ADVERTISE_CLIENT_URLS", url),
    ]);
    let data = VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: config::DATA_DIR.to_owned(),
        ..VolumeMount::default()
    };
    container.volume_mounts.get_or_insert_default().push(data.clone());
    let mut spec = pod::pod(region, component, container);
    if let Some(restoring) = jobs::restoring(region, data) {
        spec.init_containers = Some(vec![restoring]);
        spec.volumes.get_or_insert_default().push(jobs::scratch());
    }
    spec.readiness_gates = Some(vec![PodReadinessGate { condition_type: CAUGHT_UP.to_owned() }]);
    let strict = !region.cluster.membership.share_nodes;
    let (affinity, spread) = pod::spread(region, component, strict);
    (spec.affinity, spec.topology_spread_constraints) = (Some(affinity), Some(spread));
    Ok(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(region.selector(component)),
            annotations: Some(pod::annotations(config::restart_digest(region, component)?)),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    })
}

fn claim(region: &Region<'_>) -> PersistentVolumeClaim {
    let storage = &region.cluster.storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(VOLUME.to_owned()),
            labels: Some(region.selector(Component::Consensus)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: Some(storage.class_name.clone()).filter(|name| !name.is_empty()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.size.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
