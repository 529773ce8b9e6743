//! What is told where the kernel has no XDP. A program of its own: libbpf remembers what it has found out of the kernel. Needs
//! root.
#![cfg(feature = "xdp")]

#[path = "support/place.rs"]
mod place;

use std::io;

use dwcp_ebpf::{Error, Guard};

use self::place::{NEAR, with_place};

/// From now on `bpf(2)` is for this thread what it is where the kernel was built without.
fn refuse_bpf() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = [
        step(LOAD, 0, 0), // the call's number is first of `struct seccomp_data`
        step(JUMP, 1, libc::SYS_bpf as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `filter` is as long as it says, and the kernel only reads it during the call.
    let code = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const filter)
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn a_kernel_without_xdp_is_named() {
    with_place(|place| {
        dwcp_ebpf::support().expect("before, it has it");
        refuse_bpf().expect("a filter");
        for _ in 0..2 {
            let refused = Guard::attach(NEAR, &place.config()).expect_err("there is no XDP");
            assert!(matches!(refused, Error::KernelWithoutXdp), "{refused}");
            assert!(!place.root.exists(), "nothing is left behind");
        }
        assert!(matches!(dwcp_ebpf::support(), Err(Error::KernelWithoutXdp)));
    });
}
