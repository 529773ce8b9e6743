//! Members in one process, with real disks and sockets, used through gRPC. One program: each that links the whole store
//! takes a minute or two to compile.

mod auth;
mod cluster;
mod compaction;
mod damage;
mod maintenance;
mod restore;
mod snapshots;
mod support;
