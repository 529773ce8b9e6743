//! A region that is restored from a backup, and its backups: what Jobs have said, and what is true because of it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Pod,
};
use kube::{Api, api::ListParams, core::ApiResource};

use super::{Context, ReconcileError, tell::Told};
use crate::{
    api::{ConditionType, Reason, RegionStatus, RestoreStatus, Status, set_condition},
    apply::failed,
    plan::Region,
};

/// How long after its time a backup may be missing before that is said: three attempts of half an hour.
const LATE: SignedDuration = SignedDuration::from_mins(90);
/// Pods of a Job at most.
const LIST_MAX: u32 = 20;
/// Which Job a pod is of.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// What has become of a Job.
enum Outcome {
    Pending,
    Failed(String),
    Done(String),
}

/// Writes down what Jobs have said. Gives what restoring waits for, or why it does not go on.
pub(super) async fn look(
    context: &Context,
    region: &Region<'_>,
    status: &mut RegionStatus,
) -> Result<Option<Told>, ReconcileError> {
    if region.cluster.storage.restore.is_none() {
        return Ok(None);
    }
    let told = match (&mut status.restore, status.bootstrapped) {
        (None, Some(_)) => None,
        (None, None) => match outcome(context, region, &region.restore_job()).await? {
            Outcome::Pending => Some(Told::new(Reason::Restoring, "the backup is looked at")),
            Outcome::Failed(why) => Some(Told::new(Reason::RestoreFailed, why)),
            Outcome::Done(said) => match RestoreStatus::parse(&said) {
                Some(chosen) => {
                    let told = Told::new(Reason::Restoring, format!("members begin with {}", chosen.backup));
                    context.event(region.object, &told, "Restore").await;
                    status.restore = Some(chosen);
                    Some(told)
                }
                None => Some(Told::new(Reason::RestoreFailed, format!("the Job has said {said:?}"))),
            },
        },
        (Some(chosen), None) => {
            Some(Told::new(Reason::Restoring, format!("members begin with {}", chosen.backup)))
        }
        (Some(chosen), Some(_)) if !chosen.verified => {
            match outcome(context, region, &region.comparison_job()).await? {
                Outcome::Pending => {
                    Some(Told::new(Reason::Restoring, "the store is compared with its backup"))
                }
                Outcome::Failed(why) => Some(Told::new(Reason::RestoreFailed, why)),
                Outcome::Done(_) => {
                    chosen.verified = true;
                    None
                }
            }
        }
        (Some(_), Some(_)) => None,
    };
    Ok(told)
}

async fn outcome(context: &Context, region: &Region<'_>, name: &str) -> Result<Outcome, ReconcileError> {
    let jobs = Api::<Job>::namespaced(context.client(), &region.namespace);
    let found = jobs.get_opt(name).await.map_err(failed("get", &ApiResource::erase::<Job>(&()), name))?;
    let status = found.and_then(|job| job.status).unwrap_or_default();
    let has_failed = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Failed" && condition.status == "True");
    let has_succeeded = status.succeeded.unwrap_or(0) > 0;
    if !has_failed && !has_succeeded {
        return Ok(Outcome::Pending);
    }
    let params = ListParams::default().labels(&format!("{JOB_NAME}={name}")).limit(LIST_MAX);
    let pods = Api::<Pod>::namespaced(context.client(), &region.namespace);
    let pods = pods.list(&params).await.map_err(failed("list", &ApiResource::erase::<Pod>(&()), name))?;
    // Of its pods the last one.
    let said = pods.items.iter().rev().find_map(|pod| {
        let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        (has_succeeded == (ended.exit_code == 0)).then(|| ended.message.clone())?
    });
    Ok(match (has_succeeded, said) {
        (true, said) => Outcome::Done(said.unwrap_or_default()),
        (false, Some(said)) => Outcome::Failed(format!("Job {name} has failed: {}", said.trim())),
        (false, None) => Outcome::Failed(format!("Job {name} has failed")),
    })
}

/// Says of backups, and of what was restored, how they are.
pub(super) async fn tell(
    context: &Context,
    region: &Region<'_>,
    status: &mut RegionStatus,
    generation: Option<i64>,
) -> Result<(), ReconcileError> {
    let now = Timestamp::now();
    let set = |conditions: &mut Vec<_>, kind, is: bool, reason, message: &str| {
        set_condition(conditions, kind, Status::from(is), reason, message, generation, now);
    };
    if let Some(restore) = &status.restore {
        let reason = if restore.verified { Reason::AsSpecified } else { Reason::Restoring };
        let message =
            format!("{} up to revision {}, digest {}", restore.backup, restore.revision, restore.digest);
        set(&mut status.conditions, ConditionType::Restored, restore.verified, reason, &message);
    }
    if region.cluster.storage.backup.is_none() {
        status.conditions.retain(|condition| condition.type_ != ConditionType::BackedUp.as_str());
        return Ok(());
    }
    let (name, jobs) =
        (format!("{}-backup", region.name), Api::<CronJob>::namespaced(context.client(), &region.namespace));
    let found =
        jobs.get_opt(&name).await.map_err(failed("get", &ApiResource::erase::<CronJob>(&()), &name))?;
    let told = found.and_then(|job| job.status).unwrap_or_default();
    let (last, scheduled) =
        (told.last_successful_time.map(|time| time.0), told.last_schedule_time.map(|time| time.0));
    let (reason, message) = backed_up(last, scheduled, now);
    set(&mut status.conditions, ConditionType::BackedUp, reason == Reason::AsSpecified, reason, &message);
    Ok(())
}

fn backed_up(last: Option<Timestamp>, scheduled: Option<Timestamp>, now: Timestamp) -> (Reason, String) {
    match (last, scheduled) {
        (None, _) => (Reason::BackupMissing, "there is no backup yet".to_owned()),
        (Some(last), Some(scheduled)) if last < scheduled && now.duration_since(scheduled) > LATE => (
            Reason::BackupMissing,
            format!("that of {scheduled} is missing; the last one was made at {last}"),
        ),
        (Some(last), _) => (Reason::AsSpecified, format!("the last one was made at {last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_late_is_said_to_be() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        for (last, scheduled, now, expected) in [
            (None, None, 0, Reason::BackupMissing),
            (None, Some(0), 1, Reason::BackupMissing),
            (Some(1), Some(0), 59, Reason::AsSpecified),
            (Some(1), Some(60), 70, Reason::AsSpecified),
            (Some(1), Some(60), 151, Reason::BackupMissing),
            (Some(61), Some(60), 500, Reason::AsSpecified),
        ] {
            let (reason, _) = backed_up(last.map(at), scheduled.map(at), at(now));
            assert_eq!(reason, expected, "{last:?} {scheduled:?} {now}");
        }
    }
}
