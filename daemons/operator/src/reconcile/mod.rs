//! From an object that may have changed to a cluster that is as it says: read, decide, build, apply, tell.
//!
//! A cluster makes its regions, a region makes everything that runs in it. Each reconciliation begins from what is there, so that
//! it does not matter which ones before it came to their end. Deliberately not here: what is decided
//! ([`membership`](crate::membership), [`rollout`]) and built ([`plan`](crate::plan)).

mod certificates;
mod cleanup;
mod cluster;
mod federation;
mod observe;
mod region;
mod restore;
pub mod rollout;
mod run;
mod tell;
mod watches;

use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ObjectMeta,
    core::ApiResource,
    runtime::{controller::Action, events::Recorder},
};

use crate::{
    api::{ClusterRef, NovaCronCluster, NovaCronRegion, PAUSED, RegionSpec, RegionTemplate},
    apply::{Applier, ApplyError, failed},
    federation::clusters::Clusters,
    plan::{FIELD_MANAGER, INSTANCE, MANAGED_BY},
    store::Stores,
};
pub use certificates::authority_secret;
pub use cluster::reconcile_cluster;
pub use federation::reconcile_federation;
pub use region::reconcile_region;
pub use run::{Scope, Stop, run};
pub use watches::WATCH_SECONDS;

/// Until the next look at what is done: what nothing told about is found then.
const RESYNC: Duration = Duration::from_secs(60);
/// Until the next look at what is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Until the next step.
const STEP_ON: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// How long an answer about which kinds there are is good for.
const KINDS_KNOWN: Duration = Duration::from_secs(60);

/// Why a reconciliation did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// Reading or writing an object.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// An object without a name or a namespace.
    #[error("an object without a name or a namespace")]
    Unnamed,
}

impl ReconcileError {
    /// In which part, for metrics.
    fn stage(&self) -> &'static str {
        match self {
            Self::Apply(ApplyError::NotHeld(_)) => "fence",
            Self::Apply(ApplyError::Api { verb: "get" | "list", .. }) => "read",
            Self::Apply(_) => "apply",
            Self::Unnamed => "read",
        }
    }
}

/// What reconciliations share.
pub struct Context {
    applier: Applier,
    stores: Arc<dyn Stores>,
    recorder: Recorder,
    clusters: Arc<dyn Clusters>,
    /// Whether there are ServiceMonitors, and since when that is known.
    service_monitors: Mutex<Option<(bool, Instant)>>,
}

impl Context {
    /// Asks stores by `stores`, other clusters by `clusters`, and everything else by the applier's client.
    pub fn new(
        applier: Applier,
        stores: Arc<dyn Stores>,
        clusters: Arc<dyn Clusters>,
        recorder: Recorder,
    ) -> Self {
        Self { applier, stores, recorder, clusters, service_monitors: Mutex::default() }
    }

    fn client(&self) -> Client {
        self.applier.client().clone()
    }

    /// An object as the API server has it, whatever a watch has said of it, which may be old: its status is what the next step rests on.
    /// `None`: it is gone, or another has its name.
    async fn as_it_is<K>(&self, watched: &K) -> Result<Option<K>, ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let namespace = watched.meta().namespace.clone().ok_or(ReconcileError::Unnamed)?;
        let (api, name) = (Api::<K>::namespaced(self.client(), &namespace), watched.name_any());
        let found = api.get_opt(&name).await.map_err(failed("get", &ApiResource::erase::<K>(&()), &name))?;
        Ok(found.filter(|found| found.meta().uid == watched.meta().uid))
    }

    /// Whether the API server knows ServiceMonitors. If it does not say, as before.
    async fn has_service_monitors(&self) -> bool {
        let known = *self.service_monitors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((has, at)) = known
            && at.elapsed() < KINDS_KNOWN
        {
            return has;
        }
        let has = match self.client().list_api_group_resources("monitoring.coreos.com/v1").await {
            Ok(list) => list.resources.iter().any(|resource| resource.kind == "ServiceMonitor"),
            Err(kube::Error::Api(status)) if status.code == 404 => false,
            Err(error) => {
                tracing::warn!(%error, "asking for ServiceMonitors");
                known.is_some_and(|(has, _)| has)
            }
        };
        *self.service_monitors.lock().unwrap_or_else(PoisonError::into_inner) = Some((has, Instant::now()));
        has
    }
}

/// Whether somebody wants an object to be left as it is.
fn is_paused(object: &impl ResourceExt) -> bool {
    object.annotations().get(PAUSED).is_some_and(|value| value == "true")
}

/// After an error: said, counted, tried again.
fn again(controller: &'static str, name: &str, error: &ReconcileError) -> Action {
    metrics::counter!("reconcile_errors_total", "stage" => error.stage()).increment(1);
    tracing::warn!(controller, object = name, %error, "not reconciled");
    Action::requeue(RETRY)
}

/// The object of a region, as its cluster makes it.
pub fn region_of(
    cluster: &NovaCronCluster,
    template: &RegionTemplate,
    version: Option<String>,
) -> NovaCronRegion {
    let name = cluster.name_any();
    let spec = RegionSpec {
        cluster_ref: ClusterRef { name: name.clone() },
        region: template.name.clone(),
        version,
        voters: template.voters,
        api: template.api.clone(),
        resources: template.resources.clone(),
        node_selector: template.node_selector.clone(),
    };
    let labels = [(MANAGED_BY, FIELD_MANAGER), (INSTANCE, &name), ("app.kubernetes.io/part-of", "novacron")];
    let mut region = NovaCronRegion::new(&format!("{name}-{}", template.name), spec);
    region.metadata = ObjectMeta {
        namespace: cluster.namespace(),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
        owner_references: kube::Resource::controller_owner_ref(cluster, &()).map(|owner| vec![owner]),
        ..region.metadata
    };
    region
}
