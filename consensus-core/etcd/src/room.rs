//! Room for data: the quota, and what the file system has left.
//!
//! A member that has none raises the alarm NOSPACE, and then no member takes what needs room. An operator ends it, as in
//! etcd; one that was raised because the file system was full also ends when it has room again.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use consensus_proto::{
    etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction},
    internal::internal_request::Request as Internal,
};
use consensus_store::{Caller, StoreError};
use tonic::Status;

use crate::{server::Server, status};

/// How often it is looked at. What comes in meanwhile must fit into the reserve.
const LOOK: Duration = Duration::from_millis(200);
/// How much more than the reserve must be free for the alarm to end.
const ENOUGH: u64 = 2;
/// A file that is there while this member's alarm is for the file system.
const RAISED: &str = "disk-full";

/// Whether there is room, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct Room {
    over_quota: AtomicBool,
    disk_full: AtomicBool,
    /// This member has raised the alarm because of the file system, and ends it.
    raised_for_disk: AtomicBool,
}

impl Room {
    /// As the member before the last stop has left it.
    pub(crate) fn open(data_dir: &Path) -> Self {
        Self { raised_for_disk: data_dir.join(RAISED).exists().into(), ..Self::default() }
    }
}

/// Who starts again must know that it is to end the alarm, and not an operator.
fn remember_why(data_dir: &Path) {
    if let Err(error) = std::fs::File::create(data_dir.join(RAISED)) {
        tracing::warn!(%error, "if this member is started again, an operator has to end the alarm");
    }
}

fn forget_why(data_dir: &Path) {
    if let Err(error) = std::fs::remove_file(data_dir.join(RAISED)) {
        tracing::warn!(%error, "an alarm that this member did not raise may be ended by it");
    }
}

/// Bytes that the file system of a folder has left for us.
fn free(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Looks at the room for as long as the server runs.
pub(crate) async fn watch(server: Server) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = server.closing() => return,
        }
        server.look_for_room().await;
    }
}

impl Server {
    async fn look_for_room(&self) {
        let shared = &self.shared;
        let (config, room) = (&shared.config, &shared.room);
        self.look_at_quota();
        // The log may have a file system of its own. One that does not say has room.
        let free = [&config.data_dir, &config.node.log_dir].into_iter().filter_map(|folder| free(folder));
        let free = free.min().unwrap_or(u64::MAX);
        let full = free < config.reserve_bytes;
        room.disk_full.store(full, Relaxed);
        if full && !room.raised_for_disk.load(Relaxed) {
            tracing::error!(free, reserve = config.reserve_bytes, "the file system is full");
            remember_why(&config.data_dir);
            // If it does not succeed, the next look tries again.
            room.raised_for_disk.store(self.set_alarm(AlarmAction::Activate).await.is_ok(), Relaxed);
        } else if free / ENOUGH >= config.reserve_bytes && room.raised_for_disk.load(Relaxed) {
            tracing::info!(free, "the file system has room again");
            if self.set_alarm(AlarmAction::Deactivate).await.is_ok() {
                room.raised_for_disk.store(false, Relaxed);
                forget_why(&config.data_dir);
            }
        }
    }

    fn look_at_quota(&self) -> bool {
        let shared = &self.shared;
        let over = shared.reader.disk().bytes() >= shared.config.quota_bytes;
        shared.room.over_quota.store(over, Relaxed);
        over
    }

    async fn set_alarm(&self, action: AlarmAction) -> Result<(), Status> {
        let request = AlarmRequest {
            action: action.into(),
            member_id: self.shared.node.id(),
            alarm: AlarmType::Nospace.into(),
        };
        self.propose(&Caller::Member, Internal::Alarm(request)).await.map(drop)
    }

    /// Refuses what needs room if there is none, and tells all members.
    pub(crate) async fn check_room(&self) -> Result<(), Status> {
        let room = &self.shared.room;
        // There may be room since the last look.
        let over_quota = room.over_quota.load(Relaxed) && self.look_at_quota();
        if !over_quota && !room.disk_full.load(Relaxed) {
            return Ok(());
        }
        self.set_alarm(AlarmAction::Activate).await?;
        Err(status::store(&StoreError::NoSpace))
    }
}
