//! Conditions, and an event for each that has changed.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, error_boundary::InvalidObject},
    runtime::{
        controller::Action,
        events::{Event, EventType},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Context, ReconcileError};
use crate::{
    api::{Condition, ConditionType, Reason, Status, set_condition},
    apply::failed,
    plan::FIELD_MANAGER,
};

/// Longest note of an event, in bytes, that the API server takes.
const NOTE_BYTES_MAX: usize = 1024;

/// How things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Told {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Each condition, and whether it is true.
    fn conditions(&self) -> [(ConditionType, bool); 3] {
        use Reason as R;
        let progresses = matches!(
            self.reason,
            R::Bootstrapping
                | R::PodsNotReady
                | R::ScalingUp
                | R::ScalingDown
                | R::ReplacingMember
                | R::CatchingUp
                | R::Upgrading
                | R::Baking
                | R::RollingOut
                | R::RenewingCertificates
                | R::Restoring
                | R::Deleting
        );
        let is_ready = self.reason == R::AsSpecified;
        let is_degraded = !progresses && !is_ready && self.reason != R::Paused;
        let all = [is_ready, progresses, is_degraded];
        let mut conditions = ConditionType::ALL.map(|kind| (kind, false));
        for (condition, is) in conditions.iter_mut().zip(all) {
            condition.1 = is;
        }
        conditions
    }

    /// Sets all conditions; whether one is another than before.
    pub(super) fn set(&self, conditions: &mut Vec<Condition>, generation: Option<i64>) -> bool {
        let now = Timestamp::now();
        let mut changed = false;
        for (kind, is) in self.conditions() {
            let status = Status::from(is);
            changed |= set_condition(conditions, kind, status, self.reason, &self.message, generation, now);
        }
        changed
    }

    fn kind(&self) -> EventType {
        let [.., (_, is_degraded)] = self.conditions();
        if is_degraded { EventType::Warning } else { EventType::Normal }
    }
}

impl Context {
    /// Says what has happened; if that cannot be said, nothing else depends on it.
    pub(super) async fn event<K: Resource<DynamicType = ()>>(&self, object: &K, told: &Told, action: &str) {
        self.event_of(&object.object_ref(&()), told, action).await;
    }

    async fn event_of(&self, object: &ObjectReference, told: &Told, action: &str) {
        let end = told.message.floor_char_boundary(NOTE_BYTES_MAX);
        let event = Event {
            type_: told.kind(),
            reason: told.reason.as_str().to_owned(),
            note: Some(told.message[..end].to_owned()),
            action: action.to_owned(),
            secondary: None,
        };
        if self.applier.fence().check().is_err() {
            return;
        }
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::warn!(%error, "an event is lost");
        }
    }

    /// Writes a status, whole.
    pub(super) async fn write_status<K, S>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &S,
    ) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
        S: Serialize,
    {
        let resource = ApiResource::erase::<K>(&());
        let name = object.name_any();
        // As it was read: what somebody else has said of it meanwhile is not lost.
        let patch = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "status": status,
            "metadata": { "resourceVersion": object.resource_version() },
        });
        self.applier.fence().check().map_err(crate::apply::ApplyError::from)?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch_status(&name, &params, &Patch::Apply(patch))
            .await
            .map_err(|error| match error {
                // It went meanwhile.
                kube::Error::Api(status) if status.code == 404 => None,
                error => Some(failed("patch status of", &resource, &name)(error)),
            })
            .map_or_else(|error| error.map_or(Ok(()), |error| Err(error.into())), |_| Ok(()))
    }
}

/// Whose the conditions of objects are that cannot be read. Under the operator's other name, everything else that is known of them
/// would go.
const INVALID_MANAGER: &str = "novacron-operator-invalid";

impl Context {
    /// Says of an object that its spec cannot be read: it gets a condition and an event, and nothing else happens to it or to what
    /// it had.
    pub(super) async fn refuse<K>(&self, invalid: &InvalidObject) -> Result<Action, ReconcileError>
    where
        K: Resource<DynamicType = ()>,
    {
        let resource = ApiResource::erase::<K>(&());
        let (metadata, name) = (&invalid.metadata, invalid.metadata.name.clone().unwrap_or_default());
        let api = match &metadata.namespace {
            Some(namespace) => Api::<DynamicObject>::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        };
        let told = Told::new(Reason::Invalid, invalid.error.clone());
        let mut conditions = Vec::new();
        told.set(&mut conditions, metadata.generation);
        let patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "status": { "conditions": conditions },
        });
        self.applier.fence().check().map_err(crate::apply::ApplyError::from)?;
        let params = PatchParams::apply(INVALID_MANAGER).force();
        if let Err(error) = api.patch_status(&name, &params, &Patch::Apply(patch)).await {
            tracing::warn!(%error, name, "an object that cannot be read cannot be told so");
        }
        let mut object = DynamicObject::new(&name, &resource);
        object.metadata = metadata.clone();
        self.event_of(&object.object_ref(&resource), &told, "Read").await;
        Ok(Action::await_change())
    }
}
