//! A federation: its clusters are looked at, who gets traffic is decided, and what is to be in each of them is written.
//!
//! One operator does it, where the object is. While that one is away, everything goes on as it last was.

mod end;
mod look;

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    core::{ApiResource, DeserializeGuard},
    runtime::controller::Action,
};

use super::{Context, LOOK_AGAIN, ReconcileError, cleanup, is_paused, tell::Told};
use crate::{
    api::{
        ConditionType, DWCPFederation, FINALIZER, FederatedStatus, FederationStatus, Reason, Status,
        set_condition,
    },
    apply::{RECORDS, failed},
    federation::{
        failover::{self, Seen},
        plan::{self, FEDERATION},
    },
    plan::PlanError,
};
use look::{Look, Trouble};

/// Tells and does what is to be done for a federation.
///
/// # Errors
/// What could not be read or written where the federation is; the next attempt begins anew. What could not be in another cluster is
/// in its status.
pub async fn reconcile_federation(
    object: Arc<DeserializeGuard<DWCPFederation>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let api = Api::<DeserializeGuard<DWCPFederation>>::all(context.client());
    let name = object.name_any();
    let found =
        api.get_opt(&name).await.map_err(failed("get", &ApiResource::erase::<DWCPFederation>(&()), &name))?;
    let done = match found {
        Some(DeserializeGuard(Ok(federation))) => reconcile(&federation, &context).await,
        Some(DeserializeGuard(Err(invalid))) => context.refuse::<DWCPFederation>(&invalid).await,
        None => Ok(Action::await_change()),
    };
    metrics::histogram!("reconcile_duration_seconds", "controller" => "federation").record(began.elapsed());
    done
}

async fn reconcile(object: &DWCPFederation, context: &Context) -> Result<Action, ReconcileError> {
    let api = Api::<DWCPFederation>::all(context.client());
    let mut status = object.status.clone().unwrap_or_default();
    if object.metadata.deletion_timestamp.is_some() {
        return end::federation(context, &api, object, status).await;
    }
    if is_paused(object) {
        let told = Told::new(
            Reason::Paused,
            "nothing is changed while the annotation novacron.io/paused is \"true\"",
        );
        return context.tell_federation(&api, object, status, &told).await;
    }
    if cleanup::add_finalizer(context, &api, object, FINALIZER).await? {
        return Ok(Action::await_change());
    }
    if let Err(error) = plan::check(object) {
        let told = Told::new(Reason::Invalid, error.to_string());
        return context.tell_federation(&api, object, status, &told).await;
    }
    let (mut known, gone) = sorted(object, std::mem::take(&mut status.clusters));
    let looks = join_all((0..known.len()).map(|at| look::look(context, object, at))).await;
    let now = Timestamp::now();
    for (status, look) in known.iter_mut().zip(&looks) {
        look::note(status, look, object.metadata.generation, now);
    }
    let cut_off = decide(context, object, &mut known, now).await;
    let waits = write(object, &mut known, &looks).await;
    let records = publish(context, object, &known).await;
    let gone = end::leave(context, object, gone).await;
    let told = told(&known, &gone, cut_off, waits, records);
    let serving = known.iter().filter(|status| plan::serving(status) == Some(true)).count();
    status.clusters_serving = Some(format!("{serving}/{}", known.len()));
    status.clusters = known.into_iter().chain(gone).collect();
    context.tell_federation(&api, object, status, &told).await
}

/// What is known of the clusters of the spec, in its order; and of those that are not in it any more.
fn sorted(
    federation: &DWCPFederation,
    mut before: Vec<FederatedStatus>,
) -> (Vec<FederatedStatus>, Vec<FederatedStatus>) {
    let clusters = federation.spec.clusters.iter().map(|cluster| {
        let found = before.iter().position(|status| status.name == cluster.name);
        FederatedStatus {
            name: cluster.name.clone(),
            kubeconfig_secret: cluster.kubeconfig_secret.clone(),
            namespace: cluster.namespace.clone(),
            ..found.map(|at| before.remove(at)).unwrap_or_default()
        }
    });
    let known = clusters.collect();
    (known, before)
}

/// Decides who gets traffic, and says what has changed. Whether too few can be reached to decide anything.
async fn decide(
    context: &Context,
    federation: &DWCPFederation,
    known: &mut [FederatedStatus],
    now: Timestamp,
) -> bool {
    let seen: Vec<_> = known
        .iter()
        .map(|status| {
            let well = status.conditions.iter().find(|found| found.type_ == ConditionType::Well.as_str());
            Seen {
                reachable: status.reachable,
                well: well.is_some_and(|well| well.status == "True"),
                since: well.map_or(now, |well| well.last_transition_time.0),
                serving: plan::serving(status),
            }
        })
        .collect();
    let decision = failover::decide(&seen, &federation.spec.failover, now);
    for (at, serves) in decision.serving.into_iter().enumerate() {
        let name = known[at].name.clone();
        let labels = [("federation", federation.name_any()), ("cluster", name.clone())];
        metrics::gauge!("federation_cluster_serving", &labels).set(f64::from(u8::from(serves == Some(true))));
        let Some(is) = serves.filter(|_| serves != seen[at].serving) else { continue };
        let told = match is {
            true => Told::new(Reason::AsSpecified, format!("cluster {name} gets traffic")),
            false => Told::new(
                Reason::FailedOver,
                format!("cluster {name} gets no traffic any more: {}", look::why(&known[at])),
            ),
        };
        let generation = federation.metadata.generation;
        let (kind, status) = (ConditionType::Serving, Status::from(is));
        set_condition(&mut known[at].conditions, kind, status, told.reason, &told.message, generation, now);
        if seen[at].serving.is_some() {
            let change = if is { "back" } else { "out" };
            let labels =
                [("federation", federation.name_any()), ("cluster", name), ("change", change.to_owned())];
            metrics::counter!("federation_failovers_total", &labels).increment(1);
        }
        tracing::info!(federation = federation.name_any(), message = told.message, "failover");
        context.event(federation, &told, "Failover").await;
    }
    decision.cut_off
}

/// Writes what is to be in each cluster that answers. Gives what is waited for.
async fn write(federation: &DWCPFederation, known: &mut [FederatedStatus], looks: &[Look]) -> Option<Told> {
    let divided = plan::divided(federation, known);
    known.iter_mut().zip(divided).for_each(|(status, replicas)| status.replicas = replicas);
    // Members that begin with a list of regions which lacks one would be started again when it is known. Those that run go on
    // with the list that they have.
    let unknown = known.iter().find(|status| status.regions.is_empty()).map(|status| status.name.clone());
    let mut waits = unknown.as_ref().map(|name| {
        let message = format!("where members of cluster {name} are is not known yet");
        Told::new(Reason::Bootstrapping, message)
    });
    let (seen, waits_for_all): (&[FederatedStatus], _) = (known, unknown.is_some());
    let writes = looks.iter().enumerate().map(|(at, look)| async move {
        match look {
            Ok(sight) if sight.is_new && waits_for_all => None,
            Ok(sight) => Some(look::write(sight, federation, seen, at).await),
            Err(_) => None,
        }
    });
    let writes = join_all(writes).await;
    for (at, written) in writes.into_iter().enumerate() {
        match written {
            Some(Ok(is_ready)) => {
                // Where it is the operator's, it says itself what its Secrets have.
                if looks[at].as_ref().is_ok_and(|sight| sight.authority.is_none()) {
                    known[at].told = crate::plan::digest(&plan::trust(known, at));
                }
                waits = waits.or(is_ready);
            }
            Some(Err(Trouble { reason, message, .. })) => waits = Some(Told::new(reason, message)),
            None => {}
        }
    }
    waits
}

/// Writes the records of external-dns, and takes away those of a name that is not asked for any more.
async fn publish(
    context: &Context,
    federation: &DWCPFederation,
    known: &[FederatedStatus],
) -> Result<(), String> {
    let records: Vec<_> = plan::records(federation, known).into_iter().collect();
    for object in &records {
        context.applier.apply(object).await.map_err(|error| format!("records: {error}"))?;
    }
    let selector = format!("{FEDERATION}={}", federation.name_any());
    let swept = context.applier.sweep(&RECORDS, None, &selector, &records).await;
    swept.map(drop).map_err(|error| format!("records: {error}"))
}

fn told(
    known: &[FederatedStatus],
    gone: &[FederatedStatus],
    cut_off: bool,
    waits: Option<Told>,
    records: Result<(), String>,
) -> Told {
    let count = known.len();
    let reached = known.iter().filter(|status| status.reachable).count();
    if cut_off {
        let silent = known.iter().find(|status| !status.reachable).map_or("", look::why);
        let message = format!(
            "{reached} of {count} clusters answer: it may be this operator that is cut off, so no traffic is moved; {silent}"
        );
        return Told::new(Reason::TooFewReachable, message);
    }
    let with = |reason, message: String| Told::new(reason, message);
    if let Some(out) = known.iter().find(|status| plan::serving(status) == Some(false)) {
        let message = format!("cluster {} gets no traffic: {}", out.name, look::why(out));
        return with(Reason::FailedOver, message);
    }
    let troubles = known.iter().filter_map(|status| Some((look::trouble(status)?, status)));
    // What passes by itself is said last.
    if let Some((reason, status)) = troubles.min_by_key(|(reason, _)| *reason == Reason::PodsNotReady) {
        return with(reason, format!("cluster {}: {}", status.name, look::why(status)));
    }
    if let Some(waits) = waits {
        return waits;
    }
    if let Err(message) = records {
        return with(Reason::ApplyFailed, message);
    }
    if let Some(status) = gone.first() {
        return with(
            Reason::Deleting,
            format!("cluster {} still has what the federation has put there", status.name),
        );
    }
    with(Reason::AsSpecified, format!("{count} clusters get traffic"))
}

impl Context {
    async fn tell_federation(
        &self,
        api: &Api<DWCPFederation>,
        object: &DWCPFederation,
        mut status: FederationStatus,
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
        // Nothing tells when another cluster changes, or goes.
        Ok(Action::requeue(LOOK_AGAIN))
    }
}

/// A plan that cannot be made is nobody's spec: objects of ours are always JSON.
fn planned<T>(made: Result<T, PlanError>) -> Result<T, Trouble> {
    made.map_err(|error| Trouble { reason: Reason::Invalid, message: error.to_string(), reachable: true })
}
