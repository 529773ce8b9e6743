//! What the node agent does to the machine it runs on: tuning, tunnels between regions, and finding out what is possible.
//!
//! Owns: sysctls and root qdiscs that are set and put back ([`tune`]), a VXLAN interface ([`vxlan`]), a WireGuard
//! interface with its keys, by the kernel or in user space ([`wireguard`]), which MTU is safe, and larger ones for uplinks
//! ([`mtu`]), and what this node can do and why not ([`probe`]). Does not know DWCP, peers' processes, settings files or
//! signals; XDP and RDMA are probed by their own crates.
//!
//! Everything speaks to the kernel by netlink, `/proc` and `/sys`, in the network namespace of the calling thread, and
//! starts no other program. Calls block, for [`netlink::ANSWER_TIME_MAX`] at most for each question to the kernel: an
//! async caller gives them a thread.

pub mod mtu;
pub mod netlink;
pub mod probe;
pub mod state;
pub mod tune;
pub mod vxlan;
pub mod wireguard;
