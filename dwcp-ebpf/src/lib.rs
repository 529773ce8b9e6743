//! Guards DWCP datagrams (`docs/spec/datagram-1.md`) in XDP, before the kernel makes packets of them.
//!
//! Owns the BPF program (`bpf/`), loading, attaching and pinning it, and reading what it counts. Does not know
//! connections, keys or sockets: it is told which flows are known and which AF_XDP sockets there are.
//!
//! [`Guard::attach`] leaves the program attached when the process ends: link and maps are pinned, the next process takes
//! them over without a gap, and puts its own program in the place of the old one atomically.
//!
//! Without the feature `xdp`, or built without clang, [`Guard::attach`] returns [`Error::Unavailable`].

mod config;
mod error;
mod stats;

#[cfg(any(not(xdp), test))]
#[cfg_attr(
    xdp,
    allow(dead_code, unreachable_pub, reason = "only its tests use it in a build that has a program")
)]
mod absent;
#[cfg(xdp)]
mod addresses;
#[cfg(xdp)]
mod capabilities;
#[cfg(xdp)]
mod folder;
#[cfg(xdp)]
mod guard;
#[cfg(xdp)]
mod interface;
#[cfg(xdp)]
mod program;
#[cfg(all(test, xdp))]
mod verdict_tests;
#[cfg(xdp)]
mod whose;

#[cfg(not(xdp))]
pub use absent::{Guard, pinned, present, support, take_away};
pub use config::{
    ADDRESSES_MAX, Config, FLOWS_MAX, Failure, Limit, Mode, PORTS_MAX, PREFIXES_MAX, Prefix, PrefixError,
    QUEUES_MAX,
};
pub use error::{Error, Holder, Present};
#[cfg(xdp)]
pub use guard::Guard;
pub use stats::{Action, Count, Event, Peer, Totals};
#[cfg(xdp)]
pub use whose::{pinned, present, support, take_away};
