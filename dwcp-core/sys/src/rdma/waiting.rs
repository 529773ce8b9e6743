//! Waiting for a stream: looking for completions for a while where that pays, then the descriptors.

use std::{
    io,
    num::NonZero,
    os::fd::BorrowedFd,
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{RdmaError, RdmaStream};

/// Events taken at a time.
const EVENTS_MAX: usize = 16;
/// Looks for completions between two at the clock.
const LOOKS: usize = 16;
/// After so long other threads of this processor get their turn between the looks: that of a software device, say.
const ALONE_MAX: Duration = Duration::from_micros(100);

/// Where there is one processor, polling keeps it from whoever would bring completions.
static MAY_POLL: LazyLock<bool> =
    LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|count| count > NonZero::<usize>::MIN));

impl RdmaStream {
    /// Readable after [`arm`](Self::arm) when there may be progress.
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.pair.completion_fd()
    }

    /// Readable when the device has something to say, such as its end.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.pair.event_fd()
    }

    /// Lets the descriptors tell of what comes from now on, then looks once more. Returns whether there was progress:
    /// then there may be nothing to wait for.
    pub fn arm(&mut self) -> Result<bool, RdmaError> {
        self.pair.arm().map_err(|error| self.fail(error))?;
        self.progress()
    }

    /// To be called when one of the descriptors is readable.
    pub fn take_events(&mut self) -> Result<(), RdmaError> {
        for _ in 0..EVENTS_MAX {
            if !self.pair.take_completion_event().map_err(|error| self.fail(error))? {
                break;
            }
        }
        for _ in 0..EVENTS_MAX {
            if !self.pair.take_device_event().map_err(|error| self.fail(error))? {
                break;
            }
        }
        Ok(())
    }

    /// For how long this wait may look for completions before it sleeps, at most [`POLL_MAX`](super::POLL_MAX): as long as
    /// that paid lately. Unless it is zero, [`learn`](Self::learn) is to be told what came of it.
    pub fn poll_time(&mut self) -> Duration {
        if *MAY_POLL { self.polling.budget() } else { Duration::ZERO }
    }

    /// Whether looking for completions has paid.
    pub fn learn(&mut self, paid: bool) {
        self.polling.learn(paid);
    }

    /// Blocks until there may be progress, at most for `timeout`. For callers without a reactor.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if self.poll()? || self.arm()? {
            return Ok(());
        }
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [self.completion_fd(), self.event_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.take_events()?;
        Ok(())
    }

    /// Looks for completions as long as that may pay; whether there were any.
    fn poll(&mut self) -> Result<bool, RdmaError> {
        let time = self.poll_time();
        if time.is_zero() {
            return Ok(false);
        }
        let started = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if self.progress()? {
                    self.learn(true);
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            match started.elapsed() {
                elapsed if elapsed >= time => break,
                elapsed if elapsed >= ALONE_MAX => std::thread::yield_now(),
                _ => {}
            }
        }
        self.learn(false);
        Ok(false)
    }
}
