//! The end of an object: its finalizer keeps it until what has to be in order is done.
//!
//! A cluster waits for its regions. A region waits for its members' pods, which must not run when their volumes go, and then
//! deletes the claims of these, or keeps them, as the policy says; without a cluster that says so, it keeps them. Everything else
//! goes with its owner.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::ApiResource,
    runtime::controller::Action,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Context, LOOK_AGAIN, ReconcileError, STEP_ON, region::consensus_of, tell::Told};
use crate::{
    api::{ClaimPolicy, FINALIZER, NovaCronCluster, NovaCronRegion, Reason},
    apply::{ApplyError, failed},
    plan::{COMPONENT, Component, INSTANCE},
};

/// Has the object wait for its end; whether that had to be written.
pub(super) async fn add_finalizer<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    finalizer: &str,
) -> Result<bool, ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if object.finalizers().iter().any(|other| other == finalizer) {
        return Ok(false);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    set_finalizers(context, api, object, finalizers).await?;
    Ok(true)
}

pub(super) async fn remove_finalizer<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
) -> Result<Action, ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let kept = object.finalizers().iter().filter(|other| *other != FINALIZER).cloned().collect();
    set_finalizers(context, api, object, kept).await?;
    Ok(Action::await_change())
}

/// With the version that was read: another's finalizer is not lost.
async fn set_finalizers<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    finalizers: Vec<String>,
) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    context.applier.fence().check().map_err(ApplyError::from)?;
    let patch =
        json!({ "metadata": { "finalizers": finalizers, "resourceVersion": object.resource_version() } });
    let patched = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed("patch", &ApiResource::erase::<K>(&()), &object.name_any())(error).into()),
    }
}

/// Ends a region, as far as it can be ended now.
pub(super) async fn region(
    context: &Context,
    api: &Api<NovaCronRegion>,
    object: &NovaCronRegion,
    cluster: Option<&NovaCronCluster>,
) -> Result<Action, ReconcileError> {
    if !object.finalizers().iter().any(|other| other == FINALIZER) {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().ok_or(ReconcileError::Unnamed)?;
    let selector = format!("{INSTANCE}={},{COMPONENT}={}", object.name_any(), Component::Consensus.as_str());
    let of_region = ListParams::default().labels(&selector);
    let sets = Api::<StatefulSet>::namespaced(context.client(), &namespace);
    delete(context, &sets, &consensus_of(object)).await?;
    let pods = Api::<Pod>::namespaced(context.client(), &namespace);
    let running =
        pods.list(&of_region).await.map_err(failed("list", &ApiResource::erase::<Pod>(&()), &selector))?;
    if !running.items.is_empty() {
        return Ok(Action::requeue(STEP_ON));
    }
    let policy = cluster.map_or(ClaimPolicy::Keep, |cluster| cluster.spec.storage.claims);
    if policy == ClaimPolicy::Delete {
        let claims = Api::<PersistentVolumeClaim>::namespaced(context.client(), &namespace);
        let resource = ApiResource::erase::<PersistentVolumeClaim>(&());
        for claim in claims.list(&of_region).await.map_err(failed("list", &resource, &selector))? {
            delete(context, &claims, &claim.name_any()).await?;
        }
    }
    let kept = if policy == ClaimPolicy::Keep { "are kept" } else { "are deleted" };
    context
        .event(
            object,
            &Told::new(Reason::Deleting, format!("members are gone, and their volumes {kept}")),
            "Delete",
        )
        .await;
    remove_finalizer(context, api, object).await
}

/// Ends a cluster, once its regions have ended.
pub(super) async fn cluster(
    context: &Context,
    api: &Api<NovaCronCluster>,
    object: &NovaCronCluster,
) -> Result<Action, ReconcileError> {
    if !object.finalizers().iter().any(|other| other == FINALIZER) {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().ok_or(ReconcileError::Unnamed)?;
    let regions = Api::<NovaCronRegion>::namespaced(context.client(), &namespace);
    let resource = ApiResource::erase::<NovaCronRegion>(&());
    let all = regions.list(&ListParams::default()).await.map_err(failed("list", &resource, &namespace))?;
    // Also those that somebody made by hand: they read the policy of their claims from here.
    let of_cluster: Vec<_> =
        all.into_iter().filter(|region| region.spec.cluster_ref.name == object.name_any()).collect();
    let mut waits = false;
    for region in of_cluster {
        let is_owned =
            region.owner_references().iter().any(|owner| Some(&owner.uid) == object.uid().as_ref());
        waits |= is_owned || region.metadata.deletion_timestamp.is_some();
        if is_owned && region.metadata.deletion_timestamp.is_none() {
            delete(context, &regions, &region.name_any()).await?;
        }
    }
    if waits {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    remove_finalizer(context, api, object).await
}

async fn delete<K>(context: &Context, api: &Api<K>, name: &str) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    context.applier.fence().check().map_err(ApplyError::from)?;
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed("delete", &ApiResource::erase::<K>(&()), name)(error).into()),
    }
}
