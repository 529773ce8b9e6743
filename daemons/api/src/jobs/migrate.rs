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
    record::{Job, Migration, Progress},
    work::{Step, StepError},
};
use crate::{
    agents::AskError,
    app::App,
    routes::{nodes, vms},
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
    /// An attempt before this one has had a transfer.
    was_begun: bool,
}

impl Migrate {
    pub(super) fn new(job: &Job, migration: &Migration) -> Self {
        let (id, migration) = (job.id.clone(), migration.clone());
        let was_begun = job.progress.total.is_some();
        Self { id, migration, vm: None, transfer: None, arrived: None, entered: false, was_begun }
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

    /// Ends the transfer, if there is one that runs. Whether none does: the agent says so, or runs no more itself.
    pub(super) async fn stop(&self, app: &App) -> bool {
        if self.arrived.is_some() {
            return true;
        }
        let from = &self.migration.from;
        let error = match self.told_to_stop(app).await {
            Ok(has_stopped) => return has_stopped,
            Err(error) => error,
        };
        // Who may not ask has not begun one either.
        let was_never = error.is_for_good() && !self.was_begun && self.transfer.is_none();
        if was_never || matches!(nodes::found(&app.store, from).await, Ok(None)) {
            return true;
        }
        tracing::warn!(job = self.id, node = from, %error, "the transfer is to end, and the agent does not know");
        false
    }

    /// Whether the agent has no such transfer that runs. If it has, it is told.
    async fn told_to_stop(&self, app: &App) -> Result<bool, AskError> {
        let from = &self.migration.from;
        let all: Vec<Transfer> = app.agents.look(&app.store, from, "/v1/transfers").await?;
        let ours = |transfer: &&Transfer| {
            transfer.key.as_ref() == Some(&self.id) && transfer.state == TransferState::Running
        };
        let Some(transfer) = all.iter().find(ours) else { return Ok(true) };
        let path = format!("/v1/transfers/{}", transfer.id);
        match app.agents.ask(&app.store, from, Method::DELETE, &path, None).await {
            // It has ended by itself, or ends now.
            Ok(_) | Err(AskError::Control(ControlError::Refused { .. })) => Ok(false),
            Err(error) => Err(error),
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
        self.check(&found)?;
        self.vm = Some(found.clone());
        Ok(found)
    }

    /// Refuses a VM that is not what it was when the job was made: what its maker may do was looked at then.
    fn check(&self, (kv, vm): &(KeyValue, Vm)) -> Result<(), StepError> {
        let Migration { vm: name, to, moves, region, to_region, .. } = &self.migration;
        let Some(moves) = moves else { return Ok(()) };
        let why = if kv.create_revision != moves.made_at {
            "was removed, and another one was made under its name"
        } else if vm.node != moves.node && vm.node.as_ref() != Some(to) {
            "was given another node"
        } else if vm.region != *region && Some(&vm.region) != to_region.as_ref() {
            "was given another region"
        } else {
            return Ok(());
        };
        Err(failed(format!("the VM {name:?} {why} meanwhile"), true))
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
