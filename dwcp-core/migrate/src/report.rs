//! What a migration took.

use std::time::Duration;

use serde::Serialize;

/// A migration that succeeded.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// From the beginning until the guest ran at the target, as known here.
    pub total_ms: u64,
    /// Of it, until the disks were equal.
    pub disks_ms: u64,
    /// From the guest's stop until it was known here that it runs at the target: one way of the path longer than the guest stood.
    pub downtime_ms: u64,
    /// Passes over the memory.
    pub passes: u64,
    /// Bytes of the disks.
    pub disk_bytes: u64,
    /// Bytes that QEMU has written of memory and devices.
    pub memory_bytes: u64,
    /// Of these, after differences and compression.
    pub memory_coded_bytes: u64,
    /// Pages of zeros, whole ones, and differences.
    pub pages_zero: u64,
    /// See `pages_zero`.
    pub pages_full: u64,
    /// See `pages_zero`.
    pub pages_delta: u64,
    /// Bytes on the wire to the target, without TLS and TCP.
    pub wire_bytes: u64,
    /// Bytes of disks and memory for each byte on the wire.
    pub ratio: f64,
}

pub(crate) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
