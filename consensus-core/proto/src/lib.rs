//! The etcd v3 API as Rust types and services.
//!
//! Compiled at build time from the files in `proto/`, which hold services, messages and field numbers as etcd's clients use
//! them. Deliberately not here: what any of it means.

// What prost and tonic write.
#![allow(missing_docs, clippy::all, unreachable_pub, rust_2018_idioms)]

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod authpb {
    tonic::include_proto!("authpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

// As deep as the package's name: generated code refers to the other packages from there.
pub mod novacron {
    pub mod consensus {
        pub mod v1 {
            tonic::include_proto!("novacron.consensus.v1");
        }
    }
    pub mod regions {
        pub mod v1 {
            tonic::include_proto!("novacron.regions.v1");
        }
    }
}

pub use novacron::{consensus::v1 as internal, regions::v1 as regions};

/// The compiled descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
