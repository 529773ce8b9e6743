//! A federation, which is not done yet, and says so.

use std::{sync::Arc, time::Instant};

use kube::{Api, core::DeserializeGuard, runtime::controller::Action};

use super::{Context, ReconcileError, tell::Told};
use crate::api::{DWCPFederation, Reason};

/// Tells that nothing is done for it.
///
/// # Errors
/// What could not be written; the next attempt begins anew.
pub async fn reconcile_federation(
    object: Arc<DeserializeGuard<DWCPFederation>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let done = match &object.0 {
        Ok(federation) => tell(federation, &context).await,
        Err(invalid) => context.refuse::<DWCPFederation>(invalid).await,
    };
    metrics::histogram!("reconcile_duration_seconds", "controller" => "federation").record(began.elapsed());
    done
}

async fn tell(object: &DWCPFederation, context: &Context) -> Result<Action, ReconcileError> {
    let told = Told::new(Reason::NotSupported, "this operator does not connect clusters yet");
    let mut status = object.status.clone().unwrap_or_default();
    let changed = told.set(&mut status.conditions, object.metadata.generation);
    status.observed_generation = object.metadata.generation;
    if object.status.as_ref() != Some(&status) {
        context.write_status(&Api::all(context.client()), object, &status).await?;
    }
    if changed {
        context.event(object, &told, "Reconcile").await;
    }
    Ok(Action::await_change())
}
