//! Jobs that are made on a schedule: a cron expression in a time zone says when.
//!
//! A schedule is two entries. `/novacron/schedules/NAME` is what somebody wrote. `/novacron/schedule-runs/NAME` is
//! [what has become of it](record::Runs): up to which instant it was dealt with, and the last runs.
//! `/novacron/schedules-leader` is there while a replica hands out, with a lease.
//!
//! What always holds:
//! - A due instant is handed out in one transaction: it makes the job, whose id is of the schedule's name and the instant, and
//!   says that the instant was dealt with, if it was not before. So there is one job for it, or one reason why there is none,
//!   whichever replicas believe to be the leader, and whatever their clocks say.
//! - The same transaction compares the schedule's revision: what was changed, suspended or removed does nothing any more.
//!
//! Deliberately not here: what jobs do, and who may write schedules.

pub(crate) mod hand_out;
pub(crate) mod record;
pub(crate) mod timing;
pub(crate) mod worker;
