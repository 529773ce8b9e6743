//! What the guard's API has no business with: a foreign program, an AF_XDP socket, and giving up root.
#![allow(dead_code, reason = "each test uses some")]

use std::{
    ffi::c_void,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

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

/// Attaches a program as `ip link set xdp` does, without a link.
pub(crate) fn attach(index: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    replace(index, program.as_raw_fd())
}

/// Leaves an interface without one.
pub(crate) fn detach(index: u32) -> io::Result<()> {
    replace(index, -1)
}

fn replace(index: u32, program: i32) -> io::Result<()> {
    // SAFETY: no pointer but that of the options, which may be null.
    let code = unsafe { libbpf_sys::bpf_xdp_attach(index as i32, program, 0, ptr::null()) };
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
const FRAME_BYTES: usize = 4096;
/// Of the socket, in each ring: a power of two.
const FRAMES: usize = 64;

/// An AF_XDP socket that only receives, and keeps its first `FRAMES` frames.
#[derive(Debug)]
pub(crate) struct XdpSocket {
    socket: OwnedFd,
    umem: Mapping,
    _fill: Mapping,
    ring: Mapping,
    offsets: libc::xdp_mmap_offsets,
}

/// Mapped memory. That of a socket keeps the socket open.
#[derive(Debug)]
struct Mapping {
    at: *mut u8,
    length: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and whoever reads it borrows what owns it.
        unsafe { libc::munmap(self.at.cast(), self.length) };
    }
}

impl XdpSocket {
    /// Bound to the first queue of an interface, in copy mode.
    pub(crate) fn bind(index: u32) -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new.
        let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `socket` has just been made, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let umem = map(None, FRAMES * FRAME_BYTES, 0)?;
        let register = libc::xdp_umem_reg {
            addr: umem.at as u64,
            len: (FRAMES * FRAME_BYTES) as u64,
            chunk_size: FRAME_BYTES as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&socket, libc::XDP_UMEM_REG, &register)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            set(&socket, ring, &(FRAMES as u32))?;
        }
        let offsets = offsets(&socket)?;
        let fill = map(
            Some(&socket),
            offsets.fr.desc as usize + FRAMES * mem::size_of::<u64>(),
            libc::XDP_UMEM_PGOFF_FILL_RING as i64,
        )?;
        // SAFETY: the kernel laid the ring out so: `FRAMES` addresses from `desc` on and the number of those that are
        // there at `producer`. The socket is not bound yet, so nobody reads it.
        unsafe {
            for at in 0..FRAMES {
                fill.at.add(offsets.fr.desc as usize).cast::<u64>().add(at).write((at * FRAME_BYTES) as u64);
            }
            fill.at.add(offsets.fr.producer as usize).cast::<u32>().write(FRAMES as u32);
        }
        let length = offsets.rx.desc as usize + FRAMES * mem::size_of::<libc::xdp_desc>();
        let ring = map(Some(&socket), length, libc::XDP_PGOFF_RX_RING)?;
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: index,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        let length = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is `length` bytes that the kernel reads.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, umem, _fill: fill, ring, offsets })
    }

    /// The frames that have arrived since it was bound.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        // SAFETY: `producer` is a number in the ring that the kernel writes; descriptors below it are written, and name
        // bytes of the mapped memory. No more than `FRAMES` can be there, since none is given back.
        unsafe {
            let producer = self.ring.at.add(self.offsets.rx.producer as usize).cast::<u32>().read_volatile();
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            let descriptors = self.ring.at.add(self.offsets.rx.desc as usize).cast::<libc::xdp_desc>();
            (0..producer as usize)
                .map(|at| descriptors.add(at).read())
                .map(|of| {
                    std::slice::from_raw_parts(self.umem.at.add(of.addr as usize), of.len as usize).to_vec()
                })
                .collect()
        }
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Maps memory, of a socket's ring or of nobody.
fn map(socket: Option<&OwnedFd>, length: usize, offset: i64) -> io::Result<Mapping> {
    let (flags, fd) = match socket {
        Some(socket) => (libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: the kernel chooses where; nothing that is in use is mapped over.
    let at =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
    if at == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(Mapping { at: at.cast(), length })
    }
}

fn set<T>(socket: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    let (value, length) = (ptr::from_ref(value).cast::<c_void>(), mem::size_of::<T>() as libc::socklen_t);
    // SAFETY: `value` is `length` bytes that the kernel reads.
    let code = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, value, length) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: integers only, of which zero is one.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&offsets) as libc::socklen_t;
    let to = (&raw mut offsets).cast::<c_void>();
    // SAFETY: `to` is `length` bytes that the kernel writes integers to.
    let code = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, to, &raw mut length)
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(offsets) }
}

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
