//! What is planned gets to the API server: server-side apply with one field manager, and what is not planned any more goes.
//!
//! Fields that are not in the plan are others' to write. Deliberately not here: what is planned ([`plan`](crate::plan)).

mod kinds;

use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
    core::ApiResource,
};
use serde_json::json;

use crate::{
    lease::{Fence, NotHeld},
    plan::{FIELD_MANAGER, INSTANCE, MANAGED_BY},
};
pub use kinds::{FEDERATED, KINDS, Kind, RECORDS, kind_of};

/// Who owns `replicas` of a Deployment between the operator, which does not set it any more, and the autoscaler, which does not
/// yet: with nobody, there would be one replica.
pub const HANDOVER_MANAGER: &str = "novacron-operator-handover";

/// Objects of one kind in one region at most.
const LIST_MAX: u32 = 500;

/// Why something is not as it is planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Another may be at work.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// A kind that is not in [`KINDS`].
    #[error("{api_version} {kind} is no kind that is applied")]
    Kind {
        /// Its group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// The API server does not do it.
    #[error("{verb} {what}: {source}")]
    Api {
        /// What was asked for.
        verb: &'static str,
        /// Kind and name.
        what: String,
        /// What it said.
        source: kube::Error,
    },
}

impl ApplyError {
    /// The object as it is meant is refused: the same again would be as well.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if [400, 403, 422].contains(&status.code))
    }
}

/// Writes objects, as long as it may.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    fence: Fence,
}

/// Whose the objects are.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// The label that they have.
    pub instance: &'a str,
    /// The owner's id, without which nothing is taken away.
    pub uid: &'a str,
}

impl Applier {
    /// Writes by this client.
    pub fn new(client: Client, fence: Fence) -> Self {
        Self { client, fence }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// To ask before anything is written elsewhere.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Makes or changes an object.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(&self, object: &DynamicObject) -> Result<DynamicObject, ApplyError> {
        let kind = kind_of(object)?;
        let api = self.api(&kind.resource, object.namespace().as_deref());
        let name = object.name_any();
        if kind.resource.kind == "Deployment" && object.data["spec"]["replicas"].is_null() {
            self.hand_over_replicas(&api, &name, &kind.resource).await?;
        }
        self.fence.check()?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(object)).await.map_err(failed("apply", &kind.resource, &name))
    }

    /// Takes away what the owner has of all kinds, and is not planned any more. Gives how many there were.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn prune(
        &self,
        owner: Owner<'_>,
        planned: &[DynamicObject],
        is_known: impl Fn(&Kind) -> bool,
    ) -> Result<usize, ApplyError> {
        let selector = format!("{MANAGED_BY}={FIELD_MANAGER},{INSTANCE}={}", owner.instance);
        let is_owned = |object: &DynamicObject| {
            object.owner_references().iter().any(|other| other.uid == owner.uid)
                && object.metadata.deletion_timestamp.is_none()
        };
        let mut gone = 0;
        for kind in KINDS.iter().map(|kind| kind()).filter(is_known) {
            let found = self.list(&kind, Some(owner.namespace), &selector).await?;
            gone += self.take(&kind, found.into_iter().filter(is_owned).collect(), planned).await?;
        }
        Ok(gone)
    }

    /// Takes away what has these labels, of these kinds, in a namespace or in all, and is not planned. Gives how many there were,
    /// those that are on their way out as well. A kind that the API server does not know has none.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn sweep(
        &self,
        kinds: &[fn() -> Kind],
        namespace: Option<&str>,
        selector: &str,
        planned: &[DynamicObject],
    ) -> Result<usize, ApplyError> {
        let mut gone = 0;
        for kind in kinds.iter().map(|kind| kind()) {
            let found = match self.list(&kind, namespace, selector).await {
                Err(ApplyError::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => {
                    continue;
                }
                found => found?,
            };
            gone += self.take(&kind, found, planned).await?;
        }
        Ok(gone)
    }

    async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<DynamicObject>, ApplyError> {
        let params = ListParams::default().labels(selector).limit(LIST_MAX);
        let listed = self.api(&kind.resource, namespace).list(&params).await;
        Ok(listed.map_err(failed("list", &kind.resource, selector))?.items)
    }

    /// Deletes those that are not planned. Gives how many they are.
    async fn take(
        &self,
        kind: &Kind,
        found: Vec<DynamicObject>,
        planned: &[DynamicObject],
    ) -> Result<usize, ApplyError> {
        let is_planned = |object: &DynamicObject| {
            planned.iter().any(|other| {
                other.types.as_ref().is_some_and(|types| types.kind == kind.resource.kind)
                    && other.name_any() == object.name_any()
            })
        };
        let mut gone = 0;
        for object in found.into_iter().filter(|object| !is_planned(object)) {
            gone += 1;
            if object.metadata.deletion_timestamp.is_none() {
                let api = self.api(&kind.resource, object.namespace().as_deref());
                self.delete(&api, &kind.resource, &object.name_any(), object.uid()).await?;
            }
        }
        Ok(gone)
    }

    /// Deletes an object, if it is still this one.
    async fn delete(
        &self,
        api: &Api<DynamicObject>,
        resource: &ApiResource,
        name: &str,
        uid: Option<String>,
    ) -> Result<(), ApplyError> {
        self.fence.check()?;
        let preconditions = Preconditions { uid, resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(source) => Err(failed("delete", resource, name)(source)),
        }
    }

    /// What was ours is somebody's until the autoscaler takes it.
    async fn hand_over_replicas(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        resource: &ApiResource,
    ) -> Result<(), ApplyError> {
        let found = api.get_opt(name).await.map_err(failed("get", resource, name))?;
        let Some(object) = found.filter(owns_replicas) else { return Ok(()) };
        let replicas = &object.data["spec"]["replicas"];
        let patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name },
            "spec": { "replicas": replicas },
        });
        self.fence.check()?;
        let params = PatchParams::apply(HANDOVER_MANAGER).force();
        api.patch(name, &params, &Patch::Apply(&patch)).await.map_err(failed("apply", resource, name))?;
        Ok(())
    }

    fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }
}

fn owns_replicas(object: &DynamicObject) -> bool {
    object.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && fields.is_some_and(|fields| !fields["f:spec"]["f:replicas"].is_null())
    })
}

pub(crate) fn failed(
    verb: &'static str,
    resource: &ApiResource,
    name: &str,
) -> impl Fn(kube::Error) -> ApplyError + use<> {
    let what = format!("{} {name}", resource.kind);
    move |source| ApplyError::Api { verb, what: what.clone(), source }
}
