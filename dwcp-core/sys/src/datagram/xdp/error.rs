//! Why there is no AF_XDP socket: what failed, where, and what to do.

use std::io;

use crate::SocketError;

/// Why an AF_XDP socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// The process may not make such sockets.
    #[error("AF_XDP sockets are not permitted: run as root, or give the process CAP_NET_RAW")]
    NotPermitted,
    /// The kernel has none.
    #[error("this kernel has no AF_XDP sockets: it needs CONFIG_XDP_SOCKETS, and Linux 5.9 or later")]
    KernelWithoutXdp,
    /// There is no such interface in this network namespace.
    #[error("there is no interface {interface} here: {source}")]
    NoInterface {
        /// The name that was given.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface's packets do not fit into a frame of the memory.
    #[error(
        "{interface} has an MTU of {mtu}, and AF_XDP takes at most {most}: lower it (`ip link set dev {interface} mtu {most}`)"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: usize,
        /// The highest that fits.
        most: usize,
    },
    /// The memory cannot be pinned.
    #[error(
        "{bytes} bytes cannot be pinned: raise the limit of locked memory (`ulimit -l`), or give CAP_IPC_LOCK"
    )]
    Memory {
        /// How much was asked for.
        bytes: usize,
    },
    /// Another AF_XDP socket is bound to the queue.
    #[error("another AF_XDP socket has queue {queue} of {interface}: stop its program first")]
    InUse {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The interface refuses the socket.
    #[error(
        "{interface} takes no AF_XDP socket on queue {queue} (`ethtool -l {interface}` shows its queues): {source}"
    )]
    Bind {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another call failed.
    #[error(transparent)]
    Socket(#[from] SocketError),
}
