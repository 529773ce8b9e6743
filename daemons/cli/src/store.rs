//! The commands of the store: `novacron kv`, `lease`, `member`, `cluster` and `region`, over the etcd v3 gRPC API, so that they
//! work with etcd as well. One file a group.
//!
//! [`client`] says which members are asked, [`output`] prints, [`answer`] is the JSON that they share. Deliberately not
//! here: what the store does with a request.

mod answer;
mod client;
mod cluster;
mod input;
mod kv;
mod lease;
mod member;
mod output;
mod quorum;
mod range;
mod region;
mod rejoin;
mod restore;
mod snapshot;
mod txn;
mod txn_text;
mod watch;

use std::io;

use anyhow::Result;

pub(crate) use self::{
    cluster::ClusterArgs,
    kv::KvArgs,
    lease::LeaseArgs,
    member::MemberArgs,
    output::{Table, print},
    region::RegionArgs,
};

/// `novacron kv`; returns the exit code.
pub(crate) async fn kv(args: KvArgs) -> Result<u8> {
    ended(kv::run(args).await)
}

/// `novacron lease`; returns the exit code.
pub(crate) async fn lease(args: LeaseArgs) -> Result<u8> {
    ended(lease::run(args).await)
}

/// `novacron member`; returns the exit code.
pub(crate) async fn member(args: MemberArgs) -> Result<u8> {
    ended(member::run(args).await)
}

/// `novacron cluster`; returns the exit code.
pub(crate) async fn cluster(args: ClusterArgs) -> Result<u8> {
    ended(cluster::run(args).await)
}

/// `novacron region`; returns the exit code.
pub(crate) async fn region(args: RegionArgs) -> Result<u8> {
    ended(region::run(args).await)
}

/// A reader that went away has seen enough.
fn ended(result: Result<u8>) -> Result<u8> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match result {
        Err(error) if error.downcast_ref().is_some_and(is_gone) => Ok(crate::exit::OK),
        result => result,
    }
}
