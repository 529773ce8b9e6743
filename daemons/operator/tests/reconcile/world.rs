//! A cluster around the server: what Kubernetes' own controllers do to a StatefulSet and a Deployment, and a store whose members
//! are the pods.

use std::sync::{Arc, Mutex};

use futures::{FutureExt as _, future::BoxFuture};
use kube::{
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        events::{Recorder, Reporter},
    },
};
use novacron_operator::{
    api::{NovaCronCluster, NovaCronRegion},
    apply::Applier,
    federation::clusters::Kubeconfigs,
    lease::Fence,
    membership::{Health, Step},
    reconcile::{Context, ReconcileError, reconcile_cluster, reconcile_region},
    store::{MembersError, Place, Seen, Stores},
};
use serde_json::{Value, json};

use crate::server::Server;

pub(crate) const NAMESPACE: &str = "novacron";
pub(crate) const CLUSTER: &str = "apis/novacron.io/v1alpha1/namespaces/novacron/novacronclusters/c";
pub(crate) const REGION: &str = "apis/novacron.io/v1alpha1/namespaces/novacron/novacronregions/c-r";
pub(crate) const SET: &str = "apis/apps/v1/namespaces/novacron/statefulsets/c-r-consensus";
pub(crate) const DEPLOYMENT: &str = "apis/apps/v1/namespaces/novacron/deployments/c-r-api";
const PODS: &str = "api/v1/namespaces/novacron/pods";
const CLAIMS: &str = "api/v1/namespaces/novacron/persistentvolumeclaims";

/// The store.
#[derive(Clone, Default)]
pub(crate) struct Store(pub(crate) Arc<Mutex<Members>>);

#[derive(Default)]
pub(crate) struct Members {
    pub(crate) all: Vec<Seen>,
    next_id: u64,
    /// Pods that run: others are away.
    running: Vec<u16>,
    pub(crate) steps: Vec<Step>,
    /// Nobody answers.
    pub(crate) is_silent: bool,
    /// The most members without a vote that there were at a time.
    pub(crate) learners_max: usize,
    /// The store was without a quorum, which nobody but the operator can have brought about.
    pub(crate) was_without_quorum: bool,
}

impl Members {
    fn leads(&mut self) {
        let voters = self.all.iter().filter(|member| !member.learner);
        let well = voters
            .clone()
            .filter(|voter| voter.started && self.running.contains(&voter.ordinal.unwrap_or(99)));
        self.was_without_quorum |= well.count() <= voters.count() / 2 && !self.steps.is_empty();
        self.learners_max = self.learners_max.max(self.all.iter().filter(|member| member.learner).count());
        let running = self.running.clone();
        for member in &mut self.all {
            let runs = running.contains(&member.ordinal.unwrap_or(99)) && member.started;
            member.health = if runs { Health::Well } else { Health::Away };
            member.leader &= runs && !member.learner;
        }
        if !self.all.iter().any(|member| member.leader)
            && let Some(first) =
                self.all.iter_mut().find(|member| !member.learner && member.health == Health::Well)
        {
            first.leader = true;
        }
    }

    fn change(&mut self, step: Step) {
        self.steps.push(step);
        match step {
            Step::AddLearner(ordinal) => {
                self.next_id += 1;
                self.all.push(member(self.next_id, ordinal, false));
            }
            Step::Promote(id) => {
                self.all
                    .iter_mut()
                    .filter(|member| member.id == id)
                    .for_each(|member| member.learner = false);
            }
            Step::Remove(id) => self.all.retain(|member| member.id != id),
            Step::MoveLeader { to, .. } => {
                self.all.iter_mut().for_each(|member| member.leader = member.id == to)
            }
            _ => {}
        }
        self.leads();
    }
}

fn member(id: u64, ordinal: u16, first: bool) -> Seen {
    Seen { id, ordinal: Some(ordinal), started: first, learner: !first, leader: false, health: Health::Away }
}

impl Stores for Store {
    fn members(&self, _: Place) -> BoxFuture<'_, Result<Vec<Seen>, MembersError>> {
        let members = self.0.lock().unwrap();
        let seen = if members.is_silent { Vec::new() } else { members.all.clone() };
        async move { Ok(seen) }.boxed()
    }

    fn change(&self, _: Place, step: Step) -> BoxFuture<'_, Result<(), MembersError>> {
        self.0.lock().unwrap().change(step);
        async { Ok(()) }.boxed()
    }
}

/// All of it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) store: Store,
    pub(crate) context: Arc<Context>,
}

impl World {
    pub(crate) fn new(voters: u16) -> Self {
        Self::with_tls(voters, json!({ "mode": "Plaintext" }))
    }

    pub(crate) fn with_tls(voters: u16, tls: Value) -> Self {
        let world = Self::with(Server::default(), Store::default(), Fence::open());
        world.server.put(
            CLUSTER,
            json!({
                "apiVersion": "novacron.io/v1alpha1", "kind": "NovaCronCluster",
                "metadata": { "name": "c", "namespace": NAMESPACE, "uid": "cluster" },
                "spec": {
                    "version": "0.1.0",
                    "regions": [{ "name": "r", "voters": voters, "api": { "min": 2, "max": 5, "autoscaling": false } }],
                    "security": { "tls": tls },
                    "upgrades": { "bakeSeconds": 0 },
                    "agent": { "enabled": false },
                }
            }),
        );
        world
    }

    fn with(server: Server, store: Store, fence: Fence) -> Self {
        let client = server.client();
        let reporter =
            Reporter { controller: "novacron-operator".to_owned(), instance: Some("test".to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        let applier = Applier::new(client, fence);
        let context = Arc::new(Context::new(
            applier,
            Arc::new(store.clone()),
            Arc::new(Kubeconfigs::default()),
            recorder,
        ));
        Self { server, store, context }
    }

    /// Another process, which knows nothing.
    pub(crate) fn killed(&self) -> Self {
        self.fenced(Fence::open())
    }

    /// Another process behind this fence.
    pub(crate) fn fenced(&self, fence: Fence) -> Self {
        Self::with(self.server.clone(), self.store.clone(), fence)
    }

    pub(crate) async fn cluster(&self) -> Result<Action, ReconcileError> {
        let Some(object) = self.server.get(CLUSTER) else { return Ok(Action::await_change()) };
        let object: DeserializeGuard<NovaCronCluster> = serde_json::from_value(object).unwrap();
        reconcile_cluster(Arc::new(object), Arc::clone(&self.context)).await
    }

    pub(crate) async fn region(&self) -> Result<Action, ReconcileError> {
        let Some(object) = self.server.get(REGION) else { return Ok(Action::await_change()) };
        let object: DeserializeGuard<NovaCronRegion> = serde_json::from_value(object).unwrap();
        reconcile_region(Arc::new(object), Arc::clone(&self.context)).await
    }

    /// A reconciliation of what a watch has said, which was so some changes ago; also of what is gone.
    pub(crate) async fn behind(&self, changes: usize) {
        if let Some(object) = self.server.get_old(CLUSTER, changes) {
            let object: DeserializeGuard<NovaCronCluster> = serde_json::from_value(object).unwrap();
            let _ = reconcile_cluster(Arc::new(object), Arc::clone(&self.context)).await;
        }
        if let Some(object) = self.server.get_old(REGION, changes) {
            let object: DeserializeGuard<NovaCronRegion> = serde_json::from_value(object).unwrap();
            let _ = reconcile_region(Arc::new(object), Arc::clone(&self.context)).await;
        }
    }

    /// One round of everybody; failures are tried again in the next.
    pub(crate) async fn round(&self) {
        let _ = self.cluster().await;
        let _ = self.region().await;
        self.kubernetes();
    }

    pub(crate) async fn rounds(&self, count: usize) {
        for _ in 0..count {
            self.round().await;
        }
    }

    /// What Kubernetes does.
    pub(crate) fn kubernetes(&self) {
        if let Some(set) = self.server.get(SET) {
            self.pods(&set);
            self.server.change(SET, |set| {
                set["status"] = json!({
                    "observedGeneration": set["metadata"]["generation"],
                    "updateRevision": revision(set),
                    "replicas": set["spec"]["replicas"],
                });
            });
        } else {
            self.server
                .paths()
                .iter()
                .filter(|path| path.starts_with(PODS))
                .for_each(|path| self.server.remove(path));
        }
        if self.server.get(DEPLOYMENT).is_some() {
            self.server.change(DEPLOYMENT, |deployment| {
                let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
                deployment["spec"]["replicas"] = json!(replicas);
                deployment["status"] = json!({
                    "observedGeneration": deployment["metadata"]["generation"],
                    "updatedReplicas": replicas, "availableReplicas": replicas,
                });
            });
        }
        self.members();
    }

    fn pods(&self, set: &Value) {
        let wanted = set["spec"]["replicas"].as_u64().unwrap() as u16;
        let labels = set["spec"]["template"]["metadata"]["labels"].clone();
        for ordinal in 0..16_u16 {
            let name = format!("c-r-consensus-{ordinal}");
            let (pod, claim) = (format!("{PODS}/{name}"), format!("{CLAIMS}/data-{name}"));
            if ordinal >= wanted {
                self.server.remove(&pod);
                continue;
            }
            if self.server.get(&claim).is_none() {
                self.server.put(&claim, json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": { "name": format!("data-{name}"), "namespace": NAMESPACE, "labels": labels },
                    "status": { "phase": "Bound" },
                }));
            }
            if self.server.get(&pod).is_none() {
                let mut labels = labels.clone();
                labels["controller-revision-hash"] = json!(revision(set));
                let ready = json!({
                    "type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
                });
                self.server.put(
                    &pod,
                    json!({
                        "apiVersion": "v1", "kind": "Pod",
                        "metadata": { "name": name, "namespace": NAMESPACE, "labels": labels },
                        "status": { "conditions": [ready] },
                    }),
                );
            }
        }
    }

    /// Pods that run are members, if they may be.
    fn members(&self) {
        let mut running: Vec<u16> = (0..16).filter(|ordinal| self.pod(*ordinal).is_some()).collect();
        // One that has lost what it was comes back as a new member alone.
        for ordinal in 0..16 {
            let pod = self.pod(ordinal).unwrap_or_default();
            if pod["status"]["containerStatuses"].is_null() {
                continue;
            }
            let is_new =
                self.store.0.lock().unwrap().all.iter().any(|m| m.ordinal == Some(ordinal) && !m.started);
            if is_new {
                self.server.change(&format!("{PODS}/c-r-consensus-{ordinal}"), |pod| {
                    pod["status"].as_object_mut().unwrap().remove("containerStatuses");
                });
            } else {
                running.retain(|other| *other != ordinal);
            }
        }
        let bootstrapped =
            self.server.get(REGION).is_some_and(|region| !region["status"]["bootstrapped"].is_null());
        let mut members = self.store.0.lock().unwrap();
        if members.all.is_empty() && !bootstrapped {
            members.next_id = 100;
            members.all =
                running.iter().map(|ordinal| member(u64::from(*ordinal) + 1, *ordinal, true)).collect();
        }
        for member in &mut members.all {
            member.started |= running.contains(&member.ordinal.unwrap_or(99));
        }
        members.running = running;
        members.leads();
    }

    /// The condition of this type: its status and its reason.
    pub(crate) fn condition(&self, path: &str, kind: &str) -> (String, String) {
        let object = self.server.get(path).unwrap_or_default();
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.condition(CLUSTER, "Ready").0 == "True" && self.condition(REGION, "Ready").0 == "True"
    }

    pub(crate) fn voters(&self) -> Vec<u16> {
        let members = self.store.0.lock().unwrap();
        let mut voters: Vec<_> =
            members.all.iter().filter(|member| !member.learner).filter_map(|member| member.ordinal).collect();
        voters.sort_unstable();
        voters
    }

    pub(crate) fn set_spec(&self, pointer: &str, value: Value) {
        self.server.change(CLUSTER, |cluster| *cluster.pointer_mut(pointer).unwrap() = value);
    }

    /// The volume of a pod, and the pod, are gone.
    pub(crate) fn lose_volume(&self, ordinal: u16) {
        self.server.remove(&format!("{CLAIMS}/data-c-r-consensus-{ordinal}"));
        self.server.remove(&format!("{PODS}/c-r-consensus-{ordinal}"));
    }

    /// The same, if three or more members have all of their volumes: nobody could do anything about the loss of too many.
    pub(crate) fn lose_volume_if_spare(&self, ordinal: u16) {
        let members = self.store.0.lock().unwrap().all.clone();
        let region = self.server.get(REGION).unwrap_or_default();
        let known = region["status"]["members"].as_array().cloned().unwrap_or_default();
        let has_its_volume = |member: &Seen| {
            let pod = format!("c-r-consensus-{}", member.ordinal.unwrap_or(99));
            let claim = self.server.get(&format!("{CLAIMS}/data-{pod}")).unwrap_or_default();
            let known = known.iter().find(|known| known["id"] == format!("{:x}", member.id)).cloned();
            let uid = &claim["metadata"]["uid"];
            !member.learner
                && member.health == Health::Well
                && uid.is_string()
                && known.unwrap_or_default()["claimUid"] == *uid
        };
        if members.len() >= 3 && members.iter().all(has_its_volume) {
            self.lose_volume(ordinal);
        }
    }

    /// What a pod has on its volume is gone, and its claim stays: its member does not start any more, and says so.
    pub(crate) fn wipe(&self, ordinal: u16) {
        let all = self.store.0.lock().unwrap().all.clone();
        let id = all.iter().find(|member| member.ordinal == Some(ordinal)).expect("it is a member").id;
        let message = format!(
            "novacron-consensus: /var/lib/novacron/consensus/log: the log of member {id:x} is not there any more\n\
             with its data in /var/lib/novacron/consensus, this member must not take part; ..."
        );
        let path = format!("{PODS}/c-r-consensus-{ordinal}");
        self.server.change(&path, |pod| {
            pod["status"]["containerStatuses"] = json!([{
                "name": "consensus", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "exitCode": 1, "message": message } },
            }]);
        });
        self.kubernetes();
    }

    pub(crate) fn pod(&self, ordinal: u16) -> Option<Value> {
        self.server.get(&format!("{PODS}/c-r-consensus-{ordinal}"))
    }

    pub(crate) fn claims(&self) -> usize {
        self.server.paths().iter().filter(|path| path.starts_with(CLAIMS)).count()
    }
}

fn revision(set: &Value) -> String {
    let text = set["spec"]["template"].to_string();
    let hash = text.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("c-r-consensus-{hash:x}")
}
