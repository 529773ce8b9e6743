//! A region: what is there, the next step of its members, the objects that are to be there, and how it is.

use std::{sync::Arc, time::Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::{ApiResource, DeserializeGuard},
    runtime::controller::Action,
};
use serde_json::json;

use super::{
    Context, LOOK_AGAIN, RESYNC, ReconcileError, STEP_ON, certificates, cleanup, is_paused,
    observe::{self, Observed},
    restore,
    tell::Told,
};
use crate::{
    api::{FINALIZER, NovaCronCluster, NovaCronRegion, Reason, RegionStatus},
    apply::{ApplyError, Owner, failed},
    membership::{Decision, Goal, Step, decide, gates, version},
    plan::{self, CAUGHT_UP, Component, Region, Seen},
};

/// Brings a region nearer to what it is to be.
///
/// # Errors
/// What could not be read or written; the next attempt begins anew.
pub async fn reconcile_region(
    object: Arc<DeserializeGuard<NovaCronRegion>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let done = match context.as_it_is(&*object).await {
        Ok(Some(DeserializeGuard(Ok(region)))) => reconcile(&region, &context).await,
        Ok(Some(DeserializeGuard(Err(invalid)))) => context.refuse::<NovaCronRegion>(&invalid).await,
        Ok(None) => Ok(Action::await_change()),
        Err(error) => Err(error),
    };
    metrics::histogram!("reconcile_duration_seconds", "controller" => "region").record(began.elapsed());
    done
}

async fn reconcile(object: &NovaCronRegion, context: &Context) -> Result<Action, ReconcileError> {
    let namespace = object.namespace().ok_or(ReconcileError::Unnamed)?;
    let api = Api::<NovaCronRegion>::namespaced(context.client(), &namespace);
    let clusters = Api::<NovaCronCluster>::namespaced(context.client(), &namespace);
    let name = &object.spec.cluster_ref.name;
    let cluster = clusters.get_opt(name).await;
    let cluster = cluster.map_err(failed("get", &ApiResource::erase::<NovaCronCluster>(&()), name))?;
    if object.metadata.deletion_timestamp.is_some() {
        return cleanup::region(context, &api, object, cluster.as_ref()).await;
    }
    let Some(cluster) = cluster else {
        let told = Told::new(Reason::ClusterMissing, format!("there is no NovaCronCluster {name}"));
        return context.tell_region(&api, object, object.status.clone(), &told, RESYNC).await;
    };
    if is_paused(object) || is_paused(&cluster) {
        let told = Told::new(
            Reason::Paused,
            "nothing is changed while the annotation novacron.io/paused is \"true\"",
        );
        return context.tell_region(&api, object, object.status.clone(), &told, RESYNC).await;
    }
    if cleanup::add_finalizer(context, &api, object, FINALIZER).await? {
        return Ok(Action::await_change());
    }
    work(object, &cluster, context, &api).await
}

async fn work(
    object: &NovaCronRegion,
    cluster: &NovaCronCluster,
    context: &Context,
    api: &Api<NovaCronRegion>,
) -> Result<Action, ReconcileError> {
    let mut status = object.status.clone().unwrap_or_default();
    // What is not allowed is not begun, and everything else goes on as before.
    let (mut effective, skew) = (object.clone(), skew(object, cluster, &status));
    if skew.is_some() {
        effective.spec.version = status.version.clone();
    }
    let region = match Region::new(&effective, cluster) {
        Ok(region) => region,
        Err(error) => {
            let told = Told::new(Reason::Invalid, error.to_string());
            return context.tell_region(api, object, Some(status), &told, RESYNC).await;
        }
    };
    let restoring = restore::look(context, &region, &mut status).await?;
    let certified = certificates::leaves(context, &region, &mut status).await?;
    let observed = observe::observe(context, &region, &status).await?;
    let mut seen = Seen {
        pods: observed.set.is_some().then_some(observed.view.pods_wanted),
        bootstrapped: status.bootstrapped,
        service_monitors: context.has_service_monitors().await,
        restore: status.restore.clone(),
    };
    let decision = decision(&observed, &region);
    let mut told = Told::new(decision.reason, decision.message.clone());
    if let Some(step) = decision.step {
        let done = take(context, object, &region, &observed, step, &mut seen).await?;
        let result = if done.is_ok() { "done" } else { "failed" };
        metrics::counter!("member_changes_total", "operation" => step.operation(), "result" => result)
            .increment(1);
        if let Err(why) = done {
            told.message = format!("{}: {}: {why}", decision.message, step.operation());
        }
        context.event(object, &told, step.operation()).await;
    }
    match write(context, &region, cluster, &seen).await {
        // What was read before is of no use then.
        Ok(applied) if told.reason == Reason::AsSpecified && observed.are_others(&applied) => {
            told = Told::new(Reason::PodsNotReady, "the last change is not seen yet");
        }
        Ok(_) => {}
        Err(error) if error.is_refused() => told = Told::new(Reason::ApplyFailed, error.to_string()),
        Err(error) => return Err(error.into()),
    }
    set_gates(context, &region, &observed).await?;
    if let (true, Some(unready)) = (told.reason == Reason::AsSpecified, observed.unready()) {
        told = Told::new(Reason::PodsNotReady, unready);
    }
    if let Some(restoring) = restoring
        && matches!(told.reason, Reason::AsSpecified | Reason::Bootstrapping | Reason::PodsNotReady)
    {
        told = restoring;
    }
    if let (Reason::AsSpecified, Err(why)) = (told.reason, certified) {
        told = Told::new(Reason::SecretMissing, why);
    }
    status.bootstrapped = seen.bootstrapped;
    status.voters = observed.view.members.iter().filter(|member| !member.learner).count() as u16;
    status.members = observed.members(&region, &status);
    let leader = observed.view.members.iter().find(|member| member.leader);
    status.leader = leader.map(|leader| region.member(leader.ordinal));
    if told.reason == Reason::AsSpecified {
        status.version = Some(region.version.clone());
        if let Some(why) = skew {
            told = Told::new(Reason::VersionSkew, why);
        }
    }
    restore::tell(context, &region, &mut status, object.metadata.generation).await?;
    let next = match (decision.step, told.reason) {
        (Some(_), _) => STEP_ON,
        (None, Reason::AsSpecified | Reason::VersionSkew) => RESYNC,
        _ => LOOK_AGAIN,
    };
    context.tell_region(api, object, Some(status), &told, next).await
}

/// Why the step to the version that is asked for is not allowed.
fn skew(object: &NovaCronRegion, cluster: &NovaCronCluster, status: &RegionStatus) -> Option<String> {
    let wanted = object.spec.version.as_ref().unwrap_or(&cluster.spec.version);
    let runs = status.version.as_ref()?;
    version::check(runs, wanted).err().map(|error| error.to_string())
}

fn decision(observed: &Observed, region: &Region<'_>) -> Decision {
    let wait = |reason, message| Decision { step: None, reason, message };
    if let Some((reason, message)) = observed.trouble.clone() {
        return wait(reason, message);
    }
    if observed.set.is_none() {
        return wait(Reason::Bootstrapping, "the members' pods are made".to_owned());
    }
    if !observed.is_set_current() {
        return wait(Reason::PodsNotReady, "the last change of the StatefulSet is not seen yet".to_owned());
    }
    let goal = Goal {
        voters: region.object.spec.voters,
        allow_no_spare: region.cluster.membership.allow_no_spare,
        bake: std::time::Duration::from_secs(region.cluster.upgrades.bake_seconds.into()),
    };
    decide(&observed.view, &goal)
}

/// Takes a step, or has the plan take it. The store's refusal, or silence, is not an error: the next look shows what became of it.
async fn take(
    context: &Context,
    object: &NovaCronRegion,
    region: &Region<'_>,
    observed: &Observed,
    step: Step,
    seen: &mut Seen,
) -> Result<Result<(), String>, ReconcileError> {
    context.applier.fence().check().map_err(ApplyError::from)?;
    tracing::info!(region = object.name_any(), ?step, "step");
    match step {
        Step::RecordBegin(members) => seen.bootstrapped = Some(members),
        Step::SetPods(pods) => seen.pods = Some(pods),
        Step::RestartPod(ordinal) => {
            let Some(pod) = observed.pods.get(&ordinal) else { return Ok(Ok(())) };
            let api = Api::<Pod>::namespaced(context.client(), &region.namespace);
            let preconditions = Preconditions { uid: pod.uid(), resource_version: pod.resource_version() };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            return Ok(api
                .delete(&pod.name_any(), &params)
                .await
                .map(drop)
                .map_err(|error| error.to_string()));
        }
        Step::AddLearner(_) | Step::Promote(_) | Step::MoveLeader { .. } | Step::Remove(_) => {
            let Some(place) = observed.place.clone() else { return Ok(Ok(())) };
            return Ok(context.stores.change(place, step).await.map_err(|error| error.to_string()));
        }
    }
    Ok(Ok(()))
}

/// Makes everything as it is planned, and takes away what is not planned any more. Gives what is there then.
async fn write(
    context: &Context,
    region: &Region<'_>,
    cluster: &NovaCronCluster,
    seen: &Seen,
) -> Result<Vec<DynamicObject>, ApplyError> {
    let planned = match plan::plan(region.object, cluster, seen) {
        Ok(planned) => planned,
        // The region was checked before: this is no spec's fault.
        Err(error) => {
            tracing::error!(%error, region = region.name, "no plan");
            return Ok(Vec::new());
        }
    };
    let mut applied = Vec::new();
    for object in &planned {
        applied.push(context.applier.apply(object).await?);
    }
    let uid = region.object.uid().unwrap_or_default();
    let owner = Owner { namespace: &region.namespace, instance: &region.name, uid: &uid };
    let is_known = |kind: &crate::apply::Kind| !kind.is_foreign || seen.service_monitors;
    let gone = context.applier.prune(owner, &planned, is_known).await?;
    if gone > 0 {
        tracing::info!(region = region.name, gone, "objects that are not planned any more are gone");
    }
    Ok(applied)
}

/// Tells Kubernetes which pods are members with a vote and what the others have.
async fn set_gates(
    context: &Context,
    region: &Region<'_>,
    observed: &Observed,
) -> Result<(), ReconcileError> {
    // Nothing is known of members that cannot be asked.
    if observed.view.members.is_empty() {
        return Ok(());
    }
    let api = Api::<Pod>::namespaced(context.client(), &region.namespace);
    for (ordinal, is) in gates(&observed.view) {
        let Some(pod) = observed.pods.get(&ordinal).filter(|pod| observe::gate(pod) != Some(is)) else {
            continue;
        };
        let condition = json!({
            "type": CAUGHT_UP,
            "status": if is { "True" } else { "False" },
            "lastTransitionTime": jiff::Timestamp::now(),
        });
        context.applier.fence().check().map_err(ApplyError::from)?;
        let patch = json!({ "status": { "conditions": [condition] } });
        let patched =
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        match patched {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                let resource = ApiResource::erase::<Pod>(&());
                return Err(failed("patch status of", &resource, &region.member(ordinal))(error).into());
            }
        }
    }
    Ok(())
}

impl Context {
    /// Writes how a region is, and says so if it is another way than before.
    async fn tell_region(
        &self,
        api: &Api<NovaCronRegion>,
        object: &NovaCronRegion,
        status: Option<RegionStatus>,
        told: &Told,
        next: std::time::Duration,
    ) -> Result<Action, ReconcileError> {
        let mut status = status.unwrap_or_default();
        let changed = told.set(&mut status.conditions, object.metadata.generation);
        status.observed_generation = object.metadata.generation;
        if object.status.as_ref() != Some(&status) {
            self.write_status(api, object, &status).await?;
        }
        if changed {
            self.event(object, told, "Reconcile").await;
        }
        Ok(Action::requeue(next))
    }
}

/// The name of a component's objects, where only the region's name is known.
pub(super) fn consensus_of(region: &NovaCronRegion) -> String {
    format!("{}-{}", region.name_any(), Component::Consensus.as_str())
}
