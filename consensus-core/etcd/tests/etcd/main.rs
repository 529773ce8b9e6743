//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod auth;
mod cluster;
mod compaction;
mod damage;
mod maintenance;
mod regions;
mod restore;
mod snapshots;
mod support;
