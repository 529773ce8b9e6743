#![doc = include_str!("../README.md")]

pub mod compare;
pub mod contender;
pub mod gso;
pub mod lab;
pub mod link;
pub mod machine;
pub mod namespace;
pub mod pump;
pub mod random;
pub mod rate;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod store;
pub mod sweep;
pub mod tun;

pub use lab::{Lab, Running, Side, unavailable};
pub use scenario::Scenario;
pub use stats::{LinkStats, LinkSummary};

/// Nanoseconds since the link came up.
pub type Nanos = u64;
