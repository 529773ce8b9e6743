//! The kinds that are applied, and looked through for what goes: a closed list.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, api::DynamicObject, core::ApiResource};

use super::ApplyError;
use crate::{api::NovaCronRegion, plan};

/// A kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Where the API server has it.
    pub resource: ApiResource,
    /// It is not part of Kubernetes, so that an API server may not know it.
    pub is_foreign: bool,
}

fn own<K: Resource<DynamicType = ()>>() -> Kind {
    Kind { resource: ApiResource::erase::<K>(&()), is_foreign: false }
}

fn service_monitor() -> Kind {
    Kind { resource: plan::service_monitor_kind(), is_foreign: true }
}

/// All of them. Regions are a cluster's; everything else is a region's.
pub const KINDS: [fn() -> Kind; 13] = [
    own::<ServiceAccount>,
    own::<ConfigMap>,
    own::<Service>,
    own::<NetworkPolicy>,
    own::<PodDisruptionBudget>,
    own::<StatefulSet>,
    own::<Deployment>,
    own::<DaemonSet>,
    own::<HorizontalPodAutoscaler>,
    own::<CronJob>,
    own::<Job>,
    service_monitor,
    own::<NovaCronRegion>,
];

/// The kind of an object.
///
/// # Errors
/// It is none of [`KINDS`].
pub fn kind_of(object: &DynamicObject) -> Result<Kind, ApplyError> {
    let types = object.types.clone().unwrap_or_default();
    let is = |kind: &Kind| kind.resource.kind == types.kind && kind.resource.api_version == types.api_version;
    let found = KINDS.iter().map(|kind| kind()).find(is);
    found.ok_or(ApplyError::Kind { api_version: types.api_version, kind: types.kind })
}
