//! Questions to the kernel, and its answers.
//!
//! Owns: one socket, sequence numbers, answers in several parts, and the time an answer may take. What is asked is the
//! subject of the modules below, which speak of links, routes, neighbours and qdiscs; what for is the subject of their callers.

mod address;
pub(crate) mod generic;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod qdisc;
pub(crate) mod route;

use std::{fmt::Debug, io, time::Duration};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// For one answer of the kernel. It works while we send, so this passes only if it is stuck.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// One message from the kernel: a dump comes in parts of 32 KiB at most (`netlink_dump`, af_netlink.c).
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// A list that changed while the kernel told it is asked for again, so often.
const DUMPS_MAX: usize = 5;
/// Parts of one answer. A kernel that goes on beyond is not believed.
const PARTS_MAX: usize = 1 << 20;

/// Why the kernel did not do or say what was asked by netlink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// There is no socket to ask by.
    #[error("no netlink socket: {call}: {source}")]
    Socket {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refuses.
    #[error("the kernel refuses to {what}: {source}{}", advice(source))]
    Refused {
        /// What was asked, in words.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// No answer came in [`ANSWER_TIME_MAX`].
    #[error("no answer from the kernel within {} s, asked to {what}", ANSWER_TIME_MAX.as_secs())]
    Silent {
        /// What was asked, in words.
        what: String,
    },
    /// The answer makes no sense to us.
    #[error("the kernel's answer cannot be read, asked to {what}: {detail}")]
    Answer {
        /// What was asked, in words.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// What to do about the most frequent refusal.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (it needs CAP_NET_ADMIN)",
        // Of WireGuard, whose port is bound as its interface comes up.
        io::ErrorKind::AddrInUse => " (another WireGuard has the port: stop it, or take another port)",
        _ => "",
    }
}

impl NetlinkError {
    /// The error number, if the kernel refused with one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// A socket to the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// For links, routes, neighbours and qdiscs.
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_ROUTE)
    }

    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let failed = |call| move |source| NetlinkError::Socket { call, source };
        let mut socket = Socket::new(protocol).map_err(failed("socket"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        socket.set_non_blocking(true).map_err(failed("fcntl(O_NONBLOCK)"))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(MESSAGE_BYTES_MAX) })
    }

    /// Asks for one thing to be done or told, and returns what was told.
    pub(crate) fn ask<M>(&mut self, what: &str, flags: u16, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        self.send(what, NLM_F_ACK | flags, message)?;
        Ok(self.answer(what)?.0)
    }

    /// Asks for a whole list, until the kernel has told one that did not change meanwhile.
    pub(crate) fn list<M>(&mut self, what: &str, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug + Clone,
    {
        for _ in 0..DUMPS_MAX {
            self.send(what, NLM_F_DUMP, message.clone())?;
            if let (messages, false) = self.answer(what)? {
                return Ok(messages);
            }
        }
        Err(NetlinkError::Answer {
            what: what.to_owned(),
            detail: format!("the list changed under it {DUMPS_MAX} times"),
        })
    }

    fn send<M: NetlinkSerializable + Debug>(
        &mut self,
        what: &str,
        flags: u16,
        message: M,
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        // Netlink reports most refusals in its answer, but some (a message too long) here.
        self.socket
            .send(&bytes, 0)
            .map(drop)
            .map_err(|source| NetlinkError::Refused { what: what.to_owned(), source })
    }

    /// The parts of the answer to the last question, and whether the list changed while it was told.
    fn answer<M: NetlinkDeserializable + Debug>(
        &mut self,
        what: &str,
    ) -> Result<(Vec<M>, bool), NetlinkError> {
        let refused = |source| NetlinkError::Refused { what: what.to_owned(), source };
        let unreadable = |detail| NetlinkError::Answer { what: what.to_owned(), detail };
        let (mut parts, mut changed) = (Vec::new(), false);
        while parts.len() < PARTS_MAX {
            self.wait(what)?;
            self.buffer.clear();
            let received = self.socket.recv(&mut self.buffer, msg_trunc()).map_err(refused)?;
            if received > self.buffer.len() {
                return Err(unreadable(format!("a message of {received} bytes")));
            }
            let mut rest = &self.buffer[..];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<M>::deserialize(rest).map_err(|e| unreadable(e.to_string()))?;
                let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length.max(1)..];
                // What is left of an earlier question whose answer failed half-way.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                changed |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(part) => parts.push(part),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(refused(io::Error::from_raw_os_error(-done.code)));
                    }
                    NetlinkPayload::Done(_) => return Ok((parts, changed)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(refused(error.to_io()));
                    }
                    NetlinkPayload::Error(_) => return Ok((parts, changed)),
                    NetlinkPayload::Overrun(_) => return Err(unreadable("an overrun".to_owned())),
                    _ => {}
                }
            }
        }
        Err(unreadable(format!("more than {PARTS_MAX} parts")))
    }

    fn wait(&self, what: &str) -> Result<(), NetlinkError> {
        let timeout = Timespec { tv_sec: ANSWER_TIME_MAX.as_secs() as i64, tv_nsec: 0 };
        loop {
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(NetlinkError::Silent { what: what.to_owned() }),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(NetlinkError::Socket { call: "poll", source: errno.into() });
                }
            }
        }
    }
}

/// `recv` then returns the whole length of a message that was longer than the buffer.
fn msg_trunc() -> i32 {
    rustix::net::RecvFlags::TRUNC.bits() as i32
}

/// The messages of NETLINK_ROUTE.
pub(crate) type Route = RouteNetlinkMessage;
