//! What the guard's API has no business with: a foreign program, frames as they are, and giving up root.
#![allow(dead_code, reason = "each test uses some")]

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use dwcp_lab::namespace::Namespace;
use libbpf_rs::libbpf_sys;

/// A program with these instructions.
pub(crate) fn program(instructions: &[libbpf_sys::bpf_insn]) -> io::Result<OwnedFd> {
    // SAFETY: name and license are C strings, `instructions` is as long as it says, and libbpf only reads them.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_XDP,
            c"foreign".as_ptr(),
            c"GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as libbpf_sys::size_t,
            ptr::null_mut(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: libbpf has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns a verdict for every packet.
pub(crate) fn always(verdict: i32) -> [libbpf_sys::bpf_insn; 2] {
    // r0 = verdict; exit
    [instruction(0xb7, 0, 0, verdict), instruction(0x95, 0, 0, 0)]
}

/// An instruction: opcode, destination register, offset, immediate.
pub(crate) fn instruction(code: u8, register: u8, off: i16, imm: i32) -> libbpf_sys::bpf_insn {
    let mut made = libbpf_sys::bpf_insn { code, off, imm, ..Default::default() };
    made.set_dst_reg(register);
    made
}

/// Where in the kernel a program is put: in the driver, or behind it.
pub(crate) const IN_DRIVER: u32 = libbpf_sys::XDP_FLAGS_DRV_MODE;
pub(crate) const BEHIND_DRIVER: u32 = libbpf_sys::XDP_FLAGS_SKB_MODE;

/// Attaches a program as `ip link set xdp` does, without a link.
pub(crate) fn attach(index: u32, place: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    replace(index, place, program.as_raw_fd())
}

/// Attaches a program by a link, which holds it there until it is dropped.
pub(crate) fn attach_link(index: u32, place: u32, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: mem::size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: place,
        ..Default::default()
    };
    // SAFETY: `options` lives through the call and is only read, as far as `sz` says; its pointers are null.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            index as i32,
            libbpf_sys::BPF_XDP,
            &raw const options,
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Leaves an interface without one there.
pub(crate) fn detach(index: u32, place: u32) -> io::Result<()> {
    replace(index, place, -1)
}

fn replace(index: u32, place: u32, program: i32) -> io::Result<()> {
    // SAFETY: no pointer but that of the options, which may be null.
    let code = unsafe { libbpf_sys::bpf_xdp_attach(index as i32, program, place, ptr::null()) };
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}

/// Runs a program on so many copies of a frame, and does with them what it says.
pub(crate) fn send(program: BorrowedFd<'_>, frame: &[u8], count: u32) -> io::Result<()> {
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: mem::size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: count as i32,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        ..Default::default()
    };
    // SAFETY: `options` is exclusive and as long as it says; `data_in` is `data_size_in` bytes that the kernel reads, and
    // there is nothing that it could write to.
    let code = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}

/// Of linux/bpf.h.
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// Makes this thread, and no other, a user without more than these capabilities. It does not come back.
pub(crate) fn become_user(capabilities: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    const NOBODY: libc::c_long = 65534;
    let header = [VERSION_3, 0];
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    // Effective, permitted, inheritable; first the lower half of all.
    let data = [low, low, 0, high, high, 0];
    // SAFETY: prctl and setresuid take numbers; capset reads a header and two data structures, of three words each. As raw
    // calls they are this thread's alone.
    unsafe {
        if libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) < 0
            || libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The MAC address of an interface.
pub(crate) fn mac(namespace: &Namespace, interface: &str) -> [u8; 6] {
    let addresses = namespace.enter(|| nix::ifaddrs::getifaddrs().expect("addresses").collect::<Vec<_>>());
    let mut of_interface = addresses.iter().filter(|entry| entry.interface_name == interface);
    let found = of_interface.find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr());
    found.expect("the interface has a MAC address")
}

/// Sends a frame as it is.
pub(crate) fn send_frame(namespace: &Namespace, interface: &str, frame: &[u8]) -> io::Result<()> {
    namespace.enter(|| {
        let index = nix::net::if_::if_nametoindex(interface)?;
        // SAFETY: no pointers; the descriptor is new.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `socket` has just been made, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: integers only, of which zero is one.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        let length = mem::size_of_val(&to) as libc::socklen_t;
        let (bytes, count) = (frame.as_ptr().cast(), frame.len());
        // SAFETY: `frame` is `count` bytes and `to` is `length` bytes that the kernel reads.
        let sent =
            unsafe { libc::sendto(socket.as_raw_fd(), bytes, count, 0, (&raw const to).cast(), length) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

/// Has an interface of this namespace join what it receives (GRO), as a network card does by default and a veth not.
pub(crate) fn enable_gro(interface: &str) -> io::Result<()> {
    // Of linux/ethtool.h: `struct ethtool_value`.
    const ETHTOOL_SGRO: u32 = 0x2c;
    let mut value = [ETHTOOL_SGRO, 1];
    // SAFETY: a name, integers and a pointer, for which zero is allowed.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let any = std::net::UdpSocket::bind("127.0.0.1:0")?;
    // SAFETY: the request names an interface and a command with its value, which the kernel reads.
    let code = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
