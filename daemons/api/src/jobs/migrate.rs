//! A VM's data on its way from one node to another. The agents move it, verified and resumed; this asks for it, looks how it
//! goes, and enters into the inventory where it is.

use std::time::Duration;

use consensus_proto::mvccpb::KeyValue;
use novacron_control::{
    ControlError, Method,
    schema::{Transfer, TransferState},
};
use serde_json::json;
use tokio::time::sleep;

use super::{
    queue::Change,
    record::{Migration, Progress},
    work::{Step, StepError},
};
use crate::{
    agents::AskError,
    app::App,
    routes::vms,
    store::{is_at, put},
    vm::Vm,
};

/// How often is looked how the transfer goes.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A migration under way. The job's id is the transfer's key: whoever takes the job over finds the transfer that there is.
pub(crate) struct Migrate {
    id: String,
    migration: Migration,
    vm: Option<(KeyValue, Vm)>,
    transfer: Option<u64>,
    /// Everything has arrived.
    arrived: Option<Progress>,
    /// And the inventory says so.
    entered: bool,
}

impl Migrate {
    pub(super) fn new(id: &str, migration: &Migration) -> Self {
        let (id, migration) = (id.to_owned(), migration.clone());
        Self { id, migration, vm: None, transfer: None, arrived: None, entered: false }
    }

    pub(super) async fn step(&mut self, app: &App) -> Result<Option<Step>, StepError> {
        if self.entered {
            return Ok(None);
        }
        let (kv, vm) = self.vm(app).await?;
        if vm.node.as_ref() == Some(&self.migration.to) {
            return Ok(None);
        }
        if let Some(progress) = self.arrived {
            let Migration { to, to_region, .. } = &self.migration;
            let region = to_region.clone().unwrap_or_else(|| vm.region.clone());
            let moved = Vm { node: Some(to.clone()), region, ..vm };
            let key = vms::key(&moved.name);
            let compare = vec![is_at(&key, kv.mod_revision)];
            let change = Change { compare, then: vec![put(&key, vms::text(&moved), 0)] };
            self.entered = true;
            return Ok(Some(Step { change, progress: Some(progress) }));
        }
        let transfer = self.transfer(app).await?;
        let progress = Progress { done: transfer.bytes_done, total: Some(transfer.bytes_total) };
        match transfer.state {
            TransferState::Running => sleep(LOOK_INTERVAL).await,
            TransferState::Done => self.arrived = Some(progress),
            TransferState::Failed => {
                let why = transfer.error.unwrap_or_else(|| "it does not say why".to_owned());
                return Err(failed(format!("{}: {why}", self.migration.from), false));
            }
            TransferState::Cancelled => {
                return Err(failed(
                    format!("somebody cancelled the transfer at {}", self.migration.from),
                    true,
                ));
            }
        }
        Ok(Some(Step { change: Change::default(), progress: Some(progress) }))
    }

    /// Something was changed meanwhile, or may have been: the inventory is read again.
    pub(super) fn look_again(&mut self) {
        (self.vm, self.entered) = (None, false);
    }

    /// Ends the transfer, if there is one and the agent can be reached.
    pub(super) async fn cancel(&mut self, app: &App) {
        let from = &self.migration.from;
        let cancelled = async {
            let all = app.agents.ask(&app.store, from, Method::GET, "/v1/transfers", None).await?;
            let all: Vec<Transfer> = serde_json::from_value(all).unwrap_or_default();
            let ours = |transfer: &&Transfer| {
                transfer.key.as_ref() == Some(&self.id) && transfer.state == TransferState::Running
            };
            if let Some(transfer) = all.iter().find(ours) {
                let path = format!("/v1/transfers/{}", transfer.id);
                app.agents.ask(&app.store, from, Method::DELETE, &path, None).await?;
            }
            Ok::<_, AskError>(())
        };
        if let Err(error) = cancelled.await {
            tracing::warn!(job = self.id, node = from, %error, "cancelled, and the agent does not know");
        }
    }

    async fn vm(&mut self, app: &App) -> Result<(KeyValue, Vm), StepError> {
        if let Some(found) = &self.vm {
            return Ok(found.clone());
        }
        let name = &self.migration.vm;
        let found = app.store.get(&vms::key(name)).await?;
        let found = found.and_then(|kv| vms::parsed(&kv).map(|vm| (kv, vm)));
        let found = found.ok_or_else(|| failed(format!("there is no VM {name:?} any more"), true))?;
        self.vm = Some(found.clone());
        Ok(found)
    }

    /// How the transfer goes, which is begun if there is none.
    async fn transfer(&mut self, app: &App) -> Result<Transfer, StepError> {
        let Migration { vm, from, to, .. } = &self.migration;
        if let Some(id) = self.transfer {
            let path = format!("/v1/transfers/{id}");
            match app.agents.ask(&app.store, from, Method::GET, &path, None).await {
                Ok(answer) => return read(from, answer, &self.id),
                // The agent began anew, and knows nothing of it.
                Err(AskError::Control(ControlError::Refused { status, .. })) if status.as_u16() == 404 => {
                    self.transfer = None;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let new = json!({"peer": to, "from": vm, "to": vm, "key": self.id});
        let answer = app.agents.ask(&app.store, from, Method::POST, "/v1/transfers", Some(new)).await?;
        let transfer = read(from, answer, &self.id)?;
        self.transfer = Some(transfer.id);
        Ok(transfer)
    }
}

/// The agent's answer, if it is of this transfer: an agent that began anew counts anew.
fn read(node: &str, answer: serde_json::Value, key: &str) -> Result<Transfer, StepError> {
    let transfer: Transfer = serde_json::from_value(answer)
        .map_err(|error| failed(format!("{node}: what it says of a transfer: {error}"), false))?;
    match transfer.key.as_deref() == Some(key) {
        true => Ok(transfer),
        false => Err(failed(format!("{node} has another transfer of this number by now"), false)),
    }
}

fn failed(why: String, for_good: bool) -> StepError {
    StepError::Failed { why, for_good }
}

impl From<AskError> for StepError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Store(error) => Self::Store(error),
            error => Self::Failed { why: error.to_string(), for_good: error.is_for_good() },
        }
    }
}
