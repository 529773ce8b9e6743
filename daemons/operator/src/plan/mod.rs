//! From a region and its cluster to the objects that are to be there. A function: nothing is read or written.
//!
//! One file an object kind. Deliberately not here: how objects get to the server ([`apply`](crate::apply)), and how many
//! members there are at a moment, which [`membership`](crate::membership) decides and hands in.

mod account;
mod autoscaler;
mod certificates;
mod config;
mod config_map;
mod daemon_set;
mod deployment;
mod disruption;
mod invalid;
mod jobs;
mod network_policy;
mod pod;
pub mod ports;
mod regions;
pub mod role;
#[doc(hidden)]
pub mod sample;
mod service;
mod service_monitor;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _, api::DynamicObject, core::TypeMeta};
use serde::Serialize;

use crate::api::{ClusterSpec, NovaCronCluster, NovaCronRegion, RestoreStatus};
pub use certificates::Holder;
pub use config::{Config, digest, restart_digest};
pub use invalid::PlanError;
pub use ports::Component;
pub(crate) use service_monitor::kind as service_monitor_kind;
pub use stateful_set::CAUGHT_UP;

/// What the operator calls itself where fields are owned.
pub const FIELD_MANAGER: &str = "novacron-operator";
/// Label of every object whose spec is this operator's, and its value.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of every object of a region: the NovaCronRegion's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label of pods: which program.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// What the plan has to know of what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many pods the StatefulSet is to have now. `None`: it begins with all voters.
    pub pods: Option<u16>,
    /// How many members the store began with, if it has begun.
    pub bootstrapped: Option<u16>,
    /// The API server knows ServiceMonitors.
    pub service_monitors: bool,
    /// What the region is restored from, once that is known.
    pub restore: Option<RestoreStatus>,
}

/// A region with the parts of its cluster that are about it.
#[derive(Clone, Debug)]
pub struct Region<'a> {
    /// The region.
    pub object: &'a NovaCronRegion,
    /// What the cluster says.
    pub cluster: &'a ClusterSpec,
    /// The region's namespace.
    pub namespace: String,
    /// The name of the NovaCronRegion, with which every object's name begins.
    pub name: String,
    /// The version that is to run.
    pub version: String,
}

impl<'a> Region<'a> {
    /// Checks what cannot be done.
    ///
    /// # Errors
    /// Which field has what it cannot have.
    pub fn new(object: &'a NovaCronRegion, cluster: &'a NovaCronCluster) -> Result<Self, PlanError> {
        invalid::check(&object.spec, &cluster.spec)?;
        Ok(Self {
            object,
            cluster: &cluster.spec,
            namespace: object.namespace().ok_or(PlanError::NoNamespace)?,
            name: object.name_any(),
            version: object.spec.version.clone().unwrap_or_else(|| cluster.spec.version.clone()),
        })
    }

    /// `REGION-COMPONENT`.
    pub fn name_of(&self, component: Component) -> String {
        format!("{}-{}", self.name, component.as_str())
    }

    /// The pod of a member.
    pub fn member(&self, ordinal: u16) -> String {
        format!("{}-{ordinal}", self.name_of(Component::Consensus))
    }

    /// How a member is found by its pod's name.
    pub fn member_host(&self, ordinal: u16) -> String {
        format!("{}.{}", self.member(ordinal), self.headless_host())
    }

    /// The name that all members' addresses are found by, ready or not.
    pub fn headless_host(&self) -> String {
        self.service_host(&self.name_of(Component::Consensus))
    }

    /// The name of a Service as it is found from everywhere.
    pub fn service_host(&self, service: &str) -> String {
        format!("{service}.{}.svc.{}", self.namespace, self.cluster.networking.cluster_domain)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.has_tls() { "https" } else { "http" }
    }

    fn image(&self, component: Component) -> String {
        format!("{}/{}:{}", self.cluster.images.registry, component.as_str(), self.version)
    }

    /// By these a component's pods are found; they never change.
    pub fn selector(&self, component: Component) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", format!("novacron-{}", component.as_str())),
            (INSTANCE, self.name.clone()),
            (COMPONENT, component.as_str().to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    fn label_selector(&self, component: Component) -> LabelSelector {
        LabelSelector { match_labels: Some(self.selector(component)), ..LabelSelector::default() }
    }

    /// Of an object; the version is none of a pod's: it would be another pod for each.
    fn labels(&self, component: Component) -> BTreeMap<String, String> {
        let mut labels = self.selector(component);
        labels.insert("app.kubernetes.io/part-of".to_owned(), "novacron".to_owned());
        labels.insert("app.kubernetes.io/version".to_owned(), self.version.clone());
        labels.insert(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned());
        labels
    }

    fn meta(&self, component: Component, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels(component)),
            owner_references: self.owner().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    fn owner(&self) -> Option<OwnerReference> {
        self.object.controller_owner_ref(&())
    }
}

/// Every object that is to be there, in the order in which they are made.
///
/// # Errors
/// See [`Region::new`].
pub fn plan(
    object: &NovaCronRegion,
    cluster: &NovaCronCluster,
    seen: &Seen,
) -> Result<Vec<DynamicObject>, PlanError> {
    let region = Region::new(object, cluster)?;
    let mut objects = Objects::default();
    let components = || Component::OF_REGION.into_iter().filter(|component| region.runs(*component));
    let storage = &region.cluster.storage;
    if storage.backup.is_some() || storage.restore.is_some() {
        objects.push(&account::account(&region, Component::Backup))?;
    }
    for job in jobs::restore_jobs(&region, seen) {
        objects.push(&job)?;
    }
    if region.waits_for_backup(seen) {
        return Ok(objects.all);
    }
    for component in components() {
        objects.push(&account::account(&region, component))?;
    }
    for component in components() {
        objects.push(&config_map::config_map(&region, component, seen)?)?;
    }
    for service in service::services(&region) {
        objects.push(&service)?;
    }
    for policy in network_policy::policies(&region) {
        objects.push(&policy)?;
    }
    for budget in disruption::budgets(&region) {
        objects.push(&budget)?;
    }
    objects.push(&stateful_set::stateful_set(&region, seen)?)?;
    objects.push(&deployment::deployment(&region)?)?;
    if region.runs(Component::Dwcp) {
        objects.push(&daemon_set::daemon_set(&region)?)?;
    }
    if let Some(autoscaler) = autoscaler::autoscaler(&region) {
        objects.push(&autoscaler)?;
    }
    for job in jobs::cron_jobs(&region) {
        objects.push(&job)?;
    }
    if seen.service_monitors && region.cluster.monitoring.service_monitors {
        objects.all.extend(components().map(|component| service_monitor::monitor(&region, component)));
    }
    Ok(objects.all)
}

impl Region<'_> {
    fn runs(&self, component: Component) -> bool {
        component != Component::Dwcp || self.cluster.agent.enabled
    }
}

/// Objects, as they are applied.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) all: Vec<DynamicObject>,
}

impl Objects {
    pub(crate) fn push<K: kube::Resource<DynamicType = ()> + Serialize>(
        &mut self,
        object: &K,
    ) -> Result<(), PlanError> {
        let mut value = serde_json::to_value(object).map_err(|source| PlanError::NoJson { source })?;
        if let Some(fields) = value.as_object_mut() {
            // The server's to write.
            fields.remove("status");
        }
        let mut object: DynamicObject =
            serde_json::from_value(value).map_err(|source| PlanError::NoJson { source })?;
        object.types = Some(TypeMeta::resource::<K>());
        self.all.push(object);
        Ok(())
    }
}
