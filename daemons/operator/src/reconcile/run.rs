//! The controllers: what is watched, and whose reconciliation a change is about.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use super::{
    Context, ReconcileError, again, reconcile_cluster, reconcile_federation, reconcile_region,
    watches::{self, Steady},
};
use crate::{
    api::{DWCPFederation, NovaCronCluster, NovaCronRegion},
    plan::{COMPONENT, Component, FIELD_MANAGER, INSTANCE, MANAGED_BY},
};
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::{CronJob, Job},
        core::v1::{ConfigMap, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Config, Controller,
        controller::Action,
        reflector::{Lookup, ObjectRef},
    },
};

/// Which namespaces are looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// One of them; `None`: all.
    pub namespace: Option<String>,
    /// Reconciliations of one kind at a time.
    pub concurrency: u16,
}

type Guarded<K> = DeserializeGuard<K>;

impl Scope {
    fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }

    fn config(&self) -> Config {
        Config::default().concurrency(self.concurrency)
    }
}

/// Is over when it is time to end.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// Reconciles until `stop`, and then until what has begun has ended.
pub fn run(context: Arc<Context>, scope: Scope, stop: Stop) -> BoxFuture<'static, ()> {
    // In a box: the controllers, which are large, are compiled here and in no other crate.
    let all = async move {
        futures::join!(
            clusters(&context, &scope, stop.clone()),
            regions(&context, &scope, stop.clone()),
            federations(&context, &scope, stop),
        );
    };
    all.boxed()
}

async fn clusters(context: &Arc<Context>, scope: &Scope, stop: Stop) {
    let client = context.client();
    let api = scope.api::<Guarded<NovaCronCluster>>(client.clone());
    let controller = Controller::new(api, watches::config(None))
        .owns(scope.api::<NovaCronRegion>(client), watches::config(None))
        .with_config(scope.config())
        .trigger_backoff(Steady)
        .graceful_shutdown_on(stop);
    let queue = Queue::new("cluster");
    let reconcile = move |object, context| queue.counted(reconcile_cluster(object, context));
    let policy = |object: Arc<Guarded<NovaCronCluster>>, error: &ReconcileError, _| {
        again("cluster", &object.name_any(), error)
    };
    controller.run(reconcile, policy, Arc::clone(context)).for_each(|_| async {}).await;
}

async fn regions(context: &Arc<Context>, scope: &Scope, stop: Stop) {
    let client = context.client();
    let owned = || watches::config(Some(&format!("{MANAGED_BY}={FIELD_MANAGER}")));
    let members = format!("{COMPONENT}={}", Component::Consensus.as_str());
    let api = scope.api::<Guarded<NovaCronRegion>>(client.clone());
    let controller = Controller::new(api, watches::config(None));
    let store = controller.store();
    let of_cluster = move |cluster: Guarded<NovaCronCluster>| {
        let (name, namespace) = (cluster.name_any(), ResourceExt::namespace(&cluster));
        let is_of = move |region: &Arc<Guarded<NovaCronRegion>>| {
            let named = region.0.as_ref().is_ok_and(|region| region.spec.cluster_ref.name == name);
            named && ResourceExt::namespace(&**region) == namespace
        };
        let all = store.state().into_iter().filter(is_of);
        all.map(|region| region.to_object_ref(())).collect::<Vec<_>>()
    };
    let controller = controller
        .owns(scope.api::<StatefulSet>(client.clone()), owned())
        .owns(scope.api::<Deployment>(client.clone()), owned())
        .owns(scope.api::<DaemonSet>(client.clone()), owned())
        .owns(scope.api::<HorizontalPodAutoscaler>(client.clone()), owned())
        .owns(scope.api::<CronJob>(client.clone()), owned())
        .owns(scope.api::<Job>(client.clone()), owned())
        .owns(scope.api::<ConfigMap>(client.clone()), owned())
        .owns(scope.api::<Service>(client.clone()), owned())
        .owns(scope.api::<NetworkPolicy>(client.clone()), owned())
        .owns(scope.api::<PodDisruptionBudget>(client.clone()), owned())
        .watches(scope.api::<Pod>(client.clone()), watches::config(Some(&members)), region_of_pod)
        .watches(scope.api::<Guarded<NovaCronCluster>>(client), watches::config(None), of_cluster)
        .with_config(scope.config())
        .trigger_backoff(Steady)
        .graceful_shutdown_on(stop);
    let queue = Queue::new("region");
    let reconcile = move |object, context| queue.counted(reconcile_region(object, context));
    let policy = |object: Arc<Guarded<NovaCronRegion>>, error: &ReconcileError, _| {
        again("region", &object.name_any(), error)
    };
    controller.run(reconcile, policy, Arc::clone(context)).for_each(|_| async {}).await;
}

fn region_of_pod(pod: Pod) -> Option<ObjectRef<Guarded<NovaCronRegion>>> {
    let region = pod.labels().get(INSTANCE)?;
    Some(ObjectRef::new(region).within(&ResourceExt::namespace(&pod)?))
}

async fn federations(context: &Arc<Context>, scope: &Scope, stop: Stop) {
    let api = Api::<Guarded<DWCPFederation>>::all(context.client());
    let controller = Controller::new(api, watches::config(None));
    let controller =
        controller.with_config(scope.config()).trigger_backoff(Steady).graceful_shutdown_on(stop);
    let queue = Queue::new("federation");
    let reconcile = move |object, context| queue.counted(reconcile_federation(object, context));
    let policy = |object: Arc<Guarded<DWCPFederation>>, error: &ReconcileError, _| {
        again("federation", &object.name_any(), error)
    };
    controller.run(reconcile, policy, Arc::clone(context)).for_each(|_| async {}).await;
}

/// How many reconciliations of a controller are under way. Which ones wait is kube's to know.
#[derive(Clone)]
struct Queue {
    controller: &'static str,
    depth: Arc<AtomicI64>,
}

impl Queue {
    fn new(controller: &'static str) -> Self {
        Self { controller, depth: Arc::default() }
    }

    fn add(&self, change: i64) {
        let depth = self.depth.fetch_add(change, Relaxed) + change;
        metrics::gauge!("reconcile_queue_depth", "controller" => self.controller).set(depth as f64);
    }

    /// A reconciliation that counts while it is under way, also if it is given up.
    fn counted<F: Future<Output = Result<Action, ReconcileError>>>(
        &self,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let counted = Counted::new(self.clone());
        async move {
            let _counted = counted;
            work.await
        }
    }
}

struct Counted(Queue);

impl Counted {
    fn new(queue: Queue) -> Self {
        queue.add(1);
        Self(queue)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
