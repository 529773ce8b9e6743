//! A cluster: its regions, which version each of them runs, and how all of them are.

use std::{sync::Arc, time::Instant};

use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams},
    core::{ApiResource, DeserializeGuard, TypeMeta},
    runtime::controller::Action,
};

use super::{
    Context, LOOK_AGAIN, RESYNC, ReconcileError, certificates, cleanup, is_paused, region_of,
    rollout::{Place, rollout},
    tell::Told,
};
use crate::{
    api::{
        AuthorityStatus, ClusterStatus, FINALIZER, NovaCronCluster, NovaCronRegion, Reason, RegionSummary,
    },
    apply::{ApplyError, Owner, failed},
};

/// Brings a cluster nearer to what it is to be.
///
/// # Errors
/// What could not be read or written; the next attempt begins anew.
pub async fn reconcile_cluster(
    object: Arc<DeserializeGuard<NovaCronCluster>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let done = match context.as_it_is(&*object).await {
        Ok(Some(DeserializeGuard(Ok(cluster)))) => reconcile(&cluster, &context).await,
        Ok(Some(DeserializeGuard(Err(invalid)))) => context.refuse::<NovaCronCluster>(&invalid).await,
        Ok(None) => Ok(Action::await_change()),
        Err(error) => Err(error),
    };
    metrics::histogram!("reconcile_duration_seconds", "controller" => "cluster").record(began.elapsed());
    done
}

async fn reconcile(object: &NovaCronCluster, context: &Context) -> Result<Action, ReconcileError> {
    let namespace = object.namespace().ok_or(ReconcileError::Unnamed)?;
    let api = Api::<NovaCronCluster>::namespaced(context.client(), &namespace);
    if object.metadata.deletion_timestamp.is_some() {
        return cleanup::cluster(context, &api, object).await;
    }
    let mut status = object.status.clone().unwrap_or_default();
    if is_paused(object) {
        let told = Told::new(
            Reason::Paused,
            "nothing is changed while the annotation novacron.io/paused is \"true\"",
        );
        return context.tell_cluster(&api, object, status, &told).await;
    }
    if cleanup::add_finalizer(context, &api, object, FINALIZER).await? {
        return Ok(Action::await_change());
    }
    match certificates::authorities(context, object).await? {
        Ok(authority) => status.authority = authority,
        Err(why) => {
            let told = Told::new(Reason::SecretMissing, why);
            return context.tell_cluster(&api, object, status, &told).await;
        }
    }
    let regions = Api::<NovaCronRegion>::namespaced(context.client(), &namespace);
    let resource = ApiResource::erase::<NovaCronRegion>(&());
    let found = regions.list(&ListParams::default()).await.map_err(failed("list", &resource, &namespace))?;
    let found: Vec<_> =
        found.into_iter().filter(|region| region.spec.cluster_ref.name == object.name_any()).collect();
    // As they are now: one that has just been told something else is not ready, whatever it was before.
    let regions = match write(context, object, &namespace, &found).await {
        Ok(regions) => regions,
        Err(error) if error.is_refused() => {
            let told = Told::new(Reason::ApplyFailed, error.to_string());
            return context.tell_cluster(&api, object, status, &told).await;
        }
        Err(error) => return Err(error.into()),
    };
    status.regions = object.spec.regions.iter().map(|template| summary(&template.name, &regions)).collect();
    let told = told(object, &mut status);
    context.tell_cluster(&api, object, status, &told).await
}

/// Makes the regions, each with the version that it may run. Gives them as they are then.
async fn write(
    context: &Context,
    cluster: &NovaCronCluster,
    namespace: &str,
    found: &[NovaCronRegion],
) -> Result<Vec<NovaCronRegion>, ApplyError> {
    let of = |name: &str| found.iter().find(|region| region.spec.region == name);
    let places = cluster.spec.regions.iter().map(|template| {
        let region = of(&template.name);
        Place {
            name: template.name.clone(),
            priority: template.priority,
            told: region.and_then(|region| region.spec.version.clone()),
            runs: region.and_then(|region| region.status.as_ref()?.version.clone()),
            is_ready: region.is_some_and(is_ready),
        }
    });
    let versions = rollout(places.collect(), &cluster.spec.version);
    let (mut planned, mut written) = (Vec::new(), Vec::new());
    for template in &cluster.spec.regions {
        let region = region_of(cluster, template, versions.get(&template.name).cloned());
        let unknown = || ApplyError::Kind {
            api_version: "novacron.io/v1alpha1".to_owned(),
            kind: "NovaCronRegion".to_owned(),
        };
        let object = dynamic(&region).map_err(|_| unknown())?;
        let applied = context.applier.apply(&object).await?;
        written.push(applied.try_parse().map_err(|_| unknown())?);
        planned.push(object);
    }
    let uid = cluster.uid().unwrap_or_default();
    let name = cluster.name_any();
    let owner = Owner { namespace, instance: &name, uid: &uid };
    context.applier.prune(owner, &planned, |kind| kind.resource.kind == "NovaCronRegion").await?;
    Ok(written)
}

fn dynamic(region: &NovaCronRegion) -> Result<DynamicObject, serde_json::Error> {
    let mut object: DynamicObject = serde_json::from_value(serde_json::to_value(region)?)?;
    object.types = Some(TypeMeta::resource::<NovaCronRegion>());
    if let Some(fields) = object.data.as_object_mut() {
        fields.remove("status");
    }
    Ok(object)
}

/// Its last word is about the spec that it has now, and good.
fn is_ready(region: &NovaCronRegion) -> bool {
    region.status.as_ref().is_some_and(|status| {
        status.observed_generation == region.metadata.generation
            && status
                .conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

fn summary(name: &str, found: &[NovaCronRegion]) -> RegionSummary {
    let region = found.iter().find(|region| region.spec.region == name);
    let status = region.and_then(|region| region.status.as_ref());
    let ready =
        status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == "Ready"));
    RegionSummary {
        name: name.to_owned(),
        version: status.and_then(|status| status.version.clone()),
        ready: region.is_some_and(is_ready),
        reason: ready.map_or_else(|| Reason::Bootstrapping.to_string(), |ready| ready.reason.clone()),
    }
}

fn told(cluster: &NovaCronCluster, status: &mut ClusterStatus) -> Told {
    let wanted = &cluster.spec.version;
    let ready = status.regions.iter().filter(|region| region.ready).count();
    status.regions_ready = Some(format!("{ready}/{}", status.regions.len()));
    let rolled_out = status.regions.iter().all(|region| region.version.as_ref() == Some(wanted));
    if rolled_out {
        status.version = Some(wanted.clone());
    }
    match status.regions.iter().find(|region| !region.ready) {
        None if rolled_out => Told::new(Reason::AsSpecified, format!("{ready} regions are ready")),
        None => Told::new(Reason::RollingOut, format!("not all regions run {wanted} yet")),
        Some(region) => {
            let known = Reason::ALL.iter().find(|reason| reason.as_str() == region.reason).copied();
            let reason =
                known.filter(|reason| *reason != Reason::AsSpecified).unwrap_or(Reason::PodsNotReady);
            Told::new(reason, format!("region {} is not ready: {reason}", region.name))
        }
    }
}

impl Context {
    async fn tell_cluster(
        &self,
        api: &Api<NovaCronCluster>,
        object: &NovaCronCluster,
        mut status: ClusterStatus,
        told: &Told,
    ) -> Result<Action, ReconcileError> {
        let changed = told.set(&mut status.conditions, object.metadata.generation);
        status.observed_generation = object.metadata.generation;
        if object.status.as_ref() != Some(&status) {
            self.write_status(api, object, &status).await?;
        }
        if changed {
            self.event(object, told, "Reconcile").await;
        }
        // What other authorities wait for is in Secrets, which are not watched.
        let changes = |authority: &AuthorityStatus| authority.next.is_some() || authority.former.is_some();
        let waits = told.reason != Reason::AsSpecified || status.authority.as_ref().is_some_and(changes);
        Ok(Action::requeue(if waits { LOOK_AGAIN } else { RESYNC }))
    }
}
