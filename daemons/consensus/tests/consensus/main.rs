//! One program of all tests that can share a process: linking each on its own took longer than running them.

mod auth_like_etcd;
mod daemon;
mod etcdctl;
mod like_etcd;
