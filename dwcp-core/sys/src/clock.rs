//! What the kernel knows of its own clock: whether something keeps it right, and how wrong it may be.

use std::{io, time::Duration};

/// The state of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Somebody (chrony, ntpd, PTP) keeps it, and has done so lately.
    pub synchronised: bool,
    /// How wrong it is, as that somebody estimates.
    pub error_estimated: Duration,
    /// How wrong it may be at most. It grows while nobody corrects the clock.
    pub error_max: Duration,
}

/// Asks the kernel (`adjtimex(2)`). Needs no privilege, changes nothing.
///
/// # Errors
///
/// The kernel's, where a sandbox forbids the call.
pub fn clock() -> io::Result<Clock> {
    // SAFETY: a `timex` of zeroes is valid: it consists of integers. `modes` 0 asks only.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is exclusive and lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let micros = |value: libc::c_long| Duration::from_micros(u64::try_from(value).unwrap_or(0));
    Ok(Clock {
        synchronised: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        error_estimated: micros(timex.esterror),
        error_max: micros(timex.maxerror),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_tells() {
        let clock = super::clock().expect("every Linux has it");
        assert!(clock.synchronised || clock.error_max > std::time::Duration::ZERO, "{clock:?}");
    }
}
