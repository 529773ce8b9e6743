//! What is there of a region: its StatefulSet, pods, claims and members, put together to what decisions are made of.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod as KubePod, Secret},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams, ObjectMeta},
    core::ApiResource,
};
use serde::de::DeserializeOwned;

use super::{Context, ReconcileError};
use crate::{
    api::{MemberStatus, Reason, RegionStatus},
    apply::failed,
    membership::{Member, Pod, View},
    plan::{CAUGHT_UP, Component, Holder, Region, ports},
    store::{MEMBERS_MAX, Pems, Place, Seen},
};

/// Pods, or claims, of a region's consensus at most.
const LIST_MAX: u32 = 100;

/// Of what a member says whose data it must not start from (`daemons/consensus/src/begin.rs`).
const MUST_NOT_TAKE_PART: &str = "this member must not take part";

/// What follows is the member whose log it was (`consensus-core/etcd/src/bootstrap.rs`).
const LOG_OF_MEMBER: &str = "the log of member ";

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) set: Option<StatefulSet>,
    pub(super) pods: BTreeMap<u16, KubePod>,
    /// Ids of volumes' claims.
    pub(super) claims: BTreeMap<u16, String>,
    pub(super) deployment: Option<Deployment>,
    pub(super) daemon_set: Option<DaemonSet>,
    pub(super) place: Option<Place>,
    pub(super) view: View,
    /// Why the members are not known, or are not to be touched.
    pub(super) trouble: Option<(Reason, String)>,
}

/// Reads everything.
pub(super) async fn observe(
    context: &Context,
    region: &Region<'_>,
    status: &RegionStatus,
) -> Result<Observed, ReconcileError> {
    let name = region.name_of(Component::Consensus);
    let mut observed = Observed {
        set: get(context, region, &name).await?,
        pods: numbered(list::<KubePod>(context, region).await?, &name),
        deployment: get(context, region, &region.name_of(Component::Api)).await?,
        daemon_set: get(context, region, &region.name_of(Component::Dwcp)).await?,
        ..Observed::default()
    };
    let claims = list::<PersistentVolumeClaim>(context, region).await?;
    let claims = numbered(claims.into_iter().filter(is_bound).collect(), &name);
    observed.claims = claims.into_iter().filter_map(|(n, claim)| Some((n, claim.uid()?))).collect();
    let tls = match region.tls_secret(Holder::Client) {
        None => None,
        Some(secret) => match pems(get(context, region, &secret).await?, &secret) {
            Ok(pems) => Some(pems),
            Err(why) => {
                observed.trouble = Some((Reason::SecretMissing, why));
                None
            }
        },
    };
    let members = ask(context, region, &mut observed, tls).await;
    observed.view = view(&observed, status, members);
    Ok(observed)
}

async fn ask(
    context: &Context,
    region: &Region<'_>,
    observed: &mut Observed,
    tls: Option<Pems>,
) -> Vec<Seen> {
    let scheme = region.scheme();
    let url =
        |ordinal, port: ports::Port| format!("{scheme}://{}:{}", region.member_host(ordinal), port.number);
    let clients: Vec<_> = observed.pods.keys().map(|ordinal| url(*ordinal, ports::CLIENT)).collect();
    if clients.is_empty() || observed.trouble.is_some() {
        return Vec::new();
    }
    let peers = (0..MEMBERS_MAX as u16).map(|ordinal| url(ordinal, ports::PEER)).collect();
    let place = Place { clients, peers, tls };
    observed.place = Some(place.clone());
    match context.stores.members(place).await {
        Ok(members) => {
            if let Some(stranger) = members.iter().find(|member| member.ordinal.is_none()) {
                let why = format!(
                    "member {:x} is no pod of this region: members are left as they are",
                    stranger.id
                );
                observed.trouble = Some((Reason::MemberUnhealthy, why));
            }
            members
        }
        Err(error) => {
            tracing::debug!(region = region.name, %error, "members");
            Vec::new()
        }
    }
}

fn view(observed: &Observed, status: &RegionStatus, members: Vec<Seen>) -> View {
    let set = observed.set.as_ref();
    let revision = set.and_then(|set| set.status.as_ref()?.update_revision.clone());
    let member = |seen: Seen| {
        let ordinal = seen.ordinal?;
        let known = status.members.iter().find(|known| known.id == hexadecimal(seen.id));
        let claim = known.and_then(|known| known.claim_uid.as_ref());
        Some(Member {
            id: seen.id,
            ordinal,
            started: seen.started,
            learner: seen.learner,
            leader: seen.leader,
            health: seen.health,
            volume_lost: claim.is_some_and(|claim| observed.claims.get(&ordinal) != Some(claim))
                || (seen.started && observed.pods.get(&ordinal).is_some_and(|pod| refuses(pod, seen.id))),
        })
    };
    View {
        bootstrapped: status.bootstrapped.is_some(),
        pods_wanted: pods_wanted(set),
        pods: observed.pods.iter().map(|(n, found)| (*n, pod(found, revision.as_deref()))).collect(),
        members: members.into_iter().filter_map(member).collect(),
    }
}

pub(super) fn pods_wanted(set: Option<&StatefulSet>) -> u16 {
    let wanted = set.and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0);
    u16::try_from(wanted).unwrap_or(0)
}

fn pod(found: &KubePod, revision: Option<&str>) -> Pod {
    let own = found.labels().get("controller-revision-hash").map(String::as_str);
    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .clone()
        .find(|condition| condition.type_ == "ContainersReady" && condition.status == "True");
    let since = ready.and_then(|condition| condition.last_transition_time.as_ref());
    let ready_for = since.map_or(Duration::ZERO, |since| {
        Duration::try_from(Timestamp::now().duration_since(since.0)).unwrap_or(Duration::ZERO)
    });
    // One that is on its way out comes back as it should be.
    let stays = found.metadata.deletion_timestamp.is_none();
    Pod {
        outdated: revision.is_some() && own != revision && stays,
        ready: ready.is_some() && stays,
        ready_for,
    }
}

/// Its member does not start from its data, which is damaged or gone, and has said so when it ended last: it comes back only as a new
/// member. One that runs again has got over it; and what a pod says of another member, which was there before, says nothing of the one
/// that has taken its place, though it may be known to run before its pod is.
fn refuses(found: &KubePod, id: u64) -> bool {
    let containers = found.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.filter(|container| container.state.as_ref().is_none_or(|state| state.running.is_none())).any(
        |container| {
            let ends = [container.state.as_ref(), container.last_state.as_ref()];
            let last = ends.into_iter().find_map(|state| state?.terminated.as_ref());
            let message = last.and_then(|ended| ended.message.as_deref());
            let names_another = |message: &str| {
                let named =
                    message.split_once(LOG_OF_MEMBER).and_then(|(_, rest)| rest.split_whitespace().next());
                named.is_some_and(|named| named != hexadecimal(id))
            };
            message.is_some_and(|message| message.contains(MUST_NOT_TAKE_PART) && !names_another(message))
        },
    )
}

/// Whether the pod has the readiness gate's condition, and how it is.
pub(super) fn gate(found: &KubePod) -> Option<bool> {
    let mut conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == CAUGHT_UP).map(|condition| condition.status == "True")
}

impl Observed {
    /// The controller of StatefulSets has seen the last change.
    pub(super) fn is_set_current(&self) -> bool {
        self.set.as_ref().is_some_and(|set| {
            set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation
        })
    }

    /// What runs pods is another than it was when it was read.
    pub(super) fn are_others(&self, applied: &[DynamicObject]) -> bool {
        let generation = |uid: &str, meta: Option<&ObjectMeta>| {
            meta.filter(|meta| meta.uid.as_deref() == Some(uid)).map(|meta| meta.generation)
        };
        let runs_pods = ["StatefulSet", "Deployment", "DaemonSet"];
        let of_pods = applied.iter().filter(|object| {
            object.types.as_ref().is_some_and(|types| runs_pods.contains(&types.kind.as_str()))
        });
        of_pods.into_iter().any(|object| {
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            let read = [
                self.set.as_ref().map(|set| &set.metadata),
                self.deployment.as_ref().map(|deployment| &deployment.metadata),
                self.daemon_set.as_ref().map(|set| &set.metadata),
            ];
            let before = read.into_iter().find_map(|meta| generation(uid, meta));
            before != Some(object.metadata.generation)
        })
    }

    /// What of the API and the agents is not ready.
    pub(super) fn unready(&self) -> Option<String> {
        if let Some(deployment) = &self.deployment {
            let status = deployment.status.clone().unwrap_or_default();
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let is_current = status.observed_generation == deployment.metadata.generation;
            let (updated, available) =
                (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
            if !is_current || updated < wanted || available < wanted {
                return Some(format!(
                    "{available} of {wanted} replicas of the API are available, {updated} updated"
                ));
            }
        }
        let set = self.daemon_set.as_ref()?;
        let status = set.status.clone().unwrap_or_default();
        let (wanted, updated) =
            (status.desired_number_scheduled, status.updated_number_scheduled.unwrap_or(0));
        let is_current = status.observed_generation == set.metadata.generation;
        (!is_current || updated < wanted || status.number_ready < wanted)
            .then(|| format!("{} of {wanted} agents are ready, {updated} updated", status.number_ready))
    }

    /// The members for the status of the region. Which volume a member began with is not forgotten.
    pub(super) fn members(&self, region: &Region<'_>, before: &RegionStatus) -> Vec<MemberStatus> {
        let known = |id: &str| before.members.iter().find(|member| member.id == id);
        let member = |member: &Member| {
            let id = hexadecimal(member.id);
            let claim = known(&id).and_then(|known| known.claim_uid.clone());
            let now = || self.claims.get(&member.ordinal).cloned().filter(|_| member.is_well());
            MemberStatus {
                claim_uid: claim.or_else(now),
                pod: region.member(member.ordinal),
                learner: member.learner,
                healthy: member.is_well(),
                id,
            }
        };
        // A store that says nothing has not lost its members.
        if self.view.members.is_empty() {
            return before.members.clone();
        }
        self.view.members.iter().map(member).collect()
    }
}

pub(super) fn hexadecimal(id: u64) -> String {
    format!("{id:x}")
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let is_lost = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost");
    !is_lost && claim.metadata.deletion_timestamp.is_none()
}

/// By the numbers at the ends of their names.
fn numbered<K: ResourceExt>(objects: Vec<K>, set: &str) -> BTreeMap<u16, K> {
    let number = |object: &K| {
        let name = object.name_any();
        let (before, number) = name.rsplit_once('-')?;
        before.ends_with(set).then(|| number.parse().ok())?
    };
    objects.into_iter().filter_map(|object| Some((number(&object)?, object))).collect()
}

fn pems(secret: Option<Secret>, name: &str) -> Result<Pems, String> {
    let data = secret.and_then(|secret| secret.data).ok_or_else(|| format!("there is no Secret {name}"))?;
    let part = |key: &str| {
        let found = data.get(key).map(|bytes| bytes.0.clone()).filter(|bytes| !bytes.is_empty());
        found.ok_or_else(|| format!("Secret {name} has no {key}"))
    };
    Ok(Pems { ca: part("ca.crt")?, cert: part("tls.crt")?, key: part("tls.key")? })
}

/// An object by name.
async fn get<K>(context: &Context, region: &Region<'_>, name: &str) -> Result<Option<K>, ReconcileError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(context.client(), &region.namespace);
    Ok(api.get_opt(name).await.map_err(failed("get", &ApiResource::erase::<K>(&()), name))?)
}

/// All of a region's consensus.
async fn list<K>(context: &Context, region: &Region<'_>) -> Result<Vec<K>, ReconcileError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let labels = region.selector(Component::Consensus);
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&labels.join(",")).limit(LIST_MAX);
    let api = Api::<K>::namespaced(context.client(), &region.namespace);
    let listed =
        api.list(&params).await.map_err(failed("list", &ApiResource::erase::<K>(&()), &region.name))?;
    Ok(listed.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_refuses_to_start_is_known_by_its_words() {
        // The member's own source has them.
        let begin = include_str!("../../../consensus/src/begin.rs");
        assert!(begin.contains(MUST_NOT_TAKE_PART));
        let bootstrap = include_str!("../../../../consensus-core/etcd/src/bootstrap.rs");
        assert!(bootstrap.contains(LOG_OF_MEMBER));
        let said = format!("novacron-consensus: x\nwith its data in /d, {MUST_NOT_TAKE_PART}; y\n");
        let pod = |state: serde_json::Value, last: serde_json::Value| -> KubePod {
            let container = serde_json::json!({
                "name": "consensus", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": state, "lastState": last,
            });
            serde_json::from_value(serde_json::json!({ "status": { "containerStatuses": [container] } }))
                .unwrap()
        };
        let ended =
            |message: &str| serde_json::json!({ "terminated": { "exitCode": 1, "message": message } });
        let waits = serde_json::json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let runs = serde_json::json!({ "running": {} });
        let refuses_it = |pod: KubePod| refuses(&pod, 0xab);
        assert!(refuses_it(pod(waits.clone(), ended(&said))));
        assert!(refuses_it(pod(ended(&said), serde_json::json!({}))));
        assert!(!refuses_it(pod(ended("something else"), ended(&said))), "it has got over it");
        assert!(!refuses_it(pod(runs, ended(&said))));
        assert!(!refuses_it(pod(waits.clone(), ended("killed"))));
        assert!(!refuses_it(KubePod::default()));
        let of = |id: &str| format!("x: {LOG_OF_MEMBER}{id} is not there any more\n{MUST_NOT_TAKE_PART}");
        assert!(refuses_it(pod(waits.clone(), ended(&of("ab")))));
        assert!(!refuses_it(pod(waits, ended(&of("cd")))), "that was the member before it");
    }

    #[test]
    fn pods_and_claims_are_known_by_their_numbers() {
        let named = |name: &str| KubePod {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..KubePod::default()
        };
        let pods =
            ["a-consensus-0", "a-consensus-10", "data-a-consensus-2", "a-consensus-x", "b-3"].map(named);
        let found = numbered(pods.into(), "a-consensus");
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 2, 10]);
    }
}
