//! The daemon as a process: TLS, what it tells over HTTP, signals, settings, judges from outside.

mod config;
mod disk_full;
mod drain;
mod election;
mod leader_dies;
mod observe;
mod pki;
mod pods;
mod process;
mod reads;
mod tls;
mod traces;
