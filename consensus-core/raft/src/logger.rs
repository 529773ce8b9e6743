//! raft-rs logs with slog, everything else here with tracing.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        // What raft-rs calls info happens at each election and to each member; its warnings are of use to its authors.
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning | Level::Info => tracing::debug!(target: "raft", "{}", record.msg()),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{}", record.msg()),
        }
        Ok(())
    }
}

pub(crate) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}
