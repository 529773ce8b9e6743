//! What sockets of this node can do past the ordinary way: sends without copies, AF_XDP.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use dwcp_sys::{datagram, options, zerocopy};
use novacron_control::schema::{Ability, Capability};

use super::capability;

/// Whether the kernel takes payloads by reference. One byte is sent so, on the loopback.
pub(super) fn zero_copy() -> Capability {
    match send_by_reference() {
        Ok(()) => capability(
            "zero-copy sends",
            Ability::Yes,
            "MSG_ZEROCOPY is taken; transport.zerocopy says where it is used",
        ),
        Err(error) => {
            capability("zero-copy sends", Ability::No, format!("MSG_ZEROCOPY (Linux 4.14 or newer): {error}"))
        }
    }
}

fn send_by_reference() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    options::set_zerocopy(&socket, true).map_err(io::Error::other)?;
    zerocopy::send_vectored(&socket, &[IoSlice::new(b"?")]).map(drop)
}

/// Whether there can be AF_XDP sockets.
pub(super) fn af_xdp() -> Capability {
    match datagram::probe_xdp() {
        Ok(()) => capability(
            "AF_XDP",
            Ability::Yes,
            "sockets can be made; used with xdp.interfaces and xdp.sockets",
        ),
        Err(error) => capability("AF_XDP", Ability::No, error.to_string()),
    }
}
