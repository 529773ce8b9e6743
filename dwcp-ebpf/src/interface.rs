//! The kernel's side of an interface: its number, what XDP program it has, and attaching one by a link.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use libbpf_rs::libbpf_sys;

use crate::{config::Mode, error::Error};

// `enum` of linux/if_link.h, which libbpf-sys does not bind.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The program that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) id: u32,
    pub(crate) mode: Mode,
}

/// The number of an interface of this network namespace.
pub(crate) fn index(interface: &str) -> Result<i32, Error> {
    let index = nix::net::if_::if_nametoindex(interface)
        .map_err(|errno| Error::NoInterface { interface: interface.to_owned(), source: errno.into() })?;
    Ok(i32::try_from(index).expect("the kernel's numbers of interfaces are positive ints"))
}

/// What is attached. A program in the card itself counts as native.
pub(crate) fn attached(index: i32) -> io::Result<Option<Attached>> {
    let mut answer = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: `answer` is exclusive, lives through the call, and `sz` says how much of it libbpf may write.
    let code = unsafe { libbpf_sys::bpf_xdp_query(index, 0, &raw mut answer) };
    check(code)?;
    let (native, generic) = (answer.drv_prog_id.max(answer.hw_prog_id), answer.skb_prog_id);
    Ok(match (native, generic) {
        (0, 0) => None,
        (0, id) => Some(Attached { id, mode: Mode::Generic }),
        (id, _) => Some(Attached { id, mode: Mode::Native }),
    })
}

/// Attaches a program. It is detached when the last descriptor and the last pin of the link are gone.
pub(crate) fn attach(index: i32, program: BorrowedFd<'_>, mode: Mode) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: match mode {
            Mode::Native => XDP_FLAGS_DRV_MODE,
            Mode::Generic => XDP_FLAGS_SKB_MODE,
        },
        ..Default::default()
    };
    // SAFETY: `options` lives through the call and is only read, as far as `sz` says; its pointers are null and the
    // lengths beside them 0. `program` is open for as long as it is borrowed.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), index, libbpf_sys::BPF_XDP, &raw const options)
    };
    let fd = check(fd)?;
    // SAFETY: libbpf has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// libbpf's result, which is an errno if it is negative.
pub(crate) fn check(code: i32) -> io::Result<i32> {
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(code) }
}
