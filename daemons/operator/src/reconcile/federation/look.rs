//! One cluster of a federation: asked, and written to. Each takes a bounded time, whatever becomes of the way there.

use std::{fmt::Debug, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Secret, Service},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Resource, ResourceExt as _, api::DynamicObject, core::ApiResource};
use serde::de::DeserializeOwned;

use super::{Context, Told, planned};
use crate::{
    api::{
        AuthorityStatus, ConditionType, DWCPFederation, FederatedStatus, NovaCronCluster, Reason, Status,
        set_condition,
    },
    apply::{Applier, ApplyError, FEDERATED, failed},
    federation::plan::{self, FEDERATION, FEDERATION_UID},
    plan::Component,
};

/// Until a cluster has been looked at, or written to.
pub(super) const CLUSTER_MAX: Duration = Duration::from_secs(15);
/// The key of a Secret that has a kubeconfig.
const KUBECONFIG: &str = "kubeconfig";
/// When a cluster was last seen is written so often: each time, somebody reads it.
const SEEN_EACH: SignedDuration = SignedDuration::from_mins(1);

/// What was seen of a cluster.
pub(super) struct Sight {
    applier: Applier,
    /// Its authorities; `None`: its certificates are somebody else's.
    pub(super) authority: Option<AuthorityStatus>,
    regions: Vec<String>,
    endpoints: Vec<String>,
    ready_replicas: u16,
    /// Nothing of the federation runs there yet.
    pub(super) is_new: bool,
    /// Why its store is not well.
    sick: Option<Reason>,
}

/// Why a cluster could not be seen, or written to.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: Reason,
    pub(super) message: String,
    /// Its API server answers.
    pub(super) reachable: bool,
}

pub(super) type Look = Result<Sight, Trouble>;

impl From<ApplyError> for Trouble {
    fn from(error: ApplyError) -> Self {
        let answers = match &error {
            ApplyError::Api { source: kube::Error::Api(status), .. } => {
                status.code < 500 && status.code != 429
            }
            // It is something else than what was asked for.
            ApplyError::Api { source: kube::Error::SerdeError(_), .. } => true,
            _ => false,
        };
        let reason = if answers { Reason::ApplyFailed } else { Reason::ClusterUnreachable };
        Self { reason, message: error.to_string(), reachable: answers }
    }
}

impl Trouble {
    pub(super) fn silent() -> Self {
        let message = format!("no answer within {} s", CLUSTER_MAX.as_secs());
        Self { reason: Reason::ClusterUnreachable, message, reachable: false }
    }
}

/// What writes in a cluster, by the kubeconfig of a Secret.
pub(super) async fn applier(context: &Context, secret: &str, namespace: &str) -> Result<Applier, Trouble> {
    let trouble = |reason, message| Trouble { reason, message, reachable: false };
    let missing =
        |what: &str| trouble(Reason::SecretMissing, format!("Secret {secret} in {namespace} {what}"));
    let found = get::<Secret>(&context.applier, namespace, secret).await?;
    let data = found.ok_or_else(|| missing("is not there"))?.data.unwrap_or_default();
    let bytes = data.get(KUBECONFIG).ok_or_else(|| missing("has no `kubeconfig`"))?;
    let text = std::str::from_utf8(&bytes.0).map_err(|_| missing("has no text as `kubeconfig`"))?;
    let client = context.clusters.client(text).await;
    let client =
        client.map_err(|error| trouble(Reason::KubeconfigRefused, format!("Secret {secret}: {error}")))?;
    Ok(Applier::new(client, context.applier.fence().clone()))
}

/// Looks at a cluster, and makes its members reachable.
pub(super) async fn look(context: &Context, federation: &DWCPFederation, at: usize) -> Look {
    let cluster = &federation.spec.clusters[at];
    let looked = async {
        let applier = applier(context, &cluster.kubeconfig_secret, &cluster.namespace).await?;
        let found = own(&applier, federation, &cluster.namespace).await?;
        let mut regions = Vec::new();
        for way in planned(plan::ways_in(federation, at))? {
            let applied = applier.apply(&way).await?;
            let found = applied.try_parse::<Service>().map(|service| plan::addresses(cluster, &service));
            regions.push(found.unwrap_or_default());
        }
        // All, or none: a member that is not known of may lead.
        let is_known = regions.iter().all(|addresses| !addresses.is_empty());
        let name = format!("{}-{}", plan::region_name(federation, cluster), Component::Api.as_str());
        let service = get::<Service>(&applier, &cluster.namespace, &name).await?;
        let deployment = get::<Deployment>(&applier, &cluster.namespace, &name).await?;
        let ready = deployment.and_then(|deployment| deployment.status?.ready_replicas).unwrap_or(0);
        Ok(Sight {
            applier,
            is_new: found.is_none(),
            authority: found.as_ref().and_then(|found| found.status.as_ref()?.authority.clone()),
            regions: if is_known { regions.concat() } else { Vec::new() },
            endpoints: service.map(|service| plan::addresses(cluster, &service)).unwrap_or_default(),
            ready_replicas: u16::try_from(ready).unwrap_or(0),
            sick: found
                .as_ref()
                .and_then(reason_of)
                .filter(|reason| matches!(reason, Reason::QuorumLost | Reason::StoreUnreachable)),
        })
    };
    tokio::time::timeout(CLUSTER_MAX, looked).await.unwrap_or_else(|_| Err(Trouble::silent()))
}

/// The federation's NovaCronCluster. Another federation's is an error.
pub(super) async fn own(
    applier: &Applier,
    federation: &DWCPFederation,
    namespace: &str,
) -> Result<Option<NovaCronCluster>, Trouble> {
    let name = federation.name_any();
    let found = get::<NovaCronCluster>(applier, namespace, &name).await?;
    match found {
        Some(found) if found.annotations().get(FEDERATION_UID) != federation.uid().as_ref() => Err(Trouble {
            reason: Reason::Invalid,
            message: format!(
                "NovaCronCluster {name} in {namespace} is not this federation's: its annotation {FEDERATION_UID} has to be {}",
                federation.uid().unwrap_or_default()
            ),
            reachable: true,
        }),
        found => Ok(found),
    }
}

fn reason_of(cluster: &NovaCronCluster) -> Option<Reason> {
    let ready = cluster.status.as_ref()?.conditions.iter().find(|found| found.type_ == "Ready")?;
    Reason::ALL.iter().find(|reason| reason.as_str() == ready.reason).copied()
}

/// Writes what is to be in a cluster, and takes away what is not. Gives what is waited for there.
pub(super) async fn write(
    sight: &Sight,
    federation: &DWCPFederation,
    known: &[FederatedStatus],
    at: usize,
) -> Result<Option<Told>, Trouble> {
    let cluster = &federation.spec.clusters[at];
    let written = async {
        let mut planned_here = planned(plan::plan(federation, known, at))?;
        let mut waits = None;
        for object in &planned_here {
            let applied = sight.applier.apply(object).await?;
            waits = waits.or(not_ready(&applied, &cluster.name));
        }
        planned_here.extend(planned(plan::ways_in(federation, at))?);
        let selector = format!("{FEDERATION}={}", federation.name_any());
        sight.applier.sweep(&FEDERATED, Some(&cluster.namespace), &selector, &planned_here).await?;
        Ok(waits)
    };
    tokio::time::timeout(CLUSTER_MAX, written).await.unwrap_or_else(|_| Err(Trouble::silent()))
}

/// Why a NovaCronCluster, as it was just written, is not ready.
fn not_ready(applied: &DynamicObject, name: &str) -> Option<Told> {
    let cluster: NovaCronCluster = applied.clone().try_parse().ok()?;
    let status = cluster.status.as_ref();
    let is_current = status.is_some_and(|status| status.observed_generation == cluster.metadata.generation);
    match reason_of(&cluster).filter(|_| is_current) {
        Some(Reason::AsSpecified) => None,
        Some(reason) => Some(Told::new(reason, format!("cluster {name} is not ready: {reason}"))),
        None => Some(Told::new(Reason::Bootstrapping, format!("cluster {name} has not begun yet"))),
    }
}

/// Writes down what a look has shown. What it does not show stays as it was.
pub(super) fn note(status: &mut FederatedStatus, look: &Look, generation: Option<i64>, now: Timestamp) {
    let (well, reason, message) = match look {
        Ok(sight) => {
            status.reachable = true;
            status.ready_replicas = sight.ready_replicas;
            for (known, seen) in
                [(&mut status.regions, &sight.regions), (&mut status.endpoints, &sight.endpoints)]
            {
                if !seen.is_empty() {
                    known.clone_from(seen);
                }
            }
            if let Some(authority) = &sight.authority {
                // An operator that is older than the field does not say.
                if !authority.bundle.is_empty() {
                    status.trust.clone_from(&authority.bundle);
                }
                authority.others.iter().for_each(|others| status.told.clone_from(others));
            }
            match sight.sick {
                Some(sick) => (Some(false), sick, "its store is not well".to_owned()),
                None if sight.ready_replicas == 0 => {
                    (Some(false), Reason::PodsNotReady, "no replica of its API is ready".to_owned())
                }
                None if sight.endpoints.is_empty() => {
                    (Some(false), Reason::PodsNotReady, "its API has no address".to_owned())
                }
                None => (Some(true), Reason::AsSpecified, String::new()),
            }
        }
        Err(trouble) => {
            status.reachable = trouble.reachable;
            let well = (trouble.reason == Reason::ClusterUnreachable).then_some(false);
            (well, trouble.reason, trouble.message.clone())
        }
    };
    let is_old = status.last_seen.as_ref().is_none_or(|seen| now.duration_since(seen.0) >= SEEN_EACH);
    if status.reachable && is_old {
        status.last_seen = Some(Time(now));
    }
    // Where it cannot be asked for a reason that lies here, what was known of it holds.
    let known = status.conditions.iter().find(|found| found.type_ == ConditionType::Well.as_str());
    let before = known.is_some_and(|known| known.status == "True");
    let is = Status::from(well.unwrap_or(before));
    set_condition(&mut status.conditions, ConditionType::Well, is, reason, &message, generation, now);
}

/// What is wrong with a cluster.
pub(super) fn trouble(status: &FederatedStatus) -> Option<Reason> {
    let well = status.conditions.iter().find(|found| found.type_ == ConditionType::Well.as_str())?;
    Reason::ALL
        .iter()
        .copied()
        .find(|reason| reason.as_str() == well.reason && *reason != Reason::AsSpecified)
}

/// The same in words.
pub(super) fn why(status: &FederatedStatus) -> &str {
    let well = status.conditions.iter().find(|found| found.type_ == ConditionType::Well.as_str());
    match well.map(|well| well.message.as_str()) {
        None | Some("") => "it has been well again for too short a time",
        Some(message) => message,
    }
}

async fn get<K>(applier: &Applier, namespace: &str, name: &str) -> Result<Option<K>, ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::namespaced(applier.client().clone(), namespace);
    api.get_opt(name).await.map_err(failed("get", &ApiResource::erase::<K>(&()), name))
}
