//! The end of a federation, or of a cluster's part in it: what it has put there goes, or what the policy keeps stays. A cluster that
//! has not answered for a while is given up, and what is left there is said.

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt as _, runtime::controller::Action};

use super::{
    Context, ReconcileError, Told, cleanup,
    look::{self, Trouble},
    sorted,
};
use crate::{
    api::{ClaimPolicy, DWCPFederation, FINALIZER, FederatedStatus, FederationStatus, Reason},
    apply::FEDERATED,
    federation::plan::FEDERATION,
    plan::{COMPONENT, Component},
};

/// A cluster that has not answered for so long is left as it is.
const GIVEN_UP: SignedDuration = SignedDuration::from_mins(5);

/// Ends a federation, as far as it can be ended now. Its records go with it.
pub(super) async fn federation(
    context: &Context,
    api: &Api<DWCPFederation>,
    object: &DWCPFederation,
    mut status: FederationStatus,
) -> Result<Action, ReconcileError> {
    if !object.finalizers().iter().any(|other| other == FINALIZER) {
        return Ok(Action::await_change());
    }
    let (known, gone) = sorted(object, std::mem::take(&mut status.clusters));
    status.clusters = leave(context, object, known.into_iter().chain(gone).collect()).await;
    if status.clusters.is_empty() {
        return cleanup::remove_finalizer(context, api, object).await;
    }
    let names: Vec<_> = status.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let told = Told::new(Reason::Deleting, format!("there is something left in {}", names.join(", ")));
    context.tell_federation(api, object, status, &told).await
}

/// Takes away what is in these clusters. Gives those where something is left.
pub(super) async fn leave(
    context: &Context,
    federation: &DWCPFederation,
    clusters: Vec<FederatedStatus>,
) -> Vec<FederatedStatus> {
    let left = clusters.into_iter().map(|mut cluster| async move {
        let now = Timestamp::now();
        match leave_one(context, federation, &cluster).await {
            Ok(0) => None,
            Ok(_) => {
                cluster.last_seen = Some(Time(now));
                Some(cluster)
            }
            Err(Trouble { message, .. }) => {
                // Where nobody has ever been there is nothing.
                let seen = cluster.last_seen.as_ref()?.0;
                let begun = federation.metadata.deletion_timestamp.as_ref().map(|begun| begun.0);
                let since = begun.map_or(seen, |begun| begun.max(seen));
                if now.duration_since(since) < GIVEN_UP {
                    return Some(cluster);
                }
                let what = format!(
                    "cluster {} is given up, with what has the label {FEDERATION}={} in {}: {message}",
                    cluster.name,
                    federation.name_any(),
                    cluster.namespace
                );
                context.event(federation, &Told::new(Reason::ClusterUnreachable, what), "Delete").await;
                None
            }
        }
    });
    join_all(left).await.into_iter().flatten().collect()
}

/// Gives how much there was.
async fn leave_one(
    context: &Context,
    federation: &DWCPFederation,
    cluster: &FederatedStatus,
) -> Result<usize, Trouble> {
    let left = async {
        let applier = look::applier(context, &cluster.kubeconfig_secret, &cluster.namespace).await?;
        look::own(&applier, federation, &cluster.namespace).await?;
        let selector = format!("{FEDERATION}={}", federation.name_any());
        let selector = match federation.spec.on_delete {
            ClaimPolicy::Delete => selector,
            // The ways to the members of what stays stay.
            ClaimPolicy::Keep => format!("{selector},{COMPONENT}={}", Component::Api.as_str()),
        };
        Ok(applier.sweep(&FEDERATED, Some(&cluster.namespace), &selector, &[]).await?)
    };
    tokio::time::timeout(look::CLUSTER_MAX, left).await.unwrap_or_else(|_| Err(Trouble::silent()))
}
