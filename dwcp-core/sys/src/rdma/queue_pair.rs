//! A reliable connected queue pair with its completion queue, its completion channel and the memory it works on. Owns
//! the verbs; what is posted when, and what it means, is the stream's business.
//!
//! It has two pieces of memory: the *local* one, for what is sent and for what receive requests take, and the *window*,
//! the only one that the peer may write by itself.

use std::{
    ffi::{c_int, c_uint},
    os::fd::{BorrowedFd, RawFd},
    ptr::{self, NonNull},
    sync::Arc,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{
    Gid, Mtu, Port, RdmaError, abi,
    completion::Completion,
    device::Context,
    memory::{Domain, Memory},
    raw_queue::RawQueue,
};

/// Longest message that is sent out of the work request itself, if the device takes so much.
pub(crate) const INLINE_MAX: usize = 256;
/// How often a packet is sent again without an answer, and the time between: 4.096 us * 2^`TIMEOUT`, 67 ms. Together
/// about half a second; devices may wait up to four times as long. Soft-RoCE takes 7 for "without end".
const RETRIES: u8 = 7;
const TIMEOUT: u8 = 14;
/// A peer without a posted receive request ends the queue pair: credit must have prevented that.
const RNR_RETRIES: u8 = 0;
/// Routers between the ends, at most.
const HOPS_MAX: u8 = 64;
/// Completions taken in one call.
pub(crate) const COMPLETIONS_MAX: usize = 32;

/// How much may be posted, and how large the memory is.
pub(crate) struct Sizes {
    pub(crate) send_requests: u32,
    pub(crate) recv_requests: u32,
    pub(crate) local: usize,
    pub(crate) window: usize,
}

/// Where the other end is.
pub(crate) struct Target {
    pub(crate) gid: Gid,
    pub(crate) queue_pair: u32,
    /// Number of the first packet that it sends.
    pub(crate) psn: u32,
    pub(crate) mtu: Mtu,
}

/// Where the peer's window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemoteWindow {
    pub(crate) address: u64,
    pub(crate) rkey: u32,
    pub(crate) len: u32,
}

pub(crate) struct QueuePair {
    /// First, so that it is gone before the memory that its work requests use.
    raw: RawQueue,
    pub(crate) local: Memory,
    pub(crate) window: Memory,
    /// Where completions are put; each is written before it is looked at.
    polled: Box<[abi::WorkCompletion; COMPLETIONS_MAX]>,
    inline_max: usize,
    /// The address to speak from.
    port: Port,
    domain: Arc<Domain>,
}

impl QueuePair {
    /// Opens the port's device, makes everything, and takes receive requests from now on.
    pub(crate) fn new(port: &Port, sizes: &Sizes) -> Result<Self, RdmaError> {
        let context = Context::of(port)?;
        let domain = Domain::new(context)?;
        let local = Memory::new(&domain, sizes.local, abi::ACCESS_LOCAL_WRITE)?;
        let remote = abi::ACCESS_LOCAL_WRITE | abi::ACCESS_REMOTE_WRITE;
        let window = Memory::new(&domain, sizes.window, remote)?;
        let (raw, inline_max) = RawQueue::new(&domain, sizes)?;
        let polled = Box::new([abi::WorkCompletion::default(); COMPLETIONS_MAX]);
        let pair = Self { raw, local, window, polled, inline_max, port: port.clone(), domain };
        for fd in [pair.completion_fd(), pair.event_fd()] {
            let nonblocking = fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
            nonblocking
                .map_err(|errno| RdmaError::Call { call: "fcntl(O_NONBLOCK)", errno: errno as i32 })?;
        }
        let mut attr = abi::QpAttr {
            qp_state: abi::QP_STATE_INIT,
            port_num: port.number,
            qp_access_flags: abi::ACCESS_REMOTE_WRITE as c_uint,
            ..abi::QpAttr::default()
        };
        let mask =
            abi::QP_ATTR_STATE | abi::QP_ATTR_PKEY_INDEX | abi::QP_ATTR_PORT | abi::QP_ATTR_ACCESS_FLAGS;
        pair.modify("ibv_modify_qp(INIT)", &mut attr, mask)?;
        Ok(pair)
    }

    /// Its number, for the peer.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: the library made the structure, which lives until it is destroyed in `drop`.
        unsafe { (*self.raw.qp).qp_num }
    }

    /// Longest message that goes without registered memory.
    pub(crate) fn inline_max(&self) -> usize {
        self.inline_max.min(INLINE_MAX)
    }

    /// Connects to the peer's queue pair; `psn` is the number of the first packet from here.
    pub(crate) fn connect(&self, psn: u32, target: &Target) -> Result<(), RdmaError> {
        let mut attr = abi::QpAttr {
            qp_state: abi::QP_STATE_RTR,
            path_mtu: self.port.mtu.min(target.mtu).code().into(),
            dest_qp_num: target.queue_pair,
            rq_psn: target.psn,
            max_dest_rd_atomic: 1,
            min_rnr_timer: 1,
            ah_attr: abi::AhAttr {
                dgid: target.gid,
                sgid_index: self.port.gid_index,
                hop_limit: HOPS_MAX,
                is_global: 1,
                port_num: self.port.number,
                ..abi::AhAttr::default()
            },
            ..abi::QpAttr::default()
        };
        let mask = abi::QP_ATTR_STATE
            | abi::QP_ATTR_AV
            | abi::QP_ATTR_PATH_MTU
            | abi::QP_ATTR_DEST_QPN
            | abi::QP_ATTR_RQ_PSN
            | abi::QP_ATTR_MAX_DEST_RD_ATOMIC
            | abi::QP_ATTR_MIN_RNR_TIMER;
        self.modify("ibv_modify_qp(RTR)", &mut attr, mask)?;
        let mut attr = abi::QpAttr {
            qp_state: abi::QP_STATE_RTS,
            timeout: TIMEOUT,
            retry_cnt: RETRIES,
            rnr_retry: RNR_RETRIES,
            sq_psn: psn,
            max_rd_atomic: 1,
            ..abi::QpAttr::default()
        };
        let mask = abi::QP_ATTR_STATE
            | abi::QP_ATTR_TIMEOUT
            | abi::QP_ATTR_RETRY_CNT
            | abi::QP_ATTR_RNR_RETRY
            | abi::QP_ATTR_SQ_PSN
            | abi::QP_ATTR_MAX_QP_RD_ATOMIC;
        self.modify("ibv_modify_qp(RTS)", &mut attr, mask)
    }

    /// Gives up all that is posted: each request completes as flushed, and the peer hears no more.
    pub(crate) fn abort(&self) -> Result<(), RdmaError> {
        let mut attr = abi::QpAttr { qp_state: abi::QP_STATE_ERR, ..abi::QpAttr::default() };
        self.modify("ibv_modify_qp(ERR)", &mut attr, abi::QP_ATTR_STATE)
    }

    fn modify(&self, call: &'static str, attr: &mut abi::QpAttr, mask: c_int) -> Result<(), RdmaError> {
        // SAFETY: a queue pair that was made, and a structure that outlives the call.
        let returned = unsafe { (self.raw.context.verbs.modify_qp)(self.raw.qp, attr, mask) };
        RdmaError::check(call, returned)
    }

    /// Lets a message come into a part of the local memory.
    pub(crate) fn post_recv(&self, request: u64, at: usize, len: usize) -> Result<(), RdmaError> {
        let mut part = self.local.part(at, len);
        let mut work =
            abi::RecvRequest { wr_id: request, next: ptr::null_mut(), sg_list: &mut part, num_sge: 1 };
        let mut bad = ptr::null_mut();
        // SAFETY: an open device, whose provider has filled in its table; the request and its list are read in the call,
        // the memory in the list lives longer than the queue pair (`local` is dropped after it).
        let returned = unsafe {
            let post = (*self.raw.context.raw.as_ptr()).ops.post_recv.expect("every provider receives");
            post(self.raw.qp, &raw mut work, &raw mut bad)
        };
        RdmaError::check("ibv_post_recv", returned)
    }

    /// Sends a part of the local memory, which has to stay as it is until that has completed.
    pub(crate) fn post_send(
        &self,
        request: u64,
        at: usize,
        len: usize,
        signalled: bool,
    ) -> Result<(), RdmaError> {
        let mut part = self.local.part(at, len);
        self.post(abi::SendRequest::new(request, &mut part, abi::WR_SEND, flags(signalled)))
    }

    /// Sends a message of at most [`inline_max`](Self::inline_max) bytes, which may change at once.
    pub(crate) fn post_inline(&self, request: u64, message: &[u8], signalled: bool) -> Result<(), RdmaError> {
        assert!(message.len() <= self.inline_max(), "too long for the work request");
        let mut part = abi::Sge { addr: message.as_ptr() as u64, length: message.len() as u32, lkey: 0 };
        let flags = flags(signalled) | abi::SEND_INLINE;
        self.post(abi::SendRequest::new(request, &mut part, abi::WR_SEND, flags))
    }

    /// Writes a part of the local memory into the peer's window, `to` bytes behind its start, and tells it the length.
    pub(crate) fn post_write(
        &self,
        request: u64,
        at: usize,
        len: usize,
        (window, to): (RemoteWindow, usize),
        signalled: bool,
    ) -> Result<(), RdmaError> {
        assert!(to + len <= window.len as usize, "outside the peer's window");
        let mut part = self.local.part(at, len);
        let mut work =
            abi::SendRequest::new(request, &mut part, abi::WR_RDMA_WRITE_WITH_IMM, flags(signalled));
        work.imm_data = (len as u32).to_be();
        work.rdma = abi::RemoteAddress { remote_addr: window.address + to as u64, rkey: window.rkey };
        self.post(work)
    }

    fn post(&self, mut work: abi::SendRequest) -> Result<(), RdmaError> {
        let mut bad = ptr::null_mut();
        // SAFETY: an open device, whose provider has filled in its table. The request's list is on the caller's stack and
        // read in the call, as is an inline message; registered memory lives longer than the queue pair.
        let returned = unsafe {
            let post = (*self.raw.context.raw.as_ptr()).ops.post_send.expect("every provider sends");
            post(self.raw.qp, &raw mut work, &raw mut bad)
        };
        RdmaError::check("ibv_post_send", returned)
    }

    /// Takes completions; returns how many, fewer than fit when there are no more.
    pub(crate) fn poll(&mut self) -> Result<usize, RdmaError> {
        // SAFETY: a queue that was made, and as many entries as are said.
        let count = unsafe {
            let poll = (*self.raw.context.raw.as_ptr()).ops.poll_cq.expect("every provider completes");
            poll(self.raw.cq, COMPLETIONS_MAX as c_int, self.polled.as_mut_ptr())
        };
        usize::try_from(count).map_err(|_| RdmaError::Call { call: "ibv_poll_cq", errno: count.abs() })
    }

    /// One of those that [`poll`](Self::poll) has just taken.
    pub(crate) fn polled(&self, index: usize) -> Completion {
        Completion::from(&self.polled[index])
    }

    /// Asks for an event on the channel with the next completion.
    pub(crate) fn arm(&self) -> Result<(), RdmaError> {
        // SAFETY: a queue that was made.
        let returned = unsafe {
            let arm = (*self.raw.context.raw.as_ptr()).ops.req_notify_cq.expect("every provider notifies");
            arm(self.raw.cq, 0)
        };
        RdmaError::check("ibv_req_notify_cq", returned)
    }

    /// Takes and acknowledges an event of the channel; whether there was one.
    pub(crate) fn take_completion_event(&self) -> Result<bool, RdmaError> {
        let verbs = self.raw.context.verbs;
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a channel that was made, and places that outlive the call.
        if unsafe { (verbs.get_cq_event)(self.raw.channel, &raw mut cq, &raw mut context) } != 0 {
            return nothing("ibv_get_cq_event");
        }
        // SAFETY: the one event that was just taken, of the channel's only queue.
        unsafe { (verbs.ack_cq_events)(cq, 1) };
        Ok(true)
    }

    /// Takes an event of the device; what it says if that ends the queue pair.
    pub(crate) fn take_device_event(&self) -> Result<bool, RdmaError> {
        let context = &self.raw.context;
        let mut event = abi::AsyncEvent::default();
        // SAFETY: an open device, and a structure that outlives the call.
        if unsafe { (context.verbs.get_async_event)(context.raw.as_ptr(), &raw mut event) } != 0 {
            return nothing("ibv_get_async_event");
        }
        // SAFETY: the event that was just taken.
        unsafe { (context.verbs.ack_async_event)(&raw mut event) };
        match ending(&event, self.port.number) {
            Some(what) => Err(RdmaError::Event { what }),
            None => Ok(true),
        }
    }

    /// Readable when completions have come after [`arm`](Self::arm).
    pub(crate) fn completion_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the library made the channel; it and its descriptor live until they are destroyed in `drop`.
        unsafe { BorrowedFd::borrow_raw((*self.raw.channel).fd) }
    }

    /// Readable when the device has something to say.
    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        let context: NonNull<abi::Context> = self.domain.context.raw;
        // SAFETY: an open device, whose descriptor stays open with it.
        unsafe {
            let fd: RawFd = (*context.as_ptr()).async_fd;
            BorrowedFd::borrow_raw(fd)
        }
    }
}

/// What an event says, if it ends a queue pair at this port of the device. A device has others, and tells of them too.
fn ending(event: &abi::AsyncEvent, port: u8) -> Option<&'static str> {
    match event.event_type {
        abi::EVENT_QP_FATAL => Some("that the queue pair is broken"),
        abi::EVENT_QP_ACCESS_ERR => Some("a forbidden access by the peer"),
        abi::EVENT_DEVICE_FATAL => Some("that it is broken or removed"),
        abi::EVENT_PORT_ERR if event.port() == i32::from(port) => Some("that its port is down"),
        _ => None,
    }
}

fn flags(signalled: bool) -> c_uint {
    if signalled { abi::SEND_SIGNALED } else { 0 }
}

/// After a call that found nothing, or failed.
fn nothing(call: &'static str) -> Result<bool, RdmaError> {
    match RdmaError::last(call) {
        RdmaError::Call { errno: libc::EAGAIN, .. } => Ok(false),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_goes_down_ends_what_is_at_it_and_not_what_is_at_others() {
        let down = abi::AsyncEvent::of_port(abi::EVENT_PORT_ERR, 2);
        assert!(ending(&down, 2).is_some());
        assert_eq!(ending(&down, 1), None);
        let removed = abi::AsyncEvent::of_port(abi::EVENT_DEVICE_FATAL, 0);
        assert!(ending(&removed, 1).is_some(), "that ends all of them");
    }
}
