//! The library's objects behind a queue pair: made in order, and destroyed in the other order, whatever fails in between.

use std::{ffi::c_int, ptr, sync::Arc};

use super::{
    RdmaError, abi,
    device::Context,
    memory::Domain,
    queue_pair::{INLINE_MAX, Sizes},
};

/// The library's objects, made and destroyed in order. Those that are missing were not made yet.
pub(super) struct RawQueue {
    pub(super) context: Arc<Context>,
    pub(super) channel: *mut abi::CompletionChannel,
    pub(super) cq: *mut abi::Cq,
    pub(super) qp: *mut abi::Qp,
}

// SAFETY: as for `Context`: objects of the library may be used from any thread.
unsafe impl Send for RawQueue {}

impl Drop for RawQueue {
    fn drop(&mut self) {
        let verbs = self.context.verbs;
        // SAFETY: each was made once and is destroyed once, users before what they use. All events of the queue are
        // acknowledged as they are taken (`QueuePair::take_completion_event`), so destroying it does not wait.
        unsafe {
            if !self.qp.is_null() {
                (verbs.destroy_qp)(self.qp);
            }
            if !self.cq.is_null() {
                (verbs.destroy_cq)(self.cq);
            }
            if !self.channel.is_null() {
                (verbs.destroy_comp_channel)(self.channel);
            }
        }
    }
}

impl RawQueue {
    /// And the longest message that it sends inline.
    pub(super) fn new(domain: &Domain, sizes: &Sizes) -> Result<(Self, usize), RdmaError> {
        let context = Arc::clone(&domain.context);
        let verbs = context.verbs;
        let mut queue = Self { context, channel: ptr::null_mut(), cq: ptr::null_mut(), qp: ptr::null_mut() };
        // SAFETY: an open device.
        queue.channel = unsafe { (verbs.create_comp_channel)(queue.context.raw.as_ptr()) };
        if queue.channel.is_null() {
            return Err(RdmaError::last("ibv_create_comp_channel"));
        }
        // One for each request that can be outstanding: it cannot overflow.
        let entries = c_int::try_from(sizes.send_requests + sizes.recv_requests).expect("bounds are small");
        // SAFETY: an open device and a channel of it; there is no context pointer.
        queue.cq = unsafe {
            (verbs.create_cq)(queue.context.raw.as_ptr(), entries, ptr::null_mut(), queue.channel, 0)
        };
        if queue.cq.is_null() {
            return Err(RdmaError::last("ibv_create_cq"));
        }
        let mut refused = None;
        for inline_max in [INLINE_MAX, 0] {
            let mut attr = init_attr(queue.cq, sizes, inline_max);
            // SAFETY: a domain and a completion queue of the same device; the structure outlives the call.
            queue.qp = unsafe { (verbs.create_qp)(domain.raw.as_ptr(), &raw mut attr) };
            if !queue.qp.is_null() {
                return Ok((queue, attr.cap.max_inline_data as usize));
            }
            refused = Some(RdmaError::last("ibv_create_qp"));
        }
        Err(refused.expect("one attempt at least"))
    }
}

fn init_attr(cq: *mut abi::Cq, sizes: &Sizes, inline_max: usize) -> abi::QpInitAttr {
    abi::QpInitAttr {
        qp_context: ptr::null_mut(),
        send_cq: cq,
        recv_cq: cq,
        srq: ptr::null_mut(),
        cap: abi::QpCap {
            max_send_wr: sizes.send_requests,
            max_recv_wr: sizes.recv_requests,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: inline_max as u32,
        },
        qp_type: abi::QP_TYPE_RC,
        sq_sig_all: 0,
    }
}
