//! The kinds that are applied, and looked through for what goes: closed lists.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, api::DynamicObject, core::ApiResource};

use super::ApplyError;
use crate::{
    api::{NovaCronCluster, NovaCronRegion},
    federation::plan::dns_kind,
    plan,
};

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

fn dns_endpoint() -> Kind {
    Kind { resource: dns_kind(), is_foreign: true }
}

/// What a federation has in another cluster, the last one first.
pub const FEDERATED: [fn() -> Kind; 3] = [own::<EndpointSlice>, own::<Service>, own::<NovaCronCluster>];
/// What a federation has where it is.
pub const RECORDS: [fn() -> Kind; 1] = [dns_endpoint];

/// The kind of an object.
///
/// # Errors
/// It is none of [`KINDS`], [`FEDERATED`] and [`RECORDS`].
pub fn kind_of(object: &DynamicObject) -> Result<Kind, ApplyError> {
    let types = object.types.clone().unwrap_or_default();
    let is = |kind: &Kind| kind.resource.kind == types.kind && kind.resource.api_version == types.api_version;
    let found = KINDS.iter().chain(&FEDERATED).chain(&RECORDS).map(|kind| kind()).find(is);
    found.ok_or(ApplyError::Kind { api_version: types.api_version, kind: types.kind })
}
