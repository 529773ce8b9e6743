//! What leases and promises are measured with.

use std::{fmt, sync::Arc, time::Duration};

/// A clock: the time since any moment. It never goes back, and goes on whatever happens to the process.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// One that is looked at with a function.
    pub fn new(look: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// The machine's, which goes on while the machine sleeps (`CLOCK_BOOTTIME`), unlike that of `Instant`.
    pub(crate) fn of_machine() -> Self {
        Self::new(|| {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Duration::try_from(time).expect("a machine was not started before it was")
        })
    }

    /// What it says.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
