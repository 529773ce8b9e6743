//! The part of libibverbs' binary interface that is used here: version 1 of `infiniband/verbs.h` (rdma-core), as it is
//! on 64-bit targets. Owns layouts and numbers, and nothing that happens.
//!
//! Structures that only the library makes are declared as far as their fields are read.

use std::ffi::{c_int, c_uint, c_void};

/// Says that a structure is as long as C's: a wrong layout does not compile.
macro_rules! size {
    ($($ty:ty = $len:literal),* $(,)?) => { $(const _: () = assert!(size_of::<$ty>() == $len);)* };
}

size!(
    PortAttr = 52,
    GidEntry = 32,
    WorkCompletion = 48,
    Sge = 16,
    QpCap = 20,
    QpInitAttr = 64,
    QpAttr = 144,
    SendRequest = 128,
    RecvRequest = 32,
    AhAttr = 32,
    ContextOps = 256,
    AsyncEvent = 16,
    DeviceAttr = 232,
);
const _: () = assert!(std::mem::offset_of!(Context, async_fd) == 268);
const _: () = assert!(std::mem::offset_of!(ContextOps, poll_cq) == 88);
const _: () = assert!(std::mem::offset_of!(ContextOps, post_send) == 200);
const _: () = assert!(std::mem::offset_of!(SendRequest, rdma) == 40);
const _: () = assert!(std::mem::offset_of!(QpAttr, rnr_retry) == 132);
const _: () = assert!(std::mem::offset_of!(MemoryRegion, rkey) == 40);
const _: () = assert!(std::mem::offset_of!(Qp, qp_num) == 52);
const _: () = assert!(std::mem::offset_of!(CompletionChannel, fd) == 8);

pub(crate) const PORT_ACTIVE: c_uint = 4;
pub(crate) const LINK_LAYER_ETHERNET: u8 = 2;
pub(crate) const GID_TYPE_ROCE_V2: u32 = 2;

pub(crate) const ACCESS_LOCAL_WRITE: c_int = 1;
pub(crate) const ACCESS_REMOTE_WRITE: c_int = 1 << 1;

pub(crate) const QP_TYPE_RC: c_uint = 2;
pub(crate) const QP_STATE_INIT: c_uint = 1;
pub(crate) const QP_STATE_RTR: c_uint = 2;
pub(crate) const QP_STATE_RTS: c_uint = 3;
pub(crate) const QP_STATE_ERR: c_uint = 6;

pub(crate) const QP_ATTR_STATE: c_int = 1;
pub(crate) const QP_ATTR_ACCESS_FLAGS: c_int = 1 << 3;
pub(crate) const QP_ATTR_PKEY_INDEX: c_int = 1 << 4;
pub(crate) const QP_ATTR_PORT: c_int = 1 << 5;
pub(crate) const QP_ATTR_AV: c_int = 1 << 7;
pub(crate) const QP_ATTR_PATH_MTU: c_int = 1 << 8;
pub(crate) const QP_ATTR_TIMEOUT: c_int = 1 << 9;
pub(crate) const QP_ATTR_RETRY_CNT: c_int = 1 << 10;
pub(crate) const QP_ATTR_RNR_RETRY: c_int = 1 << 11;
pub(crate) const QP_ATTR_RQ_PSN: c_int = 1 << 12;
pub(crate) const QP_ATTR_MAX_QP_RD_ATOMIC: c_int = 1 << 13;
pub(crate) const QP_ATTR_MIN_RNR_TIMER: c_int = 1 << 15;
pub(crate) const QP_ATTR_SQ_PSN: c_int = 1 << 16;
pub(crate) const QP_ATTR_MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
pub(crate) const QP_ATTR_DEST_QPN: c_int = 1 << 20;

pub(crate) const WR_RDMA_WRITE_WITH_IMM: c_uint = 1;
pub(crate) const WR_SEND: c_uint = 2;
pub(crate) const SEND_SIGNALED: c_uint = 1 << 1;
pub(crate) const SEND_INLINE: c_uint = 1 << 3;

pub(crate) const WC_SUCCESS: c_uint = 0;
pub(crate) const WC_RECV: c_uint = 1 << 7;
pub(crate) const WC_RECV_RDMA_WITH_IMM: c_uint = WC_RECV + 1;

pub(crate) const EVENT_QP_FATAL: c_uint = 1;
pub(crate) const EVENT_QP_ACCESS_ERR: c_uint = 3;
pub(crate) const EVENT_DEVICE_FATAL: c_uint = 8;
pub(crate) const EVENT_PORT_ERR: c_uint = 10;

/// A device in the library's list.
pub(crate) enum Device {}
/// A protection domain.
pub(crate) enum ProtectionDomain {}

#[repr(C)]
pub(crate) struct ContextOps {
    unused_before_poll: [*const c_void; 11],
    pub(crate) poll_cq: Option<unsafe extern "C" fn(*mut Cq, c_int, *mut WorkCompletion) -> c_int>,
    pub(crate) req_notify_cq: Option<unsafe extern "C" fn(*mut Cq, c_int) -> c_int>,
    unused_before_post: [*const c_void; 12],
    pub(crate) post_send:
        Option<unsafe extern "C" fn(*mut Qp, *mut SendRequest, *mut *mut SendRequest) -> c_int>,
    pub(crate) post_recv:
        Option<unsafe extern "C" fn(*mut Qp, *mut RecvRequest, *mut *mut RecvRequest) -> c_int>,
    unused_at_the_end: [*const c_void; 5],
}

/// An open device. More fields follow.
#[repr(C)]
pub(crate) struct Context {
    device: *mut Device,
    pub(crate) ops: ContextOps,
    cmd_fd: c_int,
    pub(crate) async_fd: c_int,
}

/// More fields follow.
#[repr(C)]
pub(crate) struct Qp {
    context: *mut Context,
    qp_context: *mut c_void,
    pd: *mut ProtectionDomain,
    send_cq: *mut Cq,
    recv_cq: *mut Cq,
    srq: *mut c_void,
    handle: u32,
    pub(crate) qp_num: u32,
}

/// More fields follow.
#[repr(C)]
pub(crate) struct Cq {
    context: *mut Context,
}

#[repr(C)]
pub(crate) struct CompletionChannel {
    context: *mut Context,
    pub(crate) fd: c_int,
    refcnt: c_int,
}

#[repr(C)]
pub(crate) struct MemoryRegion {
    context: *mut Context,
    pd: *mut ProtectionDomain,
    addr: *mut c_void,
    length: usize,
    handle: u32,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

/// A RoCE address: an IPv6 address, or an IPv4 address mapped into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Gid(pub [u8; 16]);

#[derive(Default)]
#[repr(C)]
pub(crate) struct GidEntry {
    pub(crate) gid: Gid,
    pub(crate) gid_index: u32,
    pub(crate) port_num: u32,
    pub(crate) gid_type: u32,
    pub(crate) ndev_ifindex: u32,
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct PortAttr {
    pub(crate) state: c_uint,
    pub(crate) max_mtu: c_uint,
    pub(crate) active_mtu: c_uint,
    pub(crate) gid_tbl_len: c_int,
    unused: [u32; 4],
    lids: [u16; 3],
    small: [u8; 8],
    pub(crate) link_layer: u8,
    flags: u8,
    port_cap_flags2: u16,
}

#[repr(C, align(8))]
pub(crate) struct DeviceAttr {
    before: [u8; 227],
    pub(crate) phys_port_cnt: u8,
    after: [u8; 4],
}

impl Default for DeviceAttr {
    fn default() -> Self {
        Self { before: [0; 227], phys_port_cnt: 0, after: [0; 4] }
    }
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct WorkCompletion {
    pub(crate) wr_id: u64,
    pub(crate) status: c_uint,
    pub(crate) opcode: c_uint,
    pub(crate) vendor_err: u32,
    pub(crate) byte_len: u32,
    /// Big endian.
    pub(crate) imm_data: u32,
    qp_num: u32,
    src_qp: u32,
    wc_flags: c_uint,
    pkey_index: u16,
    slid: u16,
    sl: u8,
    dlid_path_bits: u8,
}

#[repr(C)]
pub(crate) struct Sge {
    pub(crate) addr: u64,
    pub(crate) length: u32,
    pub(crate) lkey: u32,
}

#[repr(C)]
pub(crate) struct SendRequest {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut SendRequest,
    pub(crate) sg_list: *mut Sge,
    pub(crate) num_sge: c_int,
    pub(crate) opcode: c_uint,
    pub(crate) send_flags: c_uint,
    /// Big endian.
    pub(crate) imm_data: u32,
    pub(crate) rdma: RemoteAddress,
    unused: [u64; 9],
}

/// The union `wr` of a send request, of which only this is used.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct RemoteAddress {
    pub(crate) remote_addr: u64,
    pub(crate) rkey: u32,
}

impl SendRequest {
    /// Without what other kinds of requests have.
    pub(crate) fn new(wr_id: u64, sg_list: &mut Sge, opcode: c_uint, send_flags: c_uint) -> Self {
        Self {
            wr_id,
            next: std::ptr::null_mut(),
            sg_list,
            num_sge: 1,
            opcode,
            send_flags,
            imm_data: 0,
            rdma: RemoteAddress::default(),
            unused: [0; 9],
        }
    }
}

#[repr(C)]
pub(crate) struct RecvRequest {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut RecvRequest,
    pub(crate) sg_list: *mut Sge,
    pub(crate) num_sge: c_int,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct QpCap {
    pub(crate) max_send_wr: u32,
    pub(crate) max_recv_wr: u32,
    pub(crate) max_send_sge: u32,
    pub(crate) max_recv_sge: u32,
    pub(crate) max_inline_data: u32,
}

#[repr(C)]
pub(crate) struct QpInitAttr {
    pub(crate) qp_context: *mut c_void,
    pub(crate) send_cq: *mut Cq,
    pub(crate) recv_cq: *mut Cq,
    pub(crate) srq: *mut c_void,
    pub(crate) cap: QpCap,
    pub(crate) qp_type: c_uint,
    pub(crate) sq_sig_all: c_int,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct AhAttr {
    pub(crate) dgid: Gid,
    pub(crate) flow_label: u32,
    pub(crate) sgid_index: u8,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    pub(crate) dlid: u16,
    pub(crate) sl: u8,
    pub(crate) src_path_bits: u8,
    pub(crate) static_rate: u8,
    pub(crate) is_global: u8,
    pub(crate) port_num: u8,
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct QpAttr {
    pub(crate) qp_state: c_uint,
    pub(crate) cur_qp_state: c_uint,
    pub(crate) path_mtu: c_uint,
    pub(crate) path_mig_state: c_uint,
    pub(crate) qkey: u32,
    pub(crate) rq_psn: u32,
    pub(crate) sq_psn: u32,
    pub(crate) dest_qp_num: u32,
    pub(crate) qp_access_flags: c_uint,
    pub(crate) cap: QpCap,
    pub(crate) ah_attr: AhAttr,
    pub(crate) alt_ah_attr: AhAttr,
    pub(crate) pkey_index: u16,
    pub(crate) alt_pkey_index: u16,
    pub(crate) en_sqd_async_notify: u8,
    pub(crate) sq_draining: u8,
    pub(crate) max_rd_atomic: u8,
    pub(crate) max_dest_rd_atomic: u8,
    pub(crate) min_rnr_timer: u8,
    pub(crate) port_num: u8,
    pub(crate) timeout: u8,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) alt_port_num: u8,
    pub(crate) alt_timeout: u8,
    pub(crate) rate_limit: u32,
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct AsyncEvent {
    element: u64,
    pub(crate) event_type: c_uint,
}

impl AsyncEvent {
    /// The number of the port, for events of ports: `element` is a union of pointers and this `int`.
    pub(crate) fn port(&self) -> c_int {
        let [a, b, c, d, ..] = self.element.to_ne_bytes();
        c_int::from_ne_bytes([a, b, c, d])
    }

    #[cfg(test)]
    pub(crate) fn of_port(event_type: c_uint, port: c_int) -> Self {
        let mut element = [0; 8];
        element[..4].copy_from_slice(&port.to_ne_bytes());
        Self { element: u64::from_ne_bytes(element), event_type }
    }
}
