//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod api;
mod bench;
mod config;
mod delta;
mod devices;
mod dict;
mod generate;
mod kills;
mod node;
mod observe;
mod progress;
mod region;
mod rejoin;
mod signals;
mod snapshot;
mod store;
mod support;
mod transfer;
mod up;
